/**
 * One lease, two threads: the rule by which a blocked event loop keeps a session, and stops keeping it.
 */
import { expect, test } from "vitest";
import type { Platform, Timer } from "../base/ports.ts";
import { ProcessHold } from "./process-hold.ts";
import { ClientSession, type SessionHost } from "./session.ts";
import { adopted, type SharedLease } from "./stall-keeper.ts";

const ttlMs = 3_000;
const maxStallMs = 10_000;

/** A thread whose loop can be blocked: the clock goes on, and no timer fires until `turn`. */
class Thread implements Platform {
  nowMs = 0;
  isBlocked = false;
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  now = (): number => this.nowMs;
  wallMs = (): number => 0;
  defer = (callback: () => void): void => callback();
  randomUint32 = (): number => 0;

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  turn(): void {
    if (this.isBlocked) return;
    for (const timer of [...this.#timers]) {
      if (timer.atMs > this.nowMs || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
  }
}

class Lease implements SharedLease {
  readonly maxStallMs = maxStallMs;
  confirmedMs = Number.NEGATIVE_INFINITY;
  beatMs = Number.NEGATIVE_INFINITY;
  confirm(sentMs: number): void {
    this.confirmedMs = Math.max(this.confirmedMs, sentMs);
  }
  beat(nowMs: number): void {
    this.beatMs = nowMs;
  }
}

/** A store that confirms at once what it is told while it answers. */
class Host implements SessionHost {
  readonly processHold: ProcessHold;
  readonly platform: Platform;
  saidMs: number[] = [];
  answers = true;
  constructor(platform: Platform) {
    this.platform = platform;
    this.processHold = new ProcessHold(platform);
  }
  keepAlive(session: ClientSession): void {
    const nowMs = this.platform.now();
    this.saidMs.push(nowMs);
    session.attempted(nowMs);
    if (this.answers) session.confirm(nowMs);
  }
  end = async (): Promise<void> => undefined;
  forget = (): void => undefined;
}

function scene() {
  const [here, there] = [new Thread(), new Thread()];
  const [host, keeperHost] = [new Host(here), new Host(there)];
  const lease = new Lease();
  const session = new ClientSession({ id: "1", ttlMs, sentMs: 0, host });
  session.keptBy(lease);
  const keeper = adopted({ id: "1", ttlMs, lease }, keeperHost);
  const pass = (ms: number): void => {
    for (let step = 0; step < ms; step += 10) {
      for (const thread of [here, there]) thread.nowMs += 10;
      there.turn();
      here.turn();
    }
  };
  return { here, host, keeperHost, lease, session, keeper, pass };
}

test("while all is well the keeper alone says keep-alives, a third of the TTL apart", () => {
  const { host, keeperHost, pass, session } = scene();
  pass(9_000);
  expect(session.alive).toBe(true);
  expect(host.saidMs).toEqual([]);
  expect(keeperHost.saidMs.length).toBeGreaterThanOrEqual(8);
  expect(keeperHost.saidMs.length).toBeLessThanOrEqual(9);
});

test("a block shorter than `maxStallMs` loses nothing, though it is longer than the TTL", () => {
  const { here, keeper, pass, session } = scene();
  pass(1_000);
  here.isBlocked = true;
  pass(maxStallMs - 500);
  expect(session.alive).toBe(true);
  here.isBlocked = false;
  pass(30_000);
  expect([session.alive, keeper.alive]).toEqual([true, true]);
});

test("a longer block loses the session: the first look says so, and the keeper said nothing more", () => {
  const { here, keeper, keeperHost, lease, pass, session } = scene();
  pass(1_000);
  here.isBlocked = true;
  const stallEndMs = lease.beatMs + maxStallMs;
  pass(2 * maxStallMs);
  expect(session.alive).toBe(false);
  expect(session.lost.aborted).toBe(true);
  expect(keeper.lost.aborted).toBe(true);
  expect(Math.max(...keeperHost.saidMs)).toBeLessThan(stallEndMs);
  expect((session.lost.reason as Error).message).toContain("maxStallMs");
});

test("the turn that ends a block that was too long revives nothing, even where nobody looked before it", () => {
  const { here, pass, session } = scene();
  pass(1_000);
  here.isBlocked = true;
  pass(maxStallMs + 500);
  here.isBlocked = false;
  pass(500);
  expect(session.alive).toBe(false);
});

test("who has seen the deadline passed goes on seeing that, though the keeper confirms a moment later", () => {
  const { here, host, keeperHost, lease, pass, session } = scene();
  keeperHost.answers = host.answers = false;
  here.isBlocked = true;
  pass(2_100);
  expect(session.alive).toBe(false);
  // The other thread had judged a hair earlier.
  lease.confirm(2_000);
  expect(session.deadline).toBeGreaterThan(here.nowMs);
  expect(session.alive).toBe(false);
});

test("where the keeper is silent the holder's own loop says the keep-alives", () => {
  const { host, keeperHost, pass, session } = scene();
  keeperHost.answers = false;
  pass(12_000);
  expect(session.alive).toBe(true);
  // At its usual pace, from the first: the thread may take its time to start.
  expect(host.saidMs[0]).toBeLessThanOrEqual(ttlMs / 3 + 10);
  expect(host.saidMs.length).toBeGreaterThanOrEqual(11);
});

test("a keeper whose own answers are lost goes on by what the holder was confirmed", () => {
  const { keeper, keeperHost, pass } = scene();
  keeperHost.answers = false;
  pass(12_000);
  expect(keeper.alive).toBe(true);
});
