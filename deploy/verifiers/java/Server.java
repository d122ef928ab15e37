import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;

/** Example app behind the gateway. Run: AKOYA_JWKS=http://127.0.0.1:8080/akoya/jwks.json java -cp out Server */
public final class Server {
    public static void main(String[] arguments) throws Exception {
        String secret = System.getenv("AKOYA_SECRET");
        AkoyaKey shared = secret == null ? null : AkoyaKey.ofSecret(secret);
        KeySet set = shared == null ? new KeySet(System.getenv("AKOYA_JWKS")) : null;
        Function<String, AkoyaKey> keys = shared == null ? set::get : id -> shared;
        AkoyaVerifier verifier = new AkoyaVerifier(keys);

        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "3000"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", exchange -> {
            List<AkoyaVerifier.Header> headers = new ArrayList<>();
            exchange.getRequestHeaders().forEach((name, values) ->
                    values.forEach(value -> headers.add(new AkoyaVerifier.Header(name, value))));
            String query = exchange.getRequestURI().getRawQuery();
            int status = 200;
            String body;
            try {
                var verified = verifier.verify(
                        exchange.getRequestMethod(), exchange.getRequestHeaders().getFirst("Host"),
                        exchange.getRequestURI().getRawPath(), query, headers,
                        System.currentTimeMillis() / 1000);
                body = verified.owner() + " " + verified.connector() + "\n";
            } catch (NotVerified refused) {
                status = 401;
                body = "Unauthorized\n";
            }
            respond(exchange, status, body);
        });
        server.start();
        System.out.println("listening on " + server.getAddress().getPort());
    }

    private static void respond(com.sun.net.httpserver.HttpExchange exchange, int status, String body) throws IOException {
        byte[] octets = body.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, octets.length);
        try (var out = exchange.getResponseBody()) {
            out.write(octets);
        }
    }
}
