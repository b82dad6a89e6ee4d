/**
 * Locks by observation on an in-memory twin of a compare-and-set store, in virtual time: a network that is slow, loses
 * answers, delivers requests long after they were given up, and clients whose clocks run at different rates.
 */
import { expect, test } from "vitest";
import { utf8Encode } from "../base/bytes.ts";
import { conclaveError, hasCode } from "../base/errors.ts";
import { onAbort } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import { embeddedLimits } from "../store/caps.ts";
import type { CallOptions, CasEntry, CasStore, Revision } from "../store/store.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createCasCounter } from "./cas-counter.ts";
import { createCasElection } from "./cas-election.ts";
import type { CasHold } from "./cas-hold.ts";
import { type CasSource, createCasLock } from "./cas-lock.ts";

/** The state that all clients share. */
class Twin {
  readonly platform: VirtualPlatform;
  readonly cells = new Map<string, { revision: Revision; value: Uint8Array | null }>();
  #revision = 1;

  constructor(seed: number) {
    this.platform = new VirtualPlatform({ seed });
  }

  get(whole: string): CasEntry | null {
    const cell = this.cells.get(whole);
    return cell === undefined || cell.value === null ? null : { key: whole, value: cell.value, revision: cell.revision };
  }

  set(whole: string, expected: Revision | null, value: Uint8Array | null): { applied: boolean; current: CasEntry | null } {
    const before = this.get(whole);
    if ((before?.revision ?? null) !== expected) return { applied: false, current: before };
    this.cells.set(whole, { revision: ++this.#revision, value });
    return { applied: true, current: this.get(whole) };
  }
}

/** One client: its own network and its own clock. */
class TwinClient implements CasSource {
  readonly caps = {
    engine: "twin",
    linearizable: "per-partition",
    durability: "memory",
    watch: "none",
    handOff: "poll",
    clock: "none",
    fair: false,
    crossNamespace: false,
    claims: false,
    olderReads: false,
    tokenSurvives: [],
    limits: embeddedLimits,
  } as const;
  readonly platform: Platform;
  isCutOff = false;
  /** Of requests and of answers: the share that is lost. */
  loss = 0;
  readonly #twin: Twin;

  constructor(twin: Twin, rate = 1) {
    this.#twin = twin;
    const { platform } = twin;
    this.platform = {
      now: () => platform.now() * rate,
      wallMs: () => platform.wallMs(),
      setTimer: (delayMs, callback, options) => platform.setTimer(delayMs / rate, callback, options),
      defer: (callback) => platform.defer(callback),
      randomUint32: () => platform.randomUint32(),
    };
  }

  cas(namespace: string): CasStore {
    const whole = (key: string | Uint8Array): string => `${namespace}/${String(key)}`;
    return {
      namespace,
      caps: this.caps,
      get: (key, options) => this.#call(() => this.#twin.get(whole(key)), options),
      compareAndSet: ({ key, expected, value }, options) => {
        const bytes = typeof value === "string" ? utf8Encode(value) : value;
        return this.#call(() => this.#twin.set(whole(key), expected, bytes), options);
      },
      range: () => Promise.reject(new Error("not asked for")),
    };
  }

  #call<T>(act: () => T, { signal, timeoutMs = 10_000 }: CallOptions = {}): Promise<T> {
    const { platform } = this.#twin;
    const draw = (): number => platform.randomUint32() / 2 ** 32;
    return new Promise((resolve, reject) => {
      platform.setTimer(timeoutMs, () => reject(conclaveError("TIMEOUT", "The twin did not answer.")));
      if (signal !== undefined) onAbort(signal, () => reject(signal.reason as Error));
      if (this.isCutOff) return;
      const isLost = draw() < this.loss;
      // Lost on the way there it arrives all the same, long after everybody has given it up.
      const wayMs = isLost && draw() < 0.5 ? 2_000 + draw() * 20_000 : draw() * 200;
      platform.setTimer(wayMs, () => {
        const answer = act();
        if (isLost || this.isCutOff) return;
        platform.setTimer(draw() * 200, () => resolve(answer));
      });
    });
  }
}

async function until(platform: VirtualPlatform, isSo: () => boolean, what: string, ms = 600_000): Promise<void> {
  const untilMs = platform.now() + ms;
  while (!isSo()) {
    if (platform.now() > untilMs) throw new Error(`Not within ${ms} ms: ${what}.`);
    await platform.advance(100);
  }
}

test("a free lock is granted by one set, a held one is not, and a released one is free again", async () => {
  const twin = new Twin(1);
  const [one, two] = [new TwinClient(twin), new TwinClient(twin)];
  let hold: CasHold | null = null;
  createCasLock(one, "a")
    .acquire()
    .then((granted) => {
      hold = granted;
    }, undefined);
  await until(twin.platform, () => hold !== null, "the grant", 400);
  const busy = createCasLock(two, "a").tryAcquire();
  await twin.platform.advance(1_000);
  expect(await busy).toBe(null);
  const late = createCasLock(two, "a")
    .acquire({ waitMs: 500 })
    .catch((error: unknown) => error);
  await twin.platform.advance(10_000);
  expect(hasCode(await late, "LOCK_TIMEOUT")).toBe(true);
  // Renewed all along.
  await twin.platform.advance(120_000);
  expect((hold as unknown as CasHold).held).toBe(true);
  const released = (hold as unknown as CasHold).release();
  await twin.platform.advance(1_000);
  await released;
  const next = createCasLock(two, "a").tryAcquire();
  await twin.platform.advance(1_000);
  expect((await next)?.token).toBeGreaterThan((hold as unknown as CasHold).token);
});

test("a holder that is cut off stops before anybody takes over, whatever the rates of their clocks within a sixth", async () => {
  for (const [rateOfHolder, rateOfWaiter] of [
    [1, 1],
    [0.85, 1.15],
    [1.15, 0.85],
  ] as const) {
    const twin = new Twin(2);
    const [one, two] = [new TwinClient(twin, rateOfHolder), new TwinClient(twin, rateOfWaiter)];
    const held: CasHold[] = [];
    const take = (client: TwinClient): void => {
      createCasLock(client, "a", { ttlMs: 9_000 })
        .acquire({ waitMs: Number.POSITIVE_INFINITY })
        .then((hold) => held.push(hold), undefined);
    };
    take(one);
    await until(twin.platform, () => held.length === 1, "the first grant");
    take(two);
    await twin.platform.advance(20_000);
    expect(held).toHaveLength(1);
    one.isCutOff = true;
    const cutAtMs = twin.platform.now();
    await until(twin.platform, () => held.length === 2, "the take-over");
    expect(held[0]?.held).toBe(false);
    expect(held[0]?.signal.aborted).toBe(true);
    expect(held[1]?.token).toBeGreaterThan(held[0]?.token as number);
    // About two TTLs at most.
    expect(twin.platform.now() - cutAtMs).toBeLessThan(2.5 * 9_000);
  }
});

test("in a network that loses and delays, over many seeds: never two holders, tokens in the order of grants, and everybody is served", async () => {
  let grants = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const twin = new Twin(seed);
    const clients = [0.9, 1, 1.1, 1].map((rate) => new TwinClient(twin, rate));
    const holds: CasHold[] = [];
    let [served, isOver] = [0, false];
    const work = async (client: TwinClient): Promise<void> => {
      const lock = createCasLock(client, "a", { ttlMs: 6_000 });
      for (let round = 0; round < 4; ) {
        const hold = await lock.acquire({ waitMs: Number.POSITIVE_INFINITY });
        const others = holds.filter((each) => each.held).length;
        if (hold.held) expect(others, `two holders with seed ${seed}`).toBe(0);
        const last = holds.at(-1)?.token ?? 0;
        expect(hold.token, `tokens with seed ${seed}`).toBeGreaterThan(last);
        holds.push(hold);
        await new Promise<void>((resolve) => void twin.platform.setTimer(500 + (twin.platform.randomUint32() % 8_000), resolve));
        if (hold.held) round++;
        await hold.release();
      }
      served++;
    };
    for (const client of clients) client.loss = 0.25;
    const all = Promise.all(clients.map(work)).finally(() => {
      isOver = true;
    });
    all.catch(() => undefined);
    // Now and then somebody is cut off for a while; in the end the network heals.
    for (let turn = 0; turn < 20 && !isOver; turn++) {
      const client = clients[twin.platform.randomUint32() % clients.length] as TwinClient;
      client.isCutOff = true;
      await twin.platform.advance(twin.platform.randomUint32() % 12_000);
      client.isCutOff = false;
      await twin.platform.advance(5_000);
    }
    for (const client of clients) client.loss = 0;
    await until(twin.platform, () => isOver, `everybody is served with seed ${seed}`, 1_200_000);
    await all;
    expect(served).toBe(4);
    grants += holds.length;
  }
  expect(grants).toBeGreaterThan(900);
}, 120_000);

