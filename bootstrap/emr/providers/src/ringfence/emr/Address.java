package ringfence.emr;

import java.net.URI;
import java.net.URISyntaxException;

/** Where a server is: https, or http on this machine alone (a Vault Agent there). No path, no credentials. */
final class Address {
  private Address() {}

  static String checked(String address, String setting) {
    String plain = withoutPath(address, setting);
    URI uri = URI.create(plain);
    if (!uri.getScheme().equals("https") && !isLoopback(uri.getHost())) {
      throw new ProviderException(setting + ": " + plain + " is not https, and not on this machine");
    }
    return plain;
  }

  static String withoutPath(String address, String setting) {
    try {
      URI uri = new URI(address);
      String path = uri.getRawPath();
      boolean isHttp = "https".equals(uri.getScheme()) || "http".equals(uri.getScheme());
      boolean isBare = (path == null || path.isEmpty() || path.equals("/")) && uri.getRawQuery() == null
          && uri.getRawFragment() == null && uri.getRawUserInfo() == null;
      if (isHttp && isBare && uri.getHost() != null) {
        return uri.getScheme() + "://" + uri.getRawAuthority();
      }
    } catch (URISyntaxException error) {
      // Told below, without the text: it could hold credentials.
    }
    throw new ProviderException(setting + " is not an address like https://vault1.example.com:8200");
  }

  /** By its text: a name could be anybody's. */
  private static boolean isLoopback(String host) {
    return host.equals("localhost") || host.equals("127.0.0.1") || host.equals("[::1]");
  }
}
