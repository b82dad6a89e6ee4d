/**
 * A kept-alive lease, judged by the holder's own clock.
 *
 *   send of a keep-alive that was confirmed
 *     |------------ 1/3 ----------|------------ 1/3 ----------|------------ 1/3 ----------|
 *     |                           next keep-alive             `deadline`: lost here       the member may expire it
 *
 * The deadline counts from the *send*, because the member starts its lease at some moment after that: whatever the network
 * did, the holder stops first. An unanswered keep-alive is repeated quickly; each attempt has its own send time, and any
 * confirmed one counts. Nothing here waits for the network: `lost` fires by timer.
 * With `maxStallMs` another thread says the keep-alives (`stall-keeper.ts`): the same class stands on both sides of one
 * shared lease, as its holder and as its keeper.
 * Assumes that both clocks run at nearly one rate (a third of the TTL is the margin), and that `now` goes on during a sleep
 * of the machine; where it does not, see the platform.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { Session, SessionId } from "../store/store.ts";
import type { ProcessHold } from "./process-hold.ts";
import type { Sharing } from "./stall-keeper.ts";

/** Repeats of an unanswered keep-alive come this many times as often as regular ones. */
const retriesPerInterval = 5;
const retryMsMin = 100;
/** A holder whose keeper has not confirmed for this part of the TTL says a keep-alive itself. */
const impatienceParts = 2;
/** A block is measured to within this part of `maxStallMs`, within the bounds. */
const beatParts = 20;
const beatMsMin = 20;
const beatMsMax = 250;

export interface SessionHost {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  /** Says a keep-alive if a leader is there to hear it; its answer comes by `confirm` or `expire`. */
  keepAlive(session: ClientSession): void;
  /** Ends it at the store, within a bounded time; never rejects. */
  end(session: ClientSession): Promise<void>;
  /** It needs no more keep-alives. */
  forget(session: ClientSession): void;
}

