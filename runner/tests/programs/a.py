import concurrent.futures, subprocess, threading

if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        n = sum(pool.map(int, "33"))
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    print("works", n + int(subprocess.check_output(["echo", "1"])))
