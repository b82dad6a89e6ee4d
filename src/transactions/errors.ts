/**
 * How a transaction ends other than by commit, as types.
 *
 * `Abort` is thrown by the work, on purpose: "insufficient funds". `TransactionAborted` is what the caller of `run` catches:
 * nothing happened, anywhere. `TransactionUnknown`: nobody can say yet; ask `outcome(gid)` later, and never just run it again.
 */

import { ConclaveError, type ErrorDetails } from "../base/errors.ts";
import type { AbortWhy } from "../coordinator/coordinator.ts";

/** Thrown inside the work to undo everything. `details` reach the caller untouched. */
export class Abort<Details = unknown> extends Error {
  override readonly name = "Abort";
  readonly reason: string;
  readonly details: Details | undefined;

  constructor(reason: string, details?: Details) {
    super(reason);
    this.reason = reason;
    this.details = details;
  }
}

/** `business`: the work threw `Abort`. `work`: it threw something else, which is the `cause`. The rest: see `AbortWhy`. */
export type AbortKind = "business" | "work" | AbortWhy;

export class TransactionAborted extends ConclaveError {
  override readonly name = "TransactionAborted";
  readonly gid: string;
  readonly why: AbortKind;
  /** Of a business abort: its words. */
  readonly reason: string | undefined;
  readonly details: unknown;
  /** The resource that refused, where one did. */
  readonly resource: string | undefined;

  constructor(
    message: string,
    about: {
      readonly gid: string;
      readonly why: AbortKind;
      readonly reason?: string;
      readonly details?: unknown;
      readonly resource?: string;
    },
    options: ErrorDetails = {},
  ) {
    super("TRANSACTION_ABORTED", message, options);
    this.gid = about.gid;
    this.why = about.why;
    this.reason = about.reason;
    this.details = about.details;
    this.resource = about.resource;
  }
}

export class TransactionUnknown extends ConclaveError {
  override readonly name = "TransactionUnknown";
  readonly gid: string;

  constructor(message: string, gid: string, options: ErrorDetails = {}) {
    super("TRANSACTION_UNKNOWN", message, options);
    this.gid = gid;
  }
}
