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
import type { Telemetry } from "../base/ports.ts";
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

export interface CampaignOptions {
  readonly store: Store;
  /** The rule by which turns come. */
  readonly queue: Queue;
  readonly ttlMs: number;
  readonly maxStallMs?: number;
  /** What the others read. */
  readonly value: string;
  readonly name: string;
  readonly title: string;
  readonly waitMs: number;
  readonly signal: AbortSignal | undefined;
  readonly maxHoldMs?: number;
  readonly minHoldMs?: number;
  readonly delay?: LockDelay | undefined;
  readonly fairness?: "fifo" | "barging";
  /** Where requests to yield are written. */
  readonly revocations: Revocations;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
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
export async function campaign(options: CampaignOptions): Promise<Granted> {
  return within(options, async (scope) => {
    if (options.fairness === "barging") return barge(options, scope);
    return awaitTurn(options, scope, await takePlace(options, scope, options.queue.join));
  });
}

/** Tries whenever the one in the way has gone; see `barging.ts`. */
async function barge(options: CampaignOptions, scope: Scope): Promise<Granted> {
  const { queue, store, title, ttlMs } = options;
  for (;;) {
    const place = await takePlace(options, scope, queue.joinIfFree);
    if ("awaitTurn" in place) return awaitTurn(options, scope, place);
    const holder = contenderOf(place);
    scope.unfollow();
    try {
      await whenWorthATry(store, { inTheWay: holder, ttlMs, signal: scope.link.signal });
    } catch (error) {
      if (error !== timeIsUp) throw error;
      throw lockTimeout(title, { holder, position: 1, waitedMs: store.platform.now() - scope.startedAt });
    }
  }
}

/** Takes what is free, or tells who holds. Never waits in the queue. */
export async function campaignAtOnce(options: CampaignOptions): Promise<Granted | Refused> {
  return within(options, async (scope) => {
    const place = await takePlace(options, scope, options.queue.joinIfFree);
    if (!("awaitTurn" in place)) return { hold: null, holder: contenderOf(place) };
    return options.delay === undefined ? awaitTurn(options, scope, place) : startAtOnce(options, scope, place, options.delay);
  });
}

/** Free, unless the time of a lost holder still runs: then it counts as the one who holds. */
async function startAtOnce(options: CampaignOptions, scope: Scope, place: Place, delay: LockDelay): Promise<Granted | Refused> {
  const isMine = await delay.begin(place, { mayWait: false, signal: scope.link.signal }).catch((error: unknown) => {
    background(place.leave(), "leaving a queue");
    throw error;
  });
  if (isMine) return awaitTurn(options, scope, place);
  await place.leave();
  return {
    hold: null,
    holder: { session: null, meta: "lost; its lock-delay runs", createRevision: place.createRevision, key: "" },
  };
}

/** The hold, or an error and a place that is given up. */
async function awaitTurn(options: CampaignOptions, { link, startedAt }: Scope, place: Place): Promise<Granted> {
  const { store, title } = options;
  const letGo = place.session.hold();
  try {
    const token = await place.awaitTurn(place.first ? place.session.lost : link.signal);
    await options.delay?.begin(place, { mayWait: true, signal: link.signal });
    return { place, hold: holdOf(options, { place, token, letGo, waitedMs: store.platform.now() - startedAt }) };
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
  {
    delay,
    maxHoldMs,
    minHoldMs,
    name,
    revocations,
    telemetry,
    title,
  }: Omit<CampaignOptions, "queue" | "value" | "waitMs" | "signal">,
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

interface Scope {
  /**
   * Aborts with the caller's signal, with the time, and with the loss of the session that is followed. Its signal is only
   * asked for where somebody waits: an uncontended lock is taken without one, which is half the price.
   */
  readonly link: LinkedSignal;
  readonly follow: (session: Session) => void;
  readonly unfollow: () => void;
  readonly startedAt: number;
}

/** The reason of a wait whose time is up; never leaves this file. */
const timeIsUp = Symbol("the time is up");
const delayMsMax = 2_147_483_647;

async function within<T>(options: CampaignOptions, act: (scope: Scope) => Promise<T>): Promise<T> {
  const { platform } = options.store;
  const startedAt = platform.now();
  const link = linkSignal(options.signal);
  const timer =
    options.waitMs === Number.POSITIVE_INFINITY
      ? undefined
      : platform.setTimer(Math.min(options.waitMs, delayMsMax), () => link.abort(timeIsUp), { ref: true });
  let unfollow = (): void => undefined;
  const follow = (session: Session): void => {
    unfollow();
    unfollow = onAbort(session.lost, () => link.abort(waitLost(options, session)));
  };
  try {
    options.signal?.throwIfAborted();
    return await act({ link, follow, unfollow: () => unfollow(), startedAt });
  } catch (error) {
    if (error !== timeIsUp) throw error;
    throw conclaveError(
      "TIMEOUT",
      `${options.title}: the store gave no place in the queue within ${Math.round(platform.now() - startedAt)} ms.`,
    );
  } finally {
    timer?.cancel();
    unfollow();
    link.unlink();
  }
}

/** A session and a place of it. A session that the store has ended is replaced once its process has noticed, too. */
async function takePlace<P>(
  { store, ttlMs, maxStallMs, value, waitMs, signal: given }: CampaignOptions,
  { link, follow, unfollow }: Scope,
  join: (options: JoinOptions) => Promise<P>,
): Promise<P> {
  const asked = maxStallMs === undefined ? { ttlMs } : { ttlMs, maxStallMs };
  for (let tries = 1; ; tries++) {
    const isQuick = given === undefined && tries === 1;
    const session = isQuick
      ? await openQuickly(store, asked, waitMs, link)
      : await store.sharedSession({ ...asked, signal: link.signal });
    follow(session);
    try {
      return await join({
        store,
        session,
        value,
        get signal() {
          return link.signal;
        },
        ...(isQuick ? { quick: { signal: session.lost, timeoutMs: waitMs } } : {}),
      });
    } catch (error) {
      if (!hasCode(error, "SESSION_EXPIRED")) throw error;
      unfollow();
      await aborted(session.lost, link.signal);
    }
  }
}

/** Nearly always it is open, and nobody needs a signal to wait by. */
async function openQuickly(store: Store, asked: SessionOptions, waitMs: number, link: LinkedSignal): Promise<Session> {
  try {
    return await store.sharedSession({ ...asked, timeoutMs: Math.min(waitMs, delayMsMax) });
  } catch (error) {
    // Where the time is up, that is the reason.
    link.signal.throwIfAborted();
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

function waitLost({ title }: CampaignOptions, session: Session): ConclaveError {
  return conclaveError("SESSION_LOST", `The wait for ${title} ended with its session.`, { cause: session.lost.reason });
}
