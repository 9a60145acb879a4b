package ringfence.emr;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.attribute.PosixFilePermission;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The providers' settings, from one properties file in UTF-8: the first of
 *
 * <ol>
 * <li>the file named by the system property (or Hadoop's setting) {@code ringfence.providers.properties},
 * <li>{@code /etc/ringfence/emr-providers.properties}, of a custom image,
 * <li>{@code ringfence-emr-providers.properties} in the jar.
 * </ol>
 *
 * The last is the usual one: EMR asks for disk keys before it runs a bootstrap action, so a file that one writes comes
 * too late. Nothing in it is a secret. Unknown names, names given twice and wrong values are refused, by name.
 */
final class Settings {
  static final String PROPERTY = "ringfence.providers.properties";
  private static final String FILE = "/etc/ringfence/emr-providers.properties";
  private static final String RESOURCE = "ringfence-emr-providers.properties";
  private static final int MOST_BYTES = 64 * 1024;
  private static final Pattern RELEASE = Pattern.compile("emr-(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})");
  private static final Pattern WORD = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");
  private static final Pattern PLACE = Pattern.compile("[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*");
  private static final Pattern NAMESPACE = Pattern.compile("[A-Za-z0-9._/-]+");
  private static final Pattern REGION = Pattern.compile("[a-z]{2}(-[a-z]+)+-[0-9]");
  private static final Set<String> NAMES = Collections.unmodifiableSet(new TreeSet<String>(Arrays.asList(
      "context", "disk.key", "disk.mount", "emr.release", "s3.key", "s3.key-memory-s", "s3.mount",
      "s3.new-key-s", "tls.mount", "tls.path", "vault.addresses", "vault.aws.metadata", "vault.aws.mount",
      "vault.aws.region", "vault.aws.role", "vault.aws.server-id", "vault.ca-file", "vault.deadline-s", "vault.login",
      "vault.namespace", "vault.token-file")));

  private final Properties values;
  private final String place;

  private Settings(Properties values, String place) {
    this.values = values;
    this.place = place;
    for (String name : values.stringPropertyNames()) {
      if (!NAMES.contains(name)) {
        throw new ProviderException(place + ": unknown setting " + name + "; there are " + NAMES);
      }
    }
  }

  /** @param fromHadoop the file that Hadoop's configuration names, or null */
  static Settings load(String fromHadoop) {
    String named = System.getProperty(PROPERTY, fromHadoop);
    if (named != null || Files.exists(Paths.get(FILE))) {
      Path path = Paths.get(named != null ? named : FILE);
      refuseWritableByOthers(path);
      try (InputStream stream = Files.newInputStream(path)) {
        return new Settings(parse(stream, path.toString()), path.toString());
      } catch (IOException error) {
        throw new ProviderException("cannot read the settings " + path + " (" + error.getClass().getSimpleName() + ")");
      }
    }
    try (InputStream stream = Settings.class.getClassLoader().getResourceAsStream(RESOURCE)) {
      if (stream == null) {
        throw new ProviderException("there are no settings: put " + RESOURCE + " into the jar, or " + FILE
            + " into the image");
      }
      return new Settings(parse(stream, RESOURCE), RESOURCE + " in the jar");
    } catch (IOException error) {
      throw new ProviderException("cannot read " + RESOURCE + " in the jar");
    }
  }

  private static Properties parse(InputStream stream, final String place) throws IOException {
    Properties strict = new Properties() {
      private static final long serialVersionUID = 1L;

      @Override
      public synchronized Object put(Object name, Object value) {
        if (super.put(name, value) != null) {
          throw new ProviderException(place + ": " + name + " is set twice");
        }
        return null;
      }
    };
    byte[] content = Bounded.read(stream, MOST_BYTES, Long.MAX_VALUE);
    strict.load(new InputStreamReader(new ByteArrayInputStream(content), StandardCharsets.UTF_8));
    return strict;
  }

  /** Whoever could write the file could name a Vault of their own. */
  private static void refuseWritableByOthers(Path path) {
    Set<PosixFilePermission> mode = modeOf(path);
    if (mode.contains(PosixFilePermission.GROUP_WRITE) || mode.contains(PosixFilePermission.OTHERS_WRITE)) {
      throw new ProviderException(path + " can be written by others than its owner: chmod go-w " + path);
    }
  }

  private static Set<PosixFilePermission> modeOf(Path path) {
    try {
      return Files.getPosixFilePermissions(path);
    } catch (IOException error) {
      throw new ProviderException("cannot read " + path + " (" + error.getClass().getSimpleName() + ")");
    }
  }

  /** The value, or null. */
  String find(String name) {
    String value = values.getProperty(name);
    return value == null || value.trim().isEmpty() ? null : value.trim();
  }

  private String get(String name) {
    String value = find(name);
    if (value == null) {
      throw new ProviderException(place + ": " + name + " is missing");
    }
    return value;
  }

  private String matching(Pattern pattern, String name, String fallback) {
    String value = fallback != null && find(name) == null ? fallback : get(name);
    if (!pattern.matcher(value).matches() || value.contains("..")) {
      throw new ProviderException(place + ": " + name + " is not of the form " + pattern);
    }
    return value;
  }

  /** A name: of a Transit key, a role, a context. */
  String word(String name) {
    return matching(WORD, name, null);
  }

  /** A path in Vault; `fallback` may be null. */
  String vaultPath(String name, String fallback) {
    return matching(PLACE, name, fallback);
  }

  String findNamespace() {
    return find("vault.namespace") == null ? null : matching(NAMESPACE, "vault.namespace", null);
  }

  String findRegion() {
    return find("vault.aws.region") == null ? null : matching(REGION, "vault.aws.region", null);
  }

  /** A header's value: what Vault is configured to demand of a login. */
  String serverId() {
    return matching(Pattern.compile("[!-~]{1,256}"), "vault.aws.server-id", null);
  }

  int seconds(String name, int fallback, int most) {
    String value = find(name);
    try {
      int seconds = value == null ? fallback : Integer.parseInt(value);
      if (seconds >= 1 && seconds <= most) {
        return seconds;
      }
    } catch (NumberFormatException error) {
      // Told below.
    }
    throw new ProviderException(place + ": " + name + " is not a number of seconds from 1 to " + most);
  }

  String choice(String name, String... choices) {
    String value = get(name);
    if (!Arrays.asList(choices).contains(value)) {
      throw new ProviderException(place + ": " + name + " is none of " + Arrays.toString(choices));
    }
    return value;
  }

  List<String> addresses() {
    List<String> addresses = new ArrayList<String>();
    for (String address : get("vault.addresses").split(",")) {
      addresses.add(Address.checked(address.trim(), place + ": vault.addresses"));
    }
    return addresses;
  }

  String metadataAddress() {
    String value = find("vault.aws.metadata");
    return value == null ? "http://169.254.169.254" : Address.withoutPath(value, place + ": vault.aws.metadata");
  }

  /** The CA certificates that Vault's is verified with, as PEM, or null for those that Java trusts. */
  String findAuthorities() {
    String value = find("vault.ca-file");
    if (value == null) {
      return null;
    }
    try (InputStream stream = value.startsWith("jar:")
        ? Settings.class.getClassLoader().getResourceAsStream(value.substring("jar:".length()))
        : Files.newInputStream(Paths.get(value))) {
      if (stream == null) {
        throw new ProviderException(place + ": vault.ca-file: the jar has no " + value.substring("jar:".length()));
      }
      return new String(Bounded.read(stream, MOST_BYTES, Long.MAX_VALUE), StandardCharsets.US_ASCII);
    } catch (IOException error) {
      throw new ProviderException(place + ": cannot read vault.ca-file " + value + " ("
          + error.getClass().getSimpleName() + ")");
    }
  }

  /** The token of `vault.token-file`, which nobody but its owner may read. */
  String token() {
    Path path = Paths.get(get("vault.token-file"));
    Set<PosixFilePermission> mode = modeOf(path);
    for (PosixFilePermission bit : mode) {
      if (bit.name().startsWith("GROUP") || bit.name().startsWith("OTHERS")) {
        throw new ProviderException(path + " is open to others than its owner: chmod 600 " + path);
      }
    }
    try (InputStream stream = Files.newInputStream(path)) {
      String token = new String(Bounded.read(stream, 4096, Long.MAX_VALUE), StandardCharsets.US_ASCII).trim();
      if (!Pattern.matches("[!-~]{1,4096}", token)) {
        throw new ProviderException(path + " holds no token");
      }
      return token;
    } catch (IOException error) {
      throw new ProviderException("cannot read " + path + " (" + error.getClass().getSimpleName() + ")");
    }
  }

  /** What EMR wants the disk's key to be called: AES/GCM/NoPadding to 7.0.0, AES from 7.1.0. */
  String diskAlgorithm() {
    Matcher release = RELEASE.matcher(get("emr.release"));
    if (!release.matches()) {
      throw new ProviderException(place + ": emr.release is not of the form emr-7.12.0");
    }
    int major = Integer.parseInt(release.group(1));
    boolean isOld = major < 7 || major == 7 && Integer.parseInt(release.group(2)) == 0;
    return isOld ? "AES/GCM/NoPadding" : "AES";
  }
}
