import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Parser for structured field dictionaries (RFC 8941). In contrast to the RFC, a repeated key or parameter is an error.
 * So is base64 that is not in canonical form, because it would allow many spellings of one signature.
 */
final class Fields {
    /** One value with its parameters: a String, Long, BigDecimal, Boolean, byte[], {@link Token}, or a List of Items. */
    record Item(Object value, Map<String, Object> parameters) {}

    record Token(String text) {}

    private static final Pattern KEY = Pattern.compile("[a-z*][a-z0-9_.*-]*");
    private static final Pattern COMMA = Pattern.compile("[ \\t]*,[ \\t]*");
    private static final Pattern STRING = Pattern.compile("\"((?:[ !#-\\[\\]-~]|\\\\[\"\\\\])*+)\"");
    private static final Pattern BYTES = Pattern.compile(":([A-Za-z0-9+/]*={0,2}):");
    private static final Pattern DECIMAL = Pattern.compile("-?[0-9]{1,12}\\.[0-9]{1,3}(?![0-9.])");
    private static final Pattern INTEGER = Pattern.compile("-?[0-9]{1,15}(?![0-9.])");
    private static final Pattern BOOLEAN = Pattern.compile("\\?([01])");
    private static final Pattern TOKEN = Pattern.compile("[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*");
    private static final Pattern SPACES = Pattern.compile(" *");

    private final String text;
    private int at;

    private Fields(String text) {
        this.text = text;
    }

    static Map<String, Item> dictionary(String text) throws NotVerified {
        Fields reader = new Fields(text);
        Map<String, Item> found = new LinkedHashMap<>();
        while (!reader.done()) {
            String key = reader.take(KEY, 0);
            if (found.put(key, reader.member()) != null) throw new NotVerified("two members " + key);
            if (!reader.done()) {
                reader.take(COMMA, 0);
                if (reader.done()) throw reader.fault();
            }
        }
        return found;
    }

    /** Serializes an inner list (RFC 9651 section 4.1.1.1). */
    static String serialize(Item list) {
        StringBuilder out = new StringBuilder("(");
        for (Object item : (List<?>) list.value()) {
            if (out.length() > 1) out.append(' ');
            out.append(bare(((Item) item).value())).append(parameters(((Item) item).parameters()));
        }
        return out.append(')').append(parameters(list.parameters())).toString();
    }

    private static String parameters(Map<String, Object> parameters) {
        StringBuilder out = new StringBuilder();
        parameters.forEach((key, value) -> {
            out.append(';').append(key);
            if (!Boolean.TRUE.equals(value)) out.append('=').append(bare(value));
        });
        return out.toString();
    }

    private static String bare(Object value) {
        if (value instanceof String string) {
            return '"' + string.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
        }
        if (value instanceof byte[] bytes) return ":" + Base64.getEncoder().encodeToString(bytes) + ":";
        if (value instanceof Boolean yes) return yes ? "?1" : "?0";
        return value instanceof Token token ? token.text() : value.toString();
    }

    private boolean done() {
        return at == text.length();
    }

    private NotVerified fault() {
        return new NotVerified("malformed field at character " + (at + 1));
    }

    private Matcher matcher(Pattern pattern) {
        return pattern.matcher(text).region(at, text.length()).useTransparentBounds(true);
    }

    private boolean next(Pattern pattern) {
        return matcher(pattern).lookingAt();
    }

    private String take(Pattern pattern, int group) throws NotVerified {
        Matcher matcher = matcher(pattern);
        if (!matcher.lookingAt()) throw fault();
        at = matcher.end();
        return matcher.group(group);
    }

    private boolean sees(char sign) {
        boolean next = at < text.length() && text.charAt(at) == sign;
        if (next) at++;
        return next;
    }

    private Item member() throws NotVerified {
        if (!sees('=')) return new Item(true, parameters());
        if (!sees('(')) return new Item(bareItem(), parameters());
        List<Item> items = new ArrayList<>();
        while (true) {
            String spaces = take(SPACES, 0);
            if (sees(')')) return new Item(items, parameters());
            if (!items.isEmpty() && spaces.isEmpty()) throw fault();
            items.add(new Item(bareItem(), parameters()));
        }
    }

    private Map<String, Object> parameters() throws NotVerified {
        Map<String, Object> found = new LinkedHashMap<>();
        while (sees(';')) {
            take(SPACES, 0);
            String key = take(KEY, 0);
            if (found.put(key, sees('=') ? bareItem() : true) != null) throw new NotVerified("two parameters " + key);
        }
        return found;
    }

    private Object bareItem() throws NotVerified {
        char start = done() ? 0 : text.charAt(at);
        try {
            if (start == '"') return take(STRING, 1).replaceAll("\\\\(.)", "$1");
            if (start == ':') return octets(take(BYTES, 1));
        } catch (IllegalArgumentException notBase64) {
            throw fault();
        }
        if (start == '?') return take(BOOLEAN, 1).equals("1");
        if (start == '-' || (start >= '0' && start <= '9')) {
            return next(DECIMAL) ? new BigDecimal(take(DECIMAL, 0)) : Long.valueOf(take(INTEGER, 0));
        }
        return new Token(take(TOKEN, 0));
    }

    private byte[] octets(String base64) throws NotVerified {
        byte[] octets = Base64.getDecoder().decode(base64);
        if (!Base64.getEncoder().encodeToString(octets).equals(base64)) throw fault();
        return octets;
    }
}
