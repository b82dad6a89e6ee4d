/**
 * What travels between a coordinator and a service over HTTP.
 *
 *   POST <base>/try/<action>   POST <base>/confirm   POST <base>/cancel   GET <base>/status
 *
 *   conclave-tx            cv1.abcdef.k3j4h5g6.1a2b.7        the transaction or saga
 *   conclave-tx-branch     2                                 which part of it; both together are an idempotency key
 *   conclave-tx-deadline   1732180000000                     of a Try: calendar milliseconds, with a grace for clocks
 *   conclave-tx-forward    1                                 of a Try behind a pivot: a refusal is not kept
 *   traceparent            00-...                            W3C trace context
 *
 * Answers: 200 with `{ result }`; 409 with a problem document (RFC 9457) whose `title` is REFUSED (the service's own no, with
 * `reason` and `details`) or TRANSACTION_CLOSED (with `why`); 503 try again; any other 4xx: somebody must change something.
 */
import type { BranchStanding, ClosedWhy } from "../coordinator/barrier.ts";
import { parseGid } from "../coordinator/gid.ts";
import type { ServiceCall, ServiceReply } from "../coordinator/service-port.ts";

export const txHeader = "conclave-tx";
export const branchHeader = "conclave-tx-branch";
export const deadlineHeader = "conclave-tx-deadline";
export const forwardHeader = "conclave-tx-forward";

/** What a service learns of a call from its headers. */
export interface TxContext {
  readonly gid: string;
  readonly branch: number;
  readonly deadlineAtMs: number | undefined;
  readonly mustSucceed: boolean;
  readonly traceparent: string | undefined;
}

export function formatContext(call: ServiceCall): Record<string, string> {
  return {
    [txHeader]: call.gid,
    [branchHeader]: String(call.branch),
    ...(call.deadlineAtMs === undefined ? {} : { [deadlineHeader]: String(Math.ceil(call.deadlineAtMs)) }),
    ...(call.mustSucceed === true ? { [forwardHeader]: "1" } : {}),
    ...(call.traceparent === undefined ? {} : { traceparent: call.traceparent }),
  };
}

/** Null where a header is missing or is not of this form. */
export function parseContext(header: (name: string) => string | undefined): TxContext | null {
  const gid = header(txHeader) ?? "";
  const branch = header(branchHeader) ?? "";
  const deadline = header(deadlineHeader);
  if (parseGid(gid) === null || !/^\d{1,4}$/.test(branch)) return null;
  if (deadline !== undefined && !/^\d{1,15}$/.test(deadline)) return null;
  const traceparent = header("traceparent");
  return {
    gid,
    branch: Number(branch),
    deadlineAtMs: deadline === undefined ? undefined : Number(deadline),
    mustSucceed: header(forwardHeader) === "1",
    // W3C Trace Context level 1: anything else is dropped, as if there were none.
    traceparent: /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(traceparent ?? "") ? traceparent : undefined,
  };
}

/** One answer of a service, before a framework sends it. */
export interface ServiceAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
}

const json = { "content-type": "application/json" } as const;
const problem = { "content-type": "application/problem+json" } as const;

export function answerDone(body: Readonly<Record<string, unknown>>): ServiceAnswer {
  return { status: 200, headers: json, body };
}

export function answerProblem(
  status: number,
  title: string,
  detail: string,
  more: Readonly<Record<string, unknown>> = {},
): ServiceAnswer {
  const headers = status === 503 ? { ...problem, "retry-after": "1" } : problem;
  return { status, headers, body: { title, status, detail, ...more } };
}

const closedWhys: readonly string[] = ["cancelled", "confirmed", "not-tried", "expired"] satisfies readonly ClosedWhy[];
const standings: readonly string[] = ["absent", "tried", "refused", "cancelled", "confirmed"] satisfies readonly BranchStanding[];

/** Reads a service's answer. Whatever is not of this form is no answer of a barrier, and is taken for misconfigured. */
export function readReply(call: ServiceCall, status: number, text: string): ServiceReply {
  const body = parseObject(text);
  if (status === 200 && body !== null) {
    if (call.phase === "status") {
      const { standing } = body;
      if (typeof standing === "string" && standings.includes(standing)) {
        return { kind: "standing", standing: standing as BranchStanding };
      }
    } else if (body["skipped"] === true) return { kind: "skipped" };
    else if ("result" in body) return { kind: "done", result: body["result"] };
  }
  if (status === 409 && body?.["title"] === "REFUSED" && typeof body["reason"] === "string") {
    return { kind: "refused", reason: body["reason"], details: body["details"] };
  }
  if (status === 409 && body?.["title"] === "TRANSACTION_CLOSED" && closedWhys.includes(String(body["why"]))) {
    return { kind: "closed", why: body["why"] as ClosedWhy };
  }
  const said = body === null ? text.slice(0, 200) : String(body["detail"] ?? body["title"] ?? "");
  if (status >= 500 || status === 425 || status === 429 || status === 408)
    return { kind: "busy", why: `status ${status}: ${said}` };
  return { kind: "misconfigured", why: `status ${status}: ${said}` };
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
