import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.redisson.Redisson;
import org.redisson.api.RLock;
import org.redisson.api.RedissonClient;
import org.redisson.config.Config;

/**
 * Redisson's or Curator's lock, measured inside the JVM, with their defaults. Says "ready", then answers each line:
 *
 *   cycles COUNT TOGETHER     microseconds of an acquisition and a release, on as many names as threads
 *   handoffs CONTENDERS EACH  milliseconds from a release to the next holder's turn, 1 ms of work: p50 p99
 *   queue COUNT               "waiting" once everybody waits; after the next line: milliseconds to serve them all, inversions
 */
public class LockPeer {
  interface Lock {
    void acquire() throws Exception;

    void release() throws Exception;
  }

  interface Locks {
    Lock named(String name);
  }

  public static void main(String[] args) throws Exception {
    Locks locks = args[0].equals("curator") ? curator(args[1]) : redisson(args[1], args[0].equals("redisson-fair"));
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    System.out.println("ready");
    int run = 0;
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split(" ");
      run++;
      switch (words[0]) {
        case "cycles" -> System.out.println(cycles(locks, Integer.parseInt(words[1]), Integer.parseInt(words[2])));
        case "handoffs" -> System.out.println(handOffs(locks.named("busy-" + run), Integer.parseInt(words[1]), Integer.parseInt(words[2])));
        case "queue" -> System.out.println(queue(locks, "queue-" + run, Integer.parseInt(words[1]), in));
        default -> throw new IllegalArgumentException(line);
      }
    }
    System.exit(0);
  }

  static Locks redisson(String address, boolean isFair) {
    Config config = new Config();
    config.useSingleServer().setAddress(address);
    RedissonClient client = Redisson.create(config);
    return name -> {
      RLock lock = isFair ? client.getFairLock(name) : client.getLock(name);
      return new Lock() {
        public void acquire() {
          lock.lock();
        }

        public void release() {
          lock.unlock();
        }
      };
    };
  }

  static Locks curator(String address) throws Exception {
    CuratorFramework client = CuratorFrameworkFactory.newClient(address, 15_000, 15_000, new ExponentialBackoffRetry(100, 5));
    client.start();
    client.blockUntilConnected();
    return name -> {
      InterProcessMutex mutex = new InterProcessMutex(client, "/jvm-locks/" + name);
      return new Lock() {
        public void acquire() throws Exception {
          mutex.acquire();
        }

        public void release() throws Exception {
          mutex.release();
        }
      };
    };
  }

  static String cycles(Locks locks, int count, int together) throws Exception {
    AtomicInteger left = new AtomicInteger(count);
    long startedAt = System.nanoTime();
    all(together, index -> {
      Lock lock = locks.named("free-" + index);
      while (left.getAndDecrement() > 0) {
        lock.acquire();
        lock.release();
      }
    });
    return String.valueOf((System.nanoTime() - startedAt) / 1_000.0 / count);
  }

  static String handOffs(Lock lock, int contenders, int each) throws Exception {
    AtomicLong freedAt = new AtomicLong();
    List<Long> gaps = Collections.synchronizedList(new ArrayList<>());
    all(contenders, index -> {
      for (int turn = 0; turn < each; turn++) {
        lock.acquire();
        long now = System.nanoTime();
        if (freedAt.get() > 0) gaps.add(now - freedAt.get());
        while (System.nanoTime() - now < 1_000_000) Thread.onSpinWait();
        freedAt.set(System.nanoTime());
        lock.release();
      }
    });
    long[] sorted = gaps.stream().mapToLong(Long::longValue).toArray();
    Arrays.sort(sorted);
    return sorted[sorted.length / 2] / 1e6 + " " + sorted[(int) (sorted.length * 0.99)] / 1e6;
  }

  static String queue(Locks locks, String name, int count, BufferedReader in) throws Exception {
    Lock first = locks.named(name);
    first.acquire();
    List<Integer> served = Collections.synchronizedList(new ArrayList<>());
    CountDownLatch done = new CountDownLatch(count);
    for (int index = 0; index < count; index++) {
      int mine = index;
      new Thread(() -> {
        try {
          Lock lock = locks.named(name);
          lock.acquire();
          served.add(mine);
          lock.release();
          done.countDown();
        } catch (Exception error) {
          error.printStackTrace();
        }
      }).start();
      Thread.sleep(5);
    }
    Thread.sleep(400);
    System.out.println("waiting");
    in.readLine();
    long startedAt = System.nanoTime();
    first.release();
    done.await();
    int inversions = 0;
    for (int at = 1; at < count; at++) if (served.get(at) < served.get(at - 1)) inversions++;
    return (System.nanoTime() - startedAt) / 1e6 + " " + inversions;
  }

  interface Work {
    void run(int index) throws Exception;
  }

  static void all(int count, Work work) throws Exception {
    CountDownLatch done = new CountDownLatch(count);
    for (int index = 0; index < count; index++) {
      int mine = index;
      new Thread(() -> {
        try {
          work.run(mine);
        } catch (Exception error) {
          error.printStackTrace();
          System.exit(1);
        }
        done.countDown();
      }).start();
    }
    done.await();
  }
}
