/**
 * One call of a client on its way: what is asked, by when, how often it was said, and who waits for it.
 */
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import { isReadOnly, type ResolvedOp, type ResolvedTxn } from "../store/command.ts";
import type { KeyReading } from "../store/outcome.ts";
import type { CallOptions } from "../store/store.ts";
import type { Refused } from "../wire/server-messages.ts";
import type { ClaimWindow } from "./claim-window.ts";
import type { Framed, FramedMessage, Link } from "./link.ts";

export type CallKind =
  /** To the leader, through the log, once by claim. */
  | "write"
  /** To the leader. */
  | "read"
  /** To whoever is there. */
  /** To the leader, by its clock. */
  | "lease"
  | "stale"
  | "open-session"
  | "close-session"
  | "status"
  /** To the leader: an operator's request. */
  | "admin";

export interface CallRequest {
  readonly kind: CallKind;
  /** Of a write or a read. */
  readonly txn?: ResolvedTxn;
  /** The TTL of a session to open, the number of one to close. */
  readonly number?: number;
  /** What an operator asks. */
  readonly text?: string;
  /** Only this link will do. */
  readonly pinned?: Link;
  /** How keys come in the answer. Default: without their namespaces. */
  readonly keys?: KeyReading;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Call implements Framed {
  readonly kind: CallKind;
  readonly number: number;
  readonly text: string;
  readonly pinned: Link | undefined;
  readonly keys: KeyReading;
  readonly startedMs: number;
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  unfollow: (() => void) | undefined;
  /** Whether its answer holds values, which must be copied out of the frame. */
  readonly hasValues: boolean;
  /** As it was first sent; later copies are taken from `message`. */
  txn: ResolvedTxn | undefined;
  requestId = 0;
  /** How often it was written to a link. 0: it surely did not happen. */
  sends = 0;
  firstSentMs = 0;
  /** Who owes the answer. Undefined: to be said (again). */
  link: Link | undefined;
  /** What was said, to be said again. Undefined until the turn of its first sending has ended. */
  message: FramedMessage | undefined;
  bytes = 0;
  /** The claim is of the client's own session. */
  window: ClaimWindow | undefined;
  sequence = 0;
  lastRefused: Refused | undefined;
  isSettled = false;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;

  constructor(
    request: CallRequest,
    times: { readonly nowMs: number; readonly timeoutMs: number },
    promise: { readonly resolve: (value: never) => void; readonly reject: (error: unknown) => void },
  ) {
    this.kind = request.kind;
    this.txn = request.txn;
    this.number = request.number ?? 0;
    this.text = request.text ?? "";
    this.pinned = request.pinned;
    this.keys = request.keys ?? "stripped";
    this.startedMs = times.nowMs;
    this.deadlineMs = times.nowMs + times.timeoutMs;
    this.signal = request.signal;
    this.unfollow = undefined;
    this.hasValues = request.txn !== undefined && answersValues(request.txn);
    this.resolve = promise.resolve;
    this.reject = promise.reject;
  }

  /** Whether it surely did not happen when it is given up now. */
  get isDefinite(): boolean {
    if (this.sends === 0 || ["read", "lease", "stale", "status"].includes(this.kind)) return true;
    return this.sends === 1 && this.lastRefused?.definite === true;
  }
}

/** What a call that ran out of time is told. `tried` names the addresses and how each ended. */
export function timeoutError(
  call: Call,
  tried: { readonly isLeaderKnown: boolean; readonly isAnyReached: boolean; readonly text: string },
): ConclaveError {
  const afterMs = Math.round(call.deadlineMs - call.startedMs);
  const details = { definite: call.isDefinite };
  const what = call.kind === "write" ? "The transaction" : `The ${call.kind}`;
  const said = call.sends === 0 ? "was never sent" : `was sent ${call.sends === 1 ? "once" : `${call.sends} times`}`;
  const why = call.lastRefused === undefined ? "" : ` The last refusal: ${call.lastRefused.message}`;
  const text = `${what} ${said} and had no answer after ${afterMs} ms. ${tried.text}${why}`;
  const refusal = call.lastRefused?.code;
  if (refusal === "NO_QUORUM" || refusal === "DISK_FULL" || refusal === "DISK_FAILED")
    return conclaveError(refusal, text, details);
  if (!tried.isAnyReached && call.sends === 0) return conclaveError("CONNECTION_REFUSED", text, details);
  if (!tried.isLeaderKnown) return conclaveError("NO_QUORUM", `No leader was found. ${text}`, details);
  return conclaveError("TIMEOUT", text, details);
}

function answersValues(txn: ResolvedTxn): boolean {
  return txn.then.some(answersValue) || txn.else.some(answersValue);
}

function answersValue(op: ResolvedOp): boolean {
  return op.kind === "get" || op.kind === "range" || (op.kind !== "add" && op.returnPrevious);
}

/** The kind of call for a transaction. */
export function kindOf(txn: ResolvedTxn, consistency: CallOptions["consistency"]): CallKind {
  if (!isReadOnly(txn)) {
    if (consistency === "stale" || consistency === "lease")
      throw conclaveError("INVALID_OPTION", `\`consistency: "${consistency}"\` is for reads; this transaction writes.`);
    return "write";
  }
  return consistency === undefined || consistency === "linearizable" ? "read" : consistency;
}
