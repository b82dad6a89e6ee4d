/**
 * The other half of a lock: the resource that refuses a holder who came too late.
 *
 * Intuition: a cloakroom that takes only the highest number it has seen. A lock tells its holder when to stop, by the
 * holder's clock; between that look at the clock and the write a process may sleep for an hour. Only the resource can know
 * that somebody else has written since, and the token is how.
 * Source: Kleppmann, "How to do distributed locking", 2016; Gray and Cheriton, "Leases", SOSP 1989.
 */
import { type ConclaveError, conclaveError } from "../base/errors.ts";

/** A hold, or anything else that names a resource and carries a token: `{ name, token }`. */
export interface Fenced {
  /** Which resource, in the words of whoever guards it. The name of the lock, most often. */
  readonly name: string;
  /** Rises with every grant. */
  readonly token: number;
}

/** @throws INVALID_OPTION */
export function checkFenced({ name, token }: Fenced): void {
  if (typeof name !== "string" || name === "") throw conclaveError("INVALID_OPTION", "A fence needs a `name` that is not empty.");
  if (!Number.isSafeInteger(token) || token < 0) {
    throw conclaveError("INVALID_OPTION", `\`token\` is ${token}; a fence takes whole numbers from 0 below 2^53.`);
  }
}

/** What a guard says to a holder who came too late: nothing was written. */
export function staleToken({ name, token }: Fenced, highest: number | undefined): ConclaveError {
  const seen = highest === undefined ? "a higher one has been here" : `${highest} has been here`;
  return conclaveError("STALE_TOKEN", `"${name}" refuses token ${token}: ${seen}. Nothing was written.`);
}
