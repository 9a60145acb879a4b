package ringfence.emr;

/**
 * Why a provider gives nothing: a sentence and what to do. EMR writes it into a log that many may read, so no message
 * holds what a server answered, what a file held, or a cause that might; a cause is named by its class alone.
 */
public final class ProviderException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  ProviderException(String message) {
    super("ringfence: " + message);
  }
}
