import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;

/** Asks as Hadoop's client does, through HttpURLConnection: arguments are a base URL and the number of rounds. */
public final class ReuseClient {
    private static final String[][] REQUESTS = {
        {"OPTIONS", "/kms/v1/?op=GETDELEGATIONTOKEN"}, {"GET", "/forbidden"}, {"GET", "/slow"}, {"DELETE", "/empty"},
        {"POST", "/kms/v1/keyversion/k%401%400/_eek?eek_op=decrypt"}, {"GET", "/broken"}, {"GET", "/large?100000"},
    };

    public static void main(String[] arguments) throws Exception {
        for (int round = 0; round < Integer.parseInt(arguments[1]); round++) {
            for (String[] request : REQUESTS) {
                HttpURLConnection connection =
                    (HttpURLConnection) new URL(arguments[0] + request[1]).openConnection();
                connection.setRequestMethod(request[0]);
                if (request[0].equals("POST")) {
                    connection.setDoOutput(true);
                    connection.getOutputStream().write("{\"name\":\"k\"}".getBytes("UTF-8"));
                }
                System.out.println(connection.getResponseCode() + " " + connection.getResponseMessage());
                InputStream body = connection.getResponseCode() < 400
                    ? connection.getInputStream() : connection.getErrorStream();
                if (body != null) {
                    body.readAllBytes();
                    body.close();
                }
            }
        }
    }
}
