/**
 * Bad input, as a user would give it: each gets a typed error that says what was tried and what to do, loses nothing, and
 * leaves the process alive where it should live.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { type Server, serve } from "../src/engines/embedded/serve.ts";
import { ConclaveError, connect } from "../src/index.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-bad-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function errorOf(work: Promise<unknown> | (() => unknown)): Promise<ConclaveError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    expect(error).toBeInstanceOf(ConclaveError);
    return error as ConclaveError;
  }
  throw new Error("it did not fail");
}

test("an unknown scheme names the schemes there are", async () => {
  for (const url of ["mongodb://localhost", "nonsense", "", "conclave"]) {
    const error = await errorOf(connect(url));
    expect(error.code).toBe("UNKNOWN_SCHEME");
    expect(error.message).toContain("memory:");
  }
  expect((await errorOf(connect("conclave://"))).code).toBe("INVALID_OPTION");
  expect((await errorOf(connect("conclave://host:99999"))).code).toBe("INVALID_OPTION");
  expect((await errorOf(connect("memory:x"))).code).toBe("INVALID_OPTION");
  expect((await errorOf(connect("file:"))).code).toBe("INVALID_OPTION");
});

test("a refused port is told with its address, within the time that connect takes", async () => {
  const [port] = (await freePorts(1)) as [number];
  const startedMs = performance.now();
  const error = await errorOf(connect(`conclave://127.0.0.1:${port}`));
  expect(error.code).toBe("CONNECTION_REFUSED");
  expect(error.message).toContain(`127.0.0.1:${port}`);
  expect(performance.now() - startedMs).toBeLessThan(7_000);
});

test("another cluster is refused by name, and the member serves on", async () => {
  await using server = await member("cluster");
  const error = await errorOf(connect({ url: `conclave://${server.address}`, cluster: "elsewhere" }));
  expect(error.code).toBe("WRONG_CLUSTER");
  expect(error.message).toMatch(/"local".*"elsewhere"|"elsewhere".*"local"/);
  await using conclave = await connect(`conclave://${server.address}`);
  await conclave.store().put("still", "here");
});

test("keys, values, names and times out of bounds are refused before anything is sent", async () => {
  await using conclave = await connect("memory:");
  const store = conclave.store();
  expect((await errorOf(store.put("k".repeat(10_000_000), "v"))).code).toBe("KEY_TOO_LARGE");
  expect((await errorOf(store.put("k", new Uint8Array(10_000_000)))).code).toBe("VALUE_TOO_LARGE");
  expect((await errorOf(store.put("", "v"))).code).toBe("KEY_INVALID");
  const negative = await errorOf(() => conclave.lock("a", { ttlMs: -1 }));
  expect(negative.code).toBe("INVALID_OPTION");
  expect(negative.message).toContain("ttlMs");
  expect((await errorOf(() => conclave.lock("a\0b"))).code).toBe("INVALID_OPTION");
  for (const error of [negative]) expect(error.definite).toBe(true);
});

test("a name with slashes and emoji is a name like any other", async () => {
  await using conclave = await connect("memory:");
  const name = "tenant/42/🔒 invoices/ü";
  const hold = await conclave.lock(name).acquire();
  expect(await conclave.lock(name).tryAcquire()).toBeNull();
  expect(await conclave.lock("tenant/42").tryAcquire()).not.toBeNull();
  await hold.release();
  await conclave.store("a/b 🎈").put("k/🔑", "v/🎁");
  expect(await conclave.store("a/b 🎈").getText("k/🔑")).toBe("v/🎁");
  expect(await conclave.store("a").get("b 🎈")).toBeNull();
});

test("a directory in use tells the owner's pid and the line that shares it", async () => {
  const directory = join(folder, "in-use");
  await using _ = await connect(`file:${directory}`);
  const error = await errorOf(connect(`file:${directory}`));
  expect(error.code).toBe("DIRECTORY_IN_USE");
  expect(error.message).toContain(String(process.pid));
  expect(error.message).toContain(`conclave serve --data ${directory}`);
});

test("another member's directory is refused with both names, and so is one of a newer version; both stay as they were", async () => {
  const directory = join(folder, "foreign");
  await (await member("foreign", { member: "a", cluster: "shop" })).close();
  const error = await errorOf(member("foreign", { member: "b", cluster: "shop" }));
  expect(error.code).toBe("DIRECTORY_FOREIGN");
  expect(error.message).toMatch(/"a".*"b"|"b".*"a"/);
  await (await member("foreign", { member: "a", cluster: "shop" })).close();

  const newer = join(folder, "newer");
  cpSync(directory, newer, { recursive: true });
  const { identityFile } = await import("../src/log/identity.ts");
  const path = join(newer, identityFile);
  const bytes = readFileSync(path);
  // The format version is one byte behind the marker's letters; which one, the reader of a later version decides.
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] as number) + 1;
    writeFileSync(path, changed);
    const { code } = await errorOf(member("newer", { member: "a", cluster: "shop" }));
    expect(["DIRECTORY_NEWER", "LOG_CORRUPT", "DIRECTORY_FOREIGN"]).toContain(code);
  }
  writeFileSync(path, bytes);
  await (await member("newer", { member: "a", cluster: "shop" })).close();
});

test("garbage on the port is refused, and the member serves on", async () => {
  await using server = await member("garbage");
  const port = Number(server.address.split(":").at(-1));
  const garbage = [
    Buffer.from("\x16\x03\x01 hello TLS"),
    Buffer.alloc(100_000, 0xff),
    Buffer.from([5, 0, 0, 0, 1, 2, 3, 4, 5]),
    Buffer.from("CNCL"),
    Buffer.from("GET /nothing HTTP/1.1\r\n\r\n"),
  ];
  for (const bytes of garbage) {
    await new Promise<void>((done) => {
      const socket = createConnection(port, "127.0.0.1", () => socket.write(bytes));
      socket.on("error", () => undefined);
      socket.on("close", () => done());
      setTimeout(() => socket.destroy(), 300);
    });
  }
  await using conclave = await connect(`conclave://${server.address}`);
  await conclave.store().put("alive", "yes");
  expect(await conclave.store().getText("alive")).toBe("yes");
});

test("a taken port is told before anything is opened", async () => {
  await using server = await member("port");
  const error = await errorOf(member("port-2", { listen: server.address }));
  expect(error.code).toBe("ADDRESS_IN_USE");
  expect(error.message).toContain(server.address);
});

const canMount = process.platform === "linux" && process.getuid?.() === 0 && tryMount();
test.skipIf(!canMount)(
  "a full disk stops writes with DISK_FULL, keeps the process, and loses nothing that was answered (needs root on Linux for a small file system)",
  async () => {
    const small = join(folder, "small");
    mkdirSync(small, { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", small]);
    const answered = new Set<string>();
    let code: string | undefined;
    try {
      const conclave = await connect(`file:${join(small, "data")}`);
      const store = conclave.store();
      const value = "v".repeat(100_000);
      for (let at = 0; at < 2_000 && code === undefined; at++) {
        try {
          await store.put(`key-${at}`, value);
          answered.add(`key-${at}`);
        } catch (error) {
          code = (error as ConclaveError).code;
        }
      }
      expect(code).toBe("DISK_FULL");
      // A snapshot in the background may be what met the full disk: whoever asks afterwards hears the reason too, and at once.
      const startedMs = performance.now();
      expect((await errorOf(store.put("late", "x"))).code).toBe("DISK_FULL");
      expect((await errorOf(store.get("key-0"))).code).toBe("DISK_FULL");
      expect(performance.now() - startedMs).toBeLessThan(5_000);
      await conclave.close();
      cpSync(join(small, "data"), join(folder, "rescued"), { recursive: true });
    } finally {
      execFileSync("umount", ["-l", small]);
    }
    await using rescued = await connect(`file:${join(folder, "rescued")}`);
    const present = await rescued.store().range({ prefix: "key-" }, { keysOnly: true });
    const keys = new Set(present.entries.map((entry) => entry.key));
    expect(answered.size).toBeGreaterThan(10);
    for (const key of answered) expect(keys.has(key)).toBe(true);
  },
);

function tryMount(): boolean {
  const place = mkdtempSync(join(tmpdir(), "conclave-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", place], { stdio: "ignore" });
    execFileSync("umount", ["-l", place], { stdio: "ignore" });
    return true;
  } catch {
    console.log("No file system can be mounted here: the test with a full disk is skipped.");
    return false;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

async function member(name: string, options: Partial<Parameters<typeof serve>[0]> = {}): Promise<Server> {
  return serve({
    directory: join(folder, name),
    listen: "127.0.0.1:0",
    ...(options.member === undefined ? {} : { members: new Map([[options.member, "127.0.0.1:1"]]) }),
    ...options,
  });
}
