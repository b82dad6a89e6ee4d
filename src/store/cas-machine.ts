/**
 * The machine behind the smaller profile (`CasStore`): get, compare-and-set and range on keys with revisions.
 *
 * Deterministic and total: operations and answers are bytes, and bytes that are no operation have an answer too. The state
 * is a fixed number of parts, each with one canonical form, so that replicas can compare and fetch it piece by piece.
 *
 * ```
 * operation: [u8 get][key] | [u8 compare-and-set][key][u8 flags][varint expected][value] | [u8 range][from][u8 hasTo][to][varint limit]
 * answer:    [u8 entry][u8 there][entry] | [u8 differs][u8 there][entry] | [u8 range][varint count][entry...] | [u8 refused]
 *            | [u8 applied][varint revision, 0 where it deleted]
 * entry:     [key][varint revision][value]
 * ```
 * What was applied is answered without the value, which whoever asked has: every replica signs and keeps each answer.
 * Part 0 holds the revision counter, the others the keys by hash. Keys are binary strings.
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";

export type CasOperation =
  | { readonly kind: "get"; readonly key: string }
  | {
      readonly kind: "compare-and-set";
      readonly key: string;
      /** The revision that must be there; null: none. */
      readonly expected: number | null;
      /** Null deletes. */
      readonly value: Uint8Array | null;
    }
  /** `to` exclusive; undefined: to the end. */
  | { readonly kind: "range"; readonly from: string; readonly to: string | undefined; readonly limit: number };

export interface CasRecord {
  readonly key: string;
  readonly revision: number;
  readonly value: Uint8Array;
}

export type CasAnswer =
  | { readonly kind: "entry"; readonly entry: CasRecord | null }
  /** The key is now as was asked; null: it is deleted. */
  | { readonly kind: "applied"; readonly revision: number | null }
  /** Another revision than the expected one is there; nothing has changed. */
  | { readonly kind: "differs"; readonly current: CasRecord | null }
  | { readonly kind: "range"; readonly entries: readonly CasRecord[] }
  /** The bytes are no operation, or ask for too much. */
  | { readonly kind: "refused" };

const operationKinds = ["get", "compare-and-set", "range"] as const satisfies readonly CasOperation["kind"][];
const answerKinds = ["entry", "differs", "range", "refused", "applied"] as const satisfies readonly CasAnswer["kind"][];

/** Bytes of the entries of one range answer; what is beyond is left out. */
const rangeBytesMax = 131_072;

/** Everything here is encoded in one go, so one writer serves. */
const writer = new ByteWriter();

interface Held {
  readonly revision: number;
  readonly value: Uint8Array;
}

export class CasMachine {
  readonly partCount: number;
  readonly #parts: Map<string, Held>[];
  #revision = 0;
  #dirty = new Set<number>();

  /** `buckets`: parts that hold keys. The same on all replicas. */
  constructor(buckets: number) {
    this.partCount = buckets + 1;
    this.#parts = Array.from({ length: buckets }, () => new Map());
  }

