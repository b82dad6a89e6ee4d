/**
 * The whole state as bytes, made bit by bit while the machine goes on.
 *
 *     section:   u32 length of payload | u32 hash of payload | payload = u8 kind, u32 ordinal, records     (one chunk)
 *     sections:  header, sessions..., claims..., entries..., end
 *
 * What is pinned at the start is a sealed tree and the claim tables, which are copied by whoever changes them next.
 * The reader takes the bytes cut anywhere, checks each section's hash before it reads it, and the counts, the order of
 * keys and the bindings after it: damage is SNAPSHOT_CORRUPT, never a wrong state.
 * Index, term and configuration stand in the frame around it: see the log room.
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { concatBytes } from "../base/bytes.ts";
import { type ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import { ClaimTable } from "./claims.ts";
import type { SessionNumber } from "./command.ts";
import { checkHash } from "./digest.ts";
import type { Entry } from "./entry.ts";
import { readEntry, readOutcome, writeEntry, writeOutcome } from "./outcome.ts";
import { State } from "./state.ts";
import type { Revision } from "./store.ts";
import type { Tree } from "./tree.ts";

export const snapshotFormat = 1;

/** A section is closed once it is this long; a large value makes it longer. */
const sectionBytes = 65_536;
const headBytes = 8;
const kinds = { header: 1, sessions: 2, claims: 3, entries: 4, end: 5 } as const;

interface PinnedSession {
  readonly number: SessionNumber;
  readonly ttlMs: number;
  readonly claims: ClaimTable;
}

/** A state of the past, ready to be written. Holds its memory until it is let go of. */
export class MachineSnapshot {
  readonly revision: Revision;
  readonly elapsedMs: number;
  readonly #lastSession: SessionNumber;
  readonly #isInitialised: boolean;
  readonly #sessions: readonly PinnedSession[];
  readonly #tree: Tree<Entry>;

  constructor(state: State, tree: Tree<Entry>) {
    this.revision = state.revision;
    this.elapsedMs = state.elapsedMs;
    this.#lastSession = state.lastSession;
    this.#isInitialised = state.isInitialised;
    this.#tree = tree;
    const sessions: PinnedSession[] = [];
    for (const session of state.sessions.values()) {
      session.areClaimsPinned = true;
      sessions.push({ number: session.number, ttlMs: session.ttlMs, claims: session.claims });
    }
    this.#sessions = sessions;
  }

  get entryCount(): number {
    return this.#tree.size;
  }

  /** The chunks. */
  [Symbol.iterator](): Generator<Uint8Array> {
    return this.chunks();
  }

  /** About 64 KiB each, made when they are asked for. May be started more than once. */
  *chunks(): Generator<Uint8Array> {
    const section = new SectionWriter();
    section.open(kinds.header);
    section.writer.u8(snapshotFormat);
    section.writer.varint(this.revision);
    section.writer.f64(this.elapsedMs);
    section.writer.varint(this.#lastSession);
    section.writer.u8(this.#isInitialised ? 1 : 0);
    section.writer.varint(this.#sessions.length);
    section.writer.varint(this.#tree.size);
    yield section.close();

    yield* this.#sessionChunks(section);
    yield* this.#claimChunks(section);
    yield* this.#entryChunks(section);
    section.open(kinds.end);
    yield section.close();
  }

  *#sessionChunks(section: SectionWriter): Generator<Uint8Array> {
    section.open(kinds.sessions);
    for (const { number, ttlMs, claims } of this.#sessions) {
      section.writer.varint(number);
      section.writer.varint(ttlMs);
      section.writer.varint(claims.floor);
      if (section.isFull) {
        yield section.close();
        section.open(kinds.sessions);
      }
    }
    yield section.close();
  }

  *#claimChunks(section: SectionWriter): Generator<Uint8Array> {
    section.open(kinds.claims);
    for (const { number, claims } of this.#sessions) {
      for (const [sequence, outcome] of claims.entries()) {
        section.writer.varint(number);
        section.writer.varint(sequence);
        writeOutcome(section.writer, outcome);
        if (section.isFull) {
          yield section.close();
          section.open(kinds.claims);
        }
      }
    }
    yield section.close();
  }

  *#entryChunks(section: SectionWriter): Generator<Uint8Array> {
    section.open(kinds.entries);
    for (const entries of this.#tree.leaves()) {
      for (const entry of entries) {
        writeEntry(section.writer, entry);
        if (section.isFull) {
          yield section.close();
          section.open(kinds.entries);
        }
      }
    }
    yield section.close();
  }
}

class SectionWriter {
  readonly writer = new ByteWriter({ initialBytes: sectionBytes + 4_096 });
  #ordinal = 0;

