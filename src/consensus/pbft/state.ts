/**
 * The replicated state as checkpoints see it: a list of parts, each with a digest, and one digest over all of them.
 *
 * Intuition: a ledger in loose leaves, each with a seal, and a cover with the seal of all seals. Only leaves that were
 * written on are sealed again; a replica that lags compares seals and fetches the leaves that differ.
 * Source: Castro & Liskov, TOCS 2002 §5.3 (partitions, copy on write, state transfer), with one level instead of a tree.
 *
 * The first leaves are the reply table (the last timestamp and results of each client's lane, OSDI 1999 §4.1): it belongs
 * to the state, or a replica that fetched a checkpoint would run an old request again.
 */
import { assert } from "../../base/assert.ts";
import { ByteReader, ByteWriter } from "../../base/byte-codec.ts";
import { conclaveError } from "../../base/errors.ts";
import type { Digest } from "./messages.ts";

/** What is replicated. Deterministic, total: an operation that it cannot read has a result too. */
export interface PbftService {
  /** Fixed for all replicas. */
  readonly partCount: number;
  execute(operation: Uint8Array): Uint8Array;
  /** Canonical: equal contents give equal bytes. */
  encodePart(part: number): Uint8Array;
  /** Replaces the part. @throws PROTOCOL */
  installPart(part: number, bytes: Uint8Array): void;
  /** The parts written since the last call. */
  takeDirty(): ReadonlySet<number>;
}

export interface CapturedPart {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

/** The state at one moment; parts that did not change are shared with the capture before. */
export interface Capture {
  readonly root: Digest;
  readonly parts: readonly CapturedPart[];
}

export interface LastReply {
  readonly timestamp: number;
  readonly results: readonly Uint8Array[];
}

/**
 * Bytes of results after which the rest of a frame is not run: a frame's results are kept, sent and fetched as a whole. An
 * operation that was not run has an empty result.
 */
const resultBytesMax = 262_144;

/** Everything here is encoded in one go, so one writer serves. */
const writer = new ByteWriter();
const notRun = new Uint8Array(0);

export class CheckpointedState {
  readonly #service: PbftService;
  readonly #digest: (bytes: Uint8Array) => Digest;
  readonly #replies: Map<string, LastReply>[];
  readonly #dirtyReplies = new Set<number>();
  #parts: CapturedPart[] | undefined;

  /** `replyParts`: into how many parts the reply table is spread. The same on all replicas. */
  constructor(service: PbftService, options: { readonly digest: (bytes: Uint8Array) => Digest; readonly replyParts: number }) {
    this.#service = service;
    this.#digest = options.digest;
    this.#replies = Array.from({ length: options.replyParts }, () => new Map());
  }

  get partCount(): number {
    return this.#replies.length + this.#service.partCount;
  }

  lastReply(lane: string): LastReply | undefined {
    return this.#replies[this.#replyPartOf(lane)]?.get(lane);
  }

  /** Runs the operations and remembers their results as the lane's last. */
  execute(lane: string, timestamp: number, operations: readonly Uint8Array[]): readonly Uint8Array[] {
    const results: Uint8Array[] = [];
    let bytes = 0;
    for (const operation of operations) {
      const result = bytes < resultBytesMax ? this.#service.execute(operation) : notRun;
      bytes += result.length;
      results.push(result);
    }
    const part = this.#replyPartOf(lane);
    this.#replies[part]?.set(lane, { timestamp, results });
    this.#dirtyReplies.add(part);
    return results;
  }

  capture(): Capture {
    const dirty = this.#service.takeDirty();
    const before = this.#parts;
    const parts: CapturedPart[] = [];
    for (let part = 0; part < this.partCount; part++) {
      const clean =
        before !== undefined &&
        (part < this.#replies.length ? !this.#dirtyReplies.has(part) : !dirty.has(part - this.#replies.length)) &&
        before[part];
      parts.push(clean || this.#seal(part));
    }
    this.#dirtyReplies.clear();
    this.#parts = parts;
    return { root: rootOf(parts, this.#digest), parts };
  }

  /** Replaces everything. @throws PROTOCOL (the parts are no state of ours, which a proven digest rules out) */
  install(capture: Capture): void {
    assert(capture.parts.length === this.partCount, "a capture has every part");
    capture.parts.forEach(({ bytes }, part) => {
      if (part < this.#replies.length) this.#replies[part] = decodeReplies(bytes);
      else this.#service.installPart(part - this.#replies.length, bytes);
    });
    this.#service.takeDirty();
    this.#dirtyReplies.clear();
    this.#parts = [...capture.parts];
  }

  #seal(part: number): CapturedPart {
    const bytes =
      part < this.#replies.length
        ? encodeReplies(this.#replies[part] as Map<string, LastReply>)
        : this.#service.encodePart(part - this.#replies.length);
    return { digest: this.#digest(bytes), bytes };
  }

  /** FNV-1a: any fixed spread would do. */
  #replyPartOf(lane: string): number {
    let hash = 0x811c9dc5;
    for (let at = 0; at < lane.length; at++) hash = Math.imul(hash ^ lane.charCodeAt(at), 0x01000193);
    return (hash >>> 0) % this.#replies.length;
  }
}

/** The one digest that a checkpoint states. */
export function rootOf(parts: readonly { readonly digest: Digest }[], digest: (bytes: Uint8Array) => Digest): Digest {
  writer.reset();
  for (const part of parts) writer.binaryString(part.digest);
  return digest(writer.finish());
}

function encodeReplies(replies: ReadonlyMap<string, LastReply>): Uint8Array {
  writer.reset();
  writer.varint(replies.size);
  for (const lane of [...replies.keys()].sort()) {
    const { timestamp, results } = replies.get(lane) as LastReply;
    writer.utf8(lane);
    writer.varint(timestamp);
    writer.varint(results.length);
    for (const result of results) writer.bytes(result);
  }
  return writer.finish();
}

function decodeReplies(bytes: Uint8Array): Map<string, LastReply> {
  const reader = new ByteReader(bytes);
  const replies = new Map<string, LastReply>();
  for (let left = reader.count(3); left > 0; left--) {
    const [lane, timestamp] = [reader.utf8(), reader.varint()];
    const results: Uint8Array[] = [];
    for (let more = reader.count(); more > 0; more--) results.push(reader.bytes());
    if (replies.has(lane)) throw conclaveError("PROTOCOL", "A reply table names a lane twice.");
    replies.set(lane, { timestamp, results });
  }
  reader.end();
  return replies;
}
