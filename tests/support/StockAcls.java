package org.apache.hadoop.crypto.key.kms.server;

import java.io.File;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.security.Groups;
import org.apache.hadoop.security.UserGroupInformation;

/**
 * What Hadoop's own KMS decides: reads each `kms-acls.xml` of a directory of cases and prints a line of 0 and 1.
 *
 * Arguments: the directory. `subjects` in it holds `user<TAB>group,group<TAB>real user`, `keys` one ACL name a line;
 * each sub-directory, by name, is a case. A line is `CASE<TAB>ANSWERS`; the answers go by subject, then the operations
 * of KMSACLs.Type, then by key those of KeyOpType, then whether a key of that name may be created. `refused` instead
 * of answers: the KMS would not start. A file `mappings`, when there is one, holds static group mappings, one a line
 * with `\n` for a line end; each gives a line `mapping<TAB>user=group,group;...` for the users named, or `refused`.
 *
 * It lives in Hadoop's package because what it asks is not public there.
 */
public final class StockAcls {
  private static Method checkAccess;
  private static Method authorizeCreateKey;

  public static void main(String[] arguments) throws Exception {
    File root = new File(arguments[0]);
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    Configuration conf = new Configuration(false);
    conf.set("hadoop.security.group.mapping", "org.apache.hadoop.security.NullGroupsMapping");
    UserGroupInformation.setConfiguration(conf);
    prepare(conf);
    KeyProviderCryptoExtension provider = KeyProviderCryptoExtension.createKeyProviderCryptoExtension(
        KeyProviderFactory.get(new URI("user:///"), conf));
    List<UserGroupInformation> subjects = subjects(lines(root, "subjects"));
    List<String> keys = lines(root, "keys");
    File[] cases = root.listFiles(File::isDirectory);
    Arrays.sort(cases);
    for (File one : cases) {
      out.println(one.getName() + "\t" + answers(one, provider, conf, subjects, keys));
    }
    if (new File(root, "mappings").exists()) {
      for (String mapping : lines(root, "mappings")) {
        out.println("mapping\t" + groups(mapping.replace("\\n", "\n"), lines(root, "users")));
      }
    }
    System.exit(0);
  }

  private static void prepare(Configuration conf) throws Exception {
    Field audit = KMSWebApp.class.getDeclaredField("kmsAudit");
    audit.setAccessible(true);
    audit.set(null, new KMSAudit(conf));
    checkAccess = KeyAuthorizationKeyProvider.class.getDeclaredMethod(
        "checkAccess", String.class, UserGroupInformation.class, KeyAuthorizationKeyProvider.KeyOpType.class);
    authorizeCreateKey = KeyAuthorizationKeyProvider.class.getDeclaredMethod(
        "authorizeCreateKey", String.class, KeyProvider.Options.class, UserGroupInformation.class);
    checkAccess.setAccessible(true);
    authorizeCreateKey.setAccessible(true);
  }

  private static List<UserGroupInformation> subjects(List<String> lines) {
    List<UserGroupInformation> subjects = new ArrayList<>();
    for (String line : lines) {
      String[] fields = line.split("\t", -1);
      String[] groups = fields[1].isEmpty() ? new String[0] : fields[1].split(",");
      subjects.add(fields[2].isEmpty()
          ? UserGroupInformation.createUserForTesting(fields[0], groups)
          : UserGroupInformation.createProxyUserForTesting(
              fields[0], UserGroupInformation.createRemoteUser(fields[2]), groups));
    }
    return subjects;
  }

  private static String answers(File directory, KeyProviderCryptoExtension provider, Configuration conf,
      List<UserGroupInformation> subjects, List<String> keys) throws Exception {
    System.setProperty("kms.config.dir", directory.getAbsolutePath());
    KMSACLs acls;
    try {
      acls = new KMSACLs();
    } catch (RuntimeException refused) {
      return "refused";
    }
    KeyAuthorizationKeyProvider authorizing = new KeyAuthorizationKeyProvider(provider, acls);
    StringBuilder answers = new StringBuilder();
    for (UserGroupInformation subject : subjects) {
      for (KMSACLs.Type operation : KMSACLs.Type.values()) {
        answers.append(acls.hasAccess(operation, subject) ? '1' : '0');
      }
      for (String key : keys) {
        for (KeyAuthorizationKeyProvider.KeyOpType operation : KeyAuthorizationKeyProvider.KeyOpType.values()) {
          answers.append(passes(checkAccess, authorizing, key, subject, operation));
        }
        answers.append(passes(authorizeCreateKey, authorizing, key, new KeyProvider.Options(conf), subject));
      }
    }
    return answers.toString();
  }

  private static char passes(Method check, Object target, Object... arguments) throws Exception {
    try {
      check.invoke(target, arguments);
      return '1';
    } catch (InvocationTargetException refused) {
      if (refused.getCause() instanceof org.apache.hadoop.security.authorize.AuthorizationException) {
        return '0';
      }
      throw refused;
    }
  }

  private static String groups(String mapping, List<String> users) {
    Configuration conf = new Configuration(false);
    conf.set("hadoop.security.group.mapping", "org.apache.hadoop.security.NullGroupsMapping");
    conf.set("hadoop.user.group.static.mapping.overrides", mapping);
    Groups resolver;
    try {
      resolver = new Groups(conf);
    } catch (IllegalArgumentException refused) {
      return "refused";
    }
    Map<String, String> found = new HashMap<>();
    for (String user : users) {
      try {
        found.put(user, String.join(",", new TreeSet<>(resolver.getGroupsSet(user))));
      } catch (java.io.IOException none) {
        found.put(user, "-");
      }
    }
    StringBuilder text = new StringBuilder();
    for (String user : users) {
      text.append(user).append('=').append(found.get(user)).append(';');
    }
    return text.toString().replace("\n", "\\n");
  }

  private static List<String> lines(File root, String name) throws Exception {
    return Files.readAllLines(new File(root, name).toPath(), StandardCharsets.UTF_8);
  }
}
