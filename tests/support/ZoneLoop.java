import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * Writes small files into a zone and reads each one and the first one back, until a local file is there:
 * `ZONE STOP-FILE`. Prints `ok COUNT` for each round and ends with 1 at the first failure, with its stack on stderr.
 *
 * The KMS client is Hadoop's own, told to try again for as long as an exchange of the KMS may take.
 */
public class ZoneLoop {
  public static void main(String[] arguments) throws Exception {
    Configuration configuration = new Configuration();
    configuration.setInt("hadoop.security.kms.client.failover.max.retries", 60);
    configuration.setInt("hadoop.security.kms.client.failover.sleep.max.millis", 1000);
    // Each round asks the KMS: no file is read with a key from the round before.
    FileSystem fileSystem = FileSystem.get(configuration);
    for (int count = 0; !Files.exists(Paths.get(arguments[1])); count++) {
      Path path = new Path(arguments[0], "loop-" + count);
      byte[] content = ("round " + count + "\n").getBytes(StandardCharsets.UTF_8);
      try (FSDataOutputStream output = fileSystem.create(path, false)) {
        output.write(content);
      }
      expect(fileSystem, path, content);
      expect(fileSystem, new Path(arguments[0], "loop-0"), "round 0\n".getBytes(StandardCharsets.UTF_8));
      System.out.println("ok " + count);
    }
  }

  private static void expect(FileSystem fileSystem, Path path, byte[] content) throws Exception {
    byte[] found = new byte[content.length];
    try (FSDataInputStream input = fileSystem.open(path)) {
      input.readFully(found);
    }
    if (!java.util.Arrays.equals(found, content)) {
      throw new IllegalStateException(path + " holds other bytes than were written");
    }
  }
}
