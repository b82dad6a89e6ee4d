/**
 * What etcd and gRPC say when something fails, in Conclave's words; above all whether it may have happened.
 * Source: etcd api/v3rpc/rpctypes/error.go (texts and codes); gRPC status codes.
 */
import { type ConclaveError, conclaveError, type ErrorCode } from "../../base/errors.ts";
import type { GrpcFailure } from "./grpc.ts";

interface Rule {
  readonly says: RegExp;
  readonly code: ErrorCode;
  readonly definite: boolean;
}

/** In order; the first that matches. */
const rules: readonly Rule[] = [
  { says: /requested lease not found/, code: "SESSION_EXPIRED", definite: true },
  { says: /required revision has been compacted/, code: "COMPACTED", definite: true },
  { says: /required revision is a future revision/, code: "INVALID_OPTION", definite: true },
  { says: /request is too large|too many operations|message larger than max/i, code: "TXN_TOO_LARGE", definite: true },
  { says: /database space exceeded|corrupt/, code: "ENGINE_REFUSED", definite: true },
  { says: /too many requests/, code: "BUSY", definite: true },
  {
    says: /permission denied|user name is empty|authentication failed|invalid auth token|root role|not enabled|revision in header is old/,
    code: "UNAUTHORIZED",
    definite: true,
  },
  { says: /no leader|not leader|server stopped|rpc not supported for learner/, code: "NO_QUORUM", definite: true },
  { says: /request timed out|leader changed/, code: "NO_QUORUM", definite: false },
  {
    says: /certificate|wrong version number|SSL|TLS|EPROTO|CERT_|ERR_HTTP2_ERROR|Protocol error/i,
    code: "TLS_FAILED",
    definite: true,
  },
  // It accepted, and hung up before it spoke: one side most likely speaks TLS and the other does not. Which of both words a server's
  // end leaves behind is a race between its answer and its reset.
  { says: /No connection established.*(ECONNRESET|EPIPE|hang up)/, code: "TLS_FAILED", definite: true },
  {
    says: /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|No connection established|Name resolution/,
    code: "CONNECTION_REFUSED",
    definite: true,
  },
];

const [cancelled, deadlineExceeded, resourceExhausted, unavailable] = [1, 4, 8, 14];

export function errorOfGrpc(failure: GrpcFailure, what: string): ConclaveError {
  const said = failure.details ?? failure.message;
  if (failure.code === deadlineExceeded) {
    // gRPC tells where the call stood: without an address it had not left.
    const wasSent = said.includes("remote_addr");
    return conclaveError("TIMEOUT", `${what}: no answer in time.`, { definite: !wasSent, cause: failure });
  }
  const rule = rules.find(({ says }) => says.test(said));
  if (rule !== undefined) return conclaveError(rule.code, `${what}: ${said}.`, { definite: rule.definite, cause: failure });
  if (failure.code === resourceExhausted) return conclaveError("BUSY", `${what}: ${said}.`, { definite: false, cause: failure });
  if (failure.code === unavailable || failure.code === cancelled)
    return conclaveError("CONNECTION_LOST", `${what}: ${said}.`, { cause: failure });
  return conclaveError("ENGINE_REFUSED", `${what}: ${said}.`, { definite: false, cause: failure });
}

/** The token has run out, or was of another revision of the rights: a new one may do. */
export function isStaleToken({ details = "", code }: GrpcFailure): boolean {
  return code === 16 || /invalid auth token|revision in header is old/.test(details);
}
