import { describe, expect, test } from "vitest";
import type { WatchBatch } from "../store/store.ts";
import { LocalEngine } from "./local-engine.ts";
import type { BatchFault, CallFault } from "./local-faults.ts";
import { VirtualPlatform } from "./virtual-platform.ts";

async function withFaults(faults: { call?: CallFault; batch?: BatchFault }) {
  const platform = new VirtualPlatform();
  const well = new LocalEngine({ platform });
  const { batch, call } = faults;
  const bent = well.twin({ faults: { call: () => call, batch: () => batch } });
  return { platform, well: well.store("s"), bent: bent.store("s"), engine: bent };
}

const put = (value: string) => ({ then: [{ kind: "put", key: "a", value } as const] });
const read = { then: [{ kind: "get", key: "a" } as const] };

describe("the in-memory twin", () => {
  test.each<[CallFault, string, boolean, boolean]>([
    [{ kind: "refuse" }, "NOT_LEADER", true, false],
    [{ kind: "lose-request" }, "TIMEOUT", false, false],
    [{ kind: "lose-answer" }, "TIMEOUT", false, true],
    [{ kind: "late", delayMs: 12_000 }, "TIMEOUT", false, true],
  ])("bends a call as ordered: %j", async (call, code, definite, happens) => {
    const { platform, well, bent } = await withFaults({ call });
    const outcome = bent.txn(put("1")).catch((error: unknown) => error);
    await platform.advance(10_000);
    expect(await outcome).toMatchObject({ code, definite });
    await platform.advance(10_000);
    const [result] = (await well.txn(read)).results;
    expect(result?.kind === "get" && result.entry !== null).toBe(happens);
  });

  test.each<[BatchFault, string[]]>([
    [{ kind: "drop" }, []],
    [{ kind: "duplicate" }, ["changes 1", "changes 1", "changes 1", "changes 1"]],
    [{ kind: "coalesce", delayMs: 100 }, ["changes 2"]],
    [{ kind: "resync" }, ["resync 1", "resync 1"]],
  ])("bends a batch as ordered: %j", async (batch, expected) => {
    const { platform, well, bent } = await withFaults({ batch });
    const told: string[] = [];
    void (async () => {
      for await (const each of bent.watch({ prefix: "" })) told.push(summary(each));
    })();
    await well.txn(put("1"));
    await well.txn(put("2"));
    await platform.advance(1_000);
    expect(told).toEqual(expected);
  });

  test("a client that is cut off gets no answer and no change, and the whole state afterwards", async () => {
    const { platform, well, bent, engine } = await withFaults({});
    const told: string[] = [];
    void (async () => {
      for await (const each of bent.watch({ prefix: "" })) told.push(summary(each));
    })();
    engine.cutOff();
    const outcome = bent.txn(put("1"), { timeoutMs: 50 }).catch((error: unknown) => error);
    await well.txn(put("2"));
    await platform.advance(50);
    expect(await outcome).toMatchObject({ code: "TIMEOUT" });
    expect(told).toEqual([]);
    engine.heal();
    await platform.settle();
    expect(told).toEqual(["resync 1"]);
  });

  test("a session that nobody confirms is lost at two thirds, and its keys go at the whole TTL", async () => {
    const { platform, well, bent, engine } = await withFaults({});
    const session = await bent.session({ ttlMs: 3_000 });
    await bent.txn({ then: [{ kind: "put", key: "a", value: "1", session: session.id }] });
    await platform.advance(10_000);
    expect(session.alive).toBe(true);
    engine.cutOff();
    const { deadline } = session;
    await platform.advance(deadline - platform.now() - 1);
    expect(session.alive).toBe(true);
    await platform.advance(1);
    expect(session.lost.reason).toMatchObject({ code: "SESSION_LOST" });
    expect((await well.txn(read)).results).toMatchObject([{ entry: { text: "1" } }]);
    await platform.advance(1_000);
    expect((await well.txn(read)).results).toMatchObject([{ entry: null }]);
  });

  test("a confirmation that arrives after the deadline does not bring a session back", async () => {
    const platform = new VirtualPlatform();
    let latencyMs = 0;
    const engine = new LocalEngine({ platform, faults: { latencyMs: () => latencyMs } });
    const session = await engine.store("s").session({ ttlMs: 3_000 });
    latencyMs = 600;
    await platform.advance(2_100);
    expect(session.alive).toBe(false);
    await platform.advance(5_000);
    expect(session.alive).toBe(false);
  });

  test("close ends sessions, watches and calls in flight with CLOSED, once", async () => {
    const { platform, well, bent, engine } = await withFaults({ call: { kind: "lose-answer" } });
    const session = await bent.sharedSession();
    const outcome = bent.txn(put("1")).catch((error: unknown) => error);
    const next = bent.watch({ prefix: "" })[Symbol.asyncIterator]().next();
    await Promise.all([engine.close(), engine.close()]);
    expect(await outcome).toMatchObject({ code: "CLOSED" });
    expect((await next).done).toBe(true);
    expect(session.alive).toBe(false);
    await expect(bent.txn(read)).rejects.toMatchObject({ code: "CLOSED" });
    expect((await well.txn(read)).results).toMatchObject([{ entry: { text: "1" } }]);
    expect(platform.pending.timers).toBe(0);
  });
});

function summary(batch: WatchBatch): string {
  return batch.kind === "changes" ? `changes ${batch.events.length}` : `resync ${batch.entries.length}`;
}
