/**
 * The one hierarchy of errors. A caller matches on `code`; the class only groups.
 *
 * Each error answers two questions: `definite` (did it surely not happen?) and `retryable` (may I simply try again?).
 * `instanceof` holds across two installed copies of the package, by a registered symbol instead of the prototype.
 */
import { type ErrorClass, type ErrorCode, errorTable } from "./error-table.ts";

export type { ErrorCode } from "./error-table.ts";

const brand: unique symbol = Symbol.for("conclave.error") as never;

export interface ErrorDetails {
  readonly cause?: unknown;
  /** Overrides the table where this occurrence is more certain, or less. */
  readonly definite?: boolean;
}

export class ConclaveError extends Error {
  override readonly name: string = "ConclaveError";
  readonly code: ErrorCode;
  /** True: it did not happen. False: it may have. */
  readonly definite: boolean;
  /** True: calling again with the same arguments can succeed. */
  readonly retryable: boolean;
  readonly [brand]: ErrorClass;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(`${message} ${errorTable[code].remedy}`, details.cause === undefined ? undefined : { cause: details.cause });
    const row = errorTable[code];
    this.code = code;
    this.definite = details.definite ?? row.definite;
    this.retryable = row.retryable;
    this[brand] = row.class;
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: `this` is the class on the right of `instanceof`, which is the point.
    return isBranded(value, this.errorClass);
  }

  /** Undefined on the root: every class matches. */
  protected static readonly errorClass: ErrorClass | undefined = undefined;
}

export class UsageError extends ConclaveError {
  override readonly name = "UsageError";
  protected static override readonly errorClass = "usage";
}
export class ConflictError extends ConclaveError {
  override readonly name = "ConflictError";
  protected static override readonly errorClass = "conflict";
}
export class UnavailableError extends ConclaveError {
  override readonly name = "UnavailableError";
  protected static override readonly errorClass = "unavailable";
}
export class LostError extends ConclaveError {
  override readonly name = "LostError";
  protected static override readonly errorClass = "lost";
}
export class CorruptionError extends ConclaveError {
  override readonly name = "CorruptionError";
  protected static override readonly errorClass = "corruption";
}

const classes = {
  usage: UsageError,
  conflict: ConflictError,
  unavailable: UnavailableError,
  lost: LostError,
  corruption: CorruptionError,
} as const;

/** Makes the error of the class that the table gives to the code. The message says what was tried, on what. */
export function conclaveError(code: ErrorCode, message: string, details?: ErrorDetails): ConclaveError {
  return new classes[errorTable[code].class](code, message, details);
}

/** True when the value is a Conclave error of this code. */
export function hasCode(value: unknown, code: ErrorCode): value is ConclaveError {
  return value instanceof ConclaveError && value.code === code;
}

function isBranded(value: unknown, errorClass: ErrorClass | undefined): boolean {
  if (typeof value !== "object" || value === null || !(brand in value)) return false;
  return errorClass === undefined || (value as Record<symbol, unknown>)[brand] === errorClass;
}
