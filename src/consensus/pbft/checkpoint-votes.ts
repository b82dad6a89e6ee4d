/**
 * What the replicas have said about their checkpoints, until a quorum says the same (OSDI 1999 §4.3).
 *
 * Bounded against a replica that invents sequences: of each replica only its newest few statements are kept.
 */
import type { Checkpoint, ReplicaNumber, Sequence, Signed } from "./messages.ts";
import { quorumOf } from "./quorum.ts";

export class CheckpointVotes {
  readonly #replicas: number;
  readonly #keptMax: number;
  readonly #votes = new Map<ReplicaNumber, Map<Sequence, Signed<Checkpoint>>>();

  constructor(replicas: number, keptMax: number) {
    this.#replicas = replicas;
    this.#keptMax = keptMax;
  }

  get size(): number {
    let size = 0;
    for (const votes of this.#votes.values()) size += votes.size;
    return size;
  }

  of(replica: ReplicaNumber): Iterable<Signed<Checkpoint>> {
    return this.#votes.get(replica)?.values() ?? [];
  }

  /** Remembers the statement; answers the proof when it completes one. A replica's first word on a sequence counts. */
  add(checkpoint: Signed<Checkpoint>): readonly Signed<Checkpoint>[] | undefined {
    const { replica, sequence } = checkpoint.statement;
    let votes = this.#votes.get(replica);
    if (votes === undefined) {
      votes = new Map();
      this.#votes.set(replica, votes);
    }
    if (votes.has(sequence)) return undefined;
    votes.set(sequence, checkpoint);
    if (votes.size > this.#keptMax) votes.delete(Math.min(...votes.keys()));
    return this.#proofOf(checkpoint.statement);
  }

  dropUpTo(sequence: Sequence): void {
    for (const votes of this.#votes.values()) {
      for (const known of votes.keys()) if (known <= sequence) votes.delete(known);
    }
  }

  #proofOf(about: Checkpoint): readonly Signed<Checkpoint>[] | undefined {
    const proof: Signed<Checkpoint>[] = [];
    for (const votes of this.#votes.values()) {
      const vote = votes.get(about.sequence);
      if (vote !== undefined && vote.statement.digest === about.digest) proof.push(vote);
    }
    return proof.length >= quorumOf(this.#replicas) ? proof : undefined;
  }
}
