/**
 * Fetches the state of a stable checkpoint, part by part, from replicas that may lie.
 *
 * Intuition: a torn page is asked for again, elsewhere. The list of the parts' digests must hash to what a quorum has
 * stated; each part must hash to its place in the list. So any answer is either right or dropped, and nobody is trusted.
 * Source: Castro & Liskov, TOCS 2002 §5.3.2. Parts that this replica already has are not asked for.
 */
import type { Checkpoint, Digest, PbftMessage, ReplicaNumber, Sequence, Signed } from "./messages.ts";
import { type Capture, type CapturedPart, rootOf } from "./state.ts";

/** A stable checkpoint that this replica has heard of and not reached, with its proof. */
export interface TransferTarget {
  readonly sequence: Sequence;
  readonly digest: Digest;
  readonly checkpoints: readonly Signed<Checkpoint>[];
}

export interface Ask {
  readonly to: ReplicaNumber;
  readonly message: PbftMessage;
}

export class StateTransfer {
  readonly #self: ReplicaNumber;
  readonly #replicas: number;
  readonly #hash: (bytes: Uint8Array) => Digest;
  readonly #inFlightMax: number;
  readonly #partCount: number;
  /** By digest, so that they serve a later target too. */
  readonly #known = new Map<Digest, CapturedPart>();
  readonly #asked = new Set<number>();
  #target: TransferTarget;
  #digests: readonly Digest[] | undefined;
  #peer: ReplicaNumber;

  constructor(parts: {
    readonly self: ReplicaNumber;
    readonly replicas: number;
    readonly digest: (bytes: Uint8Array) => Digest;
    readonly inFlightMax: number;
    readonly own: Capture;
    readonly target: TransferTarget;
  }) {
    this.#self = parts.self;
    this.#replicas = parts.replicas;
    this.#hash = parts.digest;
    this.#inFlightMax = parts.inFlightMax;
    this.#partCount = parts.own.parts.length;
    for (const part of parts.own.parts) this.#known.set(part.digest, part);
    this.#target = parts.target;
    this.#peer = (parts.self + 1 + (parts.target.sequence % (parts.replicas - 1))) % parts.replicas;
  }

  get target(): TransferTarget {
    return this.#target;
  }

  /** What to ask now. */
  asks(): readonly Ask[] {
    const { sequence } = this.#target;
    if (this.#digests === undefined) return [{ to: this.#peer, message: { kind: "fetch-parts", sequence } }];
    const asks: Ask[] = [];
    for (let part = 0; part < this.#digests.length && this.#asked.size < this.#inFlightMax; part++) {
      if (this.#asked.has(part) || this.#known.has(this.#digests[part] as Digest)) continue;
      this.#asked.add(part);
      asks.push({ to: this.#peer, message: { kind: "fetch-part", sequence, part } });
    }
    return asks;
  }

  /**
   * Nothing usable came: the next replica is asked, for the newest checkpoint that is known by now. Only then: a target that
   * moved with every checkpoint of a busy cluster would never be reached. Parts that stayed the same need not come again.
   */
  nextPeer(newest: TransferTarget): void {
    if (newest.sequence > this.#target.sequence) {
      this.#target = newest;
      this.#digests = undefined;
    }
    this.#asked.clear();
    do this.#peer = (this.#peer + 1) % this.#replicas;
    while (this.#peer === this.#self);
  }

  /** False: not ours, or a lie. */
  onParts(sequence: Sequence, digests: readonly Digest[]): boolean {
    if (sequence !== this.#target.sequence || this.#digests !== undefined) return false;
    if (digests.length !== this.#partCount) return false;
    const root = rootOf(
      digests.map((digest) => ({ digest })),
      this.#hash,
    );
    if (root !== this.#target.digest) return false;
    this.#digests = digests;
    const wanted = new Set(digests);
    for (const known of this.#known.keys()) if (!wanted.has(known)) this.#known.delete(known);
    return true;
  }

  onPart(sequence: Sequence, part: number, bytes: Uint8Array): boolean {
    if (sequence !== this.#target.sequence || !this.#asked.has(part)) return false;
    const digest = this.#hash(bytes);
    if (this.#digests?.[part] !== digest) return false;
    this.#asked.delete(part);
    this.#known.set(digest, { digest, bytes });
    return true;
  }

  /** The whole state, once every part is here. */
  complete(): Capture | undefined {
    if (this.#digests === undefined) return undefined;
    const parts: CapturedPart[] = [];
    for (const digest of this.#digests) {
      const part = this.#known.get(digest);
      if (part === undefined) return undefined;
      parts.push(part);
    }
    return { root: this.#target.digest, parts };
  }
}
