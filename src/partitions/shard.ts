/**
 * One partition in the hands of this member, until it passes on or is lost.
 *
 * Intuition: a baton with its own alarm. `signal` goes off before anybody else may run with it: on a planned move before
 * the claim is given up, on a lost session at two thirds of the TTL, a third before the store lets go. After that it is
 * the work's turn to stop and to say so by `release`; whoever does not within `drainMs` is not waited for, and is what
 * `epoch` and `guard()` are for.
 */
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import { onAbort } from "../base/link-signal.ts";
import type { Timer } from "../base/ports.ts";
import type { Compare, Revision, Session, Store } from "../store/store.ts";
import { ownKey } from "./state.ts";

export interface ShardOptions {
  readonly partition: number;
  readonly epoch: Revision;
  readonly store: Store;
  readonly session: Session;
  /** How messages call it: `Partition 5 of "orders"`. */
  readonly title: string;
  readonly drainMs: number;
}

/** @since 0.2.0 */
export class Shard implements AsyncDisposable {
  /** The partition's number, from 0. */
  readonly id: number;
  /** The fencing token: the revision of the transaction that claimed it, higher than that of every holder before. */
  readonly epoch: Revision;
  /** Aborts before another may own the partition; the reason is a LostError with code PARTITION_LOST. */
  readonly signal: AbortSignal;
  /** Resolves once the work has let go, or was not waited for any longer. */
  readonly released: Promise<void>;
  readonly #options: ShardOptions;
  readonly #controller = new AbortController();
  readonly #unfollow: () => void;
  #resolveReleased: () => void = () => undefined;
  #drainTimer: Timer | undefined;
  #isReleased = false;

  constructor(options: ShardOptions) {
    this.#options = options;
    this.id = options.partition;
    this.epoch = options.epoch;
    this.signal = this.#controller.signal;
    this.released = new Promise((resolve) => {
      this.#resolveReleased = resolve;
    });
    this.#unfollow = onAbort(options.session.lost, () => this.end("its session was lost"));
  }

  /** Whether it may be relied upon at this moment, by this process's own clock: also right after a stall. */
  get held(): boolean {
    if (!this.signal.aborted && !this.#options.session.alive) this.end("its session was not confirmed in time");
    return !this.signal.aborted;
  }

  /** @throws PARTITION_LOST */
  assertHeld(): void {
    if (!this.held) throw this.signal.reason;
  }

  /** A condition for a txn of the partitions' own store, and with `caps.crossNamespace` of any store of the same engine. */
  guard(): Compare {
    const { store } = this.#options;
    const compare = { key: ownKey(this.id), target: "createRevision", is: "equal", to: this.epoch } as const;
    return store.caps.crossNamespace ? { ...compare, namespace: store.namespace } : compare;
  }

  /** The work on it has stopped. Before `signal` aborts it is a promise not to go on: the partition then waits to be moved. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#drainTimer?.cancel();
    this.#resolveReleased();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.release();
    return Promise.resolve();
  }

  /** For the seat: it must stop now. Idempotent. */
  end(why: string): void {
    if (this.signal.aborted) return;
    const { title, store, drainMs } = this.#options;
    const loss: ConclaveError = conclaveError("PARTITION_LOST", `${title} (epoch ${this.epoch}) ended: ${why}.`);
    this.#controller.abort(loss);
    this.#unfollow?.();
    if (!this.#isReleased) this.#drainTimer = store.platform.setTimer(drainMs, () => this.release(), { ref: true });
  }
}
