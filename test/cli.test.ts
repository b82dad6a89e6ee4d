/**
 * The command line against a cluster of real members: what a user types, and what comes of it.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { build, Cli, conclave, isRunning, killAll, ServedCluster, sleep, until } from "./cli-kit.ts";

let folder: string;
let cluster: ServedCluster;
let at: { readonly env: NodeJS.ProcessEnv };

beforeAll(async () => {
  build();
  folder = mkdtempSync(join(tmpdir(), "conclave-cli-"));
  cluster = await ServedCluster.start(folder);
  // The commands under a lock end with this process, also where a test fails half-way.
  at = { env: { CONCLAVE_STORE: cluster.url, GOES_ON: `kill -0 ${process.pid}` } };
}, 120_000);

afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

// --- keys and values -----------------------------------------------------------------------------------------------

test("put, get, range and del answer in JSON, one object a line", async () => {
  const put = await conclave(["put", "fruit/1", "äpple 🍎", "--json"], at);
  expect(put.exitCode).toBe(0);
  const { revision } = JSON.parse(put.stdout);
  expect(revision).toBeGreaterThan(0);
  const got = JSON.parse((await conclave(["get", "fruit/1", "--json"], at)).stdout);
  expect(got).toEqual({
    key: "fruit/1",
    value: "äpple 🍎",
    createRevision: revision,
    modRevision: revision,
    version: 1,
    session: null,
  });
  await conclave(["put", "fruit/2", "pear\u001b[31m\nred"], at);
  const range = await conclave(["range", "fruit/", "--json"], at);
  expect(
    range.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).value),
  ).toEqual(["äpple 🍎", "pear\u001b[31m\nred"]);
  expect((await conclave(["range", "fruit/"], at)).stdout).toBe("fruit/1\täpple 🍎\nfruit/2\tpear\\u001b[31m\\u000ared\n");
  expect((await conclave(["range", "fruit/", "--keys-only", "--limit", "1"], at)).stdout).toBe("fruit/1\n");
  expect(JSON.parse((await conclave(["del", "fruit/", "--prefix", "--json"], at)).stdout)).toEqual({ deleted: 2 });
  expect((await conclave(["del", "fruit/1"], at)).stdout).toBe("0 deleted\n");
});

test("a value may be any bytes, from standard input and back", async () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await conclave(["put", "bytes", "-"], { ...at, input: bytes });
  expect((await conclave(["get", "bytes", "--raw"], at)).stdoutBytes).toEqual(bytes);
  expect(JSON.parse((await conclave(["get", "bytes", "--json"], at)).stdout).valueBase64).toBe(bytes.toString("base64"));
});

test("an absent key is exit code 1, not an error; namespaces are apart", async () => {
  await conclave(["put", "only-here", "1", "--namespace", "other"], at);
  expect(await conclave(["get", "only-here", "--json"], at)).toMatchObject({ exitCode: 1, stdout: "null\n", stderr: "" });
  expect(await conclave(["get", "only-here"], at)).toMatchObject({ exitCode: 1, stdout: "" });
  expect(await conclave(["get", "only-here", "--namespace", "other"], at)).toMatchObject({ exitCode: 0, stdout: "1\n" });
});

test("a long range comes in pages of one state", async () => {
  const directory = join(folder, "local");
  const store = ["--store", `file:${directory}`];
  const { connect } = await import("../src/index.ts");
  const local = await connect(`file:${directory}`);
  const value = "v".repeat(40_000);
  await Promise.all(
    Array.from({ length: 1_100 }, (_, n) => local.store().put(`page/${String(n).padStart(4, "0")}`, n < 600 ? value : "")),
  );
  await local.store().put("pagf", "behind");
  await local.close();
  const { stdout } = await conclave(["range", "page/", "--keys-only", ...store]);
  expect(stdout.trim().split("\n")).toEqual(Array.from({ length: 1_100 }, (_, n) => `page/${String(n).padStart(4, "0")}`));
  // 600 values of 40 kB: the first page is too large for one answer.
  const full = await conclave(["range", "page/", "--json", "--limit", "1050", ...store]);
  expect(
    full.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).key),
  ).toEqual(stdout.trim().split("\n").slice(0, 1_050));
});

test("watch prints changes as they happen, and Ctrl-C ends it with 130 and no word", async () => {
  const watch = new Cli(["watch", "news/", "--json"], at);
  const single = new Cli(["watch", "--key", "news/2"], at);
  // A watch says nothing before the first change: change until both have seen something.
  await until(async () => {
    await conclave(["put", "news/2", "x"], at);
    return watch.stdout !== "" && single.stdout !== "";
  }, "a change to be seen");
  await conclave(["put", "news/1", "hello"], at);
  await conclave(["del", "news/2"], at);
  await watch.says('"delete"');
  await single.says("delete news/2");
  expect(watch.records.at(-2)).toMatchObject({ kind: "put", key: "news/1", value: "hello" });
  expect(watch.records.at(-1)).toMatchObject({ kind: "delete", key: "news/2" });
  expect(single.stdout).not.toContain("news/1");
  for (const each of [watch, single]) each.signal("SIGINT");
  expect([await watch.exitCode, await single.exitCode, watch.stderr, single.stderr]).toEqual([130, 130, "", ""]);
});

// --- the command line itself ---------------------------------------------------------------------------------------

test("what is typed wrong is exit code 64, with a word that helps, and nothing on standard output", async () => {
  const wrong: [string[], RegExp][] = [
    [["gett", "k"], /Did you mean get\?/],
    [["get", "k", "--timout", "1s"], /Did you mean --timeout\?/],
    [["get"], /missing required argument 'key'/],
    [["get", "k", "--timeout", "10"], /no duration: write it like 500ms/],
    [["get", "k", "--store", "http://x"], /UNKNOWN_SCHEME/],
    [["lock", "x", "--ttl", "10ms", "--", "true"], /1000/],
    [["lock", "x", "--try", "--wait", "1s", "--", "true"], /cannot both be given/],
    [["status", "--store", "memory:"], /has no members/],
    [["serve", "--members", "a=1"], /name=host:port/],
    [[], /Which command/],
  ];
  const outcomes = await Promise.all(wrong.map(([args]) => conclave(args, at)));
  for (const [index, { exitCode, stdout, stderr }] of outcomes.entries()) {
    const [args, words] = wrong[index] as [string[], RegExp];
    expect({ args, exitCode, stdout: args.length === 0 ? "" : stdout }).toEqual({ args, exitCode: 64, stdout: "" });
    expect(stderr).toMatch(words);
    expect(stderr).not.toMatch(/^\s+at /m);
  }
  const json = await conclave(["gett", "--json"], at);
  expect(JSON.parse(json.stderr)).toMatchObject({ code: "USAGE", definite: true, retryable: false });
});

test("help teaches by example, names every exit code, and the version is the package's", async () => {
  const [help, lock, codes, version] = await Promise.all(
    [["--help"], ["help", "lock"], ["help", "exit-codes"], ["--version"]].map((args) => conclave(args)),
  );
  expect(help?.stdout).toContain("conclave up");
  expect(lock?.stdout).toContain("CONCLAVE_FENCE_TOKEN");
  for (const code of [0, 1, 64, 69, 70, 74, 75, 77, 78, 79]) expect(codes?.stdout).toMatch(new RegExp(`^ +${code} `, "m"));
  expect(version?.stdout.trim()).toBe(JSON.parse(readFileSync(join(import.meta.dirname, "../package.json"), "utf8")).version);
  for (const each of [help, lock, codes, version]) expect(each?.exitCode).toBe(0);
});

test("where nobody listens, every command ends within its timeout with 69 and names the address", async () => {
  const [port] = await freePorts(1);
  const nowhere = ["--store", `conclave://127.0.0.1:${port}`, "--timeout", "500ms"];
  const commands = [["get", "k"], ["put", "k", "v"], ["watch"], ["status"], ["lock", "x"], ["locks", "show", "x"]];
  const outcomes = await Promise.all(
    commands.map((command) => conclave([...command, ...nowhere, ...(command[0] === "lock" ? ["--", "true"] : [])])),
  );
  for (const { exitCode, stderr, stdout } of outcomes) {
    expect({ exitCode, stdout }).toEqual({ exitCode: 69, stdout: "" });
    expect(stderr).toContain(`127.0.0.1:${port}`);
    expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
  }
  const alone = await conclave(["put", "k", "v", "--json", ...nowhere]);
  expect(JSON.parse(alone.stderr)).toMatchObject({ code: "CONNECTION_REFUSED", definite: true, retryable: true });
  expect(alone.elapsedMs).toBeLessThan(5_000);
}, 60_000);

test("status names the leader and every member", async () => {
  const { exitCode, stdout } = await conclave(["status", "--json"], at);
  const status = JSON.parse(stdout);
  expect(exitCode).toBe(0);
  expect(["m1", "m2", "m3"]).toContain(status.leader);
  expect(status.members.map(({ member, answered }: { member: string; answered: boolean }) => [member, answered])).toEqual([
    ["m1", true],
    ["m2", true],
    ["m3", true],
  ]);
  expect((await conclave(["status"], at)).stdout).toContain(`${status.leader} leads`);
});

// --- lock ----------------------------------------------------------------------------------------------------------

test("lock runs the command with the token in its environment, and passes its exit code on", async () => {
  const script = 'echo "$CONCLAVE_LOCK $CONCLAVE_FENCE_TOKEN $CONCLAVE_DEADLINE_EPOCH_MS"; cat; exit 7';
  const run = () => conclave(["lock", "a b/🔒", "--", "sh", "-c", script], { ...at, input: "through" });
  const first = await run();
  const second = await run();
  expect([first.exitCode, second.exitCode]).toEqual([7, 7]);
  const read = ({ stdout }: { readonly stdout: string }) =>
    /^a b\/🔒 (\d+) (\d+)\nthrough$/.exec(stdout)?.slice(1).map(Number) as [number, number];
  expect(read(second)[0]).toBeGreaterThan(read(first)[0]);
  // A lease of 15 s is sure for two thirds of it.
  expect(read(second)[1] - Date.now()).toBeGreaterThan(0);
  expect(read(second)[1] - Date.now()).toBeLessThanOrEqual(10_000);
});

test("lock ends like a shell where the command cannot run or is ended by a signal", async () => {
  const [absent, closed, killed] = await Promise.all(
    [["no-such-command"], [folder], ["sh", "-c", "kill -KILL $$"]].map((command) =>
      conclave(["lock", `shell-${command}`, "--", ...command], at),
    ),
  );
  expect([absent?.exitCode, closed?.exitCode, killed?.exitCode]).toEqual([127, 126, 137]);
  expect(absent?.stderr).toContain('"no-such-command" was not found');
});

test("a busy lock: --try is 75 at once and names the holder, -E another code, --wait waits, and the waiter gets it next", async () => {
  const holder = new Cli(
    ["lock", "busy", "--", "sh", "-c", 'trap "exit 0" TERM; echo holding; while $GOES_ON; do sleep 0.05; done'],
    at,
  );
  await holder.says("holding");
  const waiter = new Cli(["lock", "busy", "--", "sh", "-c", "echo mine"], at);
  await until(
    async () => JSON.parse((await conclave(["locks", "show", "busy", "--json"], at)).stdout).waiters.length === 1,
    "a waiter",
  );
  const shown = JSON.parse((await conclave(["locks", "show", "busy", "--json"], at)).stdout);
  expect(shown).toMatchObject({
    lock: "busy",
    holder: { meta: { pid: holder.pid, command: "sh" } },
    waiters: [{ meta: { pid: waiter.pid } }],
  });
  const [once, other, soon] = await Promise.all([
    conclave(["lock", "-n", "busy", "--json", "--", "echo", "never"], at),
    conclave(["lock", "--try", "-E", "9", "busy", "--", "echo", "never"], at),
    conclave(["lock", "--wait", "300ms", "busy", "--", "echo", "never"], at),
  ]);
  expect([once.exitCode, other.exitCode, soon.exitCode]).toEqual([75, 9, 75]);
  expect(once.stdout + other.stdout + soon.stdout).toBe("");
  expect(JSON.parse(once.stderr)).toMatchObject({ code: "LOCK_TIMEOUT", definite: true });
  expect(other.stderr).toContain(`"pid":${holder.pid}`);
  expect(waiter.stdout).toBe("");
  holder.signal("SIGTERM");
  expect([await holder.exitCode, await waiter.exitCode, waiter.stdout]).toEqual([0, 0, "mine\n"]);
});

test("Ctrl-C ends the wait for a lock with 130, quietly, and leaves no place in the queue", async () => {
  const holder = new Cli(
    ["lock", "queue", "--", "sh", "-c", 'trap "exit 0" TERM; echo holding; while $GOES_ON; do sleep 0.05; done'],
    at,
  );
  await holder.says("holding");
  const waiter = new Cli(["lock", "queue", "--", "echo", "never"], at);
  const waiters = async (): Promise<number> =>
    JSON.parse((await conclave(["locks", "show", "queue", "--json"], at)).stdout).waiters.length;
  await until(async () => (await waiters()) === 1, "the waiter's place");
  waiter.signal("SIGINT");
  expect([await waiter.exitCode, waiter.stdout, waiter.stderr]).toEqual([130, "", ""]);
  expect(await waiters()).toBe(0);
  holder.signal("SIGTERM");
  expect(await holder.exitCode).toBe(0);
});

test("signals reach the command's whole group, and only the command decides what they do", async () => {
  const traps = ["HUP", "INT", "QUIT", "USR1", "USR2"].map((name) => `trap 'echo got-${name}' ${name};`).join(" ");
  const inner = `trap '' HUP INT QUIT USR1; trap 'echo inner-USR2' USR2; trap 'exit 0' TERM; echo inner-ready; while $GOES_ON; do sleep 0.02; done`;
  const script = `${traps} trap 'wait $child; exit 42' TERM; sh -c "${inner}" & child=$!; echo ready; while $GOES_ON; do sleep 0.02; done`;
  const run = new Cli(["lock", "signals", "--", "sh", "-c", script], at);
  await run.says(/inner-ready/);
  await run.says(/^ready/m);
  for (const name of ["HUP", "INT", "QUIT", "USR1", "USR2"] as const) {
    run.signal(`SIG${name}`);
    await run.says(`got-${name}`);
  }
  await run.says("inner-USR2");
  expect(run.child.exitCode).toBeNull();
  run.signal("SIGTERM");
  expect(await run.exitCode).toBe(42);
});

/** A command that leaves a process in its group which ignores SIGTERM, and prints its pid. */
const stubborn = `sh -c "trap '' TERM HUP INT; while $GOES_ON; do sleep 0.02; done" & echo "pid $!"`;

