package ringfence.emr;

import com.amazonaws.services.elasticmapreduce.spi.security.EncryptionContext;
import com.amazonaws.services.elasticmapreduce.spi.security.EncryptionMaterials;
import com.amazonaws.services.elasticmapreduce.spi.security.EncryptionMaterialsProvider;
import java.util.Map;

/**
 * `EncryptionKeyProviderClass` of local disks. EMR asks with a context while it sets up a node's disks, keeps the
 * description that comes with the key, and asks with that description when it needs the key again, as after a reboot.
 *
 * A description that is not one of ours is refused: another key than the disk's is none.
 */
public final class VaultLocalDiskEncryptionMaterialsProvider extends EncryptionMaterialsProvider {
  private static final String LOCAL_DISK = "LOCAL_DISK";

  private final DataKeys keys;

  public VaultLocalDiskEncryptionMaterialsProvider() {
    Settings settings = Settings.load(null);
    this.keys = new DataKeys(new Vault(settings), settings, "disk", settings.diskAlgorithm());
  }

  @Override
  public EncryptionMaterials getEncryptionMaterials(EncryptionContext context) {
    if (context == null || !LOCAL_DISK.equals(context.getType())) {
      throw new ProviderException("asked for a key that is not for a local disk");
    }
    DataKeys.DataKey made = keys.generate();
    return new EncryptionMaterials(made.key).withDescriptions(made.description);
  }

  @Override
  public EncryptionMaterials getEncryptionMaterials(Map<String, String> description) {
    if (description == null) {
      throw new ProviderException("asked for the key of a disk without its description");
    }
    return new EncryptionMaterials(keys.open(description)).withDescriptions(description);
  }
}
