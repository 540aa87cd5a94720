// For tests/recording/java.rs: Methods WHAT SECONDS, seconds of its own CPU time where it computes.
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.List;

public class Methods {
    static int sink;

    static int spin(int n) {
        int x = 0;
        for (int i = 0; i < n; i++) {
            x = (x * 31 + i) & 0xffff;
        }
        return x;
    }

    // Loops of their own: a common one would be compiled into each, and say nothing.
    static int sixty_percent() {
        int x = 0;
        for (int i = 0; i < 600000; i++) {
            x = (x * 31 + i) & 0xffff;
        }
        return x;
    }

    static int thirty_percent() {
        int x = 0;
        for (int i = 0; i < 300000; i++) {
            x = (x * 31 + i) & 0xffff;
        }
        return x;
    }

    static int ten_percent() {
        int x = 0;
        for (int i = 0; i < 100000; i++) {
            x = (x * 31 + i) & 0xffff;
        }
        return x;
    }

    static int descend(int n) {
        return n > 0 ? descend(n - 1) + 1 : sixty_percent() + thirty_percent() + ten_percent();
    }

    static int key(Integer a) {
        return spin(2000) + a;
    }

    static int compares(Integer a, Integer b) {
        return Integer.compare(spin(300) + a, spin(300) + b);
    }

    static int combines(int a, int b) {
        return a ^ spin(2000) ^ b;
    }

    static class Part implements Runnable {
        public void run() {
            sink ^= spin(2000);
        }
    }

    static class Other implements Runnable {
        public void run() {
            sink ^= spin(3000);
        }
    }

    static void sorts(Integer[] numbers) {
        Arrays.sort(numbers.clone(), Methods::compares);
    }

    static void streams(List<Integer> numbers) {
        sink ^= numbers.stream().map(Methods::key).reduce(0, Methods::combines);
    }

    static void dispatches(Runnable[] parts) {
        for (Runnable part : parts) {
            part.run();
        }
    }

    static void reflects() throws Exception {
        Methods.class.getDeclaredMethod("reflected", int.class).invoke(null, 7);
    }

    public static void reflected(int n) {
        sink ^= spin(5000 * n);
    }

    static void once(Integer[] numbers, Runnable[] parts) throws Exception {
        sorts(numbers);
        streams(Arrays.asList(numbers));
        dispatches(parts);
        reflects();
    }

    static void waits() throws Exception {
        Thread.sleep(20);
    }

    static void goes_to_wait(int n) throws Exception {
        if (n > 0) {
            goes_to_wait(n - 1);
        } else {
            waits();
        }
    }

    // A thread that has this name to the kernel, too.
    static class Work extends Thread {
        final String what;
        final double seconds;

        Work(String what, double seconds) {
            super("methods");
            this.what = what;
            this.seconds = seconds;
        }

        public void run() {
            try {
                works(what, seconds);
            } catch (Exception exception) {
                throw new RuntimeException(exception);
            }
        }
    }

    static void works(String what, double seconds) throws Exception {
        long begin = System.nanoTime();
        Integer[] numbers = new Integer[64];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = (i * 37) % 101;
        }
        Runnable[] parts = {new Part(), new Other(), new Part()};
        var threads = ManagementFactory.getThreadMXBean();
        long passed = 0;
        while (passed < 1e9 * seconds) {
            switch (what) {
                case "shares":
                    sink ^= descend(10);
                    break;
                case "calls":
                    once(numbers, parts);
                    break;
                default:
                    goes_to_wait(5);
            }
            passed = what.equals("sleeps") ? System.nanoTime() - begin : threads.getCurrentThreadCpuTime();
        }
    }

    public static void main(String[] args) throws Exception {
        Thread work = new Work(args[0], Double.parseDouble(args[1]));
        work.start();
        work.join();
        if (sink == 42) {
            System.out.println(sink);
        }
    }
}
