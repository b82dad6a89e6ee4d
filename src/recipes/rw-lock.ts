/**
 * A read/write lock: many readers, or one writer, in the order of asking.
 *
 * Intuition: a swimming pool with one gate. Swimmers go in freely until the cleaner queues up; whoever comes after the
 * cleaner waits until the pool was cleaned. So neither starves.
 *
 *   place   p/session/number   everybody, in create order
 *   marker  w/session/number   writers only, put in the same txn
 *
 *   a writer's turn: no older place            a reader's turn: no older marker
 *
 * A writer that steps down to reading deletes its marker and keeps its place: readers behind it are let in, the next
 * writer goes on waiting. The other way, up, is not offered: two readers that both want up wait for each other for ever.
 * Source: Courtois, Heymans, Parnas, "Concurrent Control with Readers and Writers", CACM 1971, made fair by the queue;
 * ZooKeeper's recipe of shared locks waits for the next-lower write node in the same way.
 */
import { conclaveError } from "../base/errors.ts";
import { checkMaxStall } from "../store/stall.ts";
import type { CallOptions } from "../store/store.ts";
import { Acquirable, type AcquirableParts, type LockOptions, lockDefaults } from "./acquirable.ts";
import type { Contender } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { insist } from "./insist.ts";
import { contendersOf } from "./lock.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkHoldTimes, checkName, checkTtlMs, refuseTurns, type StoreSource } from "./options.ts";
import { type Line, queueOf } from "./queue-place.ts";
import { revocationsOf } from "./revocation.ts";

const places = "p/";
const markers = "w/";
const readers: Line = { prefix: places, rivals: { prefix: markers } };
const writers: Line = { prefix: places, marker: markers, rivals: { prefix: places } };

/** Somebody in the queue of a read/write lock. */
export interface ReadWriteContender extends Contender {
  /** What it asked for. A writer that stepped down still says "write". */
  readonly mode: "read" | "write";
}

/** Makes the handle of a read/write lock; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createReadWriteLock(engine: StoreSource, name: string, options: LockOptions = {}): ReadWriteLock {
  checkName(name, "read/write lock");
  const store = engine.store(`rwlock/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  checkHoldTimes(options);
  checkMaxStall(options.maxStallMs, store.caps);
  refuseTurns(options, "read/write lock");
  encodeMetadata(options.meta, "meta");
  return new ReadWriteLock({ ...options, name, ttlMs, store, revocations: revocationsOf(engine, store) });
}

/** @since 0.2.0 */
export class ReadWriteLock {
  readonly name: string;
  /** Shared with other readers. */
  readonly read: Acquirable;
  /** Alone. */
  readonly write: WriteLock;
  readonly #parts: Omit<AcquirableParts, "queue" | "title">;

  /** Use `createReadWriteLock`, which checks the options. */
  constructor(parts: Omit<AcquirableParts, "queue" | "title">) {
    this.name = parts.name;
    this.#parts = parts;
    const name = JSON.stringify(parts.name);
    const encodeAs = (mode: "read" | "write") => (meta: unknown) => {
      encodeMetadata(meta, "meta");
      return JSON.stringify({ mode, meta });
    };
    this.read = new Acquirable({
      ...parts,
      queue: queueOf(readers),
      title: `Read lock ${name}`,
      encodeValue: encodeAs("read"),
    });
    this.write = new WriteLock({
      ...parts,
      queue: queueOf(writers),
      title: `Write lock ${name}`,
      encodeValue: encodeAs("write"),
    });
  }

  /** Who holds: readers up to the first writer, or one writer. `limit`: of how many in the queue. Default 100. */
  async holders(options: CallOptions & { readonly limit?: number } = {}): Promise<readonly ReadWriteContender[]> {
    const queue = await this.queue(options);
    return queue.slice(0, holdersIn(queue));
  }

  /** Who waits, in order. `limit`: of how many in the queue. Default 100. */
  async waiters(options: CallOptions & { readonly limit?: number } = {}): Promise<readonly ReadWriteContender[]> {
    const queue = await this.queue(options);
    return queue.slice(holdersIn(queue));
  }

  /** Who holds or waits, in order: readers up to the first writer hold, or that writer alone. Default limit 100. */
  async queue({
    limit = 100,
    ...options
  }: CallOptions & { readonly limit?: number } = {}): Promise<readonly ReadWriteContender[]> {
    const listed = await contendersOf(this.#parts.store, { limit, prefix: places, ...options });
    return listed.map((contender) => {
      const { mode, meta } = contender.meta as { readonly mode: "read" | "write"; readonly meta?: unknown };
      return { ...contender, mode, meta };
    });
  }
}

/** A writer that stepped down counts as a writer still: the readers beside it are told as waiters. */
export function holdersIn(queue: readonly ReadWriteContender[]): number {
  if (queue[0]?.mode === "write") return 1;
  const firstWriter = queue.findIndex((each) => each.mode === "write");
  return firstWriter === -1 ? queue.length : firstWriter;
}

/** The writing side: its hold can step down to reading. @since 0.2.0 */
export class WriteLock extends Acquirable {
  /**
   * Lets readers in beside this holder, who reads on under the same hold; the next writer waits for its release.
   * Idempotent. One round trip.
   * @throws LOCK_LOST, NOT_HOLDER, INVALID_OPTION (not a hold of this write lock)
   */
  async downgrade(hold: Hold, options: CallOptions = {}): Promise<void> {
    hold.assertHeld();
    const { store } = this.parts;
    const place = hold.guard();
    if (!("key" in place) || typeof place.key !== "string" || hold.name !== this.name) {
      throw conclaveError("INVALID_OPTION", `The hold is not one of ${this.parts.title}.`);
    }
    const marker = markers + place.key.slice(places.length);
    const { signal = hold.signal } = options;
    const { succeeded } = await insist(
      () => store.txn({ if: [place], then: [{ kind: "delete", range: { key: marker } }] }, options),
      { platform: store.platform, signal },
    );
    if (succeeded) return;
    hold.noteKeyGone();
    hold.assertHeld();
  }
}
