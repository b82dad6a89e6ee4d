/**
 * What the door (one per client connection) may ask of the replica behind it. The replica implements it; the door is
 * tested against it. Sinks instead of promises: a busy leader answers a hundred thousand of these a second.
 */

import type { ErrorCode } from "../base/error-table.ts";
import type { MemberId, ReadLevel } from "../consensus/core.ts";
import type { Machine } from "../store/machine.ts";
import type { Outcome } from "../store/outcome.ts";
import type { AdminRequest } from "../wire/admin.ts";
import type { LeaderNews } from "../wire/hello.ts";
import type { MemberStatus } from "../wire/member-status.ts";
import type { AdminAnswer } from "./administration.ts";

/** Receives the answers of what it asked, each once, by its own `tag`. */
export interface AnswerSink {
  /** The command was committed and applied; this is what the machine answered. */
  onOutcome(tag: number, outcome: Outcome): void;
  /**
   * It was not applied here. `definite`: it never will be. Otherwise it may be, by a later leader: ask again by claim.
   * `leader`: whom to ask instead, when known.
   */
  onRefused(tag: number, refusal: Refusal): void;
  /** The read or the keep-alive may be answered now, from the machine as it stands. */
  onReady(tag: number): void;
}

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly definite: boolean;
  readonly leader: MemberId | undefined;
}

export interface ReplicaService {
  readonly machine: Machine;
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId: number;
  /** Member id to dialable address, for the client's map. */
  readonly addresses: ReadonlyMap<MemberId, string>;
  leader(): LeaderNews;
  /** Puts the encoded command into the log. The bytes are copied before the call returns. */
  propose(command: Uint8Array, sink: AnswerSink, tag: number): void;
  /** Answers `onReady` at a moment when the machine holds every write that was answered before this call (ReadIndex). */
  read(sink: AnswerSink, tag: number, level?: ReadLevel): void;
  /** Whether the machine as it stands answers a read by lease at this very moment; false: ask by `read`. */
  holdsLease(): boolean;
  /**
   * Renews the session's lease. `onReady` only from a leader that proved, after this call, that it leads, and while no
   * expiry of the session is in flight. Otherwise refused: SESSION_EXPIRED, NOT_LEADER, NO_QUORUM.
   */
  keepAlive(session: number, sink: AnswerSink, tag: number): void;
  /** Forgets a sink: its connection is gone. What it proposed may still happen. */
  drop(sink: AnswerSink): void;
  /** Called on every change of leader, until the returned function is called. */
  onLeaderChange(listener: () => void): () => void;
  status(): MemberStatus;
  /** An operator's request; the members, leadership, a backup. */
  administer(request: AdminRequest, answer: AdminAnswer): void;
}
