import { expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { formatGid } from "./gid.ts";
import type { BranchRef, Participant } from "./participant.ts";
import { recordKeys, transactionsNamespace } from "./records.ts";
import { Recovery } from "./recovery.ts";

const domain = "abcdef";
const resource = "orders";

/** A database whose branches are what the test puts there. */
class Database implements Participant {
  readonly branches = new Set<BranchRef>();

  async finish(ref: BranchRef) {
    return this.branches.delete(ref) ? ("done" as const) : ("not-found" as const);
  }

  async evidence() {
    return { state: "absent" as const };
  }

  async fence() {
    return "fenced" as const;
  }

  async evict() {
    return false;
  }

  async scan() {
    return [...this.branches];
  }
}

test("a branch whose PREPARE lands after its coordinator's end is rolled back within the second, whenever it lands", async () => {
  const { platform, database, end, die } = await start();
  for (const [at, landsMs] of [0, 90, 260, 600, 1_010, 1_400, 1_900, 2_450].entries()) {
    await platform.advance(10_000);
    await die(at);
    await platform.advance(landsMs);
    database.branches.add({ gid: gidOf(at), branch: 1, resource });
    await platform.advance(600);
    expect(database.branches.size, `landed ${landsMs} ms after the end`).toBe(0);
  }
  end();
});

async function start() {
  const platform = new VirtualPlatform();
  const store = new LocalEngine({ platform }).store(transactionsNamespace);
  const database = new Database();
  const closing = new AbortController();
  const recovery = new Recovery({
    store,
    participants: new Map([[resource, database]]),
    domain,
    own: () => [],
    onSettled: () => undefined,
    signal: closing.signal,
    // What the clock finds is not what is tested.
    scanEveryMs: 3_600_000,
  });
  recovery.start();
  return {
    platform,
    database,
    end: () => closing.abort(new Error("the test is over")),
    /** The key of a coordinator vanishes. */
    die: async (at: number) => {
      const key = recordKeys.coordinator(`died${at}xyz`);
      const put = store.txn({ then: [{ kind: "put", key, value: "{}" }] });
      await platform.advance(1);
      await put;
      const gone = store.txn({ then: [{ kind: "delete", range: { key } }] });
      await platform.advance(1);
      await gone;
    },
  };
}

function gidOf(at: number): string {
  return formatGid({ domain, coordinator: "diedxxyz", epoch: 1, sequence: at + 1, agent: undefined });
}
