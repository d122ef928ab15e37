import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Runs tests/vectors/messages.json: `java -cp out Vectors FILE`. Exits with code 1 if a test case fails. */
@SuppressWarnings("unchecked")
public final class Vectors {
    public static void main(String[] arguments) throws Exception {
        var all = (Map<String, Object>) Json.parse(Files.readString(Path.of(arguments[0])));
        Map<String, AkoyaKey> keys = new HashMap<>();
        for (var key : (List<Map<String, Object>>) all.get("keys")) {
            var secret = (String) key.get("secret");
            var jwk = (Map<String, Object>) key.get("public_jwk");
            keys.put((String) key.get("kid"), secret == null ? AkoyaKey.ofJwk(jwk) : AkoyaKey.ofSecret(secret));
        }
        var verifier = new AkoyaVerifier(keys::get);
        var cases = (List<Map<String, Object>>) all.get("cases");
        var attacks = (List<Map<String, Object>>) all.get("attacks");
        int failures = 0;
        for (var one : cases) {
            String difference;
            try {
                difference = difference(verify(verifier, one), (Map<String, Object>) one.get("says"));
            } catch (NotVerified refused) {
                difference = refused.getMessage();
            }
            if (difference != null) {
                failures++;
                System.out.println("FAILED verifies: " + one.get("name") + ": " + difference);
            }
        }
        for (var one : attacks) {
            try {
                verify(verifier, one);
                failures++;
                System.out.println("FAILED refuses: " + one.get("name"));
            } catch (NotVerified expected) {
                // An attack must be rejected.
            }
        }
        System.out.printf("%d cases, %d attacks, %d failures%n", cases.size(), attacks.size(), failures);
        System.exit(failures == 0 && !cases.isEmpty() && !attacks.isEmpty() ? 0 : 1);
    }

    private static AkoyaVerifier.Verified verify(AkoyaVerifier verifier, Map<String, Object> one) throws NotVerified {
        var request = (Map<String, Object>) one.get("request");
        List<AkoyaVerifier.Header> headers = new ArrayList<>();
        for (var line : (List<List<String>>) request.get("headers")) {
            headers.add(new AkoyaVerifier.Header(line.get(0), line.get(1)));
        }
        return verifier.verify(
                (String) request.get("method"), (String) request.get("authority"), (String) request.get("path"),
                (String) request.get("query"), headers, ((Double) one.get("now")).longValue());
    }

    private static String difference(AkoyaVerifier.Verified verified, Map<String, Object> expected) {
        List<String> connections = new ArrayList<>();
        for (var one : (List<Map<String, Object>>) expected.get("connections")) {
            Long ends = ((Double) one.get("expires")).longValue();
            var connection = new AkoyaVerifier.Connection(
                    (String) one.get("connector"), (String) one.get("state"), ends, (String) one.get("id"));
            connections.add(connection.toString());
        }
        var expires = (Double) expected.get("expires");
        var wanted = java.util.Arrays.asList(
                expected.get("owner"), expected.get("connector"), expected.get("id_token"),
                expires == null ? null : expires.longValue(), expected.get("scope"), expected.get("environment"), connections,
                expected.get("provider"), expected.get("grant"), expected.get("consent"), expected.get("interaction_type"),
                expected.get("last_access"), expected.get("id_tokens"));
        var found = java.util.Arrays.asList(
                verified.owner(), verified.connector(), verified.idToken(), verified.expires(), verified.scope(), verified.environment(),
                verified.connections().stream().map(Object::toString).toList(), verified.provider(), verified.grant(), verified.consent(),
                verified.interactionType(), verified.lastAccess(), verified.idTokens());
        return wanted.equals(found) ? null : "got " + found + ", expected " + wanted;
    }
}
