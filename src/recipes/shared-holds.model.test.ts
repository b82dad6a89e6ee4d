/**
 * Readers, writers, permits and several locks at once under random weather (see `testing/weather.ts`):
 *
 *   1  whenever a hold is granted, it and all that say they are held may be held together
 *   2  tokens never fall in the order of grants; those of writers rise
 *   3  once the weather has cleared, every waiter is served in bounded time, and no key is left behind
 *
 * Replay: CONCLAVE_SEED=n npx vitest run src/recipes/shared-holds.model.test.ts
 */
import { expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { badWeather, type Dice } from "../testing/weather.ts";
import { createReadWriteLock } from "./rw-lock.ts";
import { createSemaphore } from "./semaphore.ts";

const ttlMs = 3_000;
const seedCount = Number(process.env.CONCLAVE_SEEDS ?? 50);
const seeds = process.env.CONCLAVE_SEED
  ? [Number(process.env.CONCLAVE_SEED)]
  : Array.from({ length: seedCount }, (_, index) => index + 1);

interface Held {
  readonly what: string;
  readonly token: number;
  readonly held: boolean;
}

/** What one task asks for, and what must be true of all that are held at once. */
interface Subject {
  /** Null: it was not free. */
  readonly take: (engine: LocalEngine, dice: Dice, signal: AbortSignal, waitMs: number) => Promise<(Held & Releasable) | null>;
  readonly check: (held: readonly Held[]) => void;
  readonly left: (engine: LocalEngine) => Promise<readonly unknown[]>;
}

interface Releasable {
  release(): Promise<void>;
}

const readWrite: Subject = {
  take: async (engine, dice, signal, waitMs) => {
    const lock = createReadWriteLock(engine, "l", { ttlMs });
    const mode = dice.chance(60) ? "read" : "write";
    const hold = await lock[mode].acquire({ signal, waitMs });
    const state = { what: mode as string };
    if (mode === "write" && dice.chance(30)) {
      try {
        await lock.write.downgrade(hold, { timeoutMs: 500 });
        state.what = "stepped down";
      } catch {
        state.what = "write or stepped down";
      }
    }
    return {
      get what() {
        return state.what;
      },
      token: hold.token,
      get held() {
        return hold.held;
      },
      release: () => hold.release(),
    };
  },
  check: (held) => {
    const writers = held.filter(({ what }) => what === "write");
    if (writers.length > 0)
      expect(
        held.map(({ what }) => what),
        "1: a writer is alone",
      ).toHaveLength(1);
    const steppedDown = held.filter(({ what }) => what !== "read" && what !== "write");
    expect(steppedDown.length, "1: one who stepped down still keeps other writers out").toBeLessThanOrEqual(1);
  },
  left: (engine) => createReadWriteLock(engine, "l", { ttlMs }).queue(),
};

const permits: Subject = {
  take: async (engine, dice, signal, waitMs) => {
    const semaphore = createSemaphore(engine, "s", { permits: 5, ttlMs });
    const count = 1 + dice.below(4);
    const hold =
      waitMs === 0
        ? await semaphore.tryAcquire({ permits: count, signal })
        : await semaphore.acquire({ permits: count, signal, waitMs });
    if (hold === null) return null;
    return {
      what: String(count),
      token: hold.token,
      get held() {
        return hold.held;
      },
      release: () => hold.release(),
    };
  },
  check: (held) => {
    const sum = held.reduce((total, { what }) => total + Number(what), 0);
    expect(sum, "1: no more permits than there are").toBeLessThanOrEqual(5);
  },
  left: (engine) => createSemaphore(engine, "s", { permits: 5, ttlMs }).queue(),
};

async function runSeed(seed: number, watch: "log" | "level", subject: Subject): Promise<number> {
  const platform = new VirtualPlatform({ seed });
  const weather = badWeather(seed * 7 + 1, watch);
  const { dice } = weather;
  const root = new LocalEngine({ platform, watch });
  const clients = Array.from({ length: 2 + dice.below(3) }, () => root.twin({ faults: weather.faults }));
  const pause = (ms: number): Promise<void> => new Promise((resolve) => void platform.setTimer(ms, resolve));
  const holds: Held[] = [];
  let granted = 0;

  const task = async (client: LocalEngine): Promise<void> => {
    let turns = 1 + dice.below(3);
    while (turns > 0) {
      await pause(dice.below(200));
      const controller = new AbortController();
      const mode = weather.isBad ? dice.below(10) : 9;
      if (mode === 0) platform.setTimer(dice.below(400), () => controller.abort(new Error("enough")));
      const waitMs = mode === 1 ? 0 : mode === 2 ? dice.below(500) : Number.POSITIVE_INFINITY;
      try {
        const hold = await subject.take(client, dice, controller.signal, waitMs);
        if (hold === null) continue;
        if (hold.held) {
          holds.push(hold);
          granted++;
          subject.check(holds.filter(({ held }) => held));
        }
        await pause(dice.below(100));
        // Some are killed: they never release, and their session goes on for a while.
        if (weather.isBad && dice.chance(3)) await pause(2 * ttlMs);
        await hold.release();
        turns--;
      } catch (error) {
        if (error instanceof Error && error.name === "AssertionError") throw error;
        await pause(20);
      }
    }
  };

  let failure: unknown;
  let running = 0;
  for (let index = 0; index < 8; index++) {
    running++;
    task(clients[index % clients.length] as LocalEngine)
      .catch((error: unknown) => (failure = error))
      .finally(() => running--);
  }
  for (let step = 0; step < 60 && failure === undefined; step++) {
    await platform.advance(dice.below(200));
    if (dice.chance(4)) platform.stall(dice.below(2 * ttlMs));
    if (dice.chance(4)) {
      const client = clients[dice.below(clients.length)] as LocalEngine;
      client.cutOff();
      platform.setTimer(dice.below(2 * ttlMs), () => client.heal());
    }
  }
  weather.isBad = false;
  for (let waited = 0; running > 0 && failure === undefined && waited < 8 * 2 * ttlMs + 20_000; waited += 500)
    await platform.advance(500);
  if (failure !== undefined) throw failure;
  expect(running, "3: every waiter is served").toBe(0);
  await platform.advance(4 * ttlMs);
  expect(await subject.left(root), "3: no key is left").toEqual([]);
  expect(platform.pending.refs, "nothing keeps the process alive").toBe(0);
  return granted;
}

test.each([
  ["readers and writers", "log", readWrite],
  ["readers and writers", "level", readWrite],
  ["permits", "log", permits],
  ["permits", "level", permits],
] as const)(
  "%s are held together only where they may, and served, in any weather (watch: %s)",
  { timeout: 120_000 },
  async (_, watch, subject) => {
    let granted = 0;
    for (const seed of seeds) {
      try {
        granted += await runSeed(seed, watch, subject);
      } catch (error) {
        throw new Error(`Seed ${seed} fails (watch: ${watch}).`, { cause: error });
      }
    }
    expect(granted).toBeGreaterThan(seeds.length);
  },
);
