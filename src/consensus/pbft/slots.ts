/**
 * What a replica knows of each sequence between the watermarks: the proposal of the present view with its votes, the
 * certificate of the highest view in which it was prepared, and the batches that any of them stands for.
 *
 * Bounded: at most a window of slots; per slot one prepare and one commit of each replica (the first counts) and a few batches.
 */
import type {
  Batch,
  Commit,
  Digest,
  PrePrepare,
  Prepare,
  PreparedCertificate,
  ReplicaNumber,
  Sequence,
  Signed,
} from "./messages.ts";

export interface Slot {
  readonly sequence: Sequence;
  // Of the present view:
  proposal: Signed<PrePrepare> | undefined;
  /** The proposal's cell is on this replica's disk. */
  proposalDurable: boolean;
  /** This replica has said its prepare (or, as primary, its pre-prepare). */
  voted: boolean;
  readonly prepares: Map<ReplicaNumber, Signed<Prepare>>;
  readonly commits: Map<ReplicaNumber, Signed<Commit>>;
  prepared: boolean;
  // Across views:
  /** Of the highest view in which this replica prepared something here. */
  certificate: PreparedCertificate | undefined;
  committed: Digest | undefined;
  readonly batches: Map<Digest, Batch>;
}

export class Slots {
  readonly #slots = new Map<Sequence, Slot>();
  #highest: Sequence = 0;

  get size(): number {
    return this.#slots.size;
  }

  /** The highest sequence that a slot was ever made for. */
  get highest(): Sequence {
    return this.#highest;
  }

  get(sequence: Sequence): Slot | undefined {
    return this.#slots.get(sequence);
  }

  at(sequence: Sequence): Slot {
    let slot = this.#slots.get(sequence);
    if (slot === undefined) {
      slot = {
        sequence,
        proposal: undefined,
        proposalDurable: false,
        voted: false,
        prepares: new Map(),
        commits: new Map(),
        prepared: false,
        certificate: undefined,
        committed: undefined,
        batches: new Map(),
      };
      this.#slots.set(sequence, slot);
      this.#highest = Math.max(this.#highest, sequence);
    }
    return slot;
  }

  /** In the order of sequences. */
  inOrder(): readonly Slot[] {
    return [...this.#slots.values()].sort((left, right) => left.sequence - right.sequence);
  }

  values(): Iterable<Slot> {
    return this.#slots.values();
  }

  dropUpTo(sequence: Sequence): void {
    for (const known of this.#slots.keys()) if (known <= sequence) this.#slots.delete(known);
  }

  /** Another view begins: its votes are its own, what was prepared and committed stays. */
  forgetView(): void {
    for (const slot of this.#slots.values()) {
      slot.proposal = undefined;
      slot.proposalDurable = false;
      slot.voted = false;
      slot.prepared = false;
      slot.prepares.clear();
      slot.commits.clear();
    }
  }
}

/** The statements that agree with the proposal, at most `wanted` of them. */
export function matching<V extends Prepare | Commit>(
  votes: ReadonlyMap<ReplicaNumber, Signed<V>>,
  proposal: PrePrepare,
  wanted: number,
): readonly Signed<V>[] {
  const found: Signed<V>[] = [];
  for (const vote of votes.values()) {
    const { view, digest } = vote.statement;
    if (found.length < wanted && view === proposal.view && digest === proposal.digest) found.push(vote);
  }
  return found;
}
