/**
 * An election: one leader at a time, whose work happens inside a term.
 *
 * Intuition: a lock whose holder is announced. `lead` waits in the same kind of queue as a lock, announces itself, calls
 * back, and does not step down before the callback has settled: there is never an old leader still tidying up next to a
 * new one, as long as the callback stops when `term.signal` says so.
 *
 *   campaign ── turn ──► announce ──► callback(term) ── settles ──► resign ──► answer
 *      ▲                                   │ lost: term.signal aborts, the callback still settles first
 *      └───────────────────────────────────┘
 *
 * The announcement costs one round trip more than a lock and is worth it: observers learn the token as well, so a request
 * can say which leader it is meant for. Who has the turn and has not announced itself yet counts as no leader.
 * Priorities and transfer are a matter of courtesy among the candidates: see `candidacy.ts`.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { ConclaveError, conclaveError, LostError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Telemetry } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import { checkMaxStall } from "../store/stall.ts";
import type { CallOptions, Compare, Revision, SessionId, Store, WatchBatch } from "../store/store.ts";
import { lockDefaults } from "./acquirable.ts";
import { Bell, sleep } from "./bell.ts";
import { campaign, type Granted } from "./campaign.ts";
import { Candidacy, type Candidate, candidatesOf, choose, steppedAside } from "./candidacy.ts";
import { insist } from "./insist.ts";
import { decodeMetadata, encodeMetadata } from "./metadata.ts";
import { checkName, checkTtlMs, type StoreSource } from "./options.ts";
import { exclusiveLine, queueOf, wholeQueue } from "./queue-place.ts";
import { type Revocations, revocationsOf } from "./revocation.ts";

export interface ElectionOptions {
  /** How long the leader may be silent before the next one leads. As for a lock. Default 15_000. */
  readonly ttlMs?: number;
  /** Keeps the term while the event loop is blocked, but no longer than this. As for a lock. Default: no thread. */
  readonly maxStallMs?: number;
  /** Hears `hold.granted` and `hold.lost`. */
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export interface LeadOptions {
  /** Stops campaigning; in a term it aborts `term.signal`, waits for the callback, and resigns. */
  readonly signal?: AbortSignal;
  /** What observers read of this leader: anything that JSON can carry. Default: nothing. See `term.proclaim`. */
  readonly value?: unknown;
  /**
   * Higher leads first among those that wait; it takes nothing from who leads. A preference, not an exclusion: while
   * candidates cannot see one another, whoever stands first in the line leads. Default: none, which asks for no round trip
   * and defers to nobody; candidates of one election should all say a number, or none.
   */
  readonly priority?: number;
  /** Whether to campaign again after a term was lost. Default true; else `lead` rejects with LOCK_LOST. */
  readonly rerun?: boolean;
  /** Hears of each lost term, once its callback has settled; `cause` is what the callback threw, if it threw. */
  readonly onLost?: (loss: ConclaveError) => void;
}

/** Who leads, as observers see it. */
export interface Leader {
  /** The token of the term: a request that names it cannot be answered by another leader unnoticed. */
  readonly token: Revision;
  readonly value: unknown;
  readonly session: SessionId | null;
}

