/**
 * The client's half of a session: it asks in time, believes only what was confirmed, and counts from the moment of asking.
 *
 *   ask ─────────► confirmed            deadline = time of the ask + 2/3 TTL
 *   |   TTL/3   |   TTL/3   |   TTL/3   |
 *   ask        ask        lost         the store lets go, at the earliest
 */
import { conclaveError } from "../base/errors.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { Session, SessionId } from "../store/store.ts";

export interface LocalSessionOptions {
  readonly id: SessionId;
  readonly ttlMs: number;
  readonly platform: Platform;
  /** When the opening was asked for. */
  readonly askedMs: number;
  /** Resolves with what the store says: false when the session is gone. Never settles while nobody answers. */
  readonly keepAlive: () => Promise<boolean>;
  /** Ends it at the store. */
  readonly end: () => Promise<void>;
}

export class LocalSession implements Session {
  readonly id: SessionId;
  readonly ttlMs: number;
  readonly #options: LocalSessionOptions;
  readonly #lostController = new AbortController();
  #deadline: number;
  #renewTimer: Timer | undefined;
  #lostTimer: Timer | undefined;
  #holds = 0;
  #closing: Promise<void> | undefined;

  constructor(options: LocalSessionOptions) {
    this.#options = options;
    this.id = options.id;
    this.ttlMs = options.ttlMs;
    this.#deadline = options.askedMs + (options.ttlMs * 2) / 3;
    this.#watchDeadline();
    this.#renewLater();
  }

  get deadline(): number {
    return this.#deadline;
  }

  now(): number {
    return this.#options.platform.now();
  }

  get alive(): boolean {
    return !this.lost.aborted && this.now() < this.#deadline;
  }

  get lost(): AbortSignal {
    return this.#lostController.signal;
  }

  hold(): () => void {
    let isHeld = true;
    this.#holds++;
    this.#rearm();
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds--;
      this.#rearm();
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#options.end();
    this.lose("it was closed");
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Ends it here. What is bound to it goes when the store says so. */
  lose(why: string): void {
    this.#renewTimer?.cancel();
    this.#lostTimer?.cancel();
    if (!this.lost.aborted) this.#lostController.abort(conclaveError("SESSION_LOST", `Session ${this.id} ended: ${why}.`));
  }

  #rearm(): void {
    if (this.lost.aborted) return;
    // Only the last third keeps the process alive: the renewals before it set this timer anew.
    this.#watchDeadline();
  }

  #watchDeadline(): void {
    this.#lostTimer?.cancel();
    const delayMs = this.#deadline - this.now();
    this.#lostTimer = this.#options.platform.setTimer(delayMs, () => this.lose("it was not confirmed in time"), {
      ref: this.#holds > 0,
    });
  }

  #renewLater(): void {
    this.#renewTimer = this.#options.platform.setTimer(this.ttlMs / 3, () => {
      this.#renewLater();
      void this.#renew();
    });
  }

  async #renew(): Promise<void> {
    const askedMs = this.now();
    const isThere = await this.#options.keepAlive();
    if (this.lost.aborted) return;
    if (!isThere) return this.lose("the store has ended it");
    // An answer that comes after the deadline comes too late: somebody may have acted on the loss.
    if (!this.alive) return this.lose("it was not confirmed in time");
    this.#deadline = Math.max(this.#deadline, askedMs + (this.ttlMs * 2) / 3);
    this.#watchDeadline();
  }
}
