/**
 * The durable cells of a replica: their names and their bytes.
 *
 * ```
 * view                      where the replica is: the view, whether it was entered, its own view change, the new view
 * stable                    the last stable checkpoint's proof
 * proposal/SEQUENCE         the pre-prepare that was accepted last: what was voted for
 * batch/SEQUENCE/DIGEST     what a proposal or certificate stands for; several when views disagreed
 * prepared/SEQUENCE         the certificate of the highest view: what the next view change will say
 * committed/SEQUENCE        the digest that was agreed; spares asking again after a restart
 * ```
 * Not in the paper, which assumes that a replica never forgets: a correct replica that restarted without its votes would
 * speak twice, and count as one of the f.
 */
import { ByteReader, ByteWriter } from "../../base/byte-codec.ts";
import type {
  Batch,
  Checkpoint,
  Digest,
  NewView,
  PrePrepare,
  PreparedCertificate,
  Sequence,
  Signed,
  View,
  ViewChange,
} from "./messages.ts";
import {
  encodeBatch,
  readBatch,
  readCertificate,
  readSigned,
  readSignedList,
  writeCertificate,
  writeSigned,
  writeSignedList,
} from "./statements.ts";

export interface ViewCell {
  readonly view: View;
  readonly active: boolean;
  /** The replica's own, while it is not active: to be said again, word for word. */
  readonly viewChange: Signed<ViewChange> | undefined;
  /** How the view was entered, for those who come later. */
  readonly newView: Signed<NewView> | undefined;
}

export type CellName =
  | { readonly kind: "view" | "stable" }
  | { readonly kind: "proposal" | "prepared" | "committed"; readonly sequence: Sequence }
  | { readonly kind: "batch"; readonly sequence: Sequence; readonly digest: Digest };

export const viewCell = "view";
export const stableCell = "stable";
export function proposalCell(sequence: Sequence): string {
  return `proposal/${sequence}`;
}
export function preparedCell(sequence: Sequence): string {
  return `prepared/${sequence}`;
}
export function committedCell(sequence: Sequence): string {
  return `committed/${sequence}`;
}
export function batchCell(sequence: Sequence, digest: Digest): string {
  return `batch/${sequence}/${digest}`;
}

export function parseCellName(cell: string): CellName {
  if (cell === viewCell || cell === stableCell) return { kind: cell };
  const first = cell.indexOf("/");
  const kind = cell.slice(0, first) as "proposal" | "prepared" | "committed" | "batch";
  if (kind !== "batch") return { kind, sequence: Number(cell.slice(first + 1)) };
  const second = cell.indexOf("/", first + 1);
  return { kind, sequence: Number(cell.slice(first + 1, second)), digest: cell.slice(second + 1) };
}

/** The sequence that a cell belongs to; a snapshot at or above it makes the cell superfluous. Undefined: kept for ever. */
export function cellSequence(cell: string): Sequence | undefined {
  const name = parseCellName(cell);
  return "sequence" in name ? name.sequence : undefined;
}

/** Every cell is encoded in one go, so one writer serves. */
const writer = new ByteWriter();

export function encodeViewCell(value: ViewCell): Uint8Array {
  writer.reset();
  writer.varint(value.view);
  writer.u8((value.active ? 1 : 0) | (value.viewChange ? 2 : 0) | (value.newView ? 4 : 0));
  if (value.viewChange !== undefined) writeSigned(writer, value.viewChange);
  if (value.newView !== undefined) writeSigned(writer, value.newView);
  return writer.finish();
}

export function decodeViewCell(bytes: Uint8Array): ViewCell {
  const reader = new ByteReader(bytes);
  const [view, flags] = [reader.varint(), reader.u8()];
  return {
    view,
    active: (flags & 1) !== 0,
    viewChange: (flags & 2) !== 0 ? readSigned<ViewChange>(reader, "view-change") : undefined,
    newView: (flags & 4) !== 0 ? readSigned<NewView>(reader, "new-view") : undefined,
  };
}

export function encodeStableCell(checkpoints: readonly Signed<Checkpoint>[]): Uint8Array {
  writer.reset();
  writeSignedList(writer, checkpoints);
  return writer.finish();
}

export function decodeStableCell(bytes: Uint8Array): readonly Signed<Checkpoint>[] {
  return readSignedList<Checkpoint>(new ByteReader(bytes), "checkpoint");
}

export function encodeProposalCell(proposal: Signed<PrePrepare>): Uint8Array {
  writer.reset();
  writeSigned(writer, proposal);
  return writer.finish();
}

export function decodeProposalCell(bytes: Uint8Array): Signed<PrePrepare> {
  return readSigned<PrePrepare>(new ByteReader(bytes), "pre-prepare");
}

export function encodePreparedCell(certificate: PreparedCertificate): Uint8Array {
  writer.reset();
  writeCertificate(writer, certificate);
  return writer.finish();
}

export function decodePreparedCell(bytes: Uint8Array): PreparedCertificate {
  return readCertificate(new ByteReader(bytes));
}

export function encodeCommittedCell(digest: Digest): Uint8Array {
  writer.reset();
  writer.binaryString(digest);
  return writer.finish();
}

export function decodeCommittedCell(bytes: Uint8Array): Digest {
  return new ByteReader(bytes).binaryString();
}

export const encodeBatchCell: (batch: Batch) => Uint8Array = encodeBatch;

export function decodeBatchCell(bytes: Uint8Array): Batch {
  return readBatch(new ByteReader(bytes));
}
