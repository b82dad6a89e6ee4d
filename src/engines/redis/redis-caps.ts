/**
 * What Redis or Valkey promises, as far as it can be known from the client's side and the server's answers.
 */
import type { Caps, Limits } from "../../store/caps.ts";

/** How long a call waits for its answer. Milliseconds. */
export const timeoutMsDefault = 10_000;

export const redisLimits: Limits = {
  keyBytesMax: 4_096,
  valueBytesMax: 1_048_576,
  txnOpsMax: 128,
  txnBytesMax: 2_097_152,
  resultBytesMax: 8_388_608,
  ttlMsMin: 1_000,
  // Every failover is waited out for the longest TTL that was ever asked for.
  ttlMsMax: 120_000,
  claimsOpenMax: 4_096,
  historyRevisions: 0,
  historyBytes: 0,
};

export interface ServerFacts {
  /** `appendonly yes` with `appendfsync always`. */
  readonly syncsEachWrite: boolean;
  /** Anything at all that is written to disk. */
  readonly persists: boolean;
  /** The primary can be replaced by a replica: Sentinel, Cluster, or replicas that somebody may promote. */
  readonly failsOver: boolean;
}

export function redisCaps(
  facts: ServerFacts,
  { engine, ttlMsMax }: { readonly engine: string; readonly ttlMsMax: number },
): Caps {
  return {
    engine,
    linearizable: facts.syncsEachWrite && !facts.failsOver ? "always" : "until-failover",
    failoverMay: "may lose writes that were answered, as a restart may where not every write is synced",
    durability: facts.failsOver
      ? "async-replica"
      : facts.syncsEachWrite
        ? "local-fsync"
        : facts.persists
          ? "async-replica"
          : "memory",
    watch: "log",
    handOff: "server",
    clock:
      "the server's wall clock, and each holder's own monotonic one: a jump forward of the server's ends leases early, by as much as it jumps; backward it makes them last longer",
    fair: true,
    crossNamespace: true,
    claims: false,
    olderReads: false,
    // A revision never lies below the server's clock in microseconds when it begins anew.
    tokenSurvives: ["restart", "failover", "restore"],
    limits: { ...redisLimits, ttlMsMax },
  };
}
