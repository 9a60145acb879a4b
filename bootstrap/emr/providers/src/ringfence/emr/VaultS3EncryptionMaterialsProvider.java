package ringfence.emr;

import com.amazonaws.services.s3.model.EncryptionMaterials;
import com.amazonaws.services.s3.model.EncryptionMaterialsProvider;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import javax.crypto.SecretKey;
import org.apache.hadoop.conf.Configurable;
import org.apache.hadoop.conf.Configuration;

/**
 * `EncryptionKeyProviderClass` of CSE-Custom with EMRFS. Each object's own key is made by the S3 client and wrapped with
 * the key given here, whose description it stores with the object and brings back when the object is read.
 *
 * To write, there is no description, or one that EMRFS fills with the object's URI and the JobFlowId; nothing of it is
 * kept. A key for writing serves `s3.new-key-s` (5 min), an opened one `s3.key-memory-s` (10 min), in a process that
 * asks Vault once for each: so long a role that lost its rights still reads what it has read. `refresh` forgets both.
 */
public final class VaultS3EncryptionMaterialsProvider implements EncryptionMaterialsProvider, Configurable {
  private static final int MOST_OPENED = 1000;
  // By this name all of the SDK's clients wrap an object's key in a way that they can undo. Under the name that AWS's guide
  // gives, AES/GCM/NoPadding, two of them write objects that nobody reads again: the wrapping's IV is not kept.
  private static final String ALGORITHM = "AES";

  private final Object making = new Object();
  private final Map<Map<String, String>, Opened> opened = new LinkedHashMap<Map<String, String>, Opened>();
  private Configuration configuration;
  private Settings settings;
  private DataKeys keys;
  private DataKeys.DataKey current;
  private long currentGoodUntil;

  /** Reads no settings yet: Hadoop, where it is the caller, gives its configuration afterwards. */
  public VaultS3EncryptionMaterialsProvider() {}

  @Override
  public void setConf(Configuration given) {
    synchronized (making) {
      configuration = given;
      settings = null;
      keys = null;
      current = null;
      settings();
    }
  }

  @Override
  public Configuration getConf() {
    return configuration;
  }

  /** To write. */
  @Override
  public EncryptionMaterials getEncryptionMaterials() {
    synchronized (making) {
      DataKeys source = keys();
      if (current == null || System.nanoTime() - currentGoodUntil > 0) {
        current = source.generate();
        currentGoodUntil = later("s3.new-key-s", 300);
      }
      return materials(current.key, current.description);
    }
  }

  /** To read, when the description is one of ours; else to write. */
  @Override
  public EncryptionMaterials getEncryptionMaterials(Map<String, String> description) {
    if (description == null || !description.containsKey(DataKeys.WRAPPED)) {
      return getEncryptionMaterials();
    }
    Map<String, String> own = new LinkedHashMap<String, String>();
    own.put(DataKeys.WRAPPED, description.get(DataKeys.WRAPPED));
    own.put(DataKeys.TRANSIT_KEY, description.get(DataKeys.TRANSIT_KEY));
    SecretKey key = find(own);
    if (key == null) {
      DataKeys source;
      synchronized (making) {
        source = keys();
      }
      key = source.open(own);
      remember(own, key);
    }
    return materials(key, own);
  }

  @Override
  public void refresh() {
    synchronized (making) {
      current = null;
    }
    synchronized (opened) {
      opened.clear();
    }
  }

  private static EncryptionMaterials materials(SecretKey key, Map<String, String> description) {
    // A new one each time: whoever gets it may add to its description.
    return new EncryptionMaterials(key).addDescriptions(description);
  }

  private SecretKey find(Map<String, String> description) {
    synchronized (opened) {
      Opened found = opened.get(description);
      return found == null || System.nanoTime() - found.goodUntil > 0 ? null : found.key;
    }
  }

  private void remember(Map<String, String> description, SecretKey key) {
    long goodUntil = later("s3.key-memory-s", 600);
    synchronized (opened) {
      opened.remove(description);
      if (opened.size() >= MOST_OPENED) {
        Iterator<Map<String, String>> oldest = opened.keySet().iterator();
        oldest.next();
        oldest.remove();
      }
      opened.put(description, new Opened(key, goodUntil));
    }
  }

  private long later(String setting, int fallback) {
    synchronized (making) {
      return System.nanoTime() + TimeUnit.SECONDS.toNanos(settings().seconds(setting, fallback, 3600));
    }
  }

  private Settings settings() {
    if (settings == null) {
      settings = Settings.load(configuration == null ? null : configuration.get(Settings.PROPERTY));
    }
    return settings;
  }

  private DataKeys keys() {
    if (keys == null) {
      Settings read = settings();
      keys = new DataKeys(new Vault(read), read, "s3", ALGORITHM);
    }
    return keys;
  }

  private static final class Opened {
    final SecretKey key;
    final long goodUntil;

    Opened(SecretKey key, long goodUntil) {
      this.key = key;
      this.goodUntil = goodUntil;
    }
  }
}
