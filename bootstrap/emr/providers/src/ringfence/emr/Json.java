package ringfence.emr;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * JSON (RFC 8259), as much as Vault's answers and the instance metadata need: objects become maps, arrays lists, text
 * String, numbers Double. An own reader, because which Jackson is on the class path of the process that loads a provider
 * is EMR's affair and changes from release to release. It says where it stumbled, and shows nothing of the text.
 */
final class Json {
  private static final int DEEPEST = 32;
  private static final Pattern NUMBER = Pattern.compile("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?");

  private final String text;
  private int place;

  private Json(String text) {
    this.text = text;
  }

  /** @throws IllegalArgumentException for anything but one object */
  @SuppressWarnings("unchecked")
  static Map<String, Object> parseObject(String text) {
    Json json = new Json(text);
    Object value = json.value(0);
    json.skipSpace();
    if (json.place != text.length() || !(value instanceof Map)) {
      throw json.wrong();
    }
    return (Map<String, Object>) value;
  }

  /** The text as a JSON string. */
  static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char each : text.toCharArray()) {
      if (each == '"' || each == '\\') {
        quoted.append('\\').append(each);
      } else if (each < ' ' || each > '~') {
        quoted.append(String.format("\\u%04x", (int) each));
      } else {
        quoted.append(each);
      }
    }
    return quoted.append('"').toString();
  }

  private Object value(int depth) {
    skipSpace();
    if (depth > DEEPEST || place >= text.length()) {
      throw wrong();
    }
    switch (text.charAt(place)) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"':
        return string();
      case 't':
        return word("true", Boolean.TRUE);
      case 'f':
        return word("false", Boolean.FALSE);
      case 'n':
        return word("null", null);
      default:
        return number();
    }
  }

  private Map<String, Object> object(int depth) {
    Map<String, Object> members = new LinkedHashMap<String, Object>();
    place++;
    if (isNext('}')) {
      return members;
    }
    do {
      skipSpace();
      if (place >= text.length() || text.charAt(place) != '"') {
        throw wrong();
      }
      String name = string();
      demand(':');
      // Two members of one name would mean one thing to Vault and another here.
      if (members.containsKey(name)) {
        throw wrong();
      }
      members.put(name, value(depth + 1));
    } while (isNext(','));
    demand('}');
    return members;
  }

  private List<Object> array(int depth) {
    List<Object> items = new ArrayList<Object>();
    place++;
    if (isNext(']')) {
      return items;
    }
    do {
      items.add(value(depth + 1));
    } while (isNext(','));
    demand(']');
    return items;
  }

  private String string() {
    StringBuilder read = new StringBuilder();
    for (place++; place < text.length(); place++) {
      char each = text.charAt(place);
      if (each == '"') {
        place++;
        return read.toString();
      }
      if (each < ' ') {
        throw wrong();
      }
      read.append(each == '\\' ? escaped() : each);
    }
    throw wrong();
  }

  private char escaped() {
    place++;
    int known = place < text.length() ? "\"\\/bfnrt".indexOf(text.charAt(place)) : -1;
    if (known >= 0) {
      return "\"\\/\b\f\n\r\t".charAt(known);
    }
    if (place + 5 > text.length() || text.charAt(place) != 'u') {
      throw wrong();
    }
    int code = 0;
    for (int digit = 0; digit < 4; digit++) {
      int value = Character.digit(text.charAt(++place), 16);
      if (value < 0) {
        throw wrong();
      }
      code = code * 16 + value;
    }
    return (char) code;
  }

  private Object word(String word, Object value) {
    if (!text.startsWith(word, place)) {
      throw wrong();
    }
    place += word.length();
    return value;
  }

  private Double number() {
    Matcher number = NUMBER.matcher(text).region(place, text.length());
    if (!number.lookingAt()) {
      throw wrong();
    }
    place = number.end();
    return Double.valueOf(number.group());
  }

  private void skipSpace() {
    while (place < text.length() && " \t\r\n".indexOf(text.charAt(place)) >= 0) {
      place++;
    }
  }

  private boolean isNext(char wanted) {
    skipSpace();
    if (place < text.length() && text.charAt(place) == wanted) {
      place++;
      return true;
    }
    return false;
  }

  private void demand(char wanted) {
    if (!isNext(wanted)) {
      throw wrong();
    }
  }

  private IllegalArgumentException wrong() {
    return new IllegalArgumentException("not the expected JSON at character " + place);
  }
}
