/**
 * What the driver and the servers say, as errors: did it surely not happen?
 */
import { ConclaveError, conclaveError } from "../../base/errors.ts";

/** What is read of the driver's errors. */
interface DriverError {
  readonly name?: string;
  readonly message?: string;
  /** Of a server's answer: native protocol v4, section 9. */
  readonly code?: number | string;
  readonly innerErrors?: Readonly<Record<string, DriverError>>;
}

export function cassandraError(error: unknown): ConclaveError {
  if (error instanceof ConclaveError) return error;
  const { code, innerErrors, message = String(error), name } = (error ?? {}) as DriverError;
  const details = { cause: error };
  if (name === "NoHostAvailableError") return nobodyAnswered(Object.values(innerErrors ?? {}), message, error);
  if (name === "AuthenticationError") return conclaveError("UNAUTHORIZED", `Cassandra says: ${message}.`, details);
  if (name === "OperationTimedOutError") return conclaveError("TIMEOUT", `Cassandra did not answer: ${message}.`, details);
  const said = `Cassandra says: ${message}`;
  switch (code) {
    case 0x0100:
    case 0x2100:
      return conclaveError("UNAUTHORIZED", `${said}.`, details);
    // Too few replicas are alive: nothing was tried.
    case 0x1000:
      return conclaveError("NO_QUORUM", `${said}.`, { ...details, definite: true });
    case 0x1001:
    case 0x1002:
      return conclaveError("BUSY", `${said}.`, details);
    // Timeouts and failures of a set, an agreement of unknown outcome among them (0x1700).
    case 0x1100:
    case 0x1200:
    case 0x1300:
    case 0x1500:
    case 0x1700:
      return conclaveError("NO_QUORUM", `${said}.`, details);
    case 0x2000:
    case 0x2200:
    case 0x2300:
      return conclaveError("UNSUPPORTED", `${said}.`, details);
  }
  if (/localDataCenter|data ?center/i.test(message)) return conclaveError("INVALID_OPTION", `${message}.`, details);
  if (isTls(error as DriverError)) return conclaveError("TLS_FAILED", `${message}.`, details);
  return conclaveError("CONNECTION_LOST", `The connection to Cassandra failed: ${message}.`, details);
}

function nobodyAnswered(inner: readonly DriverError[], message: string, cause: unknown): ConclaveError {
  const telling = inner.find(({ name, code }) => name === "AuthenticationError" || code === 0x0100);
  if (telling !== undefined) return conclaveError("UNAUTHORIZED", `Cassandra says: ${telling.message}.`, { cause });
  if (inner.some(isTls)) return conclaveError("TLS_FAILED", `${message}`, { cause });
  if (/localDataCenter|data ?center/i.test(message)) return conclaveError("INVALID_OPTION", `${message}.`, { cause });
  // A request that was written, and whose connection ended, may have been carried out.
  const wasSent = inner.some(
    ({ name, message: said = "" }) => name === "OperationTimedOutError" || /closed|hang up|reset/i.test(said),
  );
  if (wasSent) return conclaveError("CONNECTION_LOST", `${message}`, { cause });
  return conclaveError("CONNECTION_REFUSED", `${message}`, { cause });
}

function isTls({ code, message = "" }: DriverError): boolean {
  return /ERR_SSL|EPROTO|CERT|SELF_SIGNED|altname|ERR_TLS/i.test(`${code} ${message}`);
}
