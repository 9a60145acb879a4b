package ringfence.emr;

import com.amazonaws.services.elasticmapreduce.spi.security.TLSArtifacts;
import com.amazonaws.services.elasticmapreduce.spi.security.TLSArtifactsProvider;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.util.List;
import java.util.Map;

/**
 * `CertificateProviderClass`: private key and certificates from one secret of Vault's KV version 2, whose fields are
 * called as the files of EMR's own zip: privateKey.pem, certificateChain.pem and, optional, trustedCertificates.pem.
 *
 * EMR asks once, while a node starts. What does not fit together, or is not valid today, is refused here and now: EMR
 * itself would find out when services fail to start.
 */
public final class VaultTlsArtifactsProvider extends TLSArtifactsProvider {
  private static final String KEY = "privateKey.pem";
  private static final String CHAIN = "certificateChain.pem";
  private static final String TRUSTED = "trustedCertificates.pem";

  private final Vault vault;
  private final String path;

  public VaultTlsArtifactsProvider() {
    Settings settings = Settings.load(null);
    this.vault = new Vault(settings);
    this.path = settings.vaultPath("tls.mount", "kv") + "/data/" + settings.vaultPath("tls.path", null);
  }

  @Override
  public TLSArtifacts getTlsArtifacts() {
    Object secret = vault.read(path).get("data");
    if (!(secret instanceof Map)) {
      throw new ProviderException("there is no secret at " + path + ", or it is deleted");
    }
    Map<?, ?> fields = (Map<?, ?>) secret;
    List<Certificate> chain = Pem.certificates(text(fields, CHAIN), CHAIN + " at " + path);
    Pem.checkChain(chain, CHAIN + " at " + path);
    PrivateKey key = Pem.privateKey(text(fields, KEY), chain.get(0), KEY + " at " + path);
    if (!fields.containsKey(TRUSTED)) {
      return new TLSArtifacts(key, chain);
    }
    return new TLSArtifacts(key, chain, Pem.certificates(text(fields, TRUSTED), TRUSTED + " at " + path));
  }

  private String text(Map<?, ?> fields, String name) {
    Object text = fields.get(name);
    if (!(text instanceof String)) {
      throw new ProviderException("the secret at " + path + " has no " + name);
    }
    return (String) text;
  }
}
