/**
 * The coordinator's options with their defaults, and the refusal of a store that cannot hold a decision.
 */
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Telemetry } from "../base/ports.ts";
import type { Caps } from "../store/caps.ts";
import type { Store } from "../store/store.ts";
import type { Participant } from "./participant.ts";

/** The words that allow decisions to vanish with the process. */
export const volatileWords = "a crash of this process may break atomicity" as const;

/** Where a crash is most telling; the crash harness kills the process there. */
export type Checkpoint =
  | "begun"
  | "prepare"
  | "prepared"
  | "all-prepared"
  | "refused"
  | "rolled-back"
  | "deciding"
  | "decided"
  | "committing"
  | "committed"
  | "all-committed"
  | "forgotten"
  | "one-phase"
  | "one-phase-sent"
  | "one-phase-done"
  | "agent"
  | "agent-sent"
  | "agent-done"
  | "recovery-rolled-back"
  | "recovery-committed"
  | "recovery-proven"
  | "recovery-fenced"
  | "recovery-evicted";

export interface CoordinatorOptions {
  /** Holds the decisions: `engine.store("transactions")`. */
  readonly store: Store;
  readonly participants: ReadonlyMap<string, Participant>;
  readonly host?: string;
  readonly pid?: number;
  /**
   * How long the coordinator may be silent before others resolve its transactions. Milliseconds. Default 5_000, at least
   * what the store takes. Shorter frees locks sooner after a crash; longer survives longer pauses.
   */
  readonly ttlMs?: number;
  /** How long one answer of a participant may take in the second phase, and in recovery. Milliseconds. Default 5_000. */
  readonly answerMs?: number;
  /** How often all resources are searched for branches that nobody minds. Milliseconds. Default 10_000. */
  readonly scanEveryMs?: number;
  /** Transactions that run at one time; more are refused with BUSY. Default 10_000. */
  readonly inFlightMax?: number;
  /** How long idempotency keys are kept. Milliseconds. Default 86_400_000: a day. */
  readonly keysKeptMs?: number;
  /** Idempotency keys that are kept at most; the oldest give way. Default 100_000. */
  readonly keysMax?: number;
  /** Must be these very words where the store keeps nothing on disk. */
  readonly acceptVolatileDecisions?: typeof volatileWords;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  /** Called at each step; what it returns is awaited. For tests: production leaves it out. */
  readonly checkpoint?: (step: Checkpoint, gid: string, resource: string) => void | Promise<void>;
}

/** @since 0.1.0 */
export const coordinatorDefaults = {
  ttlMs: 5_000,
  answerMs: 5_000,
  scanEveryMs: 10_000,
  inFlightMax: 10_000,
  keysKeptMs: 86_400_000,
  keysMax: 100_000,
} as const;

/**
 * A decision must be readable by everybody after it was written, whatever fails: a store that may forget it is refused.
 * @throws UNSUPPORTED
 */
export function checkCaps(caps: Caps, words: string | undefined): void {
  if (caps.linearizable !== "always") {
    throw conclaveError(
      "UNSUPPORTED",
      `${caps.engine} is linearizable ${caps.linearizable}: after a failover it may have forgotten that a transaction was committed, and the other half would be rolled back.`,
    );
  }
  if (caps.durability === "async-replica") {
    throw conclaveError("UNSUPPORTED", `${caps.engine} may lose an answered write, and with it a decision.`);
  }
  if (caps.durability === "memory" && words !== volatileWords) {
    throw conclaveError(
      "UNSUPPORTED",
      `${caps.engine} keeps decisions in memory only; for a trial, say acceptVolatileDecisions: "${volatileWords}".`,
    );
  }
}
