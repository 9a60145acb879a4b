package ringfence.emr;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Reading to the end of something that has no right to be large or slow. */
final class Bounded {
  private Bounded() {}

  /**
   * @param deadline of System.nanoTime(), or Long.MAX_VALUE: a server that sends a byte now and then meets it too
   * @throws IOException also when there is more than `most`, or it takes longer
   */
  static byte[] read(InputStream stream, int most, long deadline) throws IOException {
    ByteArrayOutputStream read = new ByteArrayOutputStream();
    byte[] block = new byte[8192];
    for (int count = stream.read(block); count >= 0; count = stream.read(block)) {
      read.write(block, 0, count);
      if (read.size() > most) {
        throw new IOException("more than " + most + " bytes");
      }
      if (deadline != Long.MAX_VALUE && System.nanoTime() - deadline > 0) {
        throw new IOException("too slow");
      }
    }
    return read.toByteArray();
  }
}
