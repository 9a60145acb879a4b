package ringfence.emr;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.text.SimpleDateFormat;
import java.util.Base64;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.TimeZone;
import java.util.TreeMap;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * The signed request by which this instance's role proves itself to Vault (auth method `aws`, type `iam`).
 *
 * GetCallerIdentity is signed here (Signature Version 4) and sent by Vault, to the STS that Vault is configured with:
 * the regional one, in host and scope alike. The header X-Vault-AWS-IAM-Server-ID is signed too, always; without it a
 * captured login would do at another Vault. Credentials come from the instance metadata service, version 2 alone. The
 * SDK's signer is not used: which SDK is on the class path, and under which package name, changes with the release.
 */
final class AwsRole {
  private static final String BODY = "Action=GetCallerIdentity&Version=2011-06-15";
  private static final String METADATA = "/latest/meta-data/";
  private static final Pattern ROLE = Pattern.compile("[A-Za-z0-9+=,.@_-]{1,64}");
  private static final Pattern REGION = Pattern.compile("[a-z]{2}(-[a-z]+)+-[0-9]");

  private final Http http = new Http(null);
  private final String metadata;
  private final String region;
  private final String serverId;

  /** @param region null for the instance's own */
  AwsRole(String metadata, String region, String serverId) {
    this.metadata = metadata;
    this.region = region;
    this.serverId = serverId;
  }

  /** The fields `iam_*` of a login: a secret for a quarter of an hour. */
  Map<String, String> signedIdentity(long deadline) {
    String token = ask("PUT", "/latest/api/token",
        Collections.singletonMap("X-aws-ec2-metadata-token-ttl-seconds", "60"), deadline);
    Map<String, String> headers = Collections.singletonMap("X-aws-ec2-metadata-token", token);
    String where = METADATA + "iam/security-credentials/";
    String role = ask("GET", where, headers, deadline);
    if (!ROLE.matcher(role).matches()) {
      throw new ProviderException("this instance has no role: give the cluster an instance profile");
    }
    Map<String, Object> credentials;
    try {
      credentials = Json.parseObject(ask("GET", where + role, headers, deadline));
    } catch (IllegalArgumentException error) {
      throw noCredentials();
    }
    String ownRegion = region != null ? region : ask("GET", METADATA + "placement/region", headers, deadline);
    if (!REGION.matcher(ownRegion).matches()) {
      throw new ProviderException("the instance metadata names no region: set vault.aws.region");
    }
    return signed(text(credentials, "AccessKeyId"), text(credentials, "SecretAccessKey"), text(credentials, "Token"),
        ownRegion, new Date());
  }

  private String ask(String method, String path, Map<String, String> headers, long deadline) {
    String why;
    try {
      Http.Answer answer = http.send(method, metadata + path, headers, method.equals("PUT") ? "" : null, deadline);
      if (answer.status == 200) {
        return answer.text.trim();
      }
      why = "status " + answer.status;
    } catch (IOException error) {
      why = error.getClass().getSimpleName();
    }
    throw new ProviderException("the instance metadata service does not give " + path.substring(0, path.lastIndexOf('/'))
        + " (" + why + "): steps with runtime roles and containers beyond its hop limit do not reach it");
  }

  private static String text(Map<String, Object> credentials, String name) {
    Object value = credentials.get(name);
    if (!(value instanceof String)) {
      throw noCredentials();
    }
    return (String) value;
  }

  private static ProviderException noCredentials() {
    return new ProviderException("the instance metadata service gave no credentials of the instance's role");
  }

  private Map<String, String> signed(String keyId, String secret, String session, String where, Date now) {
    String moment = formatted("yyyyMMdd'T'HHmmss'Z'", now);
    String host = "sts." + where + (where.startsWith("cn-") ? ".amazonaws.com.cn" : ".amazonaws.com");
    TreeMap<String, String> headers = new TreeMap<String, String>();
    headers.put("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    headers.put("host", host);
    headers.put("x-amz-date", moment);
    headers.put("x-amz-security-token", session);
    headers.put("x-vault-aws-iam-server-id", serverId);
    StringBuilder lines = new StringBuilder();
    for (Map.Entry<String, String> header : headers.entrySet()) {
      lines.append(header.getKey()).append(':').append(header.getValue()).append('\n');
    }
    String names = String.join(";", headers.keySet());
    String scope = moment.substring(0, 8) + "/" + where + "/sts/aws4_request";
    String canonical = "POST\n/\n\n" + lines + "\n" + names + "\n" + hash(BODY);
    String toSign = "AWS4-HMAC-SHA256\n" + moment + "\n" + scope + "\n" + hash(canonical);
    byte[] key = ("AWS4" + secret).getBytes(StandardCharsets.UTF_8);
    for (String part : scope.split("/")) {
      key = mac(key, part);
    }
    headers.put("authorization", "AWS4-HMAC-SHA256 Credential=" + keyId + "/" + scope + ", SignedHeaders=" + names
        + ", Signature=" + hex(mac(key, toSign)));
    return fields("https://" + host + "/", headers);
  }

  private static Map<String, String> fields(String url, Map<String, String> headers) {
    StringBuilder json = new StringBuilder();
    for (Map.Entry<String, String> header : headers.entrySet()) {
      json.append(json.length() == 0 ? "{" : ",").append(Json.quoted(header.getKey())).append(":[")
          .append(Json.quoted(header.getValue())).append(']');
    }
    Map<String, String> fields = new LinkedHashMap<String, String>();
    fields.put("iam_http_request_method", "POST");
    fields.put("iam_request_url", encoded(url));
    fields.put("iam_request_body", encoded(BODY));
    fields.put("iam_request_headers", encoded(json.append('}').toString()));
    return fields;
  }

  private static String formatted(String form, Date moment) {
    SimpleDateFormat format = new SimpleDateFormat(form, Locale.ROOT);
    format.setTimeZone(TimeZone.getTimeZone("UTC"));
    return format.format(moment);
  }

  private static String encoded(String text) {
    return Base64.getEncoder().encodeToString(text.getBytes(StandardCharsets.UTF_8));
  }

  private static String hash(String text) {
    try {
      return hex(MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8)));
    } catch (GeneralSecurityException error) {
      throw new ProviderException("this Java has no SHA-256");
    }
  }

  private static byte[] mac(byte[] key, String text) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    } catch (GeneralSecurityException error) {
      throw new ProviderException("this Java has no HMAC-SHA-256");
    }
  }

  private static String hex(byte[] bytes) {
    StringBuilder hex = new StringBuilder();
    for (byte each : bytes) {
      hex.append(String.format("%02x", each));
    }
    return hex.toString();
  }
}
