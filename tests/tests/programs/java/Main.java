// What a Java program leans on: threads, child processes, a pipeline, TLS, file watching. Prints a line per part.

import java.io.FileInputStream;
import java.io.InputStream;
import java.net.InetAddress;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.LongStream;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Main {
    static void threads() throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        var tasks = new ArrayList<Callable<Integer>>();
        for (int i = 0; i < 100; i++) {
            int n = i;
            tasks.add(() -> n);
        }
        int sum = 0;
        for (Future<Integer> task : pool.invokeAll(tasks)) {
            sum += task.get();
        }
        pool.shutdown();
        expect(sum, 4950);
        expect(LongStream.range(0, 100_000).parallel().sum(), 4_999_950_000L);
    }

    static void children() throws Exception {
        var child = new ProcessBuilder("sh", "-c", "cat; exit 3").start();
        child.getOutputStream().write("in".getBytes());
        child.getOutputStream().close();
        expect(new String(child.getInputStream().readAllBytes()), "in");
        expect(child.waitFor(), 3);
        var sleeper = new ProcessBuilder("sleep", "600").start();
        sleeper.destroyForcibly();
        expect(sleeper.waitFor(), 128 + 9);
    }

    static void pipes() throws Exception {
        var line = ProcessBuilder.startPipeline(List.of(
            new ProcessBuilder("printf", "b\\na\\n"), new ProcessBuilder("sort"), new ProcessBuilder("tr", "ab", "xy")));
        expect(new String(line.get(2).getInputStream().readAllBytes()), "x\ny\n");
    }

    static void watching(Path directory) throws Exception {
        try (var watcher = FileSystems.getDefault().newWatchService()) {
            directory.register(watcher, StandardWatchEventKinds.ENTRY_CREATE);
            Files.writeString(directory.resolve("watched"), "now");
            expect(watcher.take().pollEvents().get(0).context().toString(), "watched");
        }
    }

    static void secure(Path directory) throws Exception {
        var file = directory.resolve("keys").toString();
        var secret = "changeit";
        var keytool = Path.of(System.getProperty("java.home"), "bin", "keytool").toString();
        var making = new ProcessBuilder(keytool, "-genkeypair", "-keyalg", "EC", "-alias", "own", "-keystore", file,
            "-storepass", secret, "-keypass", secret, "-dname", "CN=localhost", "-validity", "1");
        expect(making.redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor(), 0);
        var store = KeyStore.getInstance("PKCS12");
        try (InputStream in = new FileInputStream(file)) {
            store.load(in, secret.toCharArray());
        }
        var keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(store, secret.toCharArray());
        var trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        var loopback = InetAddress.getLoopbackAddress();
        try (var server = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0, 1, loopback)) {
            var echo = new Thread(() -> {
                try (var socket = server.accept()) {
                    socket.getOutputStream().write(socket.getInputStream().readNBytes(6));
                } catch (Exception e) {
                    throw new RuntimeException(e);
                }
            });
            echo.start();
            try (var client = (SSLSocket) context.getSocketFactory().createSocket(loopback, server.getLocalPort())) {
                client.getOutputStream().write("secret".getBytes());
                expect(new String(client.getInputStream().readNBytes(6)), "secret");
            }
            echo.join();
        }
    }

    static void expect(Object got, Object wanted) {
        if (!got.equals(wanted)) {
            throw new AssertionError(got + " instead of " + wanted);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var directory = Files.createTempDirectory("programs-java-");
        try {
            threads();
            System.out.println("OK threads");
            children();
            System.out.println("OK children");
            pipes();
            System.out.println("OK pipes");
            watching(directory);
            System.out.println("OK watching");
            secure(directory);
            System.out.println("OK secure");
        } finally {
            for (var name : List.of("watched", "keys")) {
                Files.deleteIfExists(directory.resolve(name));
            }
            Files.delete(directory);
        }
        var left = new ProcessBuilder("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo LEFT $!");
        left.redirectOutput(ProcessBuilder.Redirect.INHERIT).start().waitFor();
        System.exit(44);
    }
}
