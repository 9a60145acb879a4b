package ringfence.emr;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;
import javax.crypto.SecretKey;
import javax.crypto.spec.SecretKeySpec;

/**
 * Keys of 256 bits made by a Transit key, which never leaves Vault, and opened by it again.
 *
 * A key's description, which EMR keeps beside the data, says how to open it: the Transit key and the data key as
 * Vault's ciphertext. Each is bound to what it is for and to the setting `context`: that takes a derived Transit key,
 * and one that is not derived (it ignores a context without a word) or can be exported is refused.
 */
final class DataKeys {
  static final String WRAPPED = "ringfence.data-key";
  static final String TRANSIT_KEY = "ringfence.transit-key";
  private static final int BYTES = 32;
  // As Vault writes it, and no other way that it also reads.
  private static final Pattern CIPHERTEXT = Pattern.compile("vault:v[1-9][0-9]{0,8}:[A-Za-z0-9+/]{40,200}={0,2}");

  private final Vault vault;
  private final String mount;
  private final String key;
  private final String context;
  private final String algorithm;
  private volatile boolean isChecked;

  /** @param purpose `disk` or `s3`: the settings' prefix, and what a key is bound to */
  DataKeys(Vault vault, Settings settings, String purpose, String algorithm) {
    this.vault = vault;
    this.mount = settings.vaultPath(purpose + ".mount", "transit");
    this.key = settings.word(purpose + ".key");
    String bound = "ringfence-emr:" + purpose + ":" + settings.word("context");
    this.context = Base64.getEncoder().encodeToString(bound.getBytes(StandardCharsets.UTF_8));
    this.algorithm = algorithm;
  }

  /** A key, and how to get it again. */
  static final class DataKey {
    final SecretKey key;
    final Map<String, String> description;

    DataKey(SecretKey key, Map<String, String> description) {
      this.key = key;
      this.description = description;
    }
  }

  DataKey generate() {
    if (!isChecked) {
      check();
      isChecked = true;
    }
    String path = mount + "/datakey/plaintext/" + key;
    Map<String, Object> data = vault.write(path, "{\"bits\":256,\"context\":" + Json.quoted(context) + "}");
    Object wrapped = data.get("ciphertext");
    if (!(wrapped instanceof String) || !CIPHERTEXT.matcher((String) wrapped).matches()) {
      throw Vault.unreadable(path);
    }
    Map<String, String> description = new HashMap<String, String>();
    description.put(WRAPPED, (String) wrapped);
    description.put(TRANSIT_KEY, mount + "/" + key);
    return new DataKey(keyOf(data, path), description);
  }

  /** The key that a description speaks of; never one of another Transit key than the settings'. */
  SecretKey open(Map<String, String> description) {
    String wrapped = description.get(WRAPPED);
    String named = description.get(TRANSIT_KEY);
    if (wrapped == null || named == null) {
      throw new ProviderException("no key of Ringfence's: the description has no " + WRAPPED + " and " + TRANSIT_KEY);
    }
    if (!named.equals(mount + "/" + key)) {
      throw new ProviderException("this was encrypted under another Transit key than " + mount + "/" + key
          + ", which the settings name");
    }
    if (!CIPHERTEXT.matcher(wrapped).matches()) {
      throw new ProviderException("the description's " + WRAPPED + " is not a ciphertext of Vault's");
    }
    String path = mount + "/decrypt/" + key;
    String body = "{\"ciphertext\":" + Json.quoted(wrapped) + ",\"context\":" + Json.quoted(context) + "}";
    return keyOf(vault.write(path, body), path);
  }

  private void check() {
    String path = mount + "/keys/" + key;
    Map<String, Object> found = vault.read(path);
    if (!Boolean.TRUE.equals(found.get("derived")) || !Boolean.FALSE.equals(found.get("exportable"))) {
      throw new ProviderException("the Transit key " + mount + "/" + key + " is not derived, or can be exported: "
          + "vault write " + path + " type=aes256-gcm96 derived=true, under another name");
    }
  }

  private SecretKey keyOf(Map<String, Object> data, String path) {
    byte[] bytes = null;
    try {
      Object encoded = data.get("plaintext");
      bytes = encoded instanceof String ? Base64.getDecoder().decode((String) encoded) : new byte[0];
      if (bytes.length == BYTES) {
        return new SecretKeySpec(bytes, algorithm);
      }
    } catch (IllegalArgumentException error) {
      // Told below, without the text.
    } finally {
      if (bytes != null) {
        Arrays.fill(bytes, (byte) 0);
      }
    }
    throw Vault.unreadable(path);
  }
}
