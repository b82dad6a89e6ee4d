import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { startRedis } from "../../test/servers/redis.ts";
import { fenceIfMatch, type TaggedState } from "./etag-fence.ts";
import { FencedFile } from "./file-fence.ts";
import { expressFence, FenceGate, fenceHeader, fenceRefusal, honoFence, readFenceHeader } from "./http-fence.ts";
import { fenceRedis } from "./redis-fence.ts";

const directory = mkdtempSync(join(tmpdir(), "conclave-guards-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const stale = { code: "STALE_TOKEN", definite: true };

describe("a fence over HTTP", () => {
  test("writes and reads its header for any name", () => {
    for (const name of ["invoice:42", 'a"b', "ü/🔒", "a=1", " "]) {
      const header = fenceHeader({ name, token: 2 ** 53 - 1 })["fence-token"];
      expect(/^[\x20-\x7e]+$/.test(header)).toBe(true);
      expect(readFenceHeader(header)).toEqual({ name, token: 2 ** 53 - 1 });
    }
    for (const bad of ["x", '"a"=', '"a"=-1', '"a"=1.5', '"a"=99999999999999999', '"%"=1', ["a", "b"]]) {
      expect(() => readFenceHeader(bad), String(bad)).toThrow(/Fence-Token/);
    }
    expect(readFenceHeader(undefined)).toBeUndefined();
    expect(() => fenceHeader({ name: "", token: 1 })).toThrow(/name/);
    expect(() => fenceHeader({ name: "a", token: Number.NaN })).toThrow(/token/);
  });

  test("runs a resource's requests one after another, and refuses a late one", async () => {
    const gate = new FenceGate();
    const events: string[] = [];
    const slow = gate.run(fenceHeader({ name: "r", token: 5 })["fence-token"], async () => {
      events.push("5 begins");
      await new Promise((resolve) => setTimeout(resolve, 20));
      events.push("5 ends");
    });
    const next = gate.run(fenceHeader({ name: "r", token: 7 })["fence-token"], () => void events.push("7"));
    const late = gate.run(fenceHeader({ name: "r", token: 6 })["fence-token"], () => void events.push("6"));
    const other = gate.run(fenceHeader({ name: "s", token: 1 })["fence-token"], () => void events.push("other"));
    await Promise.all([slow, next, other]);
    await expect(late).rejects.toMatchObject(stale);
    expect(events.indexOf("7")).toBeGreaterThan(events.indexOf("5 ends"));
    expect(events).toContain("other");
    expect(events).not.toContain("6");
    await expect(gate.run(undefined, () => 1)).rejects.toMatchObject({ code: "TOKEN_REQUIRED" });
    expect(await new FenceGate({ optional: true }).run(undefined, () => 1)).toBe(1);
  });

  test("goes on after work that failed, and bounds who waits", async () => {
    const gate = new FenceGate({ waitingMax: 2 });
    const header = fenceHeader({ name: "r", token: 5 })["fence-token"];
    const failing = gate.run(header, () => Promise.reject(new Error("no")));
    const second = gate.run(header, () => 2);
    await expect(gate.run(header, () => 3)).rejects.toMatchObject({ code: "BUSY" });
    await expect(failing).rejects.toThrow("no");
    expect(await second).toBe(2);
    expect(fenceRefusal(new Error("other"))).toBeUndefined();
  });

  test("answers 412 and 428 through Express's shape on a real server", async () => {
    const gate = new FenceGate();
    const middleware = expressFence(gate);
    let served = 0;
    const server = createServer((request: IncomingMessage, response: ServerResponse) => {
      middleware(request, response, () => {
        served++;
        response.end("done");
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      const ask = async (headers: Record<string, string>): Promise<number> =>
        (await fetch(url, { method: "PUT", headers })).status;
      expect(await ask(fenceHeader({ name: "r", token: 2 }))).toBe(200);
      expect(await ask(fenceHeader({ name: "r", token: 1 }))).toBe(412);
      expect(await ask({})).toBe(428);
      expect(await ask({ "fence-token": "nonsense" })).toBe(400);
      expect(await ask(fenceHeader({ name: "r", token: 2 }))).toBe(200);
      expect(served).toBe(2);
    } finally {
      server.close();
    }
  });

  test("answers through Hono's shape", async () => {
    const middleware = honoFence(new FenceGate());
    const ask = (token: number | undefined): Promise<unknown> =>
      middleware(
        {
          req: { header: () => (token === undefined ? undefined : fenceHeader({ name: "r", token })["fence-token"]) },
          json: (_, status) => status,
        },
        () => Promise.resolve(),
      );
    expect([await ask(2), await ask(1), await ask(undefined)]).toEqual([undefined, 412, 428]);
  });
});

describe("a fence on an ETag", () => {
  function resource() {
    let state: TaggedState = { etag: null, token: undefined };
    let version = 0;
    const meanwhile: (() => void)[] = [];
    const put = (token: number): void => {
      state = { etag: `"${++version}"`, token };
    };
    return {
      meanwhile,
      put,
      state: () => state,
      shape: {
        head: () => Promise.resolve(state),
        put: (condition: { readonly etag: string | null; readonly token: number }) => {
          meanwhile.shift()?.();
          if (condition.etag !== state.etag) return Promise.resolve(false);
          put(condition.token);
          return Promise.resolve(true);
        },
      },
    };
  }

  test("writes in order of tokens, tries again beside an earlier holder, gives way to a later one", async () => {
    const { meanwhile, put, shape, state } = resource();
    await fenceIfMatch(shape, { name: "o", token: 5 });
    meanwhile.push(() => put(5));
    await fenceIfMatch(shape, { name: "o", token: 6 });
    expect(state().token).toBe(6);
    await expect(fenceIfMatch(shape, { name: "o", token: 5 })).rejects.toMatchObject(stale);
    meanwhile.push(() => put(9));
    await expect(fenceIfMatch(shape, { name: "o", token: 7 })).rejects.toMatchObject(stale);
    expect(state().token).toBe(9);
    meanwhile.push(...Array.from({ length: 20 }, () => () => put(9)));
    await expect(fenceIfMatch(shape, { name: "o", token: 10 })).rejects.toMatchObject({ code: "BUSY" });
  });
});

describe("a fence on a file", () => {
  test("shows the highest token's content, whenever a late write arrives", async () => {
    const file = new FencedFile(join(directory, "one"));
    expect(await file.read()).toBeNull();
    await file.write("five", { name: "f", token: 5 });
    await file.write("seven", { name: "f", token: 7 });
    await expect(file.write("six", { name: "f", token: 6 })).rejects.toMatchObject(stale);
    await file.write("seven again", { name: "f", token: 7 });
    const content = await file.read();
    expect([content?.token, String(Buffer.from(content?.bytes ?? []))]).toEqual([7, "seven again"]);
    for (let token = 8; token < 30; token++) await file.write(String(token), { name: "f", token });
    expect(readdirSync(file.directory).length).toBeLessThanOrEqual(3);
    expect((await file.read())?.token).toBe(29);
  });

  test("readers beside writers always find a whole content", async () => {
    const file = new FencedFile(join(directory, "two"));
    await file.write("x".repeat(1000), { name: "f", token: 1 });
    let isWriting = true;
    const writing = (async () => {
      for (let token = 2; token < 60; token++) await file.write("x".repeat(1000), { name: "f", token });
      isWriting = false;
    })();
    let last = 0;
    while (isWriting) {
      const content = await file.read();
      expect(content?.bytes.length).toBe(1000);
      expect(content?.token).toBeGreaterThanOrEqual(last);
      last = content?.token ?? 0;
    }
    await writing;
  });
});

describe("a fence in Redis", async () => {
  const server = await startRedis();
  const skipped = "skipped" in server ? server.skipped : undefined;
  afterAll(() => ("skipped" in server ? undefined : server.stop()));

  test.skipIf(skipped !== undefined)(
    `checks and writes in one script${skipped === undefined ? "" : ` (skipped: ${skipped})`}`,
    async () => {
      if ("skipped" in server) return;
      const client = { sendCommand: (args: readonly string[]) => server.command(...args) };
      const set = (token: number, value: string): Promise<unknown> =>
        fenceRedis(client, { name: "i:1", token, keys: ["{i:1}"], command: ["SET", "{i:1}", value] });
      await set(1_732_180_000_000_001, "first");
      await set(1_732_180_000_000_002, "second");
      await expect(set(1_732_180_000_000_001, "late")).rejects.toMatchObject(stale);
      await set(1_732_180_000_000_002, "second again");
      expect(String(await server.command("GET", "{i:1}"))).toBe("second again");
      const call = { call: (command: string, ...args: readonly string[]) => server.command(command, ...args) };
      const added = await fenceRedis(call, {
        name: "i:1",
        token: 1_732_180_000_000_003,
        keys: ["{i:1}n"],
        command: ["INCRBY", "{i:1}n", "4"],
      });
      expect(Number(added)).toBe(4);
      await expect(fenceRedis({} as never, { name: "i", token: 1, keys: [], command: ["PING"] })).rejects.toMatchObject({
        code: "FOREIGN_CLIENT",
      });
    },
  );
});