test("what the command leaves running in its group is ended before the lock passes on", async () => {
  const startedMs = performance.now();
  const { exitCode, stdout } = await conclave(
    ["lock", "leftover", "--grace", "300ms", "--", "sh", "-c", `${stubborn}; exit 3`],
    at,
  );
  expect(exitCode).toBe(3);
  expect(isRunning(pidIn(stdout))).toBe(false);
  expect(performance.now() - startedMs).toBeLessThan(10_000);
});

test("a conclave that is killed with SIGKILL takes the command's group with it", async () => {
  const run = new Cli(
    ["lock", "orphan", "--ttl", "3s", "--", "sh", "-c", `trap '' TERM; ${stubborn}; echo "pid $$"; wait; wait`],
    at,
  );
  await run.says(/pid \d+\npid \d+\n/);
  const pids = [...run.stdout.matchAll(/pid (\d+)/g)].map((match) => Number(match[1]));
  expect(pids.map(isRunning)).toEqual([true, true]);
  // The guard hears of the command right after its start, not before: leave it that moment.
  await sleep(300);
  run.signal("SIGKILL");
  // Less than the TTL of 3 s: the lock has not passed on.
  await until(() => !pids.some(isRunning), "the group to be gone", 2_500);
});

// --- serve ---------------------------------------------------------------------------------------------------------