/** Makes the handle of an election; nothing is sent. @throws INVALID_OPTION @since 0.1.0 */
export function createElection(engine: StoreSource, name: string, options: ElectionOptions = {}): Election {
  checkName(name, "election");
  const store = engine.store(`election/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  checkMaxStall(options.maxStallMs, store.caps);
  const candidates = engine.store(`election-candidates/${name}`);
  return new Election(store, { ...options, name, ttlMs, candidates, revocations: revocationsOf(engine, store) });
}

/** @since 0.1.0 */
export class Election {
  readonly name: string;
  readonly ttlMs: number;
  /** What its sessions are asked for with. */
  readonly #lease: { readonly ttlMs: number; readonly maxStallMs?: number };
  readonly #store: Store;
  readonly #telemetry: Telemetry<ConclaveEvent> | undefined;
  readonly #revocations: Revocations;
  readonly #candidates: Store;
  #isRunning = false;

  /** Use `createElection`, which checks the options. */
  constructor(
    store: Store,
    options: ElectionOptions & {
      readonly name: string;
      readonly ttlMs: number;
      readonly candidates: Store;
      readonly revocations: Revocations;
    },
  ) {
    this.name = options.name;
    const { maxStallMs, ttlMs } = options;
    this.ttlMs = ttlMs;
    this.#lease = maxStallMs === undefined ? { ttlMs } : { ttlMs, maxStallMs };
    this.#store = store;
    this.#telemetry = options.telemetry;
    this.#revocations = options.revocations;
    this.#candidates = options.candidates;
  }

  /**
   * Campaigns, and calls back once it leads; answers with what the callback answers, having resigned.
   *
   * ```ts
   * await election.lead(async (term) => {
   *   while (!term.signal.aborted) await runNextJob({ fencingToken: term.token, signal: term.signal });
   * }, { signal });
   * ```
   * A lost term aborts `term.signal`. Only once the callback has settled is there another campaign, so that this process
   * never leads twice at once. What a callback throws in a term that was not lost is what `lead` rejects with.
   * @throws LOCK_LOST (with `rerun: false`), INVALID_OPTION (this Election is campaigning already), or the signal's reason
   */
  async lead<T>(callback: (term: Term) => T | Promise<T>, options: LeadOptions = {}): Promise<T> {
    if (this.#isRunning) {
      throw conclaveError(
        "INVALID_OPTION",
        `${this.#title()}: \`lead\` runs already on this Election. Make a second one for a second candidate.`,
      );
    }
    this.#isRunning = true;
    try {
      for (;;) {
        const outcome = await this.#serve(await this.#campaign(options), callback, options);
        if (outcome.kind === "settled") return outcome.answer;
        options.onLost?.(outcome.loss);
        options.signal?.throwIfAborted();
        if (options.rerun === false) throw outcome.loss;
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /** Who leads now; null when nobody does. One round trip. */
  async leader(options: CallOptions = {}): Promise<Leader | null> {
    return (await this.#head(options)).leader;
  }

  /** Who waits with a priority, the most important first; who leads is not among them. One round trip. */
  candidates(options?: CallOptions): Promise<readonly Candidate[]> {
    return candidatesOf(this.#candidates, options);
  }

  /**
   * Tells who leads, at once and on every change, until the signal aborts or the loop is left. Level-triggered: a leader
   * that came and went between two looks may be missed, the present one may not.
   */
  async *observe({ signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Leader | null, void, void> {
    const { platform, caps } = this.#store;
    const link = linkSignal(signal);
    let told: Leader | null | undefined;
    try {
      while (!link.signal.aborted) {
        const head = await insist(() => this.#head({ signal: link.signal }), { platform, signal: link.signal });
        if (told === undefined || !isSameLeader(told, head.leader)) {
          told = head.leader;
          yield told;
        }
        const bell = new Bell<true>();
        const watch = linkSignal(link.signal);
        try {
          if (caps.watch !== "none") background(this.#ringOnChange(head, bell, watch.signal), "the watch on an election");
          await bell.wait({ platform, timeoutMs: this.ttlMs / 3, signal: link.signal });
        } finally {
          watch.abort();
          watch.unlink();
        }
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.abort();
      link.unlink();
    }
  }

  /** Campaigns until it is elected: a campaign that ends with its session is followed by the next. */
  async #campaign(options: LeadOptions): Promise<Granted> {
    const { signal } = options;
    for (;;) {
      try {
        return options.priority === undefined ? await this.#stand(options, undefined, signal) : await this.#defer(options);
      } catch (error) {
        signal?.throwIfAborted();
        const isWorthAnother = error instanceof LostError || (error instanceof ConclaveError && error.retryable);
        if (options.rerun === false || !isWorthAnother) throw error;
        await this.#pause(signal);
      }
    }
  }

  /** Stands in the line until elected. */
  #stand({ value }: LeadOptions, candidate: string | undefined, signal: AbortSignal | undefined): Promise<Granted> {
    return campaign(
      {
        store: this.#store,
        queue: queueOf(exclusiveLine),
        revocations: this.#revocations,
        ...this.#lease,
        name: this.name,
        title: this.#title(),
        telemetry: this.#telemetry,
      },
      {
        value: encodeAnnouncement({ value, ...(candidate === undefined ? {} : { candidate }) }),
        waitMs: Number.POSITIVE_INFINITY,
        signal,
      },
    );
  }

  /** Stands in the line while nobody more important waits, and steps out of it for who is. */
  async #defer(options: LeadOptions): Promise<Granted> {
    const { priority = 0, value } = options;
    const whole = linkSignal(options.signal);
    const { signal } = whole;
    const session = await this.#candidates.sharedSession({ ...this.#lease, signal });
    const candidacy = await Candidacy.register(this.#candidates, { session, priority, value, signal });
    const lost = linkSignal(session.lost);
    lost.signal.addEventListener("abort", () => whole.abort(lost.signal.reason), { once: true });
    try {
      for (;;) {
        await candidacy.untilBest(signal);
        const turn = linkSignal(signal);
        try {
          background(
            candidacy.onceBetter(turn.signal, () => turn.abort(steppedAside)),
            "the watch for better candidates",
          );
          return await this.#stand(options, candidacy.id, turn.signal);
        } catch (error) {
          if (error !== steppedAside) throw error;
        } finally {
          turn.abort();
          turn.unlink();
        }
      }
    } finally {
      background(candidacy.withdraw(), "withdrawing a candidacy");
      lost.unlink();
      whole.unlink();
    }
  }

  async #pause(signal: AbortSignal | undefined): Promise<void> {
    const link = linkSignal(signal);
    try {
      await sleep({ platform: this.#store.platform, timeoutMs: pauseMs, signal: link.signal });
    } finally {
      link.unlink();
    }
  }

  /** One term, from the announcement to the resignation. */
  async #serve<T>(
    granted: Granted,
    callback: (term: Term) => T | Promise<T>,
    { signal, value }: LeadOptions,
  ): Promise<{ readonly kind: "settled"; readonly answer: T } | { readonly kind: "lost"; readonly loss: ConclaveError }> {
    const { hold } = granted;
    const link = linkSignal(hold.signal);
    const stop = (): void => link.abort(signal?.reason);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
    const term = new Term(granted, link.signal, this.#candidates);
    let outcome: { readonly answer: T } | { readonly error: unknown };
    try {
      await term.proclaim(value);
      outcome = { answer: await callback(term) };
    } catch (error) {
      outcome = { error };
    }
    signal?.removeEventListener("abort", stop);
    const { loss } = hold;
    await hold.release();
    // Whoever still works in the term's name is told that it is over.
    link.abort(conclaveError("NOT_HOLDER", `The term ${hold.token} of ${this.#title()} is over.`));
    link.unlink();
    if (loss !== null) {
      const cause = "error" in outcome ? outcome.error : loss;
      return { kind: "lost", loss: conclaveError("LOCK_LOST", `${this.#title()} was lost in term ${hold.token}.`, { cause }) };
    }
    if ("error" in outcome) throw outcome.error;
    return { kind: "settled", answer: outcome.answer };
  }

  async #head(options: CallOptions): Promise<Head> {
    const { results, revision } = await this.#store.txn(
      { then: [{ kind: "range", range: wholeQueue, order: "create", limit: 1 }] },
      options,
    );
    const [listed] = results;
    assert(listed?.kind === "range", "a range is answered with entries");
    const [entry] = listed.entries;
    return { revision, key: entry?.key, leader: entry === undefined ? null : leaderOf(entry) };
  }

  async #ringOnChange(head: Head, bell: Bell<true>, signal: AbortSignal): Promise<void> {
    let timeoutMs = settleMs;
    try {
      for await (const batch of this.#store.watch(wholeQueue, { from: head.revision + 1, signal })) {
        if (concernsHead(batch, head)) break;
      }
    } catch {
      // What is wrong shows in the look that follows.
      timeoutMs = pauseMs;
    }
    await sleep({ platform: this.#store.platform, timeoutMs, signal, ref: false }).catch(() => undefined);
    bell.ring(true);
  }

  #title(): string {
    return `Leadership of ${JSON.stringify(this.name)}`;
  }
}

/**
 * The time of one leader.
 * @since 0.1.0
 */
export class Term {
  /** The fencing token: higher than that of every term before. */
  readonly token: Revision;
  /** Aborts when the term is lost (its reason is a LostError), when `lead` is stopped, and when the term is over. */
  readonly signal: AbortSignal;
  readonly #granted: Granted;
  readonly #candidates: Store;

  constructor(granted: Granted, signal: AbortSignal, candidates: Store) {
    this.#granted = granted;
    this.#candidates = candidates;
    this.token = granted.hold.token;
    this.signal = signal;
  }

  /** Whether it leads at this moment, by this process's own clock. */
  get held(): boolean {
    return this.#granted.hold.held;
  }

  /** As of a hold. */
  get deadline(): number {
    return this.#granted.hold.deadline;
  }

  /** Why it was lost; null while it leads and after it resigned. */
  get loss(): ConclaveError | null {
    return this.#granted.hold.loss;
  }

  /** @throws LOCK_LOST, NOT_HOLDER (the term is over) */
  assertHeld(): void {
    this.#granted.hold.assertHeld();
  }

  /** As of a hold: a condition that the store itself checks. */
  guard(): Compare {
    return this.#granted.hold.guard();
  }

  /**
   * Makes a candidate the next leader, and resolves once it stands ready; the callback then ends this term by returning.
   * The other candidates with a priority step aside; those without one do not.
   * @param id As `election.candidates()` tells it. `waitMs`: default 10_000.
   * @throws WAIT_TIMEOUT (nothing has changed), INVALID_OPTION (no such candidate), LOCK_LOST, NOT_HOLDER
   */
  async transferTo(id: string, { waitMs = 10_000 }: { readonly waitMs?: number } = {}): Promise<void> {
    this.assertHeld();
    const { place } = this.#granted;
    await choose(this.#candidates, place.store, {
      id,
      waitMs,
      signal: this.signal,
      isNext: ({ entries }) => {
        const [first, second] = entries;
        const announced = second === undefined ? undefined : (decodeMetadata(second.value) as Announcement | undefined);
        return first?.key === place.key && announced?.candidate === id;
      },
    });
  }

  /** Changes what observers read of this leader. One round trip. @throws LOCK_LOST, NOT_HOLDER, or the signal's reason */
  async proclaim(value: unknown): Promise<void> {
    this.assertHeld();
    const { store, key, session } = this.#granted.place;
    const announcement = encodeAnnouncement({ value, token: this.token });
    const { succeeded } = await insist(
      () =>
        store.txn(
          { if: [this.guard()], then: [{ kind: "put", key, value: announcement, session: session.id }] },
          { signal: this.signal },
        ),
      { platform: store.platform, signal: this.signal },
    );
    if (succeeded) return;
    this.#granted.hold.noteKeyGone();
    this.assertHeld();
  }
}

interface Announcement {
  readonly value?: unknown;
  /** Left out by who only waits. */
  readonly token?: Revision;
  /** The candidacy of who waits, where it has one. */
  readonly candidate?: string;
}

interface Head {
  readonly revision: Revision;
  readonly key: string | undefined;
  readonly leader: Leader | null;
}

/** After a campaign that ended without a term, or a watch that failed. */
const pauseMs = 250;
/** Changes that come together are looked at together. */
const settleMs = 10;

function encodeAnnouncement(announcement: Announcement): string {
  encodeMetadata(announcement.value, "value");
  return JSON.stringify(announcement);
}

function leaderOf(entry: Entry): Leader | null {
  const announcement = decodeMetadata(entry.value) as Announcement | null | undefined;
  if (typeof announcement?.token !== "number") return null;
  return { token: announcement.token, value: announcement.value, session: entry.session };
}

/** Only the first key matters: candidates behind it come and go. With nobody first, everything does. */
function concernsHead(batch: WatchBatch, head: Head): boolean {
  return batch.kind === "resync" || head.key === undefined || batch.events.some((event) => event.key === head.key);
}

function isSameLeader(left: Leader | null, right: Leader | null): boolean {
  if (left === null || right === null) return left === right;
  return left.token === right.token && JSON.stringify(left.value) === JSON.stringify(right.value);
}
