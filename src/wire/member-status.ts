/**
 * How a member sees itself and its cluster. Travels as JSON: read by people and tools of any version, never by a protocol.
 */
import { conclaveError } from "../base/errors.ts";

export interface MemberStatus {
  readonly member: string;
  readonly cluster: string;
  /** How the members agree. Undefined: a member from before there was a choice, by raft. */
  readonly protocol?: string;
  readonly role: string;
  readonly term: number;
  readonly leader: string | undefined;
  readonly committedIndex: number;
  readonly appliedIndex: number;
  readonly lastIndex: number;
  readonly revision: number;
  readonly sessions: number;
  /** Writes of its log that reached the disk, since it started. Commands per write is what group commit gains. */
  readonly syncs: number;
  /** Letters of the protocol that left it, since it started. Undefined: a member from before they were counted. */
  readonly letters?: number;
  readonly elapsedMs: number;
  /** Who decides, as this member knows it. Undefined: a member from before members could change. */
  readonly voters?: readonly string[];
  /** The voters before the change that is under way. */
  readonly outgoing?: readonly string[];
  readonly learners?: readonly string[];
  readonly peers: readonly {
    readonly member: string;
    readonly address: string;
    readonly matchIndex: number;
    readonly lastHeardMsAgo: number;
  }[];
  /** Why it stopped; undefined while it runs. */
  readonly halted: string | undefined;
}

export function encodeStatus(status: MemberStatus): string {
  return JSON.stringify(status);
}

/** @throws PROTOCOL (no JSON, or not that of a member) */
export function decodeStatus(text: string): MemberStatus {
  let status: unknown;
  try {
    status = JSON.parse(text);
  } catch (cause) {
    throw conclaveError("PROTOCOL", "A member's status is no JSON.", { cause });
  }
  if (typeof status !== "object" || status === null || !("member" in status) || !("peers" in status)) {
    throw conclaveError("PROTOCOL", "A member's status lacks its member and peers.");
  }
  return status as MemberStatus;
}
