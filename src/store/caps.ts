/**
 * What an engine can honestly hold. One table, printed by `conclave doctor` and the docs and read by the contract suite,
 * which skips by it and tests what it claims. A recipe that needs more refuses, in words.
 */
import type { ProtocolName } from "../base/protocol-name.ts";

/** What one engine promises. */
export interface Caps {
  /** The engine in one word or two, for messages. */
  readonly engine: string;
  /** How the members agree. Undefined: the engine is another system's server, and that is its own affair. */
  readonly protocol?: ProtocolName;
  /** Whether a read sees every write that was answered before it began. */
  readonly linearizable: "always" | "until-failover" | "per-partition";
  /** Where that is `until-failover`: what a failover may do, in words that go on after "until a failover, which". */
  readonly failoverMay?: string;
  /** What an answered write survives. */
  readonly durability: "quorum" | "local-fsync" | "async-replica" | "memory";
  /** `log`: every event with its previous value. `level`: some state no older than the change. */
  readonly watch: "log" | "level" | "poll" | "none";
  /** Who wakes the next holder. */
  readonly handOff: "server" | "client-push" | "poll";
  /** Whose clock judges leases, and what a jump of it does. */
  readonly clock: string;
  /** Waiters are served in the order in which they came. */
  readonly fair: boolean;
  /** One txn may touch several namespaces. */
  readonly crossNamespace: boolean;
  /** Revisions of different namespaces are not comparable, except within one txn. Left out: one order for all. */
  readonly orderPerNamespace?: boolean;
  /** A session can be kept alive from another thread while the event loop is blocked (`maxStallMs`). Left out: it cannot. */
  readonly stallKeeper?: boolean;
  /** A mutation sent twice happens once, by claim. Where false, recipes are idempotent by their key names. */
  readonly claims: boolean;
  /** Older revisions can be read, within `limits.historyRevisions`. */
  readonly olderReads: boolean;
  /** What tokens go on rising across. */
  readonly tokenSurvives: readonly ("restart" | "failover" | "restore")[];
  readonly limits: Limits;
}

/** Enforced at the door with KEY_TOO_LARGE, VALUE_TOO_LARGE, TXN_TOO_LARGE, INVALID_OPTION or BUSY. */
export interface Limits {
  /** Bytes of a key with its namespace. */
  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
  /** Compares and operations of one txn, each list. */
  readonly txnOpsMax: number;
  /** Bytes of one txn as sent. */
  readonly txnBytesMax: number;
  /** Bytes of one answer. */
  readonly resultBytesMax: number;
  readonly ttlMsMin: number;
  readonly ttlMsMax: number;
  /** Mutations of one session waiting for their answers. */
  readonly claimsOpenMax: number;
  /** Revisions kept for older reads and resumed watches. */
  readonly historyRevisions: number;
  /** Bytes of keys and values kept for the same. */
  readonly historyBytes: number;
}

/** The embedded engine's limits. */
export const embeddedLimits: Limits = {
  keyBytesMax: 4_096,
  valueBytesMax: 1_048_576,
  txnOpsMax: 128,
  txnBytesMax: 2_097_152,
  resultBytesMax: 8_388_608,
  ttlMsMin: 1_000,
  ttlMsMax: 600_000,
  claimsOpenMax: 4_096,
  historyRevisions: 10_000,
  historyBytes: 16_777_216,
};