export class ClientSession implements Session {
  readonly id: SessionId;
  /** The machine's number of it. */
  readonly number: number;
  readonly ttlMs: number;
  readonly #host: SessionHost;
  readonly #lost = linkSignal(undefined);
  /** When an attempt of this thread's that was confirmed was sent; invariant: only rises. */
  #confirmedMs: number;
  #sharing: Sharing | undefined;
  /** When the last attempt was sent. Above `#confirmedMs`: unanswered. */
  #attemptedMs: number;
  #timer: Timer | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: {
    readonly id: SessionId;
    readonly ttlMs: number;
    readonly sentMs: number;
    readonly host: SessionHost;
    readonly sharing?: Sharing;
  }) {
    this.id = options.id;
    this.number = Number(options.id);
    this.ttlMs = options.ttlMs;
    this.#host = options.host;
    this.#sharing = options.sharing;
    this.#confirmedMs = this.#attemptedMs = options.sentMs;
    this.#arm();
  }

  get deadline(): number {
    const leaseEndMs = this.confirmedMs + (this.ttlMs * 2) / 3;
    if (this.#sharing === undefined) return leaseEndMs;
    const { lease } = this.#sharing;
    return Math.min(leaseEndMs, lease.beatMs + lease.maxStallMs);
  }

  /** When the last keep-alive that was confirmed, here or to the keeper, was sent. */
  get confirmedMs(): number {
    return this.#sharing === undefined ? this.#confirmedMs : Math.max(this.#confirmedMs, this.#sharing.lease.confirmedMs);
  }

  now(): number {
    return this.#host.platform.now();
  }

  get alive(): boolean {
    return this.isAliveAt(this.now());
  }

  /** `alive` for a caller that has just read the clock. */
  isAliveAt(nowMs: number): boolean {
    const isInTime = nowMs < this.deadline;
    // The other thread may raise the deadline in this very moment: who has seen it passed must go on seeing that.
    if (!isInTime && this.#sharing !== undefined) this.#check();
    return isInTime && !this.#lost.signal.aborted;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  hold(): () => void {
    this.#host.processHold.retain();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#host.processHold.release();
    };
  }

  close(): Promise<void> {
    if (this.#closing === undefined) {
      const isOver = this.#lost.signal.aborted;
      this.#lose(`Session ${this.id} was closed.`);
      this.#closing = isOver ? Promise.resolve() : this.#host.end(this);
    }
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The host says one attempt now. */
  attempted(nowMs: number): void {
    this.#attemptedMs = nowMs;
  }

  /** From now on another thread keeps it alive, as long as this one's event loop turns. */
  keptBy(lease: Sharing["lease"]): void {
    if (this.#lost.signal.aborted) return;
    lease.confirm(this.#confirmedMs);
    lease.beat(this.now());
    this.#sharing = { lease, role: "holder" };
    this.#arm();
  }

  /** A keep-alive sent at that time was confirmed. */
  confirm(sentMs: number): void {
    // A confirmation that is read after the deadline revives nothing: somebody may have seen `alive` false.
    this.#check();
    if (sentMs > this.#confirmedMs) this.#confirmedMs = sentMs;
    if (!this.#lost.signal.aborted) this.#sharing?.lease.confirm(sentMs);
  }

  /** The store says that it is gone. */
  expire(): void {
    this.#lose(`Session ${this.id} was lost: the store has ended it.`);
  }

  /** A leader is there to be spoken to: a keep-alive that nobody answered is said again. */
  onLeader(): void {
    if (!this.#lost.signal.aborted) this.#host.keepAlive(this);
  }

  /** The client closed: no promise can be kept any more. */
  abandon(): void {
    this.#lose(`Session ${this.id} was lost: its client was closed.`);
  }

  #arm(): void {
    this.#timer?.cancel();
    const delayMs = Math.max(1, Math.min(this.#nextMs(), this.deadline) - this.now());
    this.#timer = this.#host.platform.setTimer(Math.min(delayMs, this.#beatEveryMs()), () => {
      this.#timer = undefined;
      // Before the beat: a block that was too long must not count as the turn that ended it.
      this.#check();
      if (this.#lost.signal.aborted) return;
      const nowMs = this.now();
      if (this.#sharing?.role === "holder") this.#sharing.lease.beat(nowMs);
      if (nowMs >= this.#nextMs()) {
        // Counts as an attempt even where no leader is there to hear it: the pace is kept, and `onLeader` speaks first.
        this.#attemptedMs = nowMs;
        this.#host.keepAlive(this);
      }
      this.#arm();
    });
  }

  /** When the next keep-alive is due. */
  #nextMs(): number {
    const intervalMs = this.ttlMs / 3;
    const { confirmedMs } = this;
    const isUnanswered = this.#attemptedMs > confirmedMs;
    if (!isUnanswered) return confirmedMs + (this.#isKept() ? this.ttlMs / impatienceParts : intervalMs);
    return this.#attemptedMs + Math.max(retryMsMin, intervalMs / retriesPerInterval);
  }

  /** Whether the last confirmation was the keeper's: not before it has begun, nor while it is silent. */
  #isKept(): boolean {
    return this.#sharing?.role === "holder" && this.#sharing.lease.confirmedMs > this.#confirmedMs;
  }

  #beatEveryMs(): number {
    if (this.#sharing?.role !== "holder") return Number.POSITIVE_INFINITY;
    return Math.min(beatMsMax, Math.max(beatMsMin, this.#sharing.lease.maxStallMs / beatParts));
  }

  #check(): void {
    const overMs = this.now() - this.deadline;
    if (overMs < 0) return;
    const lease = this.#sharing?.lease;
    const isStall = lease !== undefined && this.deadline === lease.beatMs + lease.maxStallMs;
    const why = isStall
      ? `the event loop was blocked for ${Math.round(overMs)} ms longer than \`maxStallMs\`, which is ${lease.maxStallMs}`
      : `its lease of ${this.ttlMs} ms was not confirmed in time, ${Math.round(overMs)} ms ago`;
    this.#lose(`Session ${this.id} was lost: ${why}.`);
  }

  #lose(message: string): void {
    if (this.#lost.signal.aborted) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#host.forget(this);
    this.#lost.abort(conclaveError("SESSION_LOST", message));
  }
}
