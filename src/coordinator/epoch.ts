/**
 * One life of a coordinator: a key that lives as long as its session, and whose create revision nobody can have again.
 *
 * Intuition: a badge with a serial number. Every decision is written under the condition that the badge still hangs on the
 * wall; whoever finds the hook empty knows that nothing more can be decided under that number.
 * The name is drawn anew for each epoch: an old key that lingers is never in the way.
 */
import { conclaveError } from "../base/errors.ts";
import { insist } from "../recipes/insist.ts";
import type { Compare, Session, Store } from "../store/store.ts";
import { epochPrefix, randomName } from "./gid.ts";
import { type CoordinatorRecord, encodeRecord, recordKeys } from "./records.ts";

export class Epoch {
  readonly coordinator: string;
  readonly number: number;
  readonly session: Session;
  /** What the names of its transactions begin with. */
  readonly prefix: string;
  /** Transactions of this epoch that this process still minds. */
  readonly inFlight = new Set<string>();
  /**
   * Transactions one of whose writes of the decision went unanswered: their cells stay until the epoch ends. A late copy of
   * the write would else find the cell free and decide a second time.
   */
  readonly kept = new Set<string>();
  readonly #guard: Compare;
  #sequence = 0;

  constructor(
    session: Session,
    { domain, coordinator, number }: { readonly domain: string; readonly coordinator: string; readonly number: number },
  ) {
    this.coordinator = coordinator;
    this.number = number;
    this.session = session;
    this.prefix = epochPrefix({ domain, coordinator, epoch: number });
    this.#guard = { key: recordKeys.coordinator(coordinator), target: "createRevision", is: "equal", to: number };
  }

  get alive(): boolean {
    return this.session.alive;
  }

  nextSequence(): number {
    this.#sequence++;
    return this.#sequence;
  }

  /** What every decision compares: one object, so that a batch of them can say it once. */
  guard(): Compare {
    return this.#guard;
  }
}

export interface EpochOptions {
  readonly domain: string;
  readonly ttlMs: number;
  readonly record: CoordinatorRecord;
  readonly signal: AbortSignal;
}

/** Opens a session and hangs up the badge. Tries until the signal aborts. */
export async function openEpoch(store: Store, options: EpochOptions): Promise<Epoch> {
  const { signal } = options;
  return insist(() => tryEpoch(store, options), { platform: store.platform, signal, ref: false });
}

async function tryEpoch(store: Store, { domain, ttlMs, record, signal }: EpochOptions): Promise<Epoch> {
  const session = await store.session({ ttlMs, signal });
  const name = randomName(store.platform, 8);
  const key = recordKeys.coordinator(name);
  try {
    const { succeeded, revision } = await store.txn(
      {
        if: [{ key, target: "exists", is: "equal", to: false }],
        then: [{ kind: "put", key, value: encodeRecord(record), session: session.id }],
      },
      { signal },
    );
    // A copy of the same write came first, or somebody drew the same name: another name settles both.
    if (!succeeded) throw conclaveError("BUSY", `The coordinator name ${name} is taken.`);
    return new Epoch(session, { domain, coordinator: name, number: revision });
  } catch (error) {
    // Whether the key was written or not: it goes with the session, and the next try has another name.
    session.close().catch(ignoreLoss);
    throw error;
  }
}

function ignoreLoss(): void {
  // A session that cannot be closed ends by itself.
}
