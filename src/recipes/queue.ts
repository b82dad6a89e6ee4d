/**
 * A bounded queue with leases: an item that was taken and not finished comes back.
 *
 * Intuition: parcels on a shelf. Whoever works on one puts a name tag on it; the tag vanishes with its owner, and the
 * parcel is anybody's again. Only who still has the tag may take the parcel away.
 *
 *   item/<id>    the payload                in create order
 *   taken/<id>   the tag                    bound to the consumer's session
 *   tries/<id>   how often it was taken     a number
 *   dead/<id>    a payload that was taken too often
 *
 * Delivery is at least once: a consumer that loses its tag may have done the work. `delivery.guard()` lets a txn of the
 * same store be exact, `delivery.token` a guard elsewhere. Order is that of the shelf for a single consumer, and roughly so
 * among many. It is no broker: every item is a key, so keep it short; `sizeMax` is a bound, not a goal.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import { type LinkedSignal, linkSignal } from "../base/link-signal.ts";
import type { Timer } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Compare, OpResult, Revision, Session, Store, TxnResult } from "../store/store.ts";
import { lockDefaults } from "./acquirable.ts";
import { sleep } from "./bell.ts";
import { insist } from "./insist.ts";
import { decodeMetadata, encodeMetadata } from "./metadata.ts";
import { observeRange } from "./observe.ts";
import { checkCount, checkName, checkTtlMs, type StoreSource } from "./options.ts";
import { type WaitOptions, withinWait } from "./wait.ts";

export interface QueueOptions {
  /**
   * How many items it takes before `push` is refused. Default 1_000. Producers that push at the same moment may pass it by
   * one each.
   */
  readonly sizeMax?: number;
  /** How long a silent consumer keeps its items. As for a lock. Default 15_000. */
  readonly ttlMs?: number;
  /** How long a consumer may work on an item before it counts as lost, however healthy. Milliseconds. Default 60_000. */
  readonly visibilityMs?: number;
  /** How often an item is delivered before it is put aside as dead. Default 10. */
  readonly triesMax?: number;
}

/** @since 0.2.0 */
export const queueDefaults = { sizeMax: 1_000, visibilityMs: 60_000, triesMax: 10 } as const;

export interface QueueItem {
  readonly id: string;
  readonly payload: unknown;
}

/** How many items a consumer looks at for one that nobody has taken. */
const lookAt = 64;
const items = { prefix: "item/" } as const;
const tags = { prefix: "taken/" } as const;
const dead = { prefix: "dead/" } as const;

/** Makes the handle of a queue; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createQueue(engine: StoreSource, name: string, options: QueueOptions = {}): WorkQueue {
  checkName(name, "queue");
  const store = engine.store(`queue/${name}`);
  const full = { name, ttlMs: lockDefaults.ttlMs, ...queueDefaults, ...options };
  checkTtlMs(full.ttlMs, store.caps.limits, store.caps.engine);
  checkCount(full.sizeMax, "sizeMax");
  checkCount(full.visibilityMs, "visibilityMs");
  checkCount(full.triesMax, "triesMax");
  return new WorkQueue(store, full);
}

/** @since 0.2.0 */
export class WorkQueue {
  readonly name: string;
  readonly #store: Store;
  readonly #options: Required<QueueOptions>;

  /** Use `createQueue`, which checks the options. */
  constructor(store: Store, options: Required<QueueOptions> & { readonly name: string }) {
    this.#store = store;
    this.name = options.name;
    this.#options = options;
  }

