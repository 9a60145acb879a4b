import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import javax.crypto.Cipher;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;
import javax.crypto.spec.PBEParameterSpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProviderFactory;

/**
 * Hadoop's own JavaKeyStoreProvider: `URI [CHANGE...]` makes the changes, then prints every key and version.
 *
 * A change is `create|NAME|BITS|HEX|DESCRIPTION|ATTRIBUTE=VALUE` (the last two may be missing) or `roll|NAME|HEX`.
 * `pbe PASSWORD SALT-HEX ROUNDS TEXT` prints, in hex, what the JDK's PBEWithMD5AndTripleDES makes of the text.
 * The key store's password comes from HADOOP_KEYSTORE_PASSWORD. Run with Hadoop's jars on the class path.
 */
public class JceksKeys {
  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("pbe")) {
      System.out.println(seal(arguments[1], arguments[2], Integer.parseInt(arguments[3]), arguments[4]));
      return;
    }
    Configuration configuration = new Configuration(false);
    configuration.set("fs.file.impl", "org.apache.hadoop.fs.LocalFileSystem");
    KeyProvider provider = KeyProviderFactory.get(new URI(arguments[0]), configuration);
    for (int index = 1; index < arguments.length; index++) {
      change(provider, configuration, arguments[index].split("\\|"));
    }
    provider.flush();
    for (String name : provider.getKeys()) {
      KeyProvider.Metadata metadata = provider.getMetadata(name);
      System.out.printf("%s|%s|%d|%d|%s|%s|%d%n", name, metadata.getCipher(), metadata.getBitLength(),
          metadata.getCreated().getTime(), metadata.getDescription(), metadata.getAttributes(), metadata.getVersions());
      for (KeyProvider.KeyVersion version : provider.getKeyVersions(name)) {
        System.out.println(version.getVersionName() + "|" + HexFormat.of().formatHex(version.getMaterial()));
      }
    }
  }

  private static void change(KeyProvider provider, Configuration configuration, String[] words) throws Exception {
    if (words[0].equals("roll")) {
      provider.rollNewVersion(words[1], HexFormat.of().parseHex(words[2]));
      return;
    }
    KeyProvider.Options options = new KeyProvider.Options(configuration).setBitLength(Integer.parseInt(words[2]));
    if (words.length > 4) {
      options.setDescription(words[4]);
    }
    if (words.length > 5) {
      String[] attribute = words[5].split("=");
      HashMap<String, String> attributes = new HashMap<>();
      attributes.put(attribute[0], attribute[1]);
      options.setAttributes(attributes);
    }
    provider.createKey(words[1], HexFormat.of().parseHex(words[3]), options);
  }

  private static String seal(String password, String salt, int rounds, String text) throws Exception {
    String scheme = "PBEWithMD5AndTripleDES";
    Cipher cipher = Cipher.getInstance(scheme);
    cipher.init(Cipher.ENCRYPT_MODE,
        SecretKeyFactory.getInstance(scheme).generateSecret(new PBEKeySpec(password.toCharArray())),
        new PBEParameterSpec(HexFormat.of().parseHex(salt), rounds));
    return HexFormat.of().formatHex(cipher.doFinal(text.getBytes(StandardCharsets.UTF_8)));
  }
}
