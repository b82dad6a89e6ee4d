/**
 * Who should lead next, as far as the candidates can agree on it: priority and transfer.
 *
 * Intuition: courtesy at a door. Whoever sees a more important person waiting steps out of the line and lets them pass.
 * Courtesy decides only who stands in the line; that one person at a time goes through is the line's own business, so a
 * candidate that is rude, slow or cut off spoils the preference and nothing else.
 *
 *   candidate/session/number   its priority, bound to its session; gone once it leads
 *   chosen                     the candidate to whom a leader hands over, bound to that candidate's session
 *
 * Only candidates that were given a priority register and defer. Costs: a round trip and a watch for each.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { CallOptions, Revision, Session, SessionId, Store } from "../store/store.ts";
import { insist } from "./insist.ts";
import { decodeMetadata } from "./metadata.ts";
import { observeRange, type RangeState } from "./observe.ts";
import { Claim, leaveQueue } from "./place-claim.ts";

/** Somebody who waits to lead. */
export interface Candidate {
  readonly id: string;
  /** Higher leads first. */
  readonly priority: number;
  readonly value: unknown;
  readonly session: SessionId | null;
  readonly createRevision: Revision;
}

const candidates = { prefix: "candidate/" } as const;
const everything = { prefix: "" } as const;
const chosen = "chosen";

/** The reason for which a wait is broken off to let somebody pass. */
export const steppedAside = Symbol("a better candidate waits");

/** A registered candidate, until it leads or gives up. */
export class Candidacy {
  readonly id: string;
  readonly #store: Store;
  readonly #claim: Claim;
  readonly #priority: number;

  private constructor(store: Store, claim: Claim, priority: number) {
    this.#store = store;
    this.#claim = claim;
    this.id = claim.key;
    this.#priority = priority;
  }

  static async register(
    store: Store,
    options: { readonly session: Session; readonly priority: number; readonly value: unknown; readonly signal: AbortSignal },
  ): Promise<Candidacy> {
    const { session, priority, value, signal } = options;
    const claim = new Claim({ store, session, value: JSON.stringify({ priority, value }), signal }, candidates);
    await claim.make(() => store.txn({ then: claim.putOps() }, { signal }));
    return new Candidacy(store, claim, priority);
  }

  /** Whether the session that the candidacy hangs on is still well. */
  get alive(): boolean {
    return this.#claim.session.alive;
  }

  /** Waits until no better candidate waits. Rejects with the signal's reason. */
  async untilBest(signal: AbortSignal): Promise<void> {
    for await (const state of observeRange(this.#store, { range: everything, signal })) if (this.#isBest(state)) return;
  }

  /** Calls once a better candidate waits; never rejects. */
  async onceBetter(signal: AbortSignal, stepAside: () => void): Promise<void> {
    try {
      for await (const state of observeRange(this.#store, { range: everything, signal })) {
        if (this.#isBest(state)) continue;
        stepAside();
        return;
      }
    } catch {
      // Broken off, or refused for good: then its place in the line is refused as well.
    }
  }

  /** It leads, or gives up. Never rejects. */
  withdraw(): Promise<void> {
    return leaveQueue(this.#claim, { inDoubt: this.#claim.inDoubt });
  }

  #isBest({ entries }: RangeState): boolean {
    const chosenId = entries.find(({ key }) => key === chosen)?.text;
    // A choice counts only while the chosen one waits.
    if (chosenId !== undefined && entries.some(({ key }) => key === chosenId)) return chosenId === this.id;
    return !entries.some(
      (entry) => entry.key !== this.id && entry.key !== chosen && candidateOf(entry).priority > this.#priority,
    );
  }
}

/** Who waits, the most important first. One round trip. */
export async function candidatesOf(store: Store, options?: CallOptions): Promise<readonly Candidate[]> {
  const { results } = await store.txn({ then: [{ kind: "range", range: candidates, order: "create" }] }, options);
  const [listed] = results;
  assert(listed?.kind === "range", "a range is answered with entries");
  return listed.entries.map(candidateOf).sort((left, right) => right.priority - left.priority);
}

/**
 * Names the next leader, and waits until it stands first behind the present one; takes the choice back where it does not.
 * `isNext`: whether the line says so now. @throws WAIT_TIMEOUT (nothing has changed), INVALID_OPTION (no such candidate)
 */
export async function choose(
  store: Store,
  line: Store,
  {
    id,
    isNext,
    waitMs,
    signal,
  }: {
    readonly id: string;
    readonly isNext: (line: RangeState) => boolean;
    readonly waitMs: number;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { platform } = store;
  const candidate = (await candidatesOf(store, { signal })).find((each) => each.id === id);
  if (candidate === undefined || candidate.session === null) {
    throw conclaveError("INVALID_OPTION", `No candidate ${JSON.stringify(id)} waits.`);
  }
  const { session } = candidate;
  const put = {
    if: [{ key: id, target: "exists", is: "equal", to: true }],
    then: [{ kind: "put", key: chosen, value: id, session }],
  } as const;
  await insist(() => store.txn(put, { signal }), { platform, signal });
  const link = linkSignal(signal);
  const timeIsUp = Symbol("the time is up");
  const timer = platform.setTimer(waitMs, () => link.abort(timeIsUp), { ref: true });
  try {
    for await (const state of observeRange(line, { range: everything, order: "create", limit: 2, signal: link.signal })) {
      if (isNext(state)) return;
    }
  } catch (error) {
    background(takeBack(store, id, signal), "taking a choice back");
    if (error !== timeIsUp) throw error;
    throw conclaveError("WAIT_TIMEOUT", `The candidate ${JSON.stringify(id)} did not stand ready within ${waitMs} ms.`);
  } finally {
    timer.cancel();
    link.abort();
    link.unlink();
  }
}

/** Asks until it is answered or the term is over. Never rejects: a choice that stays goes with the chosen one's session. */
async function takeBack(store: Store, id: string, signal: AbortSignal): Promise<void> {
  const { platform } = store;
  const txn = {
    if: [{ key: chosen, target: "value", is: "equal", to: id }],
    then: [{ kind: "delete", range: { key: chosen } }],
  } as const;
  try {
    // Once even after the term, which may be what broke the transfer off.
    await store.txn(txn).catch(() => insist(() => store.txn(txn, { signal }), { platform, signal, ref: false }));
  } catch {
    // Courtesy, and no more: whoever stands first leads.
  }
}

function candidateOf(entry: {
  readonly key: string;
  readonly value: Uint8Array;
  readonly session: SessionId | null;
  readonly createRevision: Revision;
}): Candidate {
  const { priority = 0, value } = (decodeMetadata(entry.value) ?? {}) as { readonly priority?: number; readonly value?: unknown };
  return { id: entry.key, priority, value, session: entry.session, createRevision: entry.createRevision };
}
