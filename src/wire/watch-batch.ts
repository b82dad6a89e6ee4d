/**
 * Batches of watches on the wire, in parts: a batch may be larger than any frame (the whole state of a range, a delete of a
 * hundred thousand keys) and must still reach the watcher as one.
 *
 *   part: | u8 kind: 1 changes, 2 resync | varint revision | item ... | u8 end: 0 more parts follow, 3 the batch is whole |
 *   item: | u8 1 | event |    or    | u8 2 | entry |            (as in `store/outcome.ts`: whole keys)
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Entry } from "../store/entry.ts";
import { type MachineEvent, readEntry, readWatchEvent, writeEntry, writeEvent } from "../store/outcome.ts";
import type { Revision, WatchEvent } from "../store/store.ts";

/** Parts are closed once they reach this; one item may go beyond it. */
export const watchPartBytes = 65_536;

const kinds = { changes: 1, resync: 2 } as const;
const items = { more: 0, event: 1, entry: 2, whole: 3 } as const;

/** What one part brought. Changes have no entries, a resync has no events. Keys are without their namespaces. */
export interface WatchPart {
  readonly kind: "changes" | "resync";
  readonly revision: Revision;
  /** The batch is complete with it. */
  readonly isLast: boolean;
  readonly events: readonly WatchEvent[];
  readonly entries: readonly Entry[];
}

/** Starts a part; items follow, then `endPart`. */
export function beginPart(writer: ByteWriter, kind: WatchPart["kind"], revision: Revision): void {
  writer.u8(kinds[kind]);
  writer.varint(revision);
}

export function writeEventItem(writer: ByteWriter, event: MachineEvent): void {
  writer.u8(items.event);
  writeEvent(writer, event);
}

export function writeEntryItem(writer: ByteWriter, entry: Entry): void {
  writer.u8(items.entry);
  writeEntry(writer, entry);
}

export function endPart(writer: ByteWriter, isLast: boolean): void {
  writer.u8(isLast ? items.whole : items.more);
}

/** What it answers may be kept: it shares a copy of the part. @throws PROTOCOL */
export function readPart(body: ByteReader): WatchPart {
  const reader = new ByteReader(body.raw(body.remaining).slice());
  const kind = reader.u8();
  if (kind !== kinds.changes && kind !== kinds.resync)
    throw conclaveError("PROTOCOL", `A watch batch has the unknown kind ${kind}.`);
  const revision = reader.varint();
  const events: WatchEvent[] = [];
  const entries: Entry[] = [];
  for (;;) {
    const item = reader.u8();
    if (item === items.event) {
      events.push(readWatchEvent(reader));
    } else if (item === items.entry) {
      entries.push(readEntry(reader, "stripped"));
    } else if (item === items.more || item === items.whole) {
      return { kind: kind === kinds.changes ? "changes" : "resync", revision, isLast: item === items.whole, events, entries };
    } else {
      throw conclaveError("PROTOCOL", `A watch batch has an item of the unknown kind ${item}.`);
    }
  }
}
