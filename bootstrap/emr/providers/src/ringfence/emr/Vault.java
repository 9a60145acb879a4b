package ringfence.emr;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLException;

/**
 * Vault or OpenBao, as one who has a role there: reads a secret, makes and opens data keys.
 *
 * While a node starts the network may come late, so what is down, sealed, throttled or without an active node is asked
 * again, each address in turn, until the deadline (30 s); a refusal is not. A token is taken by a login once and used
 * until two thirds of its time are over; a 403 means one new login, since it may have been revoked. Nothing
 * that Vault answers stands in a message: even an error's text can hold plaintext.
 */
final class Vault {
  private static final long LONGEST_PAUSE_MS = 2000;

  private final Http http;
  private final List<String> addresses;
  private final String namespace;
  private final Settings settings;
  private final int deadlineSeconds;
  private final boolean isTokenFile;
  private String token;
  private long tokenGoodUntil;

  Vault(Settings settings) {
    this.settings = settings;
    this.http = new Http(settings.findAuthorities());
    this.addresses = settings.addresses();
    this.namespace = settings.findNamespace();
    this.deadlineSeconds = settings.seconds("vault.deadline-s", 30, 600);
    this.isTokenFile = settings.choice("vault.login", "aws", "token-file").equals("token-file");
    if (isTokenFile) {
      settings.token();
    } else {
      settings.word("vault.aws.role");
      settings.serverId();
      settings.findRegion();
      settings.metadataAddress();
    }
  }

  /** `data` of the answer to a GET of `path`. */
  Map<String, Object> read(String path) {
    return ask("GET", path, null);
  }

  /** `data` of the answer to a POST; `body` is JSON. */
  Map<String, Object> write(String path, String body) {
    return ask("POST", path, body);
  }

  /** Threads share a token and wait for one login; beyond that none waits for another's answer. */
  private Map<String, Object> ask(String method, String path, String body) {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(deadlineSeconds);
    String used = tokenOtherThan(null, deadline);
    Http.Answer answer = send(method, path, used, body, deadline);
    if (answer.status == 403) {
      String other = tokenOtherThan(used, deadline);
      // The file's may be the same: then the answer would be too.
      answer = other.equals(used) ? answer : send(method, path, other, body, deadline);
    }
    if (answer.status != 200) {
      throw refused(method, path, answer.status);
    }
    return member(answer, "data", path);
  }

  /** @param refused a token that Vault refused, or null: the present one then does, until its time is over */
  private synchronized String tokenOtherThan(String refused, long deadline) {
    if (token == null || token.equals(refused) || System.nanoTime() - tokenGoodUntil > 0) {
      token = null;
      logIn(deadline);
    }
    return token;
  }

  private void logIn(long deadline) {
    if (isTokenFile) {
      // Read each time: whoever renews it (a Vault Agent) writes it anew.
      token = settings.token();
      tokenGoodUntil = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
      return;
    }
    Map<String, String> fields = new AwsRole(settings.metadataAddress(), settings.findRegion(), settings.serverId())
        .signedIdentity(deadline);
    fields.put("role", settings.word("vault.aws.role"));
    StringBuilder body = new StringBuilder();
    for (Map.Entry<String, String> field : fields.entrySet()) {
      body.append(body.length() == 0 ? "{" : ",").append(Json.quoted(field.getKey())).append(':')
          .append(Json.quoted(field.getValue()));
    }
    String path = "auth/" + settings.vaultPath("vault.aws.mount", "aws") + "/login";
    Http.Answer answer = send("POST", path, null, body.append('}').toString(), deadline);
    if (answer.status != 200) {
      throw refused("POST", path, answer.status);
    }
    Map<String, Object> auth = member(answer, "auth", path);
    Object lease = auth.get("lease_duration");
    Object given = auth.get("client_token");
    if (!(lease instanceof Double) || !(given instanceof String)) {
      throw unreadable(path);
    }
    // 0 is a token without an end.
    long seconds = ((Double) lease).longValue() == 0 ? 3600 : ((Double) lease).longValue() * 2 / 3;
    tokenGoodUntil = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
    token = (String) given;
  }

  /** The first answer that says something of the request itself. */
  private Http.Answer send(String method, String path, String withToken, String body, long deadline) {
    Map<String, String> headers = new HashMap<String, String>();
    headers.put("X-Vault-Request", "true");
    headers.put("Content-Type", "application/json");
    if (withToken != null) {
      headers.put("X-Vault-Token", withToken);
    }
    if (namespace != null) {
      headers.put("X-Vault-Namespace", namespace);
    }
    String why = "no answer";
    for (long pause = 100; System.nanoTime() - deadline < 0; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      for (String address : addresses) {
        try {
          Http.Answer answer = http.send(method, address + "/v1/" + path, headers, body, deadline);
          if (answer.status != 429 && answer.status < 472) {
            return answer;
          }
          why = address + " answered " + answer.status;
        } catch (SSLException error) {
          // Waiting makes no certificate good.
          throw new ProviderException(address + " cannot be trusted (" + error.getClass().getSimpleName()
              + "): look at vault.ca-file and the names and dates of its certificate");
        } catch (IOException error) {
          why = address + ": " + error.getClass().getSimpleName();
        }
      }
      pause(Math.min(pause, Math.max(1, (deadline - System.nanoTime()) / 1000000)));
    }
    throw new ProviderException("Vault did not serve " + path + " within " + deadlineSeconds + " s (last: " + why + ")");
  }

  private static void pause(long milliseconds) {
    try {
      Thread.sleep(milliseconds);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new ProviderException("interrupted while waiting for Vault");
    }
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> member(Http.Answer answer, String name, String path) {
    try {
      Object member = Json.parseObject(answer.text).get(name);
      if (member instanceof Map) {
        return (Map<String, Object>) member;
      }
    } catch (IllegalArgumentException error) {
      // Told below.
    }
    throw unreadable(path);
  }

  static ProviderException unreadable(String path) {
    return new ProviderException("Vault's answer to " + path + " is not what it should be");
  }

  private static ProviderException refused(String method, String path, int status) {
    String why = status == 403 ? "its policy for this role or token does not allow it"
        : status == 404 ? "there is nothing" : "it refuses the request";
    return new ProviderException("Vault answered " + status + " to " + method + " " + path + ": " + why);
  }
}
