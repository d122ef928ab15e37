import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.Collectors;

/**
 * Verifies the signature of Akoya Gateway (RFC 9421). Needs only the JDK.
 *
 * <pre>{@code
 * var verifier = new AkoyaVerifier(keySet::get);
 * var verified = verifier.verify(method, host, rawPath, rawQuery, headers, System.currentTimeMillis() / 1000);
 * verified.owner(); verified.connector(); verified.idToken();
 * }</pre>
 */
public final class AkoyaVerifier {
    /** One header field of the request. */
    public record Header(String name, String value) {}

    /** One bank login of the owner. {@code id} is the grant ID, stable for this login at this bank. */
    public record Connection(String connector, String state, Long expires, String id) {}

    /**
     * What the gateway signed. Without a grant, connector, idToken and expires are null.
     *
     * @param provider Akoya's ID of the bank; connector is its name in gateway.yaml
     * @param grant the ID of one login at one bank
     * @param interactionType the value of Akoya's header x-akoya-interaction-type
     * @param lastAccess the value of Akoya's header x-akoya-last-access
     * @param idTokens a token for each connector, if the access rule has pass_tokens: all
     */
    public record Verified(
            String owner, String connector, String idToken, Long expires, List<String> scope, String environment,
            List<Connection> connections, String nonce, String provider, String grant, String consent,
            String interactionType, String lastAccess, Map<String, String> idTokens) {}

    private static final String LABEL = "akoya";
    private static final String TAG = "akoya-gateway";
    private static final List<String> REQUIRED = List.of("@method", "@authority", "@path", "@query");
    /** The clock difference to tolerate, in seconds. */
    private static final long SKEW = 5;

    private final Function<String, AkoyaKey> keys;

    /** @param keys returns the key with an ID, or null if there is none */
    public AkoyaVerifier(Function<String, AkoyaKey> keys) {
        this.keys = keys;
    }

    /**
     * Verifies a request and returns what the gateway signed.
     *
     * <p>In a servlet, pass getRequestURI() and getQueryString(). Then also check that getContextPath() is the one you
     * deployed under, and that the decoded path equals getContextPath() + getServletPath() + getPathInfo(), because
     * that is the path that the app serves.
     *
     * @param path the raw path, as in the request line
     * @param query the raw query, as in the request line but without its "?"; empty or null if there is none
     * @param headers all headers, including duplicates
     * @param now Unix seconds
     */
    public Verified verify(String method, String authority, String path, String query, List<Header> headers, long now)
            throws NotVerified {
        if (authority == null) throw new NotVerified("no Host");
        Map<String, List<String>> fields = collect(headers);
        Fields.Item covered = member(fields, "signature-input");
        if (!(covered.value() instanceof List<?> components)) throw new NotVerified("malformed Signature-Input");
        if (!(member(fields, "signature").value() instanceof byte[] signature)) throw new NotVerified("malformed Signature");
        judgeParameters(covered.parameters(), now);
        List<String> names = names(components, fields);
        AkoyaKey key = key(covered.parameters());

        Map<String, String> target = Map.of(
                "@method", method, "@authority", authority.toLowerCase(Locale.ROOT).replaceFirst(":80$", ""),
                "@path", path.isEmpty() ? "/" : path, "@query", "?" + (query == null ? "" : query));
        StringBuilder base = new StringBuilder();
        for (String name : names) {
            String value = name.startsWith("@") ? target.get(name) : joined(fields.get(name));
            if (value == null || !value.chars().allMatch(c -> c >= 0x20 && c < 0x7f)) throw new NotVerified("no " + name);
            base.append('"').append(name).append("\": ").append(value).append('\n');
        }
        base.append("\"@signature-params\": ").append(Fields.serialize(covered));
        if (!key.verifies(base.toString().getBytes(StandardCharsets.US_ASCII), signature)) {
            throw new NotVerified("the signature does not fit this request");
        }
        return toVerified(fields, covered.parameters());
    }

    /** Returns the values by lower-case name. Rejects names that a server could normalize to a gateway header. */
    private static Map<String, List<String>> collect(List<Header> headers) throws NotVerified {
        Map<String, List<String>> fields = new LinkedHashMap<>();
        for (Header header : headers) {
            String name = header.name().toLowerCase(Locale.ROOT);
            String folded = name.replaceAll("[^a-z0-9]", "-");
            boolean reserved = folded.startsWith("akoya-") || folded.equals("signature") || folded.equals("signature-input");
            if (reserved && !folded.equals(name)) throw new NotVerified(name + " could pass for " + folded);
            fields.computeIfAbsent(name, unused -> new ArrayList<>()).add(header.value().replaceAll("^[ \\t]+|[ \\t]+$", ""));
        }
        return fields;
    }

