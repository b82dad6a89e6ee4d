/**
 * A key with its value and history numbers, as the machine keeps it and as callers see it.
 *
 * The machine keeps the whole key (namespace and all) as a binary string; the surface sees the part after the namespace.
 * Immutable: an overwritten key is a new Entry, so snapshots, events and older reads share it.
 */
import { binaryStringToUtf8, fromBinaryString, utf8Decode } from "../base/bytes.ts";
import type { Revision, SessionId } from "./store.ts";

export interface EntryFields {
  /** Binary string of the key without its namespace. */
  readonly binaryKey: string;
  readonly value: Uint8Array;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  readonly version: number;
  readonly session: SessionId | null;
}

export class Entry {
  /** One character per byte. */
  readonly binaryKey: string;
  /** Shared with the store: do not write into it. */
  readonly value: Uint8Array;
  /** The transaction that made the key, since it was last absent. */
  readonly createRevision: Revision;
  /** The transaction that last wrote it. */
  readonly modRevision: Revision;
  /** How often it was written since it was last absent: 1 after the first. */
  readonly version: number;
  /** The session that it is bound to. */
  readonly session: SessionId | null;

  constructor(fields: EntryFields) {
    this.binaryKey = fields.binaryKey;
    this.value = fields.value;
    this.createRevision = fields.createRevision;
    this.modRevision = fields.modRevision;
    this.version = fields.version;
    this.session = fields.session;
  }

  /** The key as text (its bytes read as UTF-8). */
  get key(): string {
    return binaryStringToUtf8(this.binaryKey);
  }

  get keyBytes(): Uint8Array {
    return fromBinaryString(this.binaryKey);
  }

  /** The value as text (its bytes read as UTF-8). */
  get text(): string {
    return utf8Decode(this.value);
  }
}
