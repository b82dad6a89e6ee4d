/**
 * What `CasLock.acquire` gives: a lease that its holder renews by setting the claim anew, and judges by its own clock.
 *
 *   send of a set that was confirmed
 *     |------- 1/3 -------|------- 1/3 -------|------- 1/3 -------|
 *     |                   next renewal        `deadline`          somebody who has watched it all along may take it
 *
 * An unanswered renewal is repeated. Where one of several had been carried out, it counts from the first of them.
 */
import { background } from "../base/background.ts";
import { type ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { CasStore, Revision } from "../store/store.ts";
import { claimKey, holderOf } from "./cas-claim.ts";

export interface CasHoldOptions {
  readonly store: CasStore;
  readonly platform: Platform;
  readonly name: string;
  readonly title: string;
  readonly ttlMs: number;
  readonly owner: string;
  readonly value: string;
  /** When the set was sent that was granted. */
  readonly sentMs: number;
  readonly revision: Revision;
}

/** Between attempts of a renewal that was not answered, as a part of the TTL. */
const againPart = 1 / 15;
const releaseMs = 2_000;

/** @since 0.3.0 */
export class CasHold implements AsyncDisposable {
  readonly name: string;
  /** The fencing token: higher than that of every hold before. */
  readonly token: Revision;
  readonly #options: CasHoldOptions;
  readonly #lost = linkSignal(undefined);
  #revision: Revision;
  #confirmedMs: number;
  /** When the first of the attempts was sent that are not answered yet. */
  #attemptedMs: number | undefined;
  #timer: Timer | undefined;
  #renewing: Promise<void> | undefined;
  #releasing: Promise<void> | undefined;
  #loss: ConclaveError | null = null;

  constructor(options: CasHoldOptions) {
    this.#options = options;
    this.name = options.name;
    this.token = this.#revision = options.revision;
    this.#confirmedMs = options.sentMs;
    this.#arm(options.ttlMs / 3);
  }

  /** Asked of the clock at this moment, so it is right in the first line after a stalled event loop. */
  get held(): boolean {
    return this.#releasing === undefined && this.#check() === null;
  }

  /** When it counts as lost: two thirds of the TTL after the send of the last confirmed renewal. Monotonic ms. */
  get deadline(): number {
    return this.#confirmedMs + (this.#options.ttlMs * 2) / 3;
  }

  /** Aborts when it is lost, with or without a network. The reason is a LostError. */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** Why it was lost; null while it is held and after it was released. */
  get loss(): ConclaveError | null {
    return this.#releasing === undefined ? this.#check() : this.#loss;
  }

  /** @throws LOCK_LOST, NOT_HOLDER (it was released) */
  assertHeld(): void {
    if (this.#releasing !== undefined && this.#loss === null)
      throw conclaveError("NOT_HOLDER", `${this.#options.title} was released before this call.`);
    const loss = this.#check();
    if (loss !== null) throw loss;
  }

  /** Passes it on. Idempotent, never rejects: where the store does not answer, the claim ends by being silent. */
  release(): Promise<void> {
    if (this.#loss !== null) return Promise.resolve();
    this.#releasing ??= this.#release();
    return this.#releasing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  async #release(): Promise<void> {
    this.#timer?.cancel();
    await this.#renewing;
    const { store } = this.#options;
    try {
      const { applied, current } = await store.compareAndSet(
        { key: claimKey, expected: this.#revision, value: null },
        { timeoutMs: releaseMs },
      );
      // A renewal that nobody answered had moved it.
      if (!applied && current !== null && holderOf(current).owner === this.#options.owner)
        await store.compareAndSet({ key: claimKey, expected: current.revision, value: null }, { timeoutMs: releaseMs });
    } catch {
      // It is silent from now on.
    }
  }

  #arm(delayMs: number): void {
    const { platform } = this.#options;
    const untilLostMs = Math.max(0, this.deadline - platform.now());
    this.#timer = platform.setTimer(
      Math.min(delayMs, untilLostMs),
      () => {
        this.#timer = undefined;
        if (this.#check() !== null || this.#releasing !== undefined) return;
        if (this.#renewing === undefined) {
          this.#renewing = this.#renew().finally(() => {
            this.#renewing = undefined;
          });
          background(this.#renewing, "renewing a hold");
        }
        // The deadline is watched while the store is silent.
        this.#arm(this.#options.ttlMs * againPart);
      },
      { ref: true },
    );
  }

  async #renew(): Promise<void> {
    const { owner, platform, store, ttlMs, value } = this.#options;
    const sentMs = platform.now();
    this.#attemptedMs ??= sentMs;
    try {
      const change = { key: claimKey, expected: this.#revision, value };
      const { applied, current } = await store.compareAndSet(change, { timeoutMs: ttlMs / 3 });
      const isMine = current !== null && holderOf(current).owner === owner;
      if (!isMine) {
        this.#lose("somebody else took it, or broke it");
        return;
      }
      this.#revision = current.revision;
      // Not applied, and mine: one of those before was.
      this.#confirm(applied ? sentMs : this.#attemptedMs);
    } catch (error) {
      if (hasCode(error, "CLOSED")) this.#lose("its connection was closed");
      // Anything else: asked again, until the deadline.
    }
  }

  #confirm(sentMs: number): void {
    this.#attemptedMs = undefined;
    // Read after the deadline it revives nothing: somebody may have seen `held` false.
    if (this.#check() !== null || this.#releasing !== undefined) return;
    this.#confirmedMs = Math.max(this.#confirmedMs, sentMs);
    this.#timer?.cancel();
    this.#arm(Math.max(0, this.#confirmedMs + this.#options.ttlMs / 3 - this.#options.platform.now()));
  }

  #check(): ConclaveError | null {
    const overMs = this.#options.platform.now() - this.deadline;
    if (this.#loss === null && this.#releasing === undefined && overMs >= 0)
      this.#lose(`its lease was not renewed in time, ${Math.floor(overMs)} ms ago`);
    return this.#loss;
  }

  #lose(why: string): void {
    if (this.#loss !== null || this.#releasing !== undefined) return;
    this.#timer?.cancel();
    this.#loss = conclaveError("LOCK_LOST", `${this.#options.title} was lost: ${why}.`);
    this.#lost.abort(this.#loss);
  }
}
