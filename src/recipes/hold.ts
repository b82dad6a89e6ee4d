/**
 * What a contender has while it is its turn: a token, a deadline that it watches itself, and the way out.
 *
 * Intuition: a parking ticket. It is no use to ask the warden whether it is still valid: look at your own watch, and be
 * gone in time. `held` does that at every call, so it is right in the first line after a pause of the whole process.
 *
 * Nothing here makes the work safe by itself: between a look at the clock and a write to a database a process may sleep.
 * Pass `token` to what you write to, or `guard()` to a txn of the same store: those refuse a holder that came too late.
 */
import { background } from "../base/background.ts";
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { type LinkedSignal, linkSignal, onAbort } from "../base/link-signal.ts";
import type { Telemetry, Timer } from "../base/ports.ts";
import type { Compare, Revision } from "../store/store.ts";
import { sleep } from "./bell.ts";
import type { LockDelay } from "./lock-delay.ts";
import type { Place } from "./place-claim.ts";
import { lastRequestTo, type Revocations, whenAskedToYield } from "./revocation.ts";

export interface HoldOptions {
  readonly place: Place;
  readonly token: Revision;
  /** The user's name for it. */
  readonly name: string;
  /** How messages call it: `Lock "orders"`. */
  readonly title: string;
  /** Lets the process end as far as this hold is concerned: what `session.hold()` gave. */
  readonly letGo: () => void;
  /** See `LockOptions`. */
  readonly maxHoldMs: number | undefined;
  readonly minHoldMs: number | undefined;
  /** What is told when it ends in order. */
  readonly delay?: LockDelay | undefined;
  /** Where requests to yield are written. */
  readonly revocations: Revocations;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

/** Longer delays overflow the timers of most hosts. */
const delayMsMax = 2_147_483_647;

type HoldState =
  | { readonly kind: "held" }
  | { readonly kind: "lost"; readonly loss: ConclaveError }
  | { readonly kind: "released"; readonly done: Promise<void> };

/**
 * A lock that is held, until it is released or lost.
 * @since 0.1.0
 */
export class Hold implements AsyncDisposable {
  readonly name: string;
  /**
   * The fencing token: the revision of the transaction that granted. Higher than the token of every grant of this name
   * before it, so whoever you write to can refuse what comes from an earlier holder.
   */
  readonly token: Revision;
  readonly #place: Place;
  readonly #options: HoldOptions;
  readonly #loss: LinkedSignal = linkSignal(undefined);
  /** Ends the watch of the key. */
  readonly #over: LinkedSignal = linkSignal(undefined);
  readonly #unfollowSession: () => void;
  readonly #grantedAtMs: number;
  readonly #maxHoldTimer: Timer | undefined;
  #state: HoldState = { kind: "held" };
  #isWatching = false;
  #revocation: AbortController | undefined;

  constructor(options: HoldOptions) {
    this.name = options.name;
    this.token = options.token;
    this.#place = options.place;
    this.#options = options;
    const { platform } = options.place.store;
    this.#grantedAtMs = platform.now();
    const { maxHoldMs } = options;
    if (maxHoldMs !== undefined && maxHoldMs < delayMsMax) {
      this.#maxHoldTimer = platform.setTimer(maxHoldMs, () => this.#now(), { ref: false });
    }
    const { lost } = options.place.session;
    this.#unfollowSession = lost.aborted ? doNothing : onAbort(lost, () => this.#now());
    if (lost.aborted) this.#now();
  }

  /** Whether the lock may be relied upon at this moment, by this process's own clock. Costs no round trip. */
  get held(): boolean {
    return this.#now().kind === "held";
  }

  /** When it must count as lost unless the session is confirmed again: monotonic milliseconds of the platform's clock. */
  get deadline(): number {
    return this.#place.session.deadline;
  }

  /** Why it was lost; null while it is held and after a release in time. */
  get loss(): ConclaveError | null {
    const state = this.#now();
    return state.kind === "lost" ? state.loss : null;
  }

