/**
 * Once, however often it is sent: the first outcome of each claimed mutation, kept until the client has it.
 *
 *     sequence   ... 4  5  6 | 7  8  9 ...
 *                 forgotten  | floor: the highest `lowestOpen` seen; from here on outcomes are kept
 *
 * Source: Ongaro's thesis §6.3 (sessions and sequence numbers), with RIFL's (Lee et al., SOSP 2015) lowest open sequence,
 * which lets a client have many mutations in flight.
 * A sequence below the floor was answered once, or the client does not wait for it: it is refused, never run again.
 * Bounded in count by `isClaimBeyondWindow`, and in bytes by refusing a new claim while the kept outcomes are too many.
 */
import { type Digest, emptyDigest, hashParts, includeHash } from "./digest.ts";
import { encodeOutcome, type Outcome } from "./outcome.ts";
import { resultBytes } from "./query.ts";
import type { OpResult } from "./store.ts";

/** The claims of one session. */
export class ClaimTable {
  /** Invariant: every kept sequence is at least the floor. */
  #floor: number;
  #kept: Map<number, Outcome>;
  #bytes: number;

  constructor(floor = 0) {
    this.#floor = floor;
    this.#kept = new Map();
    this.#bytes = 0;
  }

  get floor(): number {
    return this.#floor;
  }

  get count(): number {
    return this.#kept.size;
  }

  /** About what the kept outcomes hold in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  get(sequence: number): Outcome | undefined {
    return this.#kept.get(sequence);
  }

  keep(sequence: number, outcome: Outcome): void {
    this.#kept.set(sequence, outcome);
    this.#bytes += outcomeBytes(outcome);
  }

  /** Forgets what lies below; a lower floor than the present one arrives late and changes nothing. */
  raiseFloor(floor: number): void {
    if (floor <= this.#floor) return;
    // Either way costs at most what was kept: by steps when the floor moves a little, over the table when it leaps.
    if (floor - this.#floor <= this.#kept.size) {
      for (let sequence = this.#floor; sequence < floor; sequence++) this.#forget(sequence);
    } else {
      for (const sequence of this.#kept.keys()) if (sequence < floor) this.#forget(sequence);
    }
    this.#floor = floor;
  }

  /** Ascending: two members, one of them restored, write the same. */
  entries(): [sequence: number, outcome: Outcome][] {
    const sequences = [...this.#kept.keys()].sort((left, right) => left - right);
    return sequences.map((sequence) => [sequence, this.#kept.get(sequence) as Outcome]);
  }

  clone(): ClaimTable {
    const clone = new ClaimTable(this.#floor);
    clone.#kept = new Map(this.#kept);
    clone.#bytes = this.#bytes;
    return clone;
  }

  digest(): Digest {
    const sum = emptyDigest();
    for (const [sequence, outcome] of this.#kept) includeHash(sum, hashParts(sequence, encodeOutcome(outcome)), 1);
    return hashParts(this.#floor, sum.high, sum.low);
  }

  #forget(sequence: number): void {
    const outcome = this.#kept.get(sequence);
    if (outcome === undefined) return;
    this.#kept.delete(sequence);
    this.#bytes -= outcomeBytes(outcome);
  }
}

/** The same on every member: it decides whether a claim is refused. */
function outcomeBytes(outcome: Outcome): number {
  if (outcome.kind !== "txn") return 100;
  let bytes = 100;
  for (const result of outcome.result.results) bytes += resultBytesOf(result);
  return bytes;
}

function resultBytesOf(result: OpResult): number {
  switch (result.kind) {
    case "get":
      return result.entry === null ? 10 : resultBytes(result.entry);
    case "put":
      return result.previous === null ? 10 : resultBytes(result.previous);
    case "range":
      return result.entries.reduce((sum, entry) => sum + resultBytes(entry), 10);
    case "delete":
      return result.previous.reduce((sum, entry) => sum + resultBytes(entry), 10);
    default:
      return 10;
  }
}
