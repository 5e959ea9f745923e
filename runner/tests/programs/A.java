public class A {
    public static void main(String[] arguments) throws Exception {
        Thread[] threads = new Thread[8];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(() -> {});
            threads[i].start();
        }
        for (Thread thread : threads) thread.join();
        Process process = new ProcessBuilder("echo", "7").start();
        System.out.println("works " + new String(process.getInputStream().readAllBytes()));
    }
}
