/**
 * What can be acquired: the verbs that locks, readers, writers and permits share.
 *
 * Intuition: a turnstile. What lies behind it differs; waiting, giving up, going through and leaving do not.
 */
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Telemetry } from "../base/ports.ts";
import { type CampaignParts, type CampaignRequest, campaign, campaignAtOnce, lockTimeout } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkWaitMs } from "./options.ts";
import type { Reentrancy } from "./reentrancy.ts";

export interface LockOptions {
  /**
   * How long the holder may be silent before the lock passes on. Milliseconds, 1_000-600_000. Default 15_000.
   * Shorter frees the lock sooner after a crash; longer survives longer pauses (GC, swap) without losing it.
   * Locks of one process with the same value share one session. Renewed at a third of it, lost at two thirds.
   */
  readonly ttlMs?: number;
  /** What the others read about a holder or waiter: anything that JSON can carry. Default: nothing. */
  readonly meta?: unknown;
  /**
   * Keeps the lock while the event loop is blocked, from a thread of its own, but no longer than this: then it is lost, and
   * `held` says so in the first line after the block. Milliseconds, 1_000-600_000, measured to within a twentieth. Default: no
   * thread; a block of two thirds of `ttlMs` loses the lock. For work that computes for long without a pause; a program that
   * hangs still lets go. Needs `caps.stallKeeper`.
   */
  readonly maxStallMs?: number;
  /**
   * The longest time that a hold may last, however healthy its session is. Milliseconds. Default: no limit.
   * Beyond it the hold is lost like any other lost hold, and its place is given up.
   */
  readonly maxHoldMs?: number;
  /**
   * The shortest time between a grant and its release: an earlier release returns at once and is carried out then.
   * For work that must not run twice within this time though its runners' clocks differ. Milliseconds. Default 0.
   */
  readonly minHoldMs?: number;
  /**
   * After a holder was lost (its session ended, or an operator took the lock), the next one waits this long before its turn
   * counts. Milliseconds. Default 0: none, and no round trip for it. Everybody who shares the lock must say the same.
   */
  readonly lockDelayMs?: number;
  /**
   * `fifo`: in the order of asking. `barging`: whoever asks at the right moment; nobody is promised a turn, and none is
   * taken from one who stands in the queue. Default `fifo`.
   */
  readonly fairness?: "fifo" | "barging";
  /**
   * Whether `run` inside a `run` of the same lock goes on under the hold that is there, instead of waiting for itself.
   * What was called from inside counts as inside. Only `run`: an `acquire` stands in the queue like anybody's. Default false.
   */
  readonly reentrant?: boolean;
  /** Hears `hold.granted` and `hold.lost`. */
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export interface AcquireOptions {
  /**
   * How long to wait in the queue. Milliseconds, or Infinity. Default 60_000. 0 takes it only when it is free.
   * The refusal may come up to a second later: it asks who holds.
   */
  readonly waitMs?: number;
  /** Ends the wait; the place in the queue is given up in the background. Does nothing to a lock that is held. */
  readonly signal?: AbortSignal;
  /** Overrides that of the lock. */
  readonly meta?: unknown;
}

/** @since 0.1.0 */
export const lockDefaults = { ttlMs: 15_000, waitMs: 60_000 } as const;

/** How long `tryAcquire` waits for the store's answer. */
export const acquireAnswerMs = 10_000;

/** What an Acquirable is made of. */
export interface AcquirableParts extends CampaignParts {
  readonly meta?: unknown;
  readonly reentrancy?: Reentrancy | undefined;
  /** What the key says beside `meta`; default: `meta` alone. */
  readonly encodeValue?: (meta: unknown) => string;
}

/** @since 0.1.0 */
export class Acquirable {
  readonly name: string;
  readonly ttlMs: number;
  protected readonly parts: AcquirableParts;

  constructor(parts: AcquirableParts) {
    this.name = parts.name;
    this.ttlMs = parts.ttlMs;
    this.parts = parts;
  }

  /**
   * Waits for it. One round trip when it is free.
   * @throws LOCK_TIMEOUT (a `LockTimeout`: with the holder, the position and the time waited), INVALID_OPTION,
   * SESSION_LOST (the wait ended with the session; ask again), LOCK_LOST (an operator deleted the place in the queue)
   */
  async acquire(options: AcquireOptions = {}): Promise<Hold> {
    const waitMs = options.waitMs ?? lockDefaults.waitMs;
    checkWaitMs(waitMs);
    if (waitMs > 0) return (await campaign(this.parts, this.#request(options, waitMs))).hold;
    const outcome = await campaignAtOnce(this.parts, this.#request(options, acquireAnswerMs));
    if (outcome.hold !== null) return outcome.hold;
    throw lockTimeout(this.parts.title, { holder: outcome.holder, position: 1, waitedMs: 0 });
  }

  /** It if it is free, else null. One round trip; never joins the queue. */
  async tryAcquire(options: Omit<AcquireOptions, "waitMs"> = {}): Promise<Hold | null> {
    return (await campaignAtOnce(this.parts, this.#request(options, acquireAnswerMs))).hold;
  }

  /**
   * Acquires, calls, releases; answers with what the function answers, or rejects with what it throws.
   * `hold.signal` aborts when the lock is lost on the way. Then `run` rejects, even where the function succeeded: its
   * work may have overlapped with another holder's.
   * @throws LOCK_LOST, whose `cause` is what the function threw, if it threw
   */
  async run<T>(work: (hold: Hold) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    const { reentrancy, title } = this.parts;
    const around = reentrancy?.current;
    if (reentrancy === undefined) return runUnder(await this.acquire(options), title, work);
    if (around === undefined) return runUnder(await this.acquire(options), title, (hold) => reentrancy.outermost(hold, work));
    return reentrancy.within(() => runUnder({ hold: around, releases: false }, title, work));
  }

  #request({ signal, meta }: AcquireOptions, waitMs: number): CampaignRequest {
    const said = meta ?? this.parts.meta;
    return { value: this.parts.encodeValue?.(said) ?? encodeMetadata(said, "meta"), waitMs, signal };
  }
}

/** What `run` needs of a hold. */
interface Releasable {
  readonly loss: Error | null;
  release(): Promise<void>;
}

/** Calls under a hold and releases it, unless it is somebody else's to release; see `Acquirable.run`. */
export async function runUnder<H extends Releasable, T>(
  under: H | { readonly hold: H; readonly releases: false },
  title: string,
  work: (hold: H) => T | Promise<T>,
): Promise<T> {
  const hold = "releases" in under ? under.hold : under;
  let outcome: { readonly kind: "answer"; readonly answer: T } | { readonly kind: "error"; readonly error: unknown };
  try {
    outcome = { kind: "answer", answer: await work(hold) };
  } catch (error) {
    outcome = { kind: "error", error };
  }
  const { loss } = hold;
  if (hold === under) await hold.release();
  if (loss !== null) {
    const cause = outcome.kind === "error" ? outcome.error : loss;
    throw conclaveError("LOCK_LOST", `${title} was lost while the work ran.`, { cause });
  }
  if (outcome.kind === "error") throw outcome.error;
  return outcome.answer;
}