  execute(bytes: Uint8Array): Uint8Array {
    return encodeCasAnswer(this.#run(readOrRefuse(bytes)));
  }

  takeDirty(): ReadonlySet<number> {
    const dirty = this.#dirty;
    this.#dirty = new Set();
    return dirty;
  }

  encodePart(part: number): Uint8Array {
    writer.reset();
    if (part === 0) {
      writer.varint(this.#revision);
      return writer.finish();
    }
    const held = this.#parts[part - 1] as Map<string, Held>;
    writer.varint(held.size);
    for (const key of [...held.keys()].sort()) writeEntry(writer, { key, ...(held.get(key) as Held) });
    return writer.finish();
  }

  /** @throws PROTOCOL */
  installPart(part: number, bytes: Uint8Array): void {
    const reader = new ByteReader(bytes);
    if (part === 0) this.#revision = reader.varint();
    else {
      const held = new Map<string, Held>();
      for (let left = reader.count(3); left > 0; left--) {
        const { key, revision, value } = readEntry(reader);
        if (this.#bucketOf(key) !== part - 1) throw conclaveError("PROTOCOL", "A part holds a key of another part.");
        held.set(key, { revision, value });
      }
      this.#parts[part - 1] = held;
    }
    reader.end();
  }

  #run(operation: CasOperation | undefined): CasAnswer {
    switch (operation?.kind) {
      case undefined:
        return { kind: "refused" };
      case "get":
        return { kind: "entry", entry: this.#entry(operation.key) };
      case "compare-and-set":
        return this.#compareAndSet(operation);
      case "range":
        return { kind: "range", entries: this.#range(operation) };
    }
  }

  #entry(key: string): CasRecord | null {
    const held = this.#parts[this.#bucketOf(key)]?.get(key);
    return held === undefined ? null : { key, ...held };
  }

  #compareAndSet(operation: Extract<CasOperation, { kind: "compare-and-set" }>): CasAnswer {
    const { key, expected, value } = operation;
    const before = this.#entry(key);
    if ((before?.revision ?? null) !== expected) return { kind: "differs", current: before };
    const bucket = this.#bucketOf(key);
    const part = this.#parts[bucket] as Map<string, Held>;
    const revision = value === null ? null : ++this.#revision;
    if (value === null) part.delete(key);
    else part.set(key, { revision: this.#revision, value });
    this.#dirty.add(0);
    this.#dirty.add(bucket + 1);
    return { kind: "applied", revision };
  }

  /** Keys are spread by hash, so a range looks at all of them: fine for the small stores that this profile is for. */
  #range({ from, to, limit }: Extract<CasOperation, { kind: "range" }>): readonly CasRecord[] {
    const keys: string[] = [];
    for (const part of this.#parts) {
      for (const key of part.keys()) if (key >= from && (to === undefined || key < to)) keys.push(key);
    }
    const entries: CasRecord[] = [];
    let bytes = 0;
    for (const key of keys.sort()) {
      const entry = this.#entry(key) as CasRecord;
      bytes += key.length + entry.value.length;
      if (entries.length >= limit || bytes > rangeBytesMax) break;
      entries.push(entry);
    }
    return entries;
  }

  /** FNV-1a: any fixed spread would do. */
  #bucketOf(key: string): number {
    let hash = 0x811c9dc5;
    for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
    return (hash >>> 0) % this.#parts.length;
  }
}

export function encodeCasOperation(operation: CasOperation): Uint8Array {
  writer.reset();
  writer.u8(operationKinds.indexOf(operation.kind));
  switch (operation.kind) {
    case "get":
      writer.binaryString(operation.key);
      break;
    case "compare-and-set":
      writer.binaryString(operation.key);
      writer.u8((operation.expected === null ? 0 : 1) | (operation.value === null ? 0 : 2));
      writer.varint(operation.expected ?? 0);
      writer.bytes(operation.value ?? new Uint8Array(0));
      break;
    case "range":
      writer.binaryString(operation.from);
      writer.u8(operation.to === undefined ? 0 : 1);
      writer.binaryString(operation.to ?? "");
      writer.varint(operation.limit);
      break;
  }
  return writer.finish();
}

function readOrRefuse(bytes: Uint8Array): CasOperation | undefined {
  try {
    const reader = new ByteReader(bytes);
    const operation = readOperation(reader);
    reader.end();
    return operation;
  } catch {
    // Ordered is ordered: what nobody can read is answered by everybody alike, and changes nothing.
    return undefined;
  }
}

function readOperation(reader: ByteReader): CasOperation | undefined {
  const kind = operationKinds[reader.u8()];
  switch (kind) {
    case "get":
      return { kind, key: reader.binaryString() };
    case "compare-and-set": {
      const [key, flags, expected, value] = [reader.binaryString(), reader.u8(), reader.varint(), reader.bytesCopied()];
      return { kind, key, expected: (flags & 1) !== 0 ? expected : null, value: (flags & 2) !== 0 ? value : null };
    }
    case "range": {
      const [from, hasTo, to] = [reader.binaryString(), reader.u8(), reader.binaryString()];
      return { kind, from, to: hasTo === 1 ? to : undefined, limit: reader.varint() };
    }
    default:
      return undefined;
  }
}

function encodeCasAnswer(answer: CasAnswer): Uint8Array {
  writer.reset();
  writer.u8(answerKinds.indexOf(answer.kind));
  switch (answer.kind) {
    case "entry":
      writeMaybe(writer, answer.entry);
      break;
    case "applied":
      writer.varint(answer.revision ?? 0);
      break;
    case "differs":
      writeMaybe(writer, answer.current);
      break;
    case "range":
      writer.varint(answer.entries.length);
      for (const entry of answer.entries) writeEntry(writer, entry);
      break;
    case "refused":
      break;
  }
  return writer.finish();
}

/** @throws PROTOCOL */
export function decodeCasAnswer(bytes: Uint8Array): CasAnswer {
  const reader = new ByteReader(bytes);
  const kind = answerKinds[reader.u8()];
  switch (kind) {
    case "entry":
      return { kind, entry: readMaybe(reader) };
    case "applied": {
      const revision = reader.varint();
      return { kind, revision: revision === 0 ? null : revision };
    }
    case "differs":
      return { kind, current: readMaybe(reader) };
    case "range": {
      const entries: CasRecord[] = [];
      for (let left = reader.count(3); left > 0; left--) entries.push(readEntry(reader));
      return { kind, entries };
    }
    case "refused":
      return { kind };
    default:
      throw conclaveError("PROTOCOL", "An answer is of unknown kind.");
  }
}

function writeMaybe(writer: ByteWriter, entry: CasRecord | null): void {
  writer.u8(entry === null ? 0 : 1);
  if (entry !== null) writeEntry(writer, entry);
}

function readMaybe(reader: ByteReader): CasRecord | null {
  return reader.u8() === 1 ? readEntry(reader) : null;
}

function writeEntry(writer: ByteWriter, { key, revision, value }: CasRecord): void {
  writer.binaryString(key);
  writer.varint(revision);
  writer.bytes(value);
}

function readEntry(reader: ByteReader): CasRecord {
  return { key: reader.binaryString(), revision: reader.varint(), value: reader.bytesCopied() };
}
