import com.amazonaws.ClientConfiguration;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.elasticmapreduce.spi.security.EncryptionContext;
import com.amazonaws.services.elasticmapreduce.spi.security.TLSArtifacts;
import com.amazonaws.services.elasticmapreduce.spi.security.TLSArtifactsProvider;
import com.amazonaws.services.s3.AmazonS3;
import com.amazonaws.services.s3.AmazonS3EncryptionClient;
import com.amazonaws.services.s3.AmazonS3EncryptionClientV2;
import com.amazonaws.services.s3.model.CryptoConfiguration;
import com.amazonaws.services.s3.model.CryptoConfigurationV2;
import com.amazonaws.services.s3.model.CryptoMode;
import com.amazonaws.services.s3.model.EncryptedPutObjectRequest;
import com.amazonaws.services.s3.model.EncryptionMaterials;
import com.amazonaws.services.s3.model.EncryptionMaterialsProvider;
import com.amazonaws.services.s3.model.ObjectMetadata;
import com.amazonaws.services.s3.model.StaticEncryptionMaterialsProvider;
import com.amazonaws.util.IOUtils;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.net.URLClassLoader;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.SecretKey;
import javax.crypto.spec.SecretKeySpec;
import javax.net.ssl.HostnameVerifier;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;
import org.apache.hadoop.conf.Configurable;
import org.apache.hadoop.conf.Configuration;

/**
 * Calls custom providers as EMR does: loads the class by its name from a jar, with the SDK on the class path, makes it
 * with its constructor without arguments, and asks. The S3 ones are also put into the SDK's own encryption clients.
 *
 * An order is a line of words, each URL-encoded, the answer a line: `ok NAME=VALUE...` or `error CLASS MESSAGE`.
 */
public class EmrProviders {
  private static final Map<String, Object> providers = new HashMap<>();
  private static final Map<String, Stored> bucket = new ConcurrentHashMap<>();

  private static final HostnameVerifier CAREFUL = HttpsURLConnection.getDefaultHostnameVerifier();

  record Stored(byte[] body, Map<String, String> metadata) {}

  public static void main(String[] arguments) throws Exception {
    // The second generation of the client looks for a region although it has an endpoint.
    System.setProperty("aws.region", "us-east-1");
    String endpoint = serveS3();
    BufferedReader orders = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    System.out.println("ok");
    for (String line = orders.readLine(); line != null; line = orders.readLine()) {
      String[] words = line.split(" ", -1);
      for (int index = 0; index < words.length; index++) {
        words[index] = URLDecoder.decode(words[index], StandardCharsets.UTF_8);
      }
      String answer;
      try {
        StringBuilder told = new StringBuilder("ok");
        obey(words, endpoint).forEach((name, value) -> told.append(' ').append(encoded(name + "=" + value)));
        answer = told.toString();
      } catch (Throwable error) {
        Throwable cause = error instanceof java.lang.reflect.InvocationTargetException ? error.getCause() : error;
        StringBuilder all = new StringBuilder();
        for (Throwable each = cause; each != null; each = each.getCause()) {
          all.append(all.length() == 0 ? "" : " <- ").append(each.getMessage());
        }
        answer = "error " + encoded(cause.getClass().getName()) + " " + encoded(all.toString());
      }
      System.out.println(answer);
    }
  }

  private static String encoded(String text) {
    return URLEncoder.encode(text, StandardCharsets.UTF_8);
  }

