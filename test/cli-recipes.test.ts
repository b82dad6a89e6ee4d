/**
 * Recipes on the command line, against a cluster of real members and, where they are installed, the real servers of the
 * other engines: the same words, the same answers.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, Cli, conclave, killAll, ServedCluster, until } from "./cli-kit.ts";
import { startEtcd } from "./servers/etcd.ts";
import { startPgBouncer, startPostgres } from "./servers/postgres.ts";
import { startRedis } from "./servers/redis.ts";
import { startZooKeeper } from "./servers/zookeeper.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-cli-recipes-"));
const [redis, etcd, zookeeper, postgres] = await Promise.all([startRedis(), startEtcd(), startZooKeeper(), startPostgres()]);
const pooler = "skipped" in postgres ? postgres : await startPgBouncer(postgres);
let cluster: ServedCluster;

beforeAll(async () => {
  build();
  cluster = await ServedCluster.start(folder);
}, 120_000);

afterAll(async () => {
  killAll();
  for (const server of [pooler, redis, etcd, zookeeper, postgres]) if ("stop" in server) await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const stores = [
  { name: "a cluster", url: () => cluster.url, skipped: undefined },
  // A server that has just started might be one that forgot its holders; this one is known to be new.
  store("Redis", redis, "?quarantineMs=-1"),
  store("etcd", etcd),
  store("ZooKeeper", zookeeper),
  store("PostgreSQL", postgres),
];

function store(name: string, server: { readonly url: string } | { readonly skipped: string }, query = "") {
  const skipped = "skipped" in server ? server.skipped : undefined;
  return { name, url: () => ("url" in server ? `${server.url}${query}` : ""), skipped };
}

describe.each(stores)("on $name", ({ url, skipped }) => {
  const ok = test.skipIf(skipped !== undefined);
  const at = (): { readonly env: NodeJS.ProcessEnv } => ({ env: { CONCLAVE_STORE: url() } });

  ok("permits run so many commands at once, and no more", async () => {
    const holders = [1, 2].map(() => new Cli(["sem", "--permits", "2", "s", "--", "sh", "-c", "echo in; sleep 30"], at()));
    await Promise.all(holders.map((holder) => holder.says("in")));
    expect((await conclave(["sem", "--permits", "2", "--try", "s", "--", "true"], at())).exitCode).toBe(75);
    holders[0]?.signal("SIGTERM");
    expect((await conclave(["sem", "--permits", "2", "--wait", "10s", "s", "--", "echo", "mine"], at())).stdout).toContain(
      "mine",
    );
    holders[1]?.signal("SIGTERM");
    expect((await conclave(["sem", "s", "--", "true"], at())).exitCode).toBe(64);
  });

  ok("readers share, a writer does not", async () => {
    const reader = new Cli(["rwlock", "--read", "t", "--", "sh", "-c", "echo in; sleep 30"], at());
    await reader.says("in");
    expect((await conclave(["rwlock", "--read", "--try", "t", "--", "true"], at())).exitCode).toBe(0);
    expect((await conclave(["rwlock", "--write", "--try", "t", "--", "true"], at())).exitCode).toBe(75);
    reader.signal("SIGTERM");
    expect((await conclave(["rwlock", "--write", "--wait", "10s", "t", "--", "true"], at())).exitCode).toBe(0);
    expect((await conclave(["rwlock", "t", "--", "true"], at())).exitCode).toBe(64);
  });

  ok("one leads, and says who it is", async () => {
    const leader = new Cli(["elect", "e", "--", "sh", "-c", 'echo "token $CONCLAVE_FENCE_TOKEN"; sleep 30'], at());
    await leader.says("token ");
    const told = await conclave(["leader", "e", "--json"], at());
    expect(JSON.parse(told.stdout)).toMatchObject({ value: { pid: leader.pid, command: "sh" } });
    const next = new Cli(["elect", "e", "--", "echo", "next leads"], at());
    leader.signal("SIGTERM");
    await next.says("next leads");
    expect(await next.exitCode).toBe(0);
    expect((await conclave(["leader", "e"], at())).exitCode).toBe(1);
    expect((await conclave(["elect", "e", "--", "sh", "-c", "exit 7"], at())).exitCode).toBe(7);
  });

  ok("a barrier lets all go once all have come", async () => {
    const first = new Cli(["barrier", "b", "3"], at());
    const second = new Cli(["barrier", "b", "3"], at());
    expect((await conclave(["barrier", "other", "2", "--wait", "300ms"], at())).exitCode).toBe(75);
    const third = new Cli(["barrier", "b", "3"], at());
    expect(await Promise.all([first, second, third].map(({ exitCode }) => exitCode))).toEqual([0, 0, 0]);
  });

  ok("counters count, queues queue", async () => {
    expect((await conclave(["counter", "get", "c"], at())).stdout).toBe("0\n");
    expect((await conclave(["counter", "add", "c", "5"], at())).stdout).toBe("5\n");
    expect((await conclave(["counter", "add", "c"], at())).stdout).toBe("6\n");
    expect((await conclave(["counter", "add", "c", "x"], at())).exitCode).toBe(64);
    await conclave(["queue", "push", "q", "first"], at());
    await conclave(["queue", "push", "q", "second"], at());
    expect((await conclave(["queue", "size", "q"], at())).stdout).toBe("2\n");
    expect((await conclave(["queue", "take", "q"], at())).stdout).toBe("first\n");
    expect((await conclave(["queue", "take", "q", "--try"], at())).stdout).toBe("second\n");
    expect((await conclave(["queue", "take", "q", "--try"], at())).exitCode).toBe(1);
    expect((await conclave(["queue", "take", "q", "--wait", "200ms"], at())).exitCode).toBe(75);
  });

  ok("an operator asks a holder to yield, breaks a lock, and watches", async () => {
    expect((await conclave(["locks", "break", "l", "--reason", "test"], at())).exitCode).toBe(1);
    const holder = new Cli(["lock", "l", "--grace", "1s", "--", "sh", "-c", "echo in; sleep 30"], at());
    await holder.says("in");
    const watch = new Cli(["locks", "watch", "l", "--json"], at());
    await watch.says('"holder":{');
    expect((await conclave(["locks", "revoke", "l", "--reason", "deploy"], at())).exitCode).toBe(0);
    expect((await conclave(["locks", "break", "l"], at())).exitCode).toBe(64);
    const broken = await conclave(["locks", "break", "l", "--reason", "stuck", "--json"], at());
    expect(JSON.parse(broken.stdout)).toMatchObject({ lock: "l", holder: { meta: { pid: holder.pid } } });
    expect(await holder.exitCode).toBe(79);
    await watch.says('"holder":null');
    watch.signal("SIGINT");
    await watch.exitCode;
  });

  ok("locks in use are listed: who holds, how many wait, by prefix; what is free is not", async () => {
    const list = async (...args: readonly string[]): Promise<readonly Record<string, unknown>[]> => {
      const { exitCode, stderr, stdout } = await conclave(["locks", "ls", "--json", ...args], at());
      expect(stderr, "no complaint").toBe("");
      expect(exitCode).toBe(0);
      return stdout
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    };
    expect(await list("ls/")).toEqual([]);
    expect((await conclave(["locks", "ls", "ls/"], at())).stdout).toBe("No lock is in use.\n");
    const sleeper = ["--", "sh", "-c", "echo in; sleep 60"];
    // A name may hold anything but U+0000.
    const odd = "ls/\u001b[31m \n🔒";
    const holders = [
      new Cli(["lock", "ls/a", ...sleeper], at()),
      new Cli(["lock", odd, ...sleeper], at()),
      new Cli(["rwlock", "--read", "ls/rw", ...sleeper], at()),
      new Cli(["rwlock", "--read", "ls/rw", ...sleeper], at()),
    ];
    await Promise.all(holders.map((holder) => holder.says("in")));
    const waiter = new Cli(["lock", "ls/a", ...sleeper], at());
    await conclave(["lock", "ls/free", "--", "true"], at());
    await until(async () => (await list("ls/a"))[0]?.waiters === 1, "the waiter to be listed");
    const listed = await list("ls/");
    expect(listed.map(({ kind, lock, waiters }) => ({ kind, lock, waiters }))).toEqual([
      { kind: "lock", lock: odd, waiters: 0 },
      { kind: "lock", lock: "ls/a", waiters: 1 },
      { kind: "rwlock", lock: "ls/rw", waiters: 0 },
    ]);
    expect(listed[1]).toMatchObject({ holders: [{ meta: { pid: holders[0]?.pid } }] });
    expect(listed[2]?.holders).toHaveLength(2);
    const { stderr, stdout } = await conclave(["locks", "ls", "ls/", "--limit", "2"], at());
    expect(stdout.trimEnd().split("\n"), "a head and two lines, whatever the names hold").toHaveLength(3);
    expect(stdout).not.toContain("\u001b");
    expect(stderr).toContain("more than 2");
    for (const cli of [waiter, ...holders]) cli.signal("SIGTERM");
    await Promise.all([waiter, ...holders].map(({ exitCode }) => exitCode));
    expect(await list("ls/")).toEqual([]);
  });

  ok("doctor prints the promise", async () => {
    const told = await conclave(["doctor", "--json"], at());
    expect(JSON.parse(told.stdout)).toMatchObject({ caps: { watch: expect.any(String) }, findings: expect.any(Array) });
    expect((await conclave(["doctor"], at())).stdout).toContain("leases are judged by");
  });
});

test.skipIf("skipped" in pooler)("doctor behind a transaction pooler names the danger and the way past it", async () => {
  if ("skipped" in pooler || "skipped" in postgres) return;
  const behind = await conclave(["doctor", "--store", pooler.url]);
  expect(behind.exitCode).toBe(1);
  expect(behind.stdout).toContain("DANGER TRANSACTION_POOLER");
  expect(behind.stdout).toContain("?listen=postgres://");
  expect(behind.stdout).toMatch(/the next holder is woken by +nobody: waiters ask/);
  // The remedy works.
  const past = await conclave(["doctor", "--store", `${pooler.url}?listen=${encodeURIComponent(postgres.url)}`]);
  expect(past.stdout).not.toContain("TRANSACTION_POOLER");
  expect(past.stdout).toMatch(/the next holder is woken by +the store/);
});

test.skipIf("skipped" in zookeeper)(
  "doctor says of ZooKeeper what a failover may do there, which is not to lose writes",
  async () => {
    if ("skipped" in zookeeper) return;
    const { stdout } = await conclave(["doctor", "--store", zookeeper.url]);
    expect(stdout).toContain("engine");
    expect(stdout).not.toContain("may lose writes");
    expect(stdout).toContain("ONE_MEMBER");
  },
);
