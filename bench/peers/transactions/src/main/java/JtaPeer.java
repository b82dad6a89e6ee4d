import com.atomikos.icatch.jta.UserTransactionManager;
import com.atomikos.jdbc.AtomikosDataSourceBean;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;

/**
 * The same transfer as the bench's other variants, under Atomikos: one UPDATE in PostgreSQL and one in MariaDB, in one JTA
 * transaction. Reads "CONNECTIONS SECONDS plain|marked" lines and answers "RATE P50 P99" (transactions a second, milliseconds).
 * "marked": each branch also inserts the row that our branches write as their proof of commit.
 * Arguments: PostgreSQL's port, MariaDB's port, folder of the log.
 */
public final class JtaPeer {
  private static final AtomicLong names = new AtomicLong(System.nanoTime());

  public static void main(String[] args) throws Exception {
    System.setProperty("com.atomikos.icatch.log_base_dir", args[2]);
    System.setProperty("com.atomikos.icatch.max_actives", "-1");
    System.setProperty("com.atomikos.icatch.registered", "true");
    UserTransactionManager manager = new UserTransactionManager();
    manager.init();
    Properties postgres = new Properties();
    postgres.setProperty("serverName", "127.0.0.1");
    postgres.setProperty("portNumber", args[0]);
    postgres.setProperty("databaseName", "postgres");
    postgres.setProperty("user", "postgres");
    AtomikosDataSourceBean left = pool("left", "org.postgresql.xa.PGXADataSource", postgres);
    Properties mariadb = new Properties();
    mariadb.setProperty("url", "jdbc:mariadb://127.0.0.1:" + args[1] + "/bank");
    mariadb.setProperty("user", "root");
    AtomikosDataSourceBean right = pool("right", "org.mariadb.jdbc.MariaDbDataSource", mariadb);
    System.out.println("ready");
    BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = orders.readLine()) != null; ) {
      String[] words = line.trim().split(" ");
      System.out.println(run(manager, left, right, Integer.parseInt(words[0]), Double.parseDouble(words[1]), words[2].equals("marked")));
    }
    System.exit(0);
  }

  private static AtomikosDataSourceBean pool(String name, String driver, Properties properties) {
    AtomikosDataSourceBean source = new AtomikosDataSourceBean();
    source.setUniqueResourceName(name);
    source.setXaDataSourceClassName(driver);
    source.setXaProperties(properties);
    source.setMinPoolSize(16);
    source.setMaxPoolSize(70);
    return source;
  }

  private static String run(
      UserTransactionManager manager, AtomikosDataSourceBean left, AtomikosDataSourceBean right, int connections, double seconds,
      boolean marked)
      throws Exception {
    List<Long> took = Collections.synchronizedList(new ArrayList<>());
    long started = System.nanoTime();
    long until = started + (long) (seconds * 1e9);
    Thread[] workers = new Thread[connections];
    for (int at = 0; at < connections; at++) {
      int worker = at;
      workers[at] = new Thread(() -> work(manager, left, right, worker, until, marked, took));
      workers[at].start();
    }
    for (Thread each : workers) each.join();
    double elapsed = (System.nanoTime() - started) / 1e9;
    long[] sorted = took.stream().mapToLong(Long::longValue).toArray();
    Arrays.sort(sorted);
    if (sorted.length == 0) return "0 0 0";
    return sorted.length / elapsed + " " + sorted[sorted.length / 2] / 1e6 + " " + sorted[(int) (sorted.length * 0.99)] / 1e6;
  }

  private static void work(
      UserTransactionManager manager, AtomikosDataSourceBean left, AtomikosDataSourceBean right, int worker, long until,
      boolean marked, List<Long> took) {
    try {
      while (System.nanoTime() < until) {
        long sent = System.nanoTime();
        manager.begin();
        // As long as a name of ours.
        String gid = marked ? "cv1.jtapee.jtajtajt." + Long.toString(names.incrementAndGet(), 36) : null;
        change(left, "UPDATE account SET balance = balance - 1 WHERE id = ?", worker, gid, 1);
        change(right, "UPDATE account SET balance = balance + 1 WHERE id = ?", worker, gid, 2);
        manager.commit();
        took.add(System.nanoTime() - sent);
      }
    } catch (Exception error) {
      error.printStackTrace();
      System.exit(1);
    }
  }

  private static void change(AtomikosDataSourceBean source, String sql, int worker, String gid, int branch) throws Exception {
    try (Connection connection = source.getConnection()) {
      try (PreparedStatement statement = connection.prepareStatement(sql)) {
        statement.setInt(1, worker);
        if (statement.executeUpdate() != 1) throw new IllegalStateException("no such account");
      }
      if (gid == null) return;
      try (PreparedStatement marker =
          connection.prepareStatement("INSERT INTO conclave_mark (gid, br, cls, op, parts) VALUES (?, ?, 0, 'do', ?)")) {
        marker.setString(1, gid);
        marker.setInt(2, branch);
        marker.setString(3, "orders:1,wallet:2");
        marker.executeUpdate();
      }
    }
  }
}
