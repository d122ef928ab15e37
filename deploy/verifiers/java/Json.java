import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A minimal JSON parser for key sets: Map, List, String, Double, Boolean, null. In an app, use your JSON library.
 */
final class Json {
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    static Object parse(String text) {
        Json reader = new Json(text);
        Object value = reader.value();
        reader.space();
        if (reader.at != text.length()) throw new IllegalArgumentException("more than one value");
        return value;
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
    }

    private char next() {
        space();
        return text.charAt(at);
    }

    private boolean sees(char sign) {
        boolean there = next() == sign;
        if (there) at++;
        return there;
    }

    private void expect(char sign) {
        if (!sees(sign)) throw new IllegalArgumentException("expected " + sign + " at " + at);
    }

    private Object value() {
        switch (next()) {
            case '{':
                return object();
            case '[':
                return array();
            case '"':
                return string();
            default:
                int start = at;
                while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
                String word = text.substring(start, at);
                return switch (word) {
                    case "true" -> true;
                    case "false" -> false;
                    case "null" -> null;
                    default -> Double.valueOf(word);
                };
        }
    }

    private Map<String, Object> object() {
        Map<String, Object> found = new LinkedHashMap<>();
        expect('{');
        if (sees('}')) return found;
        do {
            next();
            String name = string();
            expect(':');
            found.put(name, value());
        } while (sees(','));
        expect('}');
        return found;
    }

    private List<Object> array() {
        List<Object> found = new ArrayList<>();
        expect('[');
        if (sees(']')) return found;
        do found.add(value()); while (sees(','));
        expect(']');
        return found;
    }

    private String string() {
        StringBuilder out = new StringBuilder();
        expect('"');
        while (text.charAt(at) != '"') {
            char c = text.charAt(at++);
            if (c == '\\') {
                c = text.charAt(at++);
                if (c == 'u') {
                    c = (char) Integer.parseInt(text.substring(at, at + 4), 16);
                    at += 4;
                } else {
                    c = "\"\\/\b\f\n\r\t".charAt("\"\\/bfnrt".indexOf(c));
                }
            }
            out.append(c);
        }
        at++;
        return out.toString();
    }
}
