"""DBOS in Python: the workflow of the Rust peers and their protocol (src/rounds.rs), on the Postgres of DATABASE_URL.

Workflows are called directly, not through a queue, on threads: in one process that is its fastest way, before coroutines.
"""

import importlib.metadata
import json
import logging
import os
import queue
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor, wait

from dbos import DBOS, DBOSConfig

# Seconds.
ROUND = 120
# As many connections as the Rust peer has.
CONNECTIONS = 16
# Count and in flight; fewer than there, it is ten times slower.
WARM_UP = [(20, 1), (100, 50)]


def database_url():
    """DATABASE_URL; SQLAlchemy wants the directory of a Unix socket as a parameter, not as the host."""
    url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
    host = urllib.parse.unquote(url.hostname or "")
    if "/" not in host.replace("%2f", "/"):
        return url.geturl()
    # urlsplit makes host names small; the directory's letters matter.
    host = urllib.parse.unquote(url.netloc.rpartition("@")[2].partition(":")[0])
    query = urllib.parse.urlencode({"host": host, "port": url.port or 5432})
    user = url.netloc.rpartition("@")[0]
    return f"postgresql://{user}@{url.path}?{query}"


@DBOS.step()
def append(text: str) -> str:
    return text + "x"


@DBOS.workflow()
def three(text: str) -> str:
    for _ in range(3):
        text = append(text)
    return text


def timed() -> float:
    """Milliseconds of one workflow."""
    began = time.perf_counter()
    result = three("a")
    if result != "axxx":
        raise RuntimeError(f"wrong result {result}")
    return (time.perf_counter() - began) * 1000


def figures(count: int, in_flight: int) -> dict[str, float]:
    threads = ThreadPoolExecutor(in_flight)
    began = time.perf_counter()
    works = [threads.submit(timed) for _ in range(count)]
    late = wait(works, ROUND).not_done
    lasted = time.perf_counter() - began
    threads.shutdown(wait=False)
    if late:
        raise TimeoutError(f"{count} workflows take longer than {ROUND} s")
    times = sorted(work.result() for work in works)
    p50, p99 = (times[(count - 1) * percent // 100] for percent in (50, 99))
    return {"p50_ms": p50, "p99_ms": p99, "per_second": count / lasted}


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def read(orders: queue.Queue[list[str]]) -> None:
    """The end of the input ends the process, in the middle of a round too: there is nothing to keep."""
    for line in sys.stdin:
        orders.put(line.split())
    os._exit(0)


def serve(config: DBOSConfig) -> None:
    orders: queue.Queue[list[str]] = queue.Queue(16)
    threading.Thread(target=read, args=(orders,), daemon=True).start()
    DBOS(config=config)
    DBOS.launch()
    for size in WARM_UP:
        figures(*size)
    say({"ready": True, "version": importlib.metadata.version("dbos")})
    while True:
        word, count, in_flight = orders.get()
        if word != "run":
            raise RuntimeError(f"not `run COUNT IN_FLIGHT`: {word}")
        say(figures(int(count), int(in_flight)))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    try:
        serve(
            {
                "name": "bench",
                "application_version": "bench",
                "system_database_url": database_url(),
                "sys_db_pool_size": CONNECTIONS,
            }
        )
    except Exception as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