  private static Map<String, String> obey(String[] words, String endpoint) throws Exception {
    Map<String, String> told = new TreeMap<>();
    switch (words[0]) {
      case "make" -> {
        // NAME JAR CLASS [SETTINGS]
        if (words.length > 4) {
          System.setProperty("ringfence.providers.properties", words[4]);
        } else {
          System.clearProperty("ringfence.providers.properties");
        }
        URLClassLoader loader = new URLClassLoader(new URL[] {new File(words[2]).toURI().toURL()});
        providers.put(words[1], Class.forName(words[3], true, loader).getConstructor().newInstance());
      }
      case "make-alone" -> {
        // CLASS SETTINGS JAR...: with the JDK and these jars and nothing else on the class path
        System.setProperty("ringfence.providers.properties", words[2]);
        URL[] jars = new URL[words.length - 3];
        for (int index = 0; index < jars.length; index++) {
          jars[index] = new File(words[index + 3]).toURI().toURL();
        }
        try (URLClassLoader loader = new URLClassLoader(jars, ClassLoader.getPlatformClassLoader())) {
          Class.forName(words[1], true, loader).getConstructor().newInstance();
        }
      }
      case "make-fixed" ->
        // NAME ALGORITHM: one that always gives the same key, by that name
        providers.put(words[1], new StaticEncryptionMaterialsProvider(
            new EncryptionMaterials(new SecretKeySpec(new byte[32], words[2]))));
      case "trust" -> {
        // all|few: what careless code in the same process does to every connection's defaults
        boolean all = words[1].equals("all");
        HttpsURLConnection.setDefaultHostnameVerifier(all ? (name, session) -> true : CAREFUL);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, all ? new TrustManager[] {new TrustsAll()} : null, null);
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
      }
      case "configure" -> {
        // NAME SETTING VALUE: as Hadoop does with what is Configurable
        Configuration configuration = new Configuration(false);
        configuration.set(words[2], words[3]);
        ((Configurable) providers.get(words[1])).setConf(configuration);
      }
      case "tls" -> {
        TLSArtifacts artifacts = ((TLSArtifactsProvider) providers.get(words[1])).getTlsArtifacts();
        told.put("key", base64(artifacts.getPrivateKey().getEncoded()));
        told.put("chain", String.valueOf(artifacts.getCertificateChain().size()));
        told.put("leaf", base64(artifacts.getCertificateChain().get(0).getEncoded()));
        told.put("trusted", artifacts.getTrustedCertificates() == null ? "null"
            : base64(artifacts.getTrustedCertificates().get(0).getEncoded()));
      }
      case "disk-new" -> tellDisk(told, disk(words[1]).getEncryptionMaterials(
          new EncryptionContext(words[2]).withContext("volume", "/dev/nvme1n1")));
      case "disk-again" -> tellDisk(told, disk(words[1]).getEncryptionMaterials(description(words)));
      case "s3-new" -> tell(told, s3(words[1]).getEncryptionMaterials());
      case "s3-described" -> tell(told, s3(words[1]).getEncryptionMaterials(description(words)));
      case "refresh" -> s3(words[1]).refresh();
      case "put" -> put(client(words[3], s3(words[1]), endpoint), words[2], words[4], words.length > 5, told);
      case "get" -> told.put("text", IOUtils.toString(client(words[3], s3(words[1]), endpoint)
          .getObject("bucket", words[2]).getObjectContent()));
      default -> throw new IllegalArgumentException(words[0]);
    }
    return told;
  }

  private static com.amazonaws.services.elasticmapreduce.spi.security.EncryptionMaterialsProvider disk(String name) {
    return (com.amazonaws.services.elasticmapreduce.spi.security.EncryptionMaterialsProvider) providers.get(name);
  }

  private static EncryptionMaterialsProvider s3(String name) {
    return (EncryptionMaterialsProvider) providers.get(name);
  }

  /** From the third word on, NAME=VALUE; the one word `null` for null. */
  private static Map<String, String> description(String[] words) {
    if (words.length == 3 && words[2].equals("null")) {
      return null;
    }
    Map<String, String> description = new HashMap<>();
    for (int index = 2; index < words.length; index++) {
      String[] pair = words[index].split("=", 2);
      description.put(pair[0], pair[1]);
    }
    return description;
  }

  private static void tellDisk(Map<String, String> told,
      com.amazonaws.services.elasticmapreduce.spi.security.EncryptionMaterials materials) {
    tellKey(told, materials.getSymmetricKey(), materials.getMaterialsDescription());
  }

  private static void tell(Map<String, String> told, EncryptionMaterials materials) {
    tellKey(told, materials.getSymmetricKey(), materials.getMaterialsDescription());
  }

  private static void tellKey(Map<String, String> told, SecretKey key, Map<String, String> description) {
    told.put("key", base64(key.getEncoded()));
    told.put("algorithm", key.getAlgorithm());
    description.forEach((name, value) -> told.put("description." + name, value));
  }

  private static final class TrustsAll implements X509TrustManager {
    @Override
    public void checkClientTrusted(X509Certificate[] chain, String kind) {}

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String kind) {}

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return new X509Certificate[0];
    }
  }

  private static String base64(byte[] bytes) {
    return Base64.getEncoder().encodeToString(bytes);
  }

  // -- S3, as much as its client needs for an object

  private static AmazonS3 client(String kind, EncryptionMaterialsProvider materials, String endpoint) {
    ClientConfiguration patience = new ClientConfiguration().withMaxErrorRetry(0);
    AWSStaticCredentialsProvider credentials =
        new AWSStaticCredentialsProvider(new BasicAWSCredentials("AKIAEXAMPLE", "secret"));
    EndpointConfiguration where = new EndpointConfiguration(endpoint, "us-east-1");
    if (kind.equals("V2")) {
      return AmazonS3EncryptionClientV2.encryptionBuilder().withClientConfiguration(patience)
          .withCredentials(credentials).withEndpointConfiguration(where).withPathStyleAccessEnabled(true)
          .withEncryptionMaterialsProvider(materials).withCryptoConfiguration(new CryptoConfigurationV2()).build();
    }
    return AmazonS3EncryptionClient.encryptionBuilder().withClientConfiguration(patience).withCredentials(credentials)
        .withEndpointConfiguration(where).withPathStyleAccessEnabled(true).withEncryptionMaterials(materials)
        .withCryptoConfiguration(new CryptoConfiguration(CryptoMode.valueOf(kind))).build();
  }

  private static void put(AmazonS3 client, String name, String text, boolean isDescribed, Map<String, String> told) {
    byte[] content = text.getBytes(StandardCharsets.UTF_8);
    ObjectMetadata metadata = new ObjectMetadata();
    metadata.setContentLength(content.length);
    EncryptedPutObjectRequest request =
        new EncryptedPutObjectRequest("bucket", name, new ByteArrayInputStream(content), metadata);
    if (isDescribed) {
      request.setMaterialsDescription(Map.of("S3URI", "s3://bucket/" + name, "JobFlowId", "j-ABCDEFGHIJKL"));
    }
    client.putObject(request);
    Stored stored = bucket.get(name);
    told.put("stored", base64(stored.body()));
    stored.metadata().forEach((header, value) -> told.put("metadata." + header, value));
  }

  private static String serveS3() throws IOException {
    HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    server.createContext("/", EmrProviders::serve);
    server.start();
    Thread ender = new Thread(() -> server.stop(0));
    Runtime.getRuntime().addShutdownHook(ender);
    return "http://127.0.0.1:" + server.getAddress().getPort();
  }

  private static void serve(HttpExchange exchange) throws IOException {
    try (exchange) {
      String name = exchange.getRequestURI().getPath().substring("/bucket/".length());
      if (exchange.getRequestMethod().equals("PUT")) {
        Map<String, String> metadata = new TreeMap<>();
        exchange.getRequestHeaders().forEach((header, values) -> {
          if (header.toLowerCase().startsWith("x-amz-meta-")) {
            metadata.put(header.toLowerCase(), values.get(0));
          }
        });
        byte[] body = unchunked(exchange);
        bucket.put(name, new Stored(body, metadata));
        exchange.getResponseHeaders().set("ETag", "\"" + md5(body) + "\"");
        exchange.sendResponseHeaders(200, -1);
        return;
      }
      Stored stored = bucket.get(name);
      if (stored == null) {
        exchange.sendResponseHeaders(404, -1);
        return;
      }
      stored.metadata().forEach((header, value) -> exchange.getResponseHeaders().set(header, value));
      exchange.getResponseHeaders().set("ETag", "\"" + md5(stored.body()) + "\"");
      exchange.sendResponseHeaders(200, stored.body().length);
      exchange.getResponseBody().write(stored.body());
    }
  }

  /** The SDK signs a body in chunks: `SIZE;chunk-signature=...`, the bytes, and so on until a chunk of none. */
  private static byte[] unchunked(HttpExchange exchange) throws IOException {
    byte[] sent = exchange.getRequestBody().readAllBytes();
    String content = exchange.getRequestHeaders().getFirst("x-amz-content-sha256");
    if (content == null || !content.startsWith("STREAMING-")) {
      return sent;
    }
    java.io.ByteArrayOutputStream body = new java.io.ByteArrayOutputStream();
    String text = new String(sent, StandardCharsets.ISO_8859_1);
    for (int place = 0;;) {
      int end = text.indexOf("\r\n", place);
      int size = Integer.parseInt(text.substring(place, end).split(";")[0], 16);
      if (size == 0) {
        return body.toByteArray();
      }
      body.write(sent, end + 2, size);
      place = end + 2 + size + 2;
    }
  }

  private static String md5(byte[] body) throws IOException {
    try {
      return String.format("%032x",
          new java.math.BigInteger(1, java.security.MessageDigest.getInstance("MD5").digest(body)));
    } catch (java.security.NoSuchAlgorithmException error) {
      throw new IOException(error);
    }
  }
}
