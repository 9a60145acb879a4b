package ringfence.emr;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.util.List;
import java.util.Map;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

/**
 * One request over the JDK's own client. Certificates and host names are verified, redirects are not followed, proxies
 * of the environment are not used (they would see the token), and an answer has a size and a deadline. Whatever other
 * code of the process made the default for its connections has no effect on these.
 */
final class Http {
  private static final int MOST_BYTES = 1024 * 1024;
  private static final int CONNECT_MS = 5000;

  private final SSLSocketFactory sockets;

  /** @param authorities PEM certificates to verify servers with, or null for those that Java trusts */
  Http(String authorities) {
    this.sockets = socketsFor(authorities);
  }

  /** A status and a text, which may hold secrets. */
  static final class Answer {
    final int status;
    final String text;

    Answer(int status, String text) {
      this.status = status;
      this.text = text;
    }
  }

  /**
   * @param body JSON, or null for none
   * @param deadline of System.nanoTime()
   * @throws IOException when there is no answer, or none in time
   */
  Answer send(String method, String url, Map<String, String> headers, String body, long deadline) throws IOException {
    HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection(Proxy.NO_PROXY);
    final boolean[] isMisnamed = {false};
    try {
      if (connection instanceof HttpsURLConnection) {
        ((HttpsURLConnection) connection).setSSLSocketFactory(sockets);
        // Asked only about a certificate whose names do not fit.
        ((HttpsURLConnection) connection).setHostnameVerifier((name, session) -> {
          isMisnamed[0] = true;
          return false;
        });
      }
      int left = (int) Math.max(1, Math.min(CONNECT_MS, (deadline - System.nanoTime()) / 1000000));
      connection.setConnectTimeout(left);
      connection.setReadTimeout(left);
      connection.setInstanceFollowRedirects(false);
      connection.setUseCaches(false);
      connection.setRequestMethod(method);
      for (Map.Entry<String, String> header : headers.entrySet()) {
        connection.setRequestProperty(header.getKey(), header.getValue());
      }
      if (body != null) {
        byte[] content = body.getBytes(StandardCharsets.UTF_8);
        connection.setDoOutput(true);
        connection.setFixedLengthStreamingMode(content.length);
        try (OutputStream stream = connection.getOutputStream()) {
          stream.write(content);
        }
      }
      return read(connection, deadline);
    } catch (IOException error) {
      if (isMisnamed[0]) {
        throw new SSLPeerUnverifiedException("a certificate for other names");
      }
      throw error;
    } finally {
      connection.disconnect();
    }
  }

  private static Answer read(HttpURLConnection connection, long deadline) throws IOException {
    int status = connection.getResponseCode();
    try (InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
      byte[] content = stream == null ? new byte[0] : Bounded.read(stream, MOST_BYTES, deadline);
      return new Answer(status, new String(content, StandardCharsets.UTF_8));
    }
  }

  private static SSLSocketFactory socketsFor(String authorities) {
    try {
      KeyStore trusted = null;
      if (authorities != null) {
        List<Certificate> certificates = Pem.certificates(authorities, "vault.ca-file");
        trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        for (int number = 0; number < certificates.size(); number++) {
          trusted.setCertificateEntry("ca" + number, certificates.get(number));
        }
      }
      TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
      trust.init(trusted);
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(null, trust.getTrustManagers(), null);
      return context.getSocketFactory();
    } catch (GeneralSecurityException | IOException error) {
      throw new ProviderException("vault.ca-file is of no use (" + error.getClass().getSimpleName() + ")");
    }
  }
}
