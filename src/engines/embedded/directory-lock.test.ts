import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { hasCode } from "../../base/errors.ts";
import { lockDirectory } from "./directory-lock.ts";

/** Runs once, at the moment before a ticket is linked: where a process may be asleep for long. */
let beforeLink: (() => Promise<void>) | undefined;
vi.mock("node:fs/promises", async (importOriginal) => {
  const original = await importOriginal<typeof import("node:fs/promises")>();
  const link: typeof original.link = async (from, to) => {
    const run = beforeLink;
    beforeLink = undefined;
    await run?.();
    return original.link(from, to);
  };
  return { ...original, link };
});

let directory = "";
let children: ChildProcess[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "conclave-lock-"));
});
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  children = [];
  await rm(directory, { recursive: true, force: true });
});

async function refusal(): Promise<unknown> {
  return lockDirectory(directory).then(
    () => undefined,
    (error: unknown) => error,
  );
}

test("the same process is refused a second time, and served again after release", async () => {
  const lock = await lockDirectory(directory);
  const error = await refusal();
  expect(hasCode(error, "DIRECTORY_IN_USE")).toBe(true);
  expect(String(error)).toContain(`this process ${process.pid}`);
  expect(String(error)).toContain(`conclave serve --data ${directory}`);
  await lock.release();
  await lock.release();
  const again = await lockDirectory(directory);
  expect(await readdir(directory)).toHaveLength(1);
  await again.release();
});

test("of many takers in one process exactly one gets it", async () => {
  for (let round = 0; round < 20; round++) {
    const taken = await Promise.allSettled(Array.from({ length: 10 }, () => lockDirectory(directory)));
    const locks = taken.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    expect(locks).toHaveLength(1);
    await locks[0]?.release();
  }
});

test("a ticket of a reused pid, an empty one and an unreadable one block nobody", async () => {
  const lock = await lockDirectory(directory);
  const name = (await readdir(directory))[0] as string;
  const ticket = JSON.parse(await readFile(join(directory, name), "utf8")) as Record<string, unknown>;
  expect(ticket["pid"]).toBe(process.pid);
  for (const stale of [JSON.stringify({ ...ticket, started: "1" }), "", "{", '{"pid":"x"}']) {
    await rm(directory, { recursive: true });
    const first = await lockDirectory(directory);
    await writeFile(join(directory, "lock-1"), stale);
    const second = await lockDirectory(directory);
    expect(await readdir(directory)).toEqual(["lock-2"]);
    await first.release();
    await rm(join(directory, "lock-1"), { force: true });
    expect(hasCode(await refusal(), "DIRECTORY_IN_USE")).toBe(true);
    await second.release();
  }
  await lock.release().catch(() => undefined);
});

test("a taker that slept while two owners came and went sees that its ticket is void", async () => {
  const stale = await lockDirectory(directory);
  await stale.release();
  let owner: { release(): Promise<void> } | undefined;
  beforeLink = async () => {
    // The sleeper is about to link ticket 2; it is taken, released, and removed by the owner of ticket 3.
    await (await lockDirectory(directory)).release();
    owner = await lockDirectory(directory);
    expect((await readdir(directory)).filter((name) => !name.endsWith(".tmp"))).toEqual(["lock-3"]);
  };
  expect(hasCode(await refusal(), "DIRECTORY_IN_USE")).toBe(true);
  expect(await readdir(directory)).toEqual(["lock-3"]);
  await owner?.release();
});

/** Takes the lock, checks that it is alone, and dies or releases; says what it met. */
const takerSource = (module: string): string => `
import { lockDirectory } from ${JSON.stringify(module)};
import { writeFileSync, rmSync } from "node:fs";
const [directory, rounds, seed] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
let random = seed;
const dice = () => (random = (Math.imul(random, 1103515245) + 12345) >>> 0) / 2 ** 32;
for (let round = 0; round < rounds; ) {
  let lock;
  try {
    lock = await lockDirectory(directory + "/data");
  } catch (error) {
    if (error.code !== "DIRECTORY_IN_USE") throw error;
    if (dice() < 0.3) await new Promise((resolve) => setTimeout(resolve, dice() * 3));
    continue;
  }
  // Only the owner may be here: a second one finds the file of the first.
  const witness = directory + "/inside";
  writeFileSync(witness, String(process.pid), { flag: "wx" });
  if (dice() < 0.5) await new Promise((resolve) => setTimeout(resolve, dice() * 2));
  rmSync(witness);
  round++;
  if (round === rounds) process.kill(process.pid, "SIGKILL");
  await lock.release();
}
`;

async function runTaker(script: string, rounds: number, seed: number): Promise<string> {
  const child = spawn(process.execPath, ["--no-warnings", script, directory, String(rounds), String(seed)]);
  children.push(child);
  let said = "";
  child.stderr?.on("data", (data: Uint8Array) => {
    said += new TextDecoder().decode(data);
  });
  const signal = await new Promise((resolve) => child.on("exit", (_code, killed) => resolve(killed)));
  return said || `ended by ${signal}`;
}

test("two processes race for a directory whose owners are killed or release it: never two at once", async () => {
  // Node 20 runs no TypeScript: vite's own transformer strips the types for the children.
  const { transformWithOxc } = (await import("vite")) as unknown as {
    transformWithOxc(code: string, file: string): Promise<{ code: string }>;
  };
  const source = new URL("./directory-lock.ts", import.meta.url);
  const strip = async (url: URL): Promise<string> =>
    (await transformWithOxc(await readFile(url, "utf8"), url.pathname)).code.replaceAll(
      /from "(?:.*\/)?([\w-]+)\.ts"/g,
      'from "./$1.mjs"',
    );
  const needed = ["../../base/errors.ts", "../../base/error-table.ts", "./make-directory.ts"];
  const files = [source, ...needed.map((path) => new URL(path, source))];
  for (const url of files) {
    const name = url.pathname.replace(/^.*\//, "").replace(/\.ts$/, ".mjs");
    await writeFile(join(directory, name), await strip(url));
  }
  const script = join(directory, "taker.mjs");
  await writeFile(script, takerSource("./directory-lock.mjs"));
  for (let round = 0; round < 6; round++) {
    const said = await Promise.all([runTaker(script, 25, 2 * round), runTaker(script, 25, 2 * round + 1)]);
    expect(said).toEqual(["ended by SIGKILL", "ended by SIGKILL"]);
  }
  const lock = await lockDirectory(join(directory, "data"));
  await lock.release();
}, 60_000);

test("a killed owner does not block the next start, a living one does", async () => {
  const child = spawn("sleep", ["60"]);
  children.push(child);
  const stat = await readFile(`/proc/${child.pid}/stat`, "utf8").catch(() => "");
  const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "")).trim();
  const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  await writeFile(join(directory, "lock-4"), JSON.stringify({ pid: child.pid, started, boot, id: "x" }));
  expect(String(await refusal())).toContain(`in use by process ${child.pid}.`);
  const ended = new Promise((resolve) => child.on("exit", resolve));
  child.kill("SIGKILL");
  await ended;
  const lock = await lockDirectory(directory);
  expect(await readdir(directory)).toEqual(["lock-5"]);
  await lock.release();
});
