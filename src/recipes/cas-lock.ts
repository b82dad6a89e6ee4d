/**
 * A lock on a store that can only compare and set one key (`CasStore`): no sessions, no watch, no clock of the store's.
 *
 * Intuition: a chair with a coat on it. Nobody can ask whether its owner is alive; but an owner who is moves the coat every
 * few seconds. Whoever has seen the coat lie still for the whole time that its owner announced, by his own watch, takes the chair.
 *
 *   1 put    set my claim, expecting nothing there                    -> mine, token = revision of the claim
 *   2 watch  somebody's claim: remember its revision and when I saw it
 *   3 wait   ask again, 50 ms to 2 s apart                             -> gone: 1; another revision: 2
 *   4 take   the same revision for its whole TTL and a bit             -> set mine, expecting exactly that revision
 *
 * Why two never hold: a holder renews by changing the revision, and counts as held only for two thirds of its TTL after the
 * *send* of its last confirmed renewal. A taker has seen that very revision for the whole TTL, and its set fails if it has changed since. Clocks
 * are never compared, only their rates.
 * Source: Kubernetes client-go, leaderelection ("we do not consider timestamps ... observed").
 * Not fair, and not pushed: that is what such a store can give.
 */
import { ConclaveError, conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { Caps } from "../store/caps.ts";
import type { CallOptions, CasEntry, CasStore, Revision } from "../store/store.ts";
import { type AcquireOptions, lockDefaults, runUnder } from "./acquirable.ts";
import { sleep } from "./bell.ts";
import { type CasHolder, claimKey, holderOf } from "./cas-claim.ts";
import { CasHold } from "./cas-hold.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkName, checkTtlMs, checkWaitMs } from "./options.ts";

/** Where the recipes of the smaller profile get their stores. */
export interface CasSource {
  readonly caps: Caps;
  readonly platform: Platform;
  cas(namespace: string): CasStore;
}

export interface CasLockOptions {
  /** How long the holder may be silent before somebody who has watched it takes over. Milliseconds. Default 15_000. */
  readonly ttlMs?: number;
  /** What the others read about the holder: anything that JSON can carry. Default: nothing. */
  readonly meta?: unknown;
}

const pollMsMin = 50;
const pollMsMax = 2_000;
/** Rates of two clocks differ by less; a third of the TTL is the margin beside it. */
const drift = 1.05;

/** Makes the handle of a lock; nothing is sent. @throws INVALID_OPTION @since 0.3.0 */
export function createCasLock(source: CasSource, name: string, options: CasLockOptions = {}): CasLock {
  checkName(name, "lock");
  return new CasLock(source, { name, namespace: `lock/${name}`, title: `Lock ${JSON.stringify(name)}`, ...options });
}

interface CasLockParts extends CasLockOptions {
  readonly name: string;
  readonly namespace: string;
  readonly title: string;
}

/** @since 0.3.0 */
export class CasLock {
  readonly name: string;
  readonly ttlMs: number;
  readonly #store: CasStore;
  readonly #platform: Platform;
  readonly #parts: CasLockParts;
  /** The claim that was seen last, and the moment at which it had been there the first time. */
  #observed: { readonly revision: Revision; readonly sinceMs: number } | undefined;

  /** Use `createCasLock`. */
  constructor(source: CasSource, parts: CasLockParts) {
    this.name = parts.name;
    this.ttlMs = parts.ttlMs ?? lockDefaults.ttlMs;
    checkTtlMs(this.ttlMs, source.caps.limits, source.caps.engine);
    encodeMetadata(parts.meta, "meta");
    this.#store = source.cas(parts.namespace);
    this.#platform = source.platform;
    this.#parts = parts;
  }

  /**
   * Waits for it, by asking. One set when it is free.
   * @throws LOCK_TIMEOUT, INVALID_OPTION, what the store refuses, or the signal's reason
   */
  async acquire({ waitMs = lockDefaults.waitMs, signal, meta = this.#parts.meta }: AcquireOptions = {}): Promise<CasHold> {
    checkWaitMs(waitMs);
    encodeMetadata(meta, "meta");
    const startMs = this.#platform.now();
    const link = linkSignal(signal);
    const claim = this.#newClaim(meta);
    let pauseMs = pollMsMin;
    let trouble: unknown;
    try {
      for (;;) {
        const hold = await this.#attempt(claim, link.signal).catch((error: unknown) => {
          if (link.signal.aborted || !(error instanceof ConclaveError) || !error.retryable) throw error;
          trouble = error;
          return null;
        });
        if (hold !== null) return hold;
        const waitedMs = this.#platform.now() - startMs;
        if (waitedMs >= waitMs) throw this.#timeout(waitedMs, trouble);
        // Half is drawn, so that those who failed together do not come back together.
        const drawnMs = pauseMs * (0.5 + this.#platform.randomUint32() / 2 ** 33);
        await sleep({ platform: this.#platform, timeoutMs: Math.min(drawnMs, waitMs - waitedMs), signal: link.signal });
        pauseMs = Math.min(pauseMs * 1.6, pollMsMax, this.ttlMs / 4);
      }
    } finally {
      link.unlink();
    }
  }

  /** It if it is free, or if its holder has been seen silent for its TTL by this very handle; else null. */
  tryAcquire({ signal, meta = this.#parts.meta }: Omit<AcquireOptions, "waitMs"> = {}): Promise<CasHold | null> {
    encodeMetadata(meta, "meta");
    return this.#attempt(this.#newClaim(meta), signal);
  }

  /** Acquires, calls, releases; see `Acquirable.run`. @throws LOCK_LOST, and what `acquire` throws */
  async run<T>(work: (hold: CasHold) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return runUnder(await this.acquire(options), this.#parts.title, work);
  }

  /** Who holds it, or held it and has not been taken over yet; null: nobody. */
  async holder(options: CallOptions = {}): Promise<CasHolder | null> {
    const entry = await this.#store.get(claimKey, options);
    return entry === null ? null : holderOf(entry);
  }

  /** Takes it from its holder, who learns of it with its next renewal: for an operator who knows that the holder is stuck. */
  async break(options: CallOptions = {}): Promise<CasHolder | null> {
    const holder = await this.holder(options);
    if (holder === null) return null;
    const change = { key: claimKey, expected: holder.revision, value: null };
    return (await this.#store.compareAndSet(change, options)).applied ? holder : null;
  }

  async #attempt(claim: Claim, signal: AbortSignal | undefined): Promise<CasHold | null> {
    const timeoutMs = Math.max(1_000, this.ttlMs / 3);
    const call: CallOptions = signal === undefined ? { timeoutMs } : { timeoutMs, signal };
    let isSetSent = false;
    try {
      // Nothing seen yet: hope that it is free. One set tells, either way.
      let expected: Revision | null = null;
      if (claim.isInDoubt || this.#observed !== undefined) {
        const entry = await this.#store.get(claimKey, call);
        // Mine from an attempt that nobody answered is set anew: it counts from this attempt then.
        const isMine = entry !== null && holderOf(entry).owner === claim.owner;
        if (entry !== null && !isMine && !this.#isSilent(entry)) return null;
        expected = entry?.revision ?? null;
      }
      claim.sentMs = this.#platform.now();
      isSetSent = true;
      const change = { key: claimKey, expected, value: claim.value };
      const { applied, current } = await this.#store.compareAndSet(change, call);
      if (applied && current !== null) return this.#granted(claim, current.revision);
      if (current !== null) this.#isSilent(current);
      return null;
    } catch (error) {
      // A claim that may have been set and is not wanted ends by being silent: nobody renews it.
      claim.isInDoubt ||= isSetSent && !(error instanceof ConclaveError && error.definite);
      throw error;
    }
  }

  /** Whether this very claim has been there for its whole TTL. */
  #isSilent(entry: CasEntry): boolean {
    const nowMs = this.#platform.now();
    if (this.#observed?.revision !== entry.revision) {
      this.#observed = { revision: entry.revision, sinceMs: nowMs };
      return false;
    }
    return nowMs - this.#observed.sinceMs >= holderOf(entry).ttlMs * drift;
  }

  #granted(claim: Claim, revision: Revision): CasHold {
    this.#observed = undefined;
    const { ttlMs, name } = this;
    const { title } = this.#parts;
    const { owner, sentMs, value } = claim;
    return new CasHold({ store: this.#store, platform: this.#platform, name, title, ttlMs, owner, value, sentMs, revision });
  }

  #newClaim(meta: unknown): Claim {
    const owner = [0, 0, 0].map(() => this.#platform.randomUint32().toString(36).padStart(7, "0")).join("");
    const value = JSON.stringify({ owner, ttlMs: this.ttlMs, ...(meta === undefined ? {} : { meta }) });
    return { owner, value, sentMs: 0, isInDoubt: false };
  }

  /** `trouble`: what the store said last, where it did not answer. */
  #timeout(waitedMs: number, trouble: unknown): ConclaveError {
    const details = trouble === undefined ? {} : { cause: trouble };
    return conclaveError("LOCK_TIMEOUT", `${this.#parts.title} was not free within ${Math.round(waitedMs)} ms.`, details);
  }
}

interface Claim {
  readonly owner: string;
  readonly value: string;
  /** Of the last attempt. */
  sentMs: number;
  /** An attempt was not answered, and may have been carried out. */
  isInDoubt: boolean;
}
