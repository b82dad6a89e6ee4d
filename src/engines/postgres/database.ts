/**
 * One call of the database: a statement on a connection of the pool, within a deadline, with every failure named.
 *
 * What was sent may happen: only a refusal of the server itself is certain, and what never left. A connection whose
 * answer did not come in time is thrown away, because the next call on it would get that answer.
 */
import { ConclaveError, conclaveError, type ErrorCode } from "../../base/errors.ts";
import { onAbort } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import type { LeaseCall } from "../../client/lease-sessions.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { hearErrors, type PostgresClient, type PostgresPool } from "./driver.ts";
import { refusals } from "./functions.ts";
import { quarantined, refusalError } from "./refusal.ts";

export type DatabaseCall = LeaseCall;

export interface DatabaseOptions {
  readonly pool: PostgresPool;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
}

export class Database {
  readonly #options: DatabaseOptions;
  #isClosed = false;

  constructor(options: DatabaseOptions) {
    this.#options = options;
  }

  /**
   * The rows of one statement.
   * @throws TIMEOUT, CONNECTION_LOST, CONNECTION_REFUSED, UNAUTHORIZED, READ_ONLY, TLS_FAILED, ENGINE_REFUSED, CLOSED and what
   * our own functions refuse
   */
  async ask(text: string, values: readonly unknown[], { onSend, signal, timeoutMs }: DatabaseCall): Promise<readonly unknown[]> {
    signal?.throwIfAborted();
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const { platform, pool, processHold } = this.#options;
    processHold.retain();
    try {
      return await new Promise<readonly unknown[]>((resolve, reject) => {
        let client: PostgresClient | undefined;
        let [isSent, isOver] = [false, false];
        const finish = (isBroken: boolean): void => {
          timer.cancel();
          unfollow();
          client?.release(isBroken);
          client = undefined;
          isOver = true;
        };
        const timer = platform.setTimer(timeoutMs, () => {
          finish(true);
          const definite = !isSent;
          reject(conclaveError("TIMEOUT", `PostgreSQL did not answer within ${Math.round(timeoutMs)} ms.`, { definite }));
        });
        // What was sent goes on, and its connection is used again when it has answered.
        const unfollow = signal === undefined ? () => undefined : onAbort(signal, () => reject(signal.reason as Error));
        const onFailure = (error: unknown): void => {
          if (isOver) return;
          const named = errorOf(error, isSent);
          finish(client !== undefined && !isHarmless(named.code));
          reject(named);
        };
        pool.connect().then((connected) => {
          hearErrors(connected);
          if (isOver || signal?.aborted) {
            connected.release();
            if (!isOver) finish(false);
            return;
          }
          client = connected;
          isSent = true;
          onSend?.();
          connected.query(text, values as unknown[]).then((result) => {
            if (isOver) return;
            finish(false);
            resolve("rows" in result ? result.rows : (result.at(-1)?.rows ?? []));
          }, onFailure);
        }, onFailure);
      });
    } finally {
      processHold.release();
    }
  }

  /** One of our functions, which all answer with JSON or nothing. */
  async call(name: string, values: readonly unknown[], call: DatabaseCall): Promise<unknown> {
    const holes = values.map((_, index) => `$${index + 1}`).join(", ");
    const [row] = await this.ask(`SELECT ${name}(${holes}) AS answer`, values, call);
    return (row as { readonly answer: unknown } | undefined)?.answer;
  }

  close(): void {
    this.#isClosed = true;
  }
}

/** The connection is as good as before. */
function isHarmless(code: ErrorCode): boolean {
  return !["CONNECTION_LOST", "CONNECTION_REFUSED", "READ_ONLY", "TIMEOUT", "TLS_FAILED", "UNAUTHORIZED"].includes(code);
}

interface ServerError {
  readonly code: string;
  readonly message: string;
  readonly severity?: string;
  readonly detail?: string;
  readonly hint?: string;
}

/** The SQLSTATE's meaning for a caller. Appendix A of PostgreSQL's documentation. */
export function errorOf(error: unknown, isSent: boolean): ConclaveError {
  if (error instanceof ConclaveError) return error;
  const { code = "", message = String(error), severity, detail = "", hint = "" } = (error ?? {}) as Partial<ServerError>;
  const details = { cause: error };
  if (severity === undefined) return connectionError(code, message, isSent, error);
  if (code === refusals.quarantined) return quarantined(Number(detail));
  const refused = refusalError(code, detail, hint);
  if (refused !== undefined) return refused;
  const said = `PostgreSQL says: ${message}`;
  switch (code) {
    case "28000":
    case "28P01":
      if (message.includes("no encryption") || message.includes("SSL off"))
        return conclaveError("TLS_FAILED", `${said}.`, details);
      return conclaveError("UNAUTHORIZED", `${said}.`, details);
    case "42501":
      return conclaveError("UNAUTHORIZED", `${said} (${detail || "the user lacks a privilege"}).`, details);
    // Undefined function, table or schema, or no row in `meta`: what `connect` had made or found is gone.
    case "42883":
    case "42P01":
    case "3F000":
    case "P0002":
      return conclaveError(
        "UNSUPPORTED",
        `${said}: somebody dropped what Conclave made here, and \`connect\` makes it again.`,
        details,
      );
    case "3D000":
      return conclaveError("INVALID_OPTION", `${said}.`, details);
    case "25006":
      return conclaveError("READ_ONLY", `${said}.`, details);
    case "55P03":
      return conclaveError("TIMEOUT", "Somebody's transaction held a row for too long; nothing was done.", {
        ...details,
        definite: true,
      });
    case "57014":
      return conclaveError("TIMEOUT", `${said}; nothing was done.`, { ...details, definite: true });
    case "57P03":
    case "53300":
      return conclaveError("CONNECTION_REFUSED", `${said}.`, details);
  }
  // 57P01 may come after the commit: "the transaction has already committed locally".
  if (/^(?:08|57P)/.test(code)) return conclaveError("CONNECTION_LOST", `${said}.`, { ...details, definite: !isSent });
  return conclaveError("ENGINE_REFUSED", `${said} (SQLSTATE ${code}).`, details);
}

/** Serialization failures and deadlocks: nothing happened, and the same call can succeed. */
export function isConflict(error: ConclaveError): boolean {
  const { code } = (error.cause ?? {}) as { readonly code?: string };
  return code === "40001" || code === "40P01";
}

function connectionError(code: string, message: string, isSent: boolean, cause: unknown): ConclaveError {
  if (["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"].includes(code))
    return conclaveError("CONNECTION_REFUSED", `PostgreSQL cannot be reached: ${message}.`, { cause });
  if (/timeout exceeded when trying to connect|timeout expired/i.test(message))
    return conclaveError("TIMEOUT", "No connection to PostgreSQL was open in time.", { cause, definite: true });
  if (/SASL|password must be a string/.test(message)) return conclaveError("UNAUTHORIZED", `${message}.`, { cause });
  if (/does not support SSL|certificate|self.signed|wrong version number|EPROTO|altname/i.test(`${message} ${code}`))
    return conclaveError("TLS_FAILED", `${message}.`, { cause });
  return conclaveError("CONNECTION_LOST", `The connection to PostgreSQL ended: ${message}.`, { cause, definite: !isSent });
}