test("a broken hold ends with its next renewal, and does not take back what somebody else has", async () => {
  const twin = new Twin(3);
  const [one, two] = [new TwinClient(twin), new TwinClient(twin)];
  const holding = createCasLock(one, "a", { ttlMs: 9_000 }).acquire();
  await twin.platform.advance(1_000);
  const hold = await holding;
  const breaking = createCasLock(two, "a").break();
  const next = breaking.then(() => createCasLock(two, "a", { ttlMs: 9_000 }).acquire());
  await twin.platform.advance(9_000);
  expect([hold.held, hold.signal.aborted]).toEqual([false, true]);
  await hold.release();
  await twin.platform.advance(60_000);
  expect((await next).held).toBe(true);
});

test("an election calls back in turns, and a lost term is followed by another", async () => {
  const twin = new Twin(5);
  const [one, two] = [new TwinClient(twin), new TwinClient(twin)];
  const terms: string[] = [];
  const lead = (client: TwinClient, value: string): Promise<string> =>
    createCasElection(client, "a", { ttlMs: 6_000 }).lead(
      async (term) => {
        terms.push(value);
        await new Promise<void>((resolve) => {
          term.signal.addEventListener("abort", () => resolve());
          twin.platform.setTimer(20_000, resolve);
        });
        return value;
      },
      { value },
    );
  const done = Promise.all([lead(one, "one"), lead(two, "two")]);
  await until(twin.platform, () => terms.length === 1, "the first term");
  const first = terms[0] === "one" ? one : two;
  first.isCutOff = true;
  await until(twin.platform, () => terms.length === 2, "the second term");
  expect(terms[1]).not.toBe(terms[0]);
  first.isCutOff = false;
  await until(twin.platform, () => terms.length === 3, "the lost one leads again");
  expect(terms[2]).toBe(terms[0]);
  await twin.platform.advance(60_000);
  expect(await done).toEqual(["one", "two"]);
});

test("a counter counts every add of every client", async () => {
  const twin = new Twin(6);
  const counters = [1, 2, 3].map(() => createCasCounter(new TwinClient(twin), "n"));
  const sums = Promise.all(counters.flatMap((counter) => [1, 2, 3].map(() => counter.addAndGet(1, { timeoutMs: 600_000 }))));
  await twin.platform.advance(120_000);
  expect([...(await sums)].sort((left, right) => left - right)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