  /**
   * Aborts when the lock is lost, with a LostError as its reason; never on a release. Pass it to the work.
   * It fires at `deadline`, with or without a network, a third of the TTL before the lock can pass on.
   * Who asks for it also hears of an operator who breaks the lock: the first use starts a watch of the key.
   */
  get signal(): AbortSignal {
    if (!this.#isWatching && this.#now().kind === "held") {
      this.#isWatching = true;
      background(this.#watchKey(), "the watch on a hold");
    }
    return this.#loss.signal;
  }

  /**
   * Aborts when somebody asks this holder to yield (`lock.revoke`); the reason is an Error with their words. The hold goes
   * on: to yield is to release. The first use starts a watch.
   */
  get revoked(): AbortSignal {
    if (this.#revocation === undefined) {
      this.#revocation = new AbortController();
      if (this.#now().kind === "held") background(this.#listen(this.#revocation), "the watch for requests to yield");
    }
    return this.#revocation.signal;
  }

  /**
   * Throws where `held` would be false. The line to write before every step that must not happen twice.
   * @throws LOCK_LOST (its time ran out), NOT_HOLDER (it was released)
   */
  assertHeld(): void {
    const state = this.#now();
    switch (state.kind) {
      case "held":
        return;
      case "lost":
        // Made anew: the age of the loss is what the reader wants to know.
        throw this.#lossNow(state.loss.cause);
      case "released":
        throw conclaveError("NOT_HOLDER", `${this.#options.title} was released before this call.`);
    }
  }

  /**
   * A condition for any txn of the lock's own store, and with `caps.crossNamespace` of any store of the same engine:
   * true exactly while the store itself still knows this hold. The one exclusion that needs no clock.
   */
  guard(): Compare {
    return this.#place.guard();
  }

  /**
   * Passes the lock on. Idempotent, and never rejects: where the store does not answer, the deletion goes on in the
   * background until the session ends. A lost hold has nothing left to release.
   */
  release(): Promise<void> {
    const state = this.#now();
    switch (state.kind) {
      case "held": {
        const done = this.#leaveInTime();
        this.#end({ kind: "released", done });
        return done;
      }
      case "lost":
        return Promise.resolve();
      case "released":
        return state.done;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  /** For recipes: the store has said that the key is gone. Does nothing to a hold that has ended. */
  noteKeyGone(): void {
    if (this.#now().kind === "held") this.#lose(undefined);
  }

  /** At once, or in the background at the end of the shortest time. */
  #leaveInTime(): Promise<void> {
    const { platform } = this.#place.store;
    const restMs = this.#grantedAtMs + (this.#options.minHoldMs ?? 0) - platform.now();
    if (restMs <= 0) return this.#leave();
    const later = async (): Promise<void> => {
      const lost = linkSignal(this.#place.session.lost);
      // A process that ends earlier lets its session end, and the place with it: that is later still.
      await sleep({ platform, timeoutMs: restMs, signal: lost.signal, ref: false }).catch(() => undefined);
      lost.unlink();
      await this.#leave();
    };
    background(later(), "the end of the shortest hold");
    return Promise.resolve();
  }

  #leave(): Promise<void> {
    const { delay } = this.#options;
    return delay === undefined ? this.#place.leave() : delay.end(this.#place).then(() => this.#place.leave());
  }

  async #listen(revocation: AbortController): Promise<void> {
    const { place, revocations, title } = this.#options;
    // A hold that was taken away may learn of the loss before the reason, which was written first: it is there to be read.
    const reason =
      (await whenAskedToYield(revocations(), place.key, this.#over.signal)) ??
      (this.#state.kind === "lost" ? await lastRequestTo(revocations(), place.key) : null);
    if (reason !== null) revocation.abort(conclaveError("YIELD_ASKED", `${title}: the holder is asked to yield: ${reason}`));
  }

  async #watchKey(): Promise<void> {
    if (await this.#place.whenGone(this.#over.signal)) this.noteKeyGone();
  }

  /** The state by the clock of this moment. */
  #now(): HoldState {
    if (this.#state.kind !== "held") return this.#state;
    if (!this.#place.session.alive) this.#lose(this.#place.session.lost.reason);
    else if (this.#isOverdue()) {
      this.#lose(undefined);
      background(this.#place.leave(), "leaving a queue");
    }
    return this.#state;
  }

  #isOverdue(): boolean {
    const { maxHoldMs } = this.#options;
    return maxHoldMs !== undefined && this.#place.store.platform.now() - this.#grantedAtMs >= maxHoldMs;
  }

  #lose(cause: unknown): void {
    const loss = this.#lossNow(cause);
    // Kept first, told second: a listener that asks gets the same answer.
    this.#end({ kind: "lost", loss });
    this.#loss.abort(loss);
    this.#options.telemetry?.emit({ kind: "hold.lost", lock: this.name, token: this.token, why: loss.message });
  }

  #end(state: HoldState): void {
    this.#state = state;
    this.#over.abort();
    this.#maxHoldTimer?.cancel();
    this.#unfollowSession();
    this.#options.letGo();
  }

  #lossNow(cause: unknown): ConclaveError {
    const { session } = this.#place;
    const agoMs = Math.floor(session.now() - session.deadline);
    if (session.alive && this.#isOverdue()) {
      const heldMs = Math.floor(session.now() - this.#grantedAtMs);
      return conclaveError("LOCK_LOST", `${this.#options.title} was lost: it was held for ${heldMs} ms, its longest time.`);
    }
    // Who takes a lock away says why first, to whoever listens to `revoked`.
    const said = this.#revocation?.signal.aborted ? `: ${(this.#revocation.signal.reason as Error).message}` : "";
    const broken = `somebody deleted its key in the store${said}`;
    const ended = session.lost.aborted ? "its session was ended" : broken;
    return conclaveError(
      "LOCK_LOST",
      `${this.#options.title} was lost: ${agoMs < 0 ? ended : `its lease expired ${agoMs} ms ago`}.`,
      { cause },
    );
  }
}

function doNothing(): void {
  // The session had ended before.
}
