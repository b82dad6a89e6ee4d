/**
 * What our functions refuse, as errors. They are certain: an exception of a function leaves nothing behind.
 */
import { type ConclaveError, conclaveError } from "../../base/errors.ts";
import { refusals } from "./functions.ts";

/** Undefined: not one of ours. `detail`: the key in base64, or a number; `hint`: a session. */
export function refusalError(code: string, detail: string, hint: string): ConclaveError | undefined {
  const key = JSON.stringify(Buffer.from(detail, "base64").toString("utf8"));
  switch (code) {
    case refusals.sessionExpired:
      return conclaveError("SESSION_EXPIRED", `Key ${key} was not written: its session ${hint} is not alive.`);
    case refusals.notANumber:
      return conclaveError("NOT_A_NUMBER", `The value of key ${key} is no whole number.`);
    case refusals.sumTooLarge:
      return conclaveError("NOT_A_NUMBER", `The sum for key ${key} leaves 2^53.`);
    case refusals.txnTooLarge:
      return conclaveError("TXN_TOO_LARGE", `The answer at ${key} exceeds what one txn may answer; nothing was done.`);
    case refusals.revisionLimit:
      return conclaveError("REVISION_LIMIT", "Nothing was written: no revision is left.");
    case refusals.wrongProtocol:
      return conclaveError("WRONG_PROTOCOL", `The tables in the database have layout ${detail}, made by a newer version.`);
    default:
      return undefined;
  }
}

/** A promoted or restored server: nobody may hold anything until every holder of before has stopped. */
export function quarantined(leftMs: number): ConclaveError & { readonly leftMs: number } {
  const error = conclaveError(
    "QUARANTINED",
    `The store is in quarantine, because its PostgreSQL is new to it (a promoted replica, or restored): no session begins for another ${leftMs} ms. \`?quarantineMs=-1\` in the URL does without, where no earlier holder can be alive.`,
  );
  return Object.assign(error, { leftMs });
}
