package ringfence.emr;

import java.io.ByteArrayInputStream;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** PEM (RFC 7468): certificates, and private keys in PKCS#8 without a passphrase, which EMR cannot ask for. */
final class Pem {
  private static final Pattern BLOCK =
      Pattern.compile("-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\\s]+)-----END \\1-----");

  private Pem() {}

  /** At least one, in the order of the text. */
  static List<Certificate> certificates(String text, String name) {
    List<Certificate> certificates = new ArrayList<Certificate>();
    Matcher block = BLOCK.matcher(text);
    while (block.find()) {
      if (!block.group(1).equals("CERTIFICATE")) {
        throw new ProviderException(name + " holds something that is not a certificate");
      }
      try {
        certificates.add(CertificateFactory.getInstance("X.509")
            .generateCertificate(new ByteArrayInputStream(Base64.getMimeDecoder().decode(block.group(2)))));
      } catch (CertificateException | IllegalArgumentException error) {
        throw new ProviderException("certificate " + (certificates.size() + 1) + " of " + name + " cannot be read");
      }
    }
    if (certificates.isEmpty()) {
      throw new ProviderException(name + " holds no certificate in PEM");
    }
    return certificates;
  }

  /** The key that belongs to `certificate`. */
  static PrivateKey privateKey(String text, Certificate certificate, String name) {
    Matcher block = BLOCK.matcher(text);
    if (!block.find() || !block.group(1).equals("PRIVATE KEY")) {
      throw new ProviderException(name + " is not a private key in PKCS#8 without a passphrase: "
          + "openssl pkcs8 -topk8 -nocrypt -in KEY -out privateKey.pem");
    }
    PublicKey publicKey = certificate.getPublicKey();
    try {
      byte[] encoded = Base64.getMimeDecoder().decode(block.group(2));
      PrivateKey key = KeyFactory.getInstance(publicKey.getAlgorithm()).generatePrivate(new PKCS8EncodedKeySpec(encoded));
      if (areOnePair(key, publicKey)) {
        return key;
      }
    } catch (GeneralSecurityException | IllegalArgumentException error) {
      throw new ProviderException(name + " is not a key of the certificate's kind, " + publicKey.getAlgorithm());
    }
    throw new ProviderException(name + " does not belong to the first certificate of the chain");
  }

  private static boolean areOnePair(PrivateKey key, PublicKey publicKey) throws GeneralSecurityException {
    Signature signature = Signature.getInstance(publicKey instanceof RSAPublicKey ? "SHA256withRSA" : "SHA256withECDSA");
    byte[] proof = new byte[32];
    new SecureRandom().nextBytes(proof);
    signature.initSign(key);
    signature.update(proof);
    byte[] signed = signature.sign();
    signature.initVerify(publicKey);
    signature.update(proof);
    return signature.verify(signed);
  }

  /** Each signed by the next, all of them good today. */
  static void checkChain(List<Certificate> chain, String name) {
    for (int number = 0; number < chain.size(); number++) {
      try {
        ((X509Certificate) chain.get(number)).checkValidity();
        if (number + 1 < chain.size()) {
          chain.get(number).verify(chain.get(number + 1).getPublicKey());
        }
      } catch (CertificateException error) {
        throw new ProviderException("certificate " + (number + 1) + " of " + name + " is not valid today");
      } catch (GeneralSecurityException error) {
        throw new ProviderException("certificate " + (number + 1) + " of " + name + " is not signed by the one after it");
      }
    }
  }
}