  /**
   * Puts an item at the end; answers with its id. Two round trips.
   * @param payload Anything that JSON can carry.
   * @throws QUEUE_FULL (nothing was put), INVALID_OPTION, TIMEOUT (may have happened; a retry of `push` puts a second item)
   */
  async push(payload: unknown, { id, ...options }: CallOptions & { readonly id?: string } = {}): Promise<string> {
    const { platform } = this.#store;
    const value = encodeMetadata(payload, "payload");
    const size = await this.size(options);
    if (size >= this.#options.sizeMax) {
      throw conclaveError("QUEUE_FULL", `Queue ${JSON.stringify(this.name)} has ${size} items, its bound.`);
    }
    const ownId = id ?? `${platform.randomUint32().toString(36)}${platform.randomUint32().toString(36)}`;
    const key = items.prefix + ownId;
    // By its id, an item is put once however often the call is sent.
    const { signal = new AbortController().signal } = options;
    await insist(
      () =>
        this.#store.txn(
          { if: [{ key, target: "exists", is: "equal", to: false }], then: [{ kind: "put", key, value }] },
          options,
        ),
      { platform, signal },
    );
    return ownId;
  }

  /** Items on the shelf, taken or not. One round trip. */
  async size(options?: CallOptions): Promise<number> {
    return (await this.#list(items, 1, options)).count;
  }

  /** Takes the first item that nobody has, or null. Two round trips. */
  async tryTake(options: CallOptions = {}): Promise<Delivery | null> {
    const link = linkSignal(options.signal);
    try {
      return await this.#take({ ...options, signal: link.signal });
    } finally {
      link.unlink();
    }
  }

  /** Waits for an item. @throws WAIT_TIMEOUT, or the signal's reason */
  take(options: WaitOptions = {}): Promise<Delivery> {
    return withinWait(this.#store.platform, options, `Queue ${JSON.stringify(this.name)}`, async (signal) => {
      for await (const _ of observeRange(this.#store, { range: { prefix: "" }, limit: 1, keysOnly: true, signal })) {
        const delivery = await this.#take({ signal });
        if (delivery !== null) return delivery;
      }
      throw new Error("unreachable: the loop above has no end");
    });
  }

  /**
   * Takes items and calls, until the signal aborts: finishes those for which the function succeeds, gives back the others.
   * Resolves once all that were under way have settled. `onFailure` hears what the function threw; default: nobody.
   */
  async consume(
    work: (delivery: Delivery) => unknown,
    {
      signal,
      concurrency = 1,
      onFailure,
    }: {
      readonly signal: AbortSignal;
      readonly concurrency?: number;
      readonly onFailure?: (error: unknown, delivery: Delivery) => void;
    },
  ): Promise<void> {
    checkCount(concurrency, "concurrency");
    const lane = async (): Promise<void> => {
      while (!signal.aborted) {
        const delivery = await this.take({ signal, waitMs: Number.POSITIVE_INFINITY });
        try {
          await work(delivery);
          await delivery.finish();
        } catch (error) {
          onFailure?.(error, delivery);
          await delivery.giveBack();
        }
      }
    };
    const lanes = await Promise.allSettled(Array.from({ length: concurrency }, lane));
    const failed = lanes.find((outcome) => outcome.status === "rejected" && !signal.aborted);
    if (failed?.status === "rejected") throw failed.reason;
  }

  /** Items that were put aside after `triesMax` deliveries. One round trip. Default limit 100. */
  async dead({ limit = 100, ...options }: CallOptions & { readonly limit?: number } = {}): Promise<readonly QueueItem[]> {
    return (await this.#list(dead, limit, options)).entries.map((entry) => itemOf(entry, dead.prefix));
  }

  async #list(
    range: { readonly prefix: string },
    limit: number,
    options?: CallOptions,
  ): Promise<Extract<OpResult, { kind: "range" }>> {
    const { results } = await this.#store.txn({ then: [{ kind: "range", range, order: "create", limit }] }, options);
    return rangeIn(results[0]);
  }

  async #take(options: CallOptions & { readonly signal: AbortSignal }): Promise<Delivery | null> {
    const { platform } = this.#store;
    const { signal } = options;
    const session = await this.#store.sharedSession({ ttlMs: this.#options.ttlMs, signal });
    // Each turn either delivers, finds nothing, or has lost to somebody else, who made progress.
    for (;;) {
      const { results } = await insist(
        () =>
          this.#store.txn(
            {
              then: [
                { kind: "range", range: items, order: "create", limit: lookAt },
                { kind: "range", range: tags, keysOnly: true },
              ],
            },
            options,
          ),
        { platform, signal },
      );
      const taken = new Set(rangeIn(results[1]).entries.map(({ key }) => key.slice(tags.prefix.length)));
      const free = rangeIn(results[0]).entries.find(({ key }) => !taken.has(key.slice(items.prefix.length)));
      if (free === undefined) return null;
      const delivery = await this.#tag(free, session, options);
      if (delivery !== null) return delivery;
    }
  }

  /** Null: somebody else was faster, or the item was put aside. */
  async #tag(item: Entry, session: Session, options: CallOptions & { readonly signal: AbortSignal }): Promise<Delivery | null> {
    const { platform } = this.#store;
    const id = item.key.slice(items.prefix.length);
    const tag = tags.prefix + id;
    const tries = `tries/${id}`;
    const owner = `${session.id}/${platform.randomUint32()}`;
    let inDoubt = false;
    const attempt = async (): Promise<TxnResult> => {
      try {
        return await this.#store.txn(
          {
            if: [
              { key: tag, target: "exists", is: "equal", to: false },
              { key: item.key, target: "createRevision", is: "equal", to: item.createRevision },
            ],
            then: [
              { kind: "put", key: tag, value: owner, session: session.id },
              { kind: "add", key: tries, delta: 1 },
            ],
            else: [
              { kind: "get", key: tag },
              { kind: "get", key: tries },
            ],
          },
          options,
        );
      } catch (error) {
        inDoubt = true;
        throw error;
      }
    };
    let answer: TxnResult;
    try {
      answer = await insist(attempt, { platform, signal: options.signal });
    } catch (error) {
      if (inDoubt) background(removeTag({ store: this.#store, session, tag, owner }, { inDoubt }), "giving an item back");
      throw error;
    }
    const { succeeded, revision, results } = answer;
    let count: number;
    let token = revision;
    if (succeeded) {
      const added = results[1];
      assert(added?.kind === "add", "an add is answered with the sum");
      count = added.value;
    } else {
      const [tagged, tried] = results;
      assert(tagged?.kind === "get" && tried?.kind === "get", "a get is answered with an entry or null");
      if (tagged.entry?.text !== owner) return null;
      // An attempt without an answer had put it.
      count = Number(tried.entry?.text ?? 1);
      token = tagged.entry.createRevision;
    }
    const delivery = new Delivery({
      store: this.#store,
      session,
      item: itemOf(item, items.prefix),
      keys: [item.key, tag, tries],
      tag,
      owner,
      inDoubt,
      token,
      tries: count,
      visibilityMs: this.#options.visibilityMs,
      title: `Item ${id} of queue ${JSON.stringify(this.name)}`,
    });
    if (count <= this.#options.triesMax) return delivery;
    await delivery.bury(dead.prefix + id, item.value);
    return null;
  }
}

interface DeliveryParts {
  readonly store: Store;
  readonly session: Session;
  readonly item: QueueItem;
  /** All keys that go with the item. */
  readonly keys: readonly string[];
  readonly tag: string;
  /** What the tag says. */
  readonly owner: string;
  /** An earlier attempt to put the tag was not answered, and may still arrive. */
  readonly inDoubt: boolean;
  readonly token: Revision;
  readonly tries: number;
  readonly visibilityMs: number;
  readonly title: string;
}

/** An item in this consumer's hands, until it is finished, given back or lost. @since 0.2.0 */
export class Delivery {
  readonly id: string;
  readonly payload: unknown;
  /** Higher than that of every delivery of this item before: whoever you write to can refuse what comes from those. */
  readonly token: Revision;
  /** 1 at the first delivery. */
  readonly tries: number;
  readonly #parts: DeliveryParts;
  readonly #lossController = new AbortController();
  readonly #sessionLost: LinkedSignal;
  readonly #letGo: () => void;
  readonly #deadlineMs: number;
  readonly #timer: Timer;
  #isOver = false;

  constructor(parts: DeliveryParts) {
    const { store, session } = parts;
    this.id = parts.item.id;
    this.payload = parts.item.payload;
    this.token = parts.token;
    this.tries = parts.tries;
    this.#parts = parts;
    this.#letGo = session.hold();
    this.#deadlineMs = store.platform.now() + parts.visibilityMs;
    this.#timer = store.platform.setTimer(parts.visibilityMs, () => this.#judge(), { ref: false });
    this.#sessionLost = linkSignal(session.lost);
    this.#sessionLost.signal.addEventListener("abort", () => this.#judge(), { once: true });
  }

  /** Whether the item is still this consumer's, by its own clock. */
  get held(): boolean {
    this.#judge();
    return !this.#isOver;
  }

  /** Aborts when the item is lost: with its session, or because the work took too long. Pass it to the work. */
  get signal(): AbortSignal {
    this.#judge();
    return this.#lossController.signal;
  }

  /** True in a txn of the queue's own store (with `caps.crossNamespace`: of any) exactly while the item is this consumer's. */
  guard(): Compare {
    const { store, tag, token } = this.#parts;
    const compare = { key: tag, target: "createRevision", is: "equal", to: token } as const;
    return store.caps.crossNamespace ? { ...compare, namespace: store.namespace } : compare;
  }

  /** The work is done: the item is gone. @throws LOCK_LOST (it was lost before; somebody else may be at it) */
  async finish(options: CallOptions = {}): Promise<void> {
    if (!this.held) throw this.#loss();
    await this.#end(async (signal) => {
      const { store, keys } = this.#parts;
      const txn = {
        if: [this.guard()],
        then: keys.map((key) => ({ kind: "delete", range: { key } }) as const),
        else: [{ kind: "get", key: keys[0] as string } as const],
      };
      let attempts = 0;
      const attempt = (): Promise<TxnResult> => {
        attempts++;
        return store.txn(txn, options);
      };
      const { succeeded, results } = await insist(attempt, { platform: store.platform, signal });
      if (succeeded) return;
      // Where an attempt had no answer, the item may be gone by my own hand; else somebody else's took it away.
      const isGone = results[0]?.kind === "get" && results[0].entry === null;
      if (!isGone || attempts === 1) throw this.#loss();
    });
  }

  /** Puts the item back for anybody, this consumer included. Never rejects; a lost item is back already. */
  async giveBack(): Promise<void> {
    if (!this.held) return;
    this.#close();
    const removed = removeTag(this.#parts, this.#parts);
    if (this.#parts.inDoubt) background(removed, "giving an item back");
    else await removed;
  }

  /** Moves the item aside. For the queue. */
  async bury(key: string, value: Uint8Array): Promise<void> {
    await this.#end(async (signal) => {
      const { store, keys } = this.#parts;
      const gone = keys.map((each) => ({ kind: "delete", range: { key: each } }) as const);
      const txn = { if: [this.guard()], then: [{ kind: "put", key, value } as const, ...gone] };
      await insist(() => store.txn(txn, { signal }), { platform: store.platform, signal });
    });
  }

  #judge(): void {
    const { session, store } = this.#parts;
    if (this.#isOver || (session.alive && store.platform.now() < this.#deadlineMs)) return;
    const isLate = session.alive;
    this.#close();
    this.#lossController.abort(this.#loss());
    // Somebody else may try what took this one too long.
    if (isLate) background(removeTag(this.#parts, this.#parts), "giving an item back");
  }

  #close(): void {
    this.#isOver = true;
    this.#timer.cancel();
    this.#sessionLost.unlink();
    this.#letGo();
  }

  async #end(act: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.#isOver = true;
    const lost = linkSignal(this.#parts.session.lost);
    try {
      await act(lost.signal);
    } catch (error) {
      background(removeTag(this.#parts, this.#parts), "giving an item back");
      throw error;
    } finally {
      lost.unlink();
      this.#close();
    }
  }

  #loss(): ConclaveError {
    return conclaveError("LOCK_LOST", `${this.#parts.title} was lost: its consumer was silent or took too long.`);
  }
}

/**
 * Takes the tag off until it is known to be off, or the session has ended, and its keys with it. Never rejects.
 * A put in doubt may still arrive, and is looked for again for a whole TTL.
 */
async function removeTag(
  { store, session, tag, owner }: Pick<DeliveryParts, "store" | "session" | "tag" | "owner">,
  { inDoubt }: { readonly inDoubt: boolean },
): Promise<void> {
  const { platform } = store;
  const lost = linkSignal(session.lost);
  const { signal } = lost;
  const txn = {
    if: [{ key: tag, target: "value", is: "equal", to: owner }],
    then: [{ kind: "delete", range: { key: tag } }],
  } as const;
  try {
    for (let looks = 1; ; looks++) {
      await insist(() => store.txn(txn, { signal }), { platform, signal, ref: false });
      if (!inDoubt || looks === 4) return;
      await sleep({ platform, timeoutMs: session.ttlMs / 3, signal, ref: false });
    }
  } catch {
    // The session has ended, or the engine was closed and ends it.
  } finally {
    lost.unlink();
  }
}

function itemOf(entry: Entry, prefix: string): QueueItem {
  return { id: entry.key.slice(prefix.length), payload: decodeMetadata(entry.value) };
}

function rangeIn(result: OpResult | undefined): Extract<OpResult, { kind: "range" }> {
  assert(result?.kind === "range", "a range is answered with entries");
  return result;
}
