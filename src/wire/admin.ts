/**
 * What an operator asks of the leader. Rare, and read by people: the request and its answer travel as JSON.
 *
 * A change is answered once it is committed, a transfer once somebody else was told to lead. An answer that was lost leaves
 * open whether it happened; asking again then says so (MEMBER_EXISTS, MEMBER_UNKNOWN).
 */
import { fromBinaryString, toBinaryString } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";

export type AdminRequest =
  /** As a learner, which does not count until it is promoted. */
  | { readonly kind: "add"; readonly member: string; readonly address: string }
  | { readonly kind: "promote"; readonly member: string }
  | { readonly kind: "remove"; readonly member: string }
  /** Undefined: to whoever is closest behind. */
  | { readonly kind: "transfer"; readonly to?: string }
  /** Builds a snapshot of everything that is committed; answered by its index and length. */
  | { readonly kind: "save-snapshot" }
  /** A part of that snapshot. */
  | { readonly kind: "read-snapshot"; readonly index: number; readonly offset: number };

export interface SavedSnapshot {
  readonly index: number;
  readonly lengthBytes: number;
  readonly revision: number;
}

/** A part of a snapshot as text: whether it is the last, and then one character per byte. */
export function encodePiece(piece: { readonly bytes: Uint8Array; readonly done: boolean }): string {
  return `${piece.done ? "1" : "0"}${toBinaryString(piece.bytes)}`;
}

export function decodePiece(text: string): { readonly bytes: Uint8Array; readonly done: boolean } {
  return { done: text.startsWith("1"), bytes: fromBinaryString(text.slice(1)) };
}

const nameBytesMax = 200;

/** @throws PROTOCOL (no request of an operator) */
export function decodeAdminRequest(text: string): AdminRequest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw conclaveError("PROTOCOL", "An operator's request is no JSON.", { cause });
  }
  const { kind, member, address, to, index, offset } = (value ?? {}) as Record<string, unknown>;
  if (kind === "add" && isName(member) && isName(address)) return { kind, member, address };
  if ((kind === "promote" || kind === "remove") && isName(member)) return { kind, member };
  if (kind === "transfer" && (to === undefined || isName(to))) return { kind, ...(to === undefined ? {} : { to }) };
  if (kind === "save-snapshot") return { kind };
  if (kind === "read-snapshot" && isCount(index) && isCount(offset)) return { kind, index, offset };
  throw conclaveError("PROTOCOL", "An operator's request is of unknown kind or lacks a field.");
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= nameBytesMax;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