    private static String joined(List<String> values) {
        return values == null ? null : String.join(", ", values);
    }

    private static Fields.Item member(Map<String, List<String>> fields, String field) throws NotVerified {
        Fields.Item found = Fields.dictionary(String.join(", ", fields.getOrDefault(field, List.of()))).get(LABEL);
        if (found == null) throw new NotVerified("no " + LABEL + " in " + field);
        return found;
    }

    private static void judgeParameters(Map<String, Object> parameters, long now) throws NotVerified {
        if (!TAG.equals(parameters.get("tag"))) throw new NotVerified("the tag of another application");
        if (!(parameters.get("created") instanceof Long created) || !(parameters.get("expires") instanceof Long expires)
                || expires < created) {
            throw new NotVerified("created or expires is missing or malformed");
        }
        if (created > now + SKEW) throw new NotVerified("signed in the future");
        if (now >= expires + SKEW) throw new NotVerified("expired");
    }

    private AkoyaKey key(Map<String, Object> parameters) throws NotVerified {
        AkoyaKey key = parameters.get("keyid") instanceof String id ? keys.apply(id) : null;
        if (key == null) throw new NotVerified("unknown key");
        Object algorithm = parameters.get("alg");
        if (algorithm != null && !key.algorithm.equals(algorithm)) throw new NotVerified("the key is for " + key.algorithm);
        return key;
    }

    /** Returns the covered names. Rejects duplicates, names with parameters, and lists without a required name. */
    private static List<String> names(List<?> components, Map<String, List<String>> fields) throws NotVerified {
        List<String> names = new ArrayList<>();
        for (Object component : components) {
            Fields.Item item = (Fields.Item) component;
            if (!(item.value() instanceof String name) || !item.parameters().isEmpty() || names.contains(name)) {
                throw new NotVerified("a covered component is not a plain name, or covered twice");
            }
            names.add(name);
        }
        Set<String> needed = new HashSet<>(REQUIRED);
        for (Map.Entry<String, List<String>> field : fields.entrySet()) {
            if (!field.getKey().startsWith("akoya-")) continue;
            if (field.getValue().size() != 1) throw new NotVerified(field.getKey() + " is there more than once");
            needed.add(field.getKey());
        }
        needed.removeAll(names);
        if (!needed.isEmpty()) throw new NotVerified("not covered: " + needed);
        return names;
    }

    private static Verified toVerified(Map<String, List<String>> fields, Map<String, Object> parameters) throws NotVerified {
        Map<String, String> claims = fields.entrySet().stream()
                .filter(field -> field.getKey().startsWith("akoya-"))
                .collect(Collectors.toMap(field -> field.getKey().substring(6), field -> field.getValue().get(0)));
        String scope = claims.getOrDefault("scope", "");
        String expires = claims.get("expires");
        return new Verified(
                URLDecoder.decode(claims.getOrDefault("owner", "").replace("+", "%2B"), StandardCharsets.UTF_8),
                claims.get("connector"), claims.get("id-token"), expires == null ? null : Long.valueOf(expires),
                scope.isEmpty() ? List.of() : Arrays.asList(scope.split(" ")), claims.get("environment"),
                connections(claims.getOrDefault("connections", "")), (String) parameters.get("nonce"), claims.get("provider"),
                claims.get("grant"), claims.get("consent"), claims.get("interaction-type"), claims.get("last-access"),
                idTokens(claims.getOrDefault("id-tokens", "")));
    }

    private static Map<String, String> idTokens(String value) throws NotVerified {
        Map<String, String> found = new LinkedHashMap<>();
        for (Map.Entry<String, Fields.Item> member : Fields.dictionary(value).entrySet()) {
            found.put(member.getKey(), String.valueOf(member.getValue().value()));
        }
        return found;
    }

    private static List<Connection> connections(String value) throws NotVerified {
        List<Connection> found = new ArrayList<>();
        for (Map.Entry<String, Fields.Item> member : Fields.dictionary(value).entrySet()) {
            List<?> logins = member.getValue().value() instanceof List<?> list ? list : List.of(member.getValue());
            for (Object login : logins) {
                Fields.Item one = (Fields.Item) login;
                String state = one.value() instanceof Fields.Token token ? token.text() : one.value().toString();
                Object ends = one.parameters().get("expires");
                found.add(new Connection(member.getKey(), state, (Long) ends, (String) one.parameters().get("id")));
            }
        }
        return found;
    }
}