test("another cluster is refused by name, with 78", async () => {
  const { exitCode, stderr } = await conclave(["get", "k", "--cluster", "elsewhere", "--json"], at);
  expect(exitCode).toBe(78);
  expect(JSON.parse(stderr)).toMatchObject({ code: "WRONG_CLUSTER", definite: true });
});

test("a directory in use is refused with the owner's pid and the line that shares it, which works as printed", async () => {
  const [port] = await freePorts(1);
  const directory = join(folder, "owned");
  const listen = ["--listen", `127.0.0.1:${port}`];
  const names = ["--member", "solo", "--cluster", "solitude"];
  const owner = new Cli(["serve", "--data", directory, ...names, ...listen]);
  await owner.says("member.listening");
  const second = await conclave(["serve", "--data", directory, "--listen", "127.0.0.1:0"]);
  expect(second.exitCode).toBe(78);
  expect(second.stderr).toContain("DIRECTORY_IN_USE");
  expect(second.stderr).toContain(String(owner.pid));
  const line = /conclave serve --data [^`\s]+/.exec(second.stderr)?.[0] as string;
  expect(line).toBe(`conclave serve --data ${directory}`);
  owner.signal("SIGTERM");
  expect(await owner.exitCode).toBe(0);
  // The printed line names no member and no cluster: the directory knows them.
  const again = new Cli([...line.split(" ").slice(1), ...listen]);
  await again.says("member.listening");
  expect(again.stdout).toContain('"member":"solo","cluster":"solitude"');
  again.signal("SIGINT");
  expect(await again.exitCode).toBe(0);
});

test("the log is one JSON record of the Elastic Common Schema a line, from the start to a clean end", async () => {
  const server = new Cli(["serve", "--data", join(folder, "logged"), "--listen", "127.0.0.1:0"]);
  await server.says('"role":"leader"');
  server.signal("SIGTERM");
  expect(await server.exitCode).toBe(0);
  for (const record of server.records) {
    expect(record).toMatchObject({
      "log.level": expect.any(String),
      "@timestamp": expect.any(String),
      "ecs.version": expect.any(String),
      message: expect.any(String),
    });
    expect(record).toMatchObject({ event: { action: expect.any(String) }, conclave: { member: "local", cluster: "local" } });
  }
  const actions = server.records.map((record) => (record.event as { readonly action: string }).action);
  expect(actions).toContain("member.listening");
  expect(actions.at(-1)).toBe("member.stopped");
  expect(actions).not.toContain("log.synced");
  expect(server.stderr).toBe("");
});

test("a member that can write no more says why and ends with 70", async () => {
  const directory = join(folder, "vanishing");
  const [port] = await freePorts(1);
  const server = new Cli(["serve", "--data", directory, "--listen", `127.0.0.1:${port}`]);
  await server.says('"role":"leader"');
  rmSync(directory, { recursive: true, force: true });
  const { connect } = await import("../src/index.ts");
  const client = await connect(`conclave://127.0.0.1:${port}`);
  // More than a segment of 16 MB: the next one cannot be made.
  const value = "v".repeat(1_000_000);
  const writes = Array.from({ length: 24 }, (_, n) => client.store().put(`big/${n}`, value, { timeoutMs: 5_000 }));
  const settled = Promise.allSettled(writes);
  expect(await server.exitCode).toBe(70);
  expect(server.records.filter((record) => record["log.level"] === "fatal")).toMatchObject([
    { event: { action: "member.halted" } },
  ]);
  await client.close();
  await settled;
});

test("garbage on the port hurts nobody, and the port speaks HTTP too", async () => {
  const [{ address, cli }] = cluster.members as [ServedCluster["members"][number]];
  const [host, port] = address.split(":") as [string, string];
  const garbage = ["\0\0\0\0\0\0\0\0", "\xff".repeat(1_000), "SSH-2.0-x\r\n", "GET", "\x10\0\0\0not a hello frame", "x"];
  await Promise.all(
    garbage.map(
      (text) =>
        new Promise<void>((done) => {
          const socket = createConnection({ host, port: Number(port) }, () => socket.write(Buffer.from(text, "latin1")));
          socket.once("error", () => done());
          socket.once("close", () => done());
          setTimeout(() => socket.destroy(), 300);
        }),
    ),
  );
  expect(cli.child.exitCode).toBeNull();
  const get = async (path: string): Promise<[number, Record<string, unknown>]> => {
    const response = await fetch(`http://${address}${path}`);
    return [response.status, (await response.json()) as Record<string, unknown>];
  };
  expect(await get("/healthz")).toMatchObject([200, { ok: true }]);
  expect(await get("/readyz")).toMatchObject([200, { ready: true }]);
  expect(await get("/status")).toMatchObject([200, { member: "m1", cluster: "test" }]);
  expect(await get("/elsewhere")).toMatchObject([404, {}]);
  expect((await conclave(["put", "after", "garbage"], at)).exitCode).toBe(0);
});

// --- the worst: last, for it stops the cluster ---------------------------------------------------------------------

test("a lost lock ends the command before the lock can pass on, though it ignores SIGTERM; conclave ends with 79", async () => {
  const ttlMs = 3_000;
  const script = `trap 'echo "term $(date +%s%3N)"' TERM; ${stubborn}; echo "pid $$"; while $GOES_ON; do sleep 0.02; done`;
  const run = new Cli(["lock", "frozen", "--ttl", `${ttlMs}ms`, "--grace", "60s", "--", "sh", "-c", script], at);
  const politely = new Cli(
    [
      "lock",
      "polite",
      "--ttl",
      `${ttlMs}ms`,
      "--json",
      "--",
      "sh",
      "-c",
      "trap 'exit 0' TERM; echo running; while $GOES_ON; do sleep 0.02; done",
    ],
    at,
  );
  await run.says(/pid \d+\npid \d+\n/);
  await politely.says("running");
  const pids = [...run.stdout.matchAll(/pid (\d+)/g)].map((match) => Number(match[1]));
  cluster.signal("SIGSTOP");
  const frozenMs = performance.now();
  try {
    await until(() => !pids.some(isRunning), "the group to be gone");
    // No keep-alive was confirmed after the freeze, so the lease of the last one ends no later than a TTL after it.
    expect(performance.now() - frozenMs).toBeLessThan(ttlMs);
    expect(run.stdout).toMatch(/^term \d+$/m);
    expect([await run.exitCode, await politely.exitCode]).toEqual([79, 79]);
    expect(run.stderr).toContain("[LOCK_LOST]");
    expect(
      politely.stderr
        .trim()
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line).kind),
    ).toEqual(["granted", "lost"]);
  } finally {
    cluster.signal("SIGCONT");
  }
});

test("members close on SIGTERM with exit code 0", async () => {
  expect(await cluster.stop()).toEqual([0, 0, 0]);
});

function pidIn(text: string): number {
  return Number(/pid (\d+)/.exec(text)?.[1]);
}
