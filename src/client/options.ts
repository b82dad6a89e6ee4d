/**
 * What a client can be told, and what it takes as granted.
 */
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Platform, Telemetry, Transport } from "../base/ports.ts";
import type { Caps } from "../store/caps.ts";
import type { StallKeeper } from "./stall-keeper.ts";

/** Bounds and waits of one client. Every field is optional at the door; the defaults are `clientLimitsDefault`. */
export interface ClientLimits {
  /** Calls on the wire and unanswered. Default 4_096: the most claims that a session may have open. */
  readonly callsInFlightMax: number;
  /** Calls waiting for a place in flight; beyond it a call fails with BUSY. Default 65_536. */
  readonly callsQueuedMax: number;
  /** Bytes of calls in flight, above which further ones wait. Default 33_554_432. */
  readonly bytesInFlightMax: number;
  /** Default of a call's `timeoutMs`. Default 10_000. */
  readonly timeoutMs: number;
  /** How long the leader may owe an answer before it is pinged and the others are asked. Default 400. */
  readonly silenceMs: number;
  /** How long it may owe one before the connection is given up. Default 4_000. */
  readonly deadMs: number;
  /** How long a dial with its hello may take. Default 2_000. */
  readonly dialTimeoutMs: number;
  /** Waits between attempts to find the leader, doubled from the first to the second and jittered. Default 20 and 250. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** Bytes of batches that a watch holds for its consumer before the member holds back. Default 1_048_576. */
  readonly watchBufferBytes: number;
  /** How long `close` waits for the goodbyes of its sessions. Default 1_000. */
  readonly closeTimeoutMs: number;
  /** TTL of the session by which mutations are claimed, and of `sharedSession` without one. Default 15_000. */
  readonly sessionTtlMs: number;
}

export const clientLimitsDefault: ClientLimits = {
  callsInFlightMax: 4_096,
  callsQueuedMax: 65_536,
  bytesInFlightMax: 33_554_432,
  timeoutMs: 10_000,
  silenceMs: 400,
  deadMs: 4_000,
  dialTimeoutMs: 2_000,
  backoffMsMin: 20,
  backoffMsMax: 250,
  watchBufferBytes: 1_048_576,
  closeTimeoutMs: 1_000,
  sessionTtlMs: 15_000,
};

export interface ClientOptions {
  readonly platform: Platform;
  readonly transport: Transport;
  /** Where members listen; one that answers is enough, it names the others. */
  readonly addresses: readonly string[];
  /** Refuse to talk to any other cluster. Default: whichever answers. */
  readonly cluster?: string;
  /** What the members' `authenticate` reads. Default: none. */
  readonly credential?: Uint8Array;
  readonly groupId?: number;
  /** What the engine behind promises, and the limits that are checked before anything is sent. */
  readonly caps: Caps;
  readonly limits?: Partial<ClientLimits>;
  /** Closed with the client. Default: none; `caps.stallKeeper` must say the same. */
  readonly stallKeeper?: StallKeeper;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  /** For the members' logs. Default "client". */
  readonly clientName?: string;
}

/** The limits with defaults. @throws INVALID_OPTION */
export function checkClientOptions(options: ClientOptions): ClientLimits {
  if (!Array.isArray(options.addresses) || options.addresses.length === 0) {
    throw conclaveError("INVALID_OPTION", "`addresses` must name at least one member.");
  }
  if (options.addresses.some((address) => typeof address !== "string" || address === "")) {
    throw conclaveError("INVALID_OPTION", "`addresses` must hold non-empty strings.");
  }
  const limits = { ...clientLimitsDefault, ...options.limits };
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isFinite(value) || value <= 0)
      throw conclaveError("INVALID_OPTION", `\`limits.${name}\` must be above 0; it is ${value}.`);
  }
  if (limits.backoffMsMax < limits.backoffMsMin) {
    throw conclaveError("INVALID_OPTION", "`limits.backoffMsMax` must be at least `limits.backoffMsMin`.");
  }
  checkTtl(limits.sessionTtlMs, "limits.sessionTtlMs", options.caps);
  return { ...limits, callsInFlightMax: Math.min(limits.callsInFlightMax, options.caps.limits.claimsOpenMax) };
}

/** @throws INVALID_OPTION */
export function checkTtl(ttlMs: number, field: string, caps: Caps): void {
  const { ttlMsMin, ttlMsMax } = caps.limits;
  if (!Number.isInteger(ttlMs) || ttlMs < ttlMsMin || ttlMs > ttlMsMax) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`${field}\` must be whole milliseconds from ${ttlMsMin} to ${ttlMsMax}; it is ${ttlMs}.`,
    );
  }
}
