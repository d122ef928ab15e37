import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/** Says which request it serves: java JavaApp.java PORT */
public final class JavaApp {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/", exchange -> {
            String told = String.format("{\"path\": \"%s\", \"mount\": \"\", \"method\": \"%s\", \"user\": null}",
                    exchange.getRequestURI().getPath(), exchange.getRequestMethod());
            byte[] body = told.getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
