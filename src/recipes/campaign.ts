/**
 * The way from "I want it" to a hold: session, place in the queue, turn, all under one signal and one deadline.
 *
 * Everything that can end the wait - the caller, the time, the loss of the session - aborts one signal, and its reason
 * says which. Whatever goes wrong after a place was taken, the place is given up, so that nobody waits for a ghost.
 */
import { background } from "../base/background.ts";
import { type ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { type LinkedSignal, linkSignal, onAbort, raceSignal } from "../base/link-signal.ts";
import type { Telemetry, Timer } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { Revision, Session, SessionId, SessionOptions, Store } from "../store/store.ts";
import { whenWorthATry } from "./barging.ts";
import { Hold } from "./hold.ts";
import type { LockDelay } from "./lock-delay.ts";
import { decodeMetadata } from "./metadata.ts";
import type { JoinOptions, Place, Queue } from "./place-claim.ts";
import type { Revocations } from "./revocation.ts";

/** Somebody in the queue of a lock: the first one holds it. */
export interface Contender {
  readonly session: SessionId | null;
  /** What it said about itself. */
  readonly meta: unknown;
  /** When it joined, in the order of the store. */
  readonly createRevision: Revision;
  readonly key: string;
}

/** What is asked for, whoever asks. */
export interface CampaignParts {
  readonly store: Store;
  /** The rule by which turns come. */
  readonly queue: Queue;
  readonly ttlMs: number;
  readonly maxStallMs?: number | undefined;
  readonly name: string;
  readonly title: string;
  readonly maxHoldMs?: number | undefined;
  readonly minHoldMs?: number | undefined;
  readonly delay?: LockDelay | undefined;
  readonly fairness?: "fifo" | "barging" | undefined;
  /** Where requests to yield are written. */
  readonly revocations: Revocations;
  readonly telemetry?: Telemetry<ConclaveEvent> | undefined;
}

/** Who asks, and for how long. */
export interface CampaignRequest {
  /** What the others read. */
  readonly value: string;
  readonly waitMs: number;
  readonly signal: AbortSignal | undefined;
}

/** LOCK_TIMEOUT says in fields, too, what its message says. */
export interface LockTimeout extends ConclaveError {
  /** Who held it when the wait ended; null when that could not be learnt. */
  readonly holder: Contender | null;
  /** How many stood before: the holder and the waiters. 0 when it could not be learnt. */
  readonly position: number;
  readonly waitedMs: number;
}

export interface Granted {
  readonly hold: Hold;
  readonly place: Place;
}

/** A campaign that may say no: the contender that holds. */
export interface Refused {
  readonly hold: null;
  readonly holder: Contender;
}

/** How long a wait that timed out may take, beyond its time, to learn who holds. */
const lastWordMs = 1_000;

/** Waits for the turn. @throws LOCK_TIMEOUT, SESSION_LOST, LOCK_LOST, TIMEOUT (no place was given), or the signal's reason */
export async function campaign(parts: CampaignParts, request: CampaignRequest): Promise<Granted> {
  const scope = new Scope(parts, request);
  try {
    if (parts.fairness === "barging") return await barge(parts, scope);
    return await awaitTurn(parts, scope, await takePlace(parts, scope, parts.queue.join));
  } catch (error) {
    throw scope.inWords(error);
  } finally {
    scope.end();
  }
}

/** Tries whenever the one in the way has gone; see `barging.ts`. */
async function barge(parts: CampaignParts, scope: Scope): Promise<Granted> {
  const { queue, store, title, ttlMs } = parts;
  for (;;) {
    const place = await takePlace(parts, scope, queue.joinIfFree);
    if ("awaitTurn" in place) return awaitTurn(parts, scope, place);
    const holder = contenderOf(place);
    scope.follow(undefined);
    try {
      await whenWorthATry(store, { inTheWay: holder, ttlMs, signal: scope.signal });
    } catch (error) {
      if (error !== timeIsUp) throw error;
      throw lockTimeout(title, { holder, position: 1, waitedMs: store.platform.now() - scope.startedAt });
    }
  }
}

/** Takes what is free, or tells who holds. Never waits in the queue. */
export async function campaignAtOnce(parts: CampaignParts, request: CampaignRequest): Promise<Granted | Refused> {
  const scope = new Scope(parts, request);
  try {
    const place = await takePlace(parts, scope, parts.queue.joinIfFree);
    if (!("awaitTurn" in place)) return { hold: null, holder: contenderOf(place) };
    return await (parts.delay === undefined ? awaitTurn(parts, scope, place) : startAtOnce(parts, scope, place, parts.delay));
  } catch (error) {
    throw scope.inWords(error);
  } finally {
    scope.end();
  }
}

/** Free, unless the time of a lost holder still runs: then it counts as the one who holds. */
async function startAtOnce(parts: CampaignParts, scope: Scope, place: Place, delay: LockDelay): Promise<Granted | Refused> {
  const isMine = await delay.begin(place, { mayWait: false, signal: scope.signal }).catch((error: unknown) => {
    background(place.leave(), "leaving a queue");
    throw error;
  });
  if (isMine) return awaitTurn(parts, scope, place);
  await place.leave();
  return {
    hold: null,
    holder: { session: null, meta: "lost; its lock-delay runs", createRevision: place.createRevision, key: "" },
  };
}

/** The hold, or an error and a place that is given up. */
async function awaitTurn(parts: CampaignParts, scope: Scope, place: Place): Promise<Granted> {
  const { store, title } = parts;
  const { startedAt } = scope;
  const letGo = place.session.hold();
  try {
    const token = place.firstTurn() ?? (await place.awaitTurn(scope.signal));
    if (parts.delay !== undefined) await parts.delay.begin(place, { mayWait: true, signal: scope.signal });
    return { place, hold: holdOf(parts, { place, token, letGo, waitedMs: store.platform.now() - startedAt }) };
  } catch (error) {
    letGo();
    if (error !== timeIsUp) {
      background(place.leave(), "leaving a queue");
      throw error;
    }
    const last = await place.leaveAsking(lastWordMs);
    const holder = last?.holder ? contenderOf(last.holder) : null;
    throw lockTimeout(title, { holder, position: last?.position ?? 0, waitedMs: store.platform.now() - startedAt });
  }
}

/** The hold of a place whose turn has come, and the news of it. */
export function holdOf(
  { delay, maxHoldMs, minHoldMs, name, revocations, telemetry, title }: Omit<CampaignParts, "queue">,
  granted: { readonly place: Place; readonly token: Revision; readonly letGo: () => void; readonly waitedMs: number },
): Hold {
  const { letGo, place, token, waitedMs } = granted;
  telemetry?.emit({ kind: "hold.granted", lock: name, token, waitedMs });
  return new Hold({ place, token, letGo, name, title, delay, maxHoldMs, minHoldMs, revocations, telemetry });
}

/** For messages and listings. */
export function contenderOf(entry: Entry): Contender {
  return { session: entry.session, meta: decodeMetadata(entry.value), createRevision: entry.createRevision, key: entry.key };
}

export function lockTimeout(title: string, facts: Pick<LockTimeout, "holder" | "position" | "waitedMs">): LockTimeout {
  const { holder, position, waitedMs } = facts;
  const about = holder?.meta === undefined ? "" : ` (${JSON.stringify(holder.meta)})`;
  const who =
    holder === null ? "who holds it could not be learnt" : `session ${holder.session}${about} holds it, ${position} stood before`;
  const error = conclaveError("LOCK_TIMEOUT", `${title} was not free within ${Math.round(waitedMs)} ms: ${who}.`);
  return Object.assign(error, facts);
}

/** The reason of a wait whose time is up; never leaves this file. */
const timeIsUp = Symbol("the time is up");
const delayMsMax = 2_147_483_647;

/** Everything that can end a campaign, as one signal. */
class Scope {
  readonly request: CampaignRequest;
  readonly startedAt: number;
  readonly #parts: CampaignParts;
  #link: LinkedSignal | undefined;
  #timer: Timer | undefined;
  #session: Session | undefined;
  #unfollow: (() => void) | undefined;

  constructor(parts: CampaignParts, request: CampaignRequest) {
    request.signal?.throwIfAborted();
    this.#parts = parts;
    this.request = request;
    this.startedAt = parts.store.platform.now();
  }

  /**
   * Aborts with the caller's signal, with the time, and with the loss of the session that is followed. Made where somebody
   * waits: an uncontended lock is taken without it, which is half the price.
   */
  get signal(): AbortSignal {
    if (this.#link === undefined) {
      const link = linkSignal(this.request.signal);
      this.#link = link;
      const { platform } = this.#parts.store;
      const { waitMs } = this.request;
      if (waitMs !== Number.POSITIVE_INFINITY) {
        const leftMs = Math.min(waitMs - (platform.now() - this.startedAt), delayMsMax);
        // A timer of somebody else's for the same time may have rung a fraction early.
        if (leftMs < 1) link.abort(timeIsUp);
        else this.#timer = platform.setTimer(leftMs, () => link.abort(timeIsUp), { ref: true });
      }
      this.follow(this.#session);
    }
    return this.#link.signal;
  }

  /** Of one session at a time, or of none. */
  follow(session: Session | undefined): void {
    this.#unfollow?.();
    this.#unfollow = undefined;
    this.#session = session;
    const link = this.#link;
    if (session === undefined || link === undefined) return;
    this.#unfollow = onAbort(session.lost, () => link.abort(waitLost(this.#parts, session)));
  }

  end(): void {
    this.#timer?.cancel();
    this.#unfollow?.();
    this.#link?.unlink();
  }

  /** What the caller is told. */
  inWords(error: unknown): unknown {
    if (error !== timeIsUp) return error;
    const waitedMs = Math.round(this.#parts.store.platform.now() - this.startedAt);
    return conclaveError("TIMEOUT", `${this.#parts.title}: the store gave no place in the queue within ${waitedMs} ms.`);
  }
}

/** What a queue is told of a campaign. */
class Joining implements JoinOptions {
  readonly session: Session;
  readonly value: string;
  readonly store: Store;
  readonly quick: JoinOptions["quick"];
  readonly #scope: Scope;

  constructor(scope: Scope, of: { readonly store: Store; readonly session: Session; readonly isQuick: boolean }) {
    const { isQuick, session, store } = of;
    this.store = store;
    this.session = session;
    this.value = scope.request.value;
    this.quick = isQuick ? { signal: session.lost, timeoutMs: scope.request.waitMs } : undefined;
    this.#scope = scope;
  }

  get signal(): AbortSignal {
    return this.#scope.signal;
  }
}

/** A session and a place of it. A session that the store has ended is replaced once its process has noticed, too. */
async function takePlace<P>(
  { store, ttlMs, maxStallMs }: CampaignParts,
  scope: Scope,
  join: (options: JoinOptions) => Promise<P>,
): Promise<P> {
  const asked = maxStallMs === undefined ? { ttlMs } : { ttlMs, maxStallMs };
  for (let tries = 1; ; tries++) {
    const isQuick = scope.request.signal === undefined && tries === 1;
    const session = isQuick
      ? (store.sharedSessionIfOpen?.(asked) ?? (await openQuickly(store, asked, scope)))
      : await store.sharedSession({ ...asked, signal: scope.signal });
    scope.follow(session);
    try {
      return await join(new Joining(scope, { store, session, isQuick }));
    } catch (error) {
      if (!hasCode(error, "SESSION_EXPIRED")) throw error;
      scope.follow(undefined);
      await aborted(session.lost, scope.signal);
    }
  }
}

/** Nearly always it is open, and nobody needs a signal to wait by. */
async function openQuickly(store: Store, asked: SessionOptions, scope: Scope): Promise<Session> {
  try {
    return await store.sharedSession({ ...asked, timeoutMs: Math.min(scope.request.waitMs, delayMsMax) });
  } catch (error) {
    // Where the time is up, that is the reason.
    scope.signal.throwIfAborted();
    throw error;
  }
}

/** Waits until the first signal aborts; rejects with the reason of the second. */
async function aborted(awaited: AbortSignal, signal: AbortSignal): Promise<void> {
  if (awaited.aborted) return;
  const link = linkSignal(awaited);
  const event = new Promise<void>((resolve) => link.signal.addEventListener("abort", () => resolve(), { once: true }));
  await raceSignal(event, signal).finally(() => link.unlink());
}

function waitLost({ title }: CampaignParts, session: Session): ConclaveError {
  return conclaveError("SESSION_LOST", `The wait for ${title} ended with its session.`, { cause: session.lost.reason });
}
