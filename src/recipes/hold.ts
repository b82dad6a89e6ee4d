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
import { type LinkedSignal, linkSignal } from "../base/link-signal.ts";
import type { Telemetry } from "../base/ports.ts";
import type { Compare, Revision } from "../store/store.ts";
import type { Place } from "./place-claim.ts";

export interface HoldOptions {
  readonly place: Place;
  readonly token: Revision;
  /** The user's name for it. */
  readonly name: string;
  /** How messages call it: `Lock "orders"`. */
  readonly title: string;
  /** Lets the process end as far as this hold is concerned: what `session.hold()` gave. */
  readonly letGo: () => void;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

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
  readonly #lossController = new AbortController();
  /** Ends the watch of the key. */
  readonly #endController = new AbortController();
  readonly #sessionLost: LinkedSignal;
  #state: HoldState = { kind: "held" };
  #isWatching = false;

  constructor(options: HoldOptions) {
    this.name = options.name;
    this.token = options.token;
    this.#place = options.place;
    this.#options = options;
    this.#sessionLost = linkSignal(options.place.session.lost);
    this.#sessionLost.signal.addEventListener("abort", () => this.#now(), { once: true });
    if (this.#sessionLost.signal.aborted) this.#now();
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
    return this.#lossController.signal;
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
        const done = this.#place.leave();
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

  async #watchKey(): Promise<void> {
    if (await this.#place.whenGone(this.#endController.signal)) this.noteKeyGone();
  }

  /** The state by the clock of this moment. */
  #now(): HoldState {
    if (this.#state.kind === "held" && !this.#place.session.alive) this.#lose(this.#place.session.lost.reason);
    return this.#state;
  }

  #lose(cause: unknown): void {
    const loss = this.#lossNow(cause);
    // Kept first, told second: a listener that asks gets the same answer.
    this.#end({ kind: "lost", loss });
    this.#lossController.abort(loss);
    this.#options.telemetry?.emit({ kind: "hold.lost", lock: this.name, token: this.token, why: loss.message });
  }

  #end(state: HoldState): void {
    this.#state = state;
    this.#endController.abort();
    this.#sessionLost.unlink();
    this.#options.letGo();
  }

  #lossNow(cause: unknown): ConclaveError {
    const { session } = this.#place;
    const agoMs = Math.floor(session.now() - session.deadline);
    const ended = session.lost.aborted ? "its session was ended" : "somebody deleted its key in the store";
    return conclaveError(
      "LOCK_LOST",
      `${this.#options.title} was lost: ${agoMs < 0 ? ended : `its lease expired ${agoMs} ms ago`}.`,
      { cause },
    );
  }
}
