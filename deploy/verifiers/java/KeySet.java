import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The gateway's JWK Set, cached for five minutes and fetched at most every ten seconds. If a fetch fails, the old set
 * stays in use. A signature that the cached key does not verify causes a fetch too, because a key can be replaced under
 * the same ID.
 */
public final class KeySet {
    private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private final HttpRequest request;
    private Map<String, AkoyaKey> keys = Map.of();
    private long fetchedAt = Long.MIN_VALUE / 2;
    private long triedAt = Long.MIN_VALUE / 2;

    public KeySet(String url) {
        request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(5)).build();
    }

    public synchronized AkoyaKey get(String id) {
        if (!keys.containsKey(id) || seconds() - fetchedAt > 300) refresh();
        AkoyaKey key = keys.get(id);
        return key == null ? null : key.orElse(() -> renewed(id));
    }

    private synchronized AkoyaKey renewed(String id) {
        refresh();
        return keys.get(id);
    }

    /** Fetches the set, unless that was tried in the last ten seconds. */
    private void refresh() {
        long now = seconds();
        if (now - triedAt <= 10) return;
        triedAt = now;
        try {
            keys = fetch();
            fetchedAt = now;
        } catch (IOException | RuntimeException unavailable) {
            System.err.println("key set: " + unavailable.getMessage());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    private static long seconds() {
        return System.nanoTime() / 1_000_000_000L;
    }

    private Map<String, AkoyaKey> fetch() throws IOException, InterruptedException {
        HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) throw new IOException("status " + response.statusCode());
        Map<String, AkoyaKey> found = new HashMap<>();
        for (Object jwk : (List<?>) ((Map<?, ?>) Json.parse(response.body())).get("keys")) {
            @SuppressWarnings("unchecked")
            Map<String, Object> members = (Map<String, Object>) jwk;
            try {
                found.put((String) members.get("kid"), AkoyaKey.ofJwk(members));
            } catch (GeneralSecurityException | RuntimeException unusable) {
                // Skip keys of unsupported types and keep the others (RFC 7517 section 5).
            }
        }
        return found;
    }
}