  open(kind: number): void {
    this.writer.reset();
    this.writer.u32(0);
    this.writer.u32(0);
    this.writer.u8(kind);
    this.writer.u32(this.#ordinal++);
  }

  get isFull(): boolean {
    return this.writer.length >= sectionBytes;
  }

  close(): Uint8Array {
    const payload = this.writer.view().subarray(headBytes);
    this.writer.patchU32(0, payload.length);
    this.writer.patchU32(4, checkHash(payload));
    return this.writer.finish();
  }
}

/** @throws SNAPSHOT_CORRUPT, DIRECTORY_NEWER */
export function restoreState(chunks: Iterable<Uint8Array>, options: { readonly keepsDigest: boolean }): State {
  try {
    return readState(chunks, options);
  } catch (error) {
    // A section's hash was right and its content is not: written wrong, or damaged with care.
    if (hasCode(error, "PROTOCOL")) throw corrupt("a section cannot be read", error);
    throw error;
  }
}

function readState(chunks: Iterable<Uint8Array>, options: { readonly keepsDigest: boolean }): State {
  const state = new State(options);
  const left = { sessions: 0, entries: 0 };
  let lastKey = "";
  /** Sections come in the order of their kinds, and none is missing or there twice. */
  let stage = 0;
  let ordinal = 0;
  for (const section of sectionsOf(chunks)) {
    // Kept outcomes go on being views of their section, so they get one of their own; entries are copied one by one.
    const reader = new ByteReader(section[0] === kinds.claims ? section.slice() : section);
    const kind = reader.u8();
    if (reader.u32() !== ordinal++) throw corrupt("a section is missing, or there twice");
    if (stage === 0 ? kind !== kinds.header : kind < stage || kind === kinds.header || kind > kinds.end) {
      throw corrupt(`section ${kind} follows section ${stage}`);
    }
    if (stage === kinds.end) throw corrupt("something follows the end");
    stage = kind;
    if (kind === kinds.header) {
      readHeader(reader, state, left);
      continue;
    }
    while (reader.remaining > 0) {
      if (kind === kinds.sessions) {
        readSession(reader, state);
        left.sessions--;
      } else if (kind === kinds.claims) {
        readClaim(reader, state);
      } else if (kind === kinds.entries) {
        lastKey = readBoundEntry(reader, state, lastKey);
        left.entries--;
      } else {
        throw corrupt("the end has content");
      }
    }
  }
  if (stage !== kinds.end) throw corrupt("the end is missing");
  if (left.sessions !== 0 || left.entries !== 0) throw corrupt("sessions or entries are missing, or too many");
  return state;
}

function readHeader(reader: ByteReader, state: State, left: { sessions: number; entries: number }): void {
  const format = reader.u8();
  if (format !== snapshotFormat) {
    throw conclaveError("DIRECTORY_NEWER", `The snapshot has format ${format}; this version reads ${snapshotFormat}.`);
  }
  state.revision = reader.varint();
  state.elapsedMs = reader.f64();
  state.lastSession = reader.varint();
  state.isInitialised = reader.u8() === 1;
  left.sessions = reader.varint();
  left.entries = reader.varint();
  reader.end();
  if (!(state.elapsedMs >= 0)) throw corrupt("its time is no time");
}

function readSession(reader: ByteReader, state: State): void {
  const number = reader.varint();
  const ttlMs = reader.varint();
  const floor = reader.varint();
  if (number === 0 || number > state.lastSession || state.sessions.has(number)) throw corrupt(`session ${number} cannot be`);
  state.addSession({ number, ttlMs, claims: new ClaimTable(floor) });
}

function readClaim(reader: ByteReader, state: State): void {
  const session = state.sessions.get(reader.varint());
  const sequence = reader.varint();
  const outcome = readOutcome(reader, "whole");
  if (session === undefined || sequence < session.claims.floor) throw corrupt(`claim ${sequence} cannot be`);
  session.claims.keep(sequence, outcome);
}

function readBoundEntry(reader: ByteReader, state: State, lastKey: string): string {
  const entry = readEntry(reader, "whole");
  if (entry.binaryKey <= lastKey) throw corrupt("its keys are out of order");
  if (entry.modRevision > state.revision) throw corrupt("an entry is newer than its state");
  if (entry.session !== null && !state.sessions.has(Number(entry.session))) throw corrupt("a key is bound to no session");
  state.restoreEntry(entry);
  return entry.binaryKey;
}

/** Cuts the stream at its own seams. Never allocates by what a length says, only by what has arrived. */
function* sectionsOf(chunks: Iterable<Uint8Array>): Generator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let available = 0;
  let needed = headBytes;
  for (const chunk of chunks) {
    parts.push(chunk);
    available += chunk.length;
    while (available >= needed) {
      const whole = parts.length === 1 ? (parts[0] as Uint8Array) : concatBytes(parts);
      const head = new ByteReader(whole, 0, headBytes);
      const length = head.u32();
      const hash = head.u32();
      parts = [whole];
      needed = headBytes + length;
      if (available < needed) break;
      const payload = whole.subarray(headBytes, needed);
      if (checkHash(payload) !== hash) throw corrupt("a section's hash is wrong");
      yield payload;
      parts = [whole.subarray(needed)];
      available -= needed;
      needed = headBytes;
    }
  }
  if (available > 0) throw corrupt("it ends in the middle of a section");
}

function corrupt(what: string, cause?: unknown): ConclaveError {
  return conclaveError("SNAPSHOT_CORRUPT", `The machine's snapshot is damaged: ${what}.`, { cause });
}
