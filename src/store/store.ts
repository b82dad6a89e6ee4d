/**
 * The narrow waist: what every recipe may ask of a store, and what every engine must give.
 *
 * Recipes are written once, on `Store`; engines implement `Store`; neither knows the other. Operations and compares are
 * those of etcd's v3 key-value API, so that nothing here shuts the door to it.
 * Promises depend on the engine: see `Caps`. Errors carry codes of `base/error-table.ts`.
 */
import type { Caps } from "./caps.ts";
import type { Entry } from "./entry.ts";
import type { Finding } from "./finding.ts";

/** A key: bytes in order. A string stands for its UTF-8 bytes. Not empty; at most `limits.keyBytesMax`. */
export type Key = string | Uint8Array;

/** A value: bytes. A string stands for its UTF-8 bytes. At most `limits.valueBytesMax`. */
export type Value = string | Uint8Array;

/**
 * The place of a writing transaction in the one order of its group: a safe integer, dense, never going back, not even
 * across restart or restore. A new store starts at the wall clock in microseconds.
 */
export type Revision = number;

/** Names a session. Opaque; never used twice by one store. */
export type SessionId = string;

/** Which keys: one, all that start alike (`""`: all), or a half-open interval (`to` left out: to the end). */
export type KeyRange = { readonly key: Key } | { readonly prefix: Key } | { readonly from: Key; readonly to?: Key };

/** Where a key lives when it is not the store that was asked. Needs `caps.crossNamespace`. */
interface Placed {
  readonly namespace?: string;
}

export type Operator = "equal" | "not-equal" | "less" | "greater";

/**
 * A condition. On a range it must hold for every key that is there; an empty range satisfies it.
 * An absent key compares as createRevision 0, modRevision 0, version 0, no value (only `not-equal` holds) and session null.
 */
export type Compare = Placed &
  ({ readonly key: Key } | { readonly range: KeyRange }) &
  (
    | { readonly target: "exists"; readonly is: "equal"; readonly to: boolean }
    | { readonly target: "createRevision" | "modRevision" | "version"; readonly is: Operator; readonly to: number }
    | { readonly target: "value"; readonly is: Operator; readonly to: Value }
    | { readonly target: "session"; readonly is: "equal" | "not-equal"; readonly to: SessionId | null }
  );

export interface GetOp extends Placed {
  readonly kind: "get";
  readonly key: Key;
}
export interface RangeOp extends Placed {
  readonly kind: "range";
  readonly range: KeyRange;
  /** Default `key`. `create`: by createRevision, then key. */
  readonly order?: "key" | "create";
  /** Default false: ascending. */
  readonly descending?: boolean;
  /** Default: no limit but that of the answer's size. */
  readonly limit?: number;
  /** Leave the values out. */
  readonly keysOnly?: boolean;
  /** Only keys with a createRevision below this: "who stands before me". */
  readonly createdBefore?: Revision;
  /** An older state, where it is kept. Only in a txn that writes in neither branch. @throws COMPACTED, INVALID_OPTION */
  readonly atRevision?: Revision;
}
export interface PutOp extends Placed {
  readonly kind: "put";
  readonly key: Key;
  readonly value: Value;
  /** The key is deleted when this session ends. Left out: the key stays, and an earlier binding is undone. */
  readonly session?: SessionId;
  /** Answer with the entry before. Default false. */
  readonly returnPrevious?: boolean;
}
export interface DeleteOp extends Placed {
  readonly kind: "delete";
  readonly range: KeyRange;
  /** Answer with the entries before. Default false. */
  readonly returnPrevious?: boolean;
}
/** Adds to a whole number kept in decimal digits; an absent key counts as 0. Keeps the key's session. @throws NOT_A_NUMBER */
export interface AddOp extends Placed {
  readonly kind: "add";
  readonly key: Key;
  readonly delta: number;
}
export type Op = GetOp | RangeOp | PutOp | DeleteOp | AddOp;

/**
 * Makes a mutation happen once however often it is sent: the first outcome is kept and answered again.
 * `lowestOpen` is the lowest sequence of the session still waiting for its answer; older ones are forgotten, and a claim
 * below it is refused with CLAIM_TOO_OLD, never run again.
 */
export interface Claim {
  readonly session: SessionId;
  readonly sequence: number;
  readonly lowestOpen: number;
}

/** One atomic round trip: if every compare holds, `then`, else `else`. Operations run in order and see one another. */
export interface Txn {
  readonly if?: readonly Compare[];
  readonly then: readonly Op[];
  readonly else?: readonly Op[];
  /** Left out: the engine's client makes one where the engine wants one. */
  readonly claim?: Claim;
}

export type OpResult =
  | { readonly kind: "get"; readonly entry: Entry | null }
  | {
      readonly kind: "range";
      readonly entries: readonly Entry[];
      /** All keys in the range (below `createdBefore`, where it is asked), also beyond the limit. */
      readonly count: number;
      readonly more: boolean;
    }
  | { readonly kind: "put"; readonly previous: Entry | null }
  | { readonly kind: "delete"; readonly count: number; readonly previous: readonly Entry[] }
  | { readonly kind: "add"; readonly value: number };

export interface TxnResult {
  /** Whether the compares held. */
  readonly succeeded: boolean;
  /** Of this transaction when it wrote; else the state's revision that it read. */
  readonly revision: Revision;
  readonly results: readonly OpResult[];
}

export interface CallOptions {
  /** Gives up waiting; what was sent may still happen. Rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Gives up after this long with TIMEOUT. Milliseconds. Default 10_000. */
  readonly timeoutMs?: number;
  /**
   * Reads only. Default `linearizable`; `stale` answers from the nearest member, which may lag. `lease` is linearizable too,
   * without a round of messages, as long as the members' clocks run within 5% of true time (embedded engine with raft; any
   * other answers it as `linearizable`). While it is used, a crash of the leader costs up to an election timeout more.
   */
  readonly consistency?: "linearizable" | "stale" | "lease";
}

export interface SessionOptions {
  /**
   * How long the store waits for a silent session before its keys go. Milliseconds, 1_000-600_000. Default 15_000.
   * Shorter frees sooner after a crash; longer survives longer pauses. Renewed at a third of it, lost at two thirds.
   */
  readonly ttlMs?: number;
  /**
   * Keeps the session alive from a thread of its own while the event loop is blocked, but no longer than this: a longer block
   * ends it, whatever its TTL. Milliseconds, 1_000-600_000. Default: no thread; a block of two thirds of the TTL ends it.
   * Needs `caps.stallKeeper`. @throws UNSUPPORTED, KEEPER_FAILED
   */
  readonly maxStallMs?: number;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** A kept-alive lease: keys bound to it vanish when it ends. */
export interface Session extends AsyncDisposable {
  readonly id: SessionId;
  readonly ttlMs: number;
  /**
   * When it must count as lost: two thirds of the TTL after the *send* of the last confirmed keep-alive, and with `maxStallMs`
   * no later than that after the event loop last turned. Monotonic ms.
   */
  readonly deadline: number;
  /** The clock of `deadline`. */
  now(): number;
  /** Asked of the clock at this moment, so it is right in the first line after a stalled event loop. */
  readonly alive: boolean;
  /** Fires at `deadline`, with or without a network. The reason is a LostError. */
  readonly lost: AbortSignal;
  /**
   * Says that somebody relies on the session, until the returned function is called: only then its timers keep the
   * process alive.
   */
  hold(): () => void;
  /** Deletes what is bound to it, and ends it. Idempotent. */
  close(): Promise<void>;
}

export type WatchEvent =
  | {
      readonly kind: "put";
      readonly revision: Revision;
      readonly key: string;
      readonly entry: Entry;
      readonly previous: Entry | null;
    }
  | { readonly kind: "delete"; readonly revision: Revision; readonly key: string; readonly previous: Entry };

/**
 * Changes of one or more revisions in order, or the whole state of the range where the gap could not be bridged.
 * Recipes may rely only on this: after a change at r a batch with a revision of at least r arrives.
 */
export type WatchBatch =
  | { readonly kind: "changes"; readonly revision: Revision; readonly events: readonly WatchEvent[] }
  | { readonly kind: "resync"; readonly revision: Revision; readonly entries: readonly Entry[] };

export interface WatchOptions {
  /** The first revision to tell. Default: everything after the moment of the call's answer. */
  readonly from?: Revision;
  readonly signal?: AbortSignal;
  /** Of another namespace of the same group; needs `caps.crossNamespace`. */
  readonly namespace?: string;
  /** Whether waiting for the next batch keeps the process alive. Default true. */
  readonly ref?: boolean;
}

/**
 * What an engine does for recipes in a step of its own, cheaper than by `txn`: the same keys, the same outcome. Each may be
 * left out, and each may answer null: nothing was done, ask by `txn`.
 */
export interface NativeRecipes {
  /** Puts a new key of a living session, and tells the key put before it in this namespace, and how many there are. */
  joinQueue?(
    entry: { readonly key: string; readonly value: string; readonly session: SessionId },
    options: CallOptions,
  ): Promise<Joined | null>;
  /** Deletes one key, which may be gone. */
  leaveQueue?(key: string, options: CallOptions): Promise<true | null>;
  /**
   * Calls `onTurn` once: with the revision at which the last of those before the key left, or null where that cannot be
   * told any more, also because the key itself went: look then. Ends with the returned function, at the latest.
   */
  countDepartures?(waiter: QueueWaiter, onTurn: (revision: Revision | null) => void): () => void;
}

/** Somebody in a queue, and how many of its namespace were older before the revision `from`. */
export interface QueueWaiter {
  readonly key: string;
  readonly createRevision: Revision;
  readonly count: number;
  readonly from: Revision;
}

/** Where a key stands in its namespace, as of a revision: the one put before it, and how many are older. */
export interface Joined {
  readonly revision: Revision;
  readonly ahead: { readonly key: Uint8Array; readonly count: number } | null;
}

export interface Store {
  readonly namespace: string;
  readonly caps: Caps;
  readonly native?: NativeRecipes;
  /**
   * Atomic, one round trip.
   * @throws TIMEOUT, NO_QUORUM (may have happened; safe to retry: with a claim it happens once)
   * @throws KEY_TOO_LARGE, VALUE_TOO_LARGE, TXN_TOO_LARGE, NOT_A_NUMBER, SESSION_EXPIRED, COMPACTED (did not happen)
   */
  txn(txn: Txn, options?: CallOptions): Promise<TxnResult>;
  /** A new session. Recipes share one per process and TTL; see `sharedSession`. */
  session(options?: SessionOptions): Promise<Session>;
  /** The process's session of this TTL (and `maxStallMs`), opened on first use and opened anew once lost. Never closed by a recipe. */
  sharedSession(options?: SessionOptions): Promise<Session>;
  /** The same where it is open already: nothing to wait for. Left out: the engine cannot tell. */
  sharedSessionIfOpen?(options: SessionOptions): Session | undefined;
  /** Ends when the signal aborts (quietly) or the engine closes. */
  watch(range: KeyRange, options?: WatchOptions): AsyncIterable<WatchBatch>;
  /** The clock by which the engine's sessions and waits are judged. */
  readonly platform: import("../base/ports.ts").Platform;
}

export interface NamespacesOptions extends CallOptions {
  /** Only names that begin so. Default: all. */
  readonly prefix?: string;
  /** Only names behind this one: the last of the answer before. */
  readonly after?: string;
  /** How many at most, 1-1_000. Default 100. */
  readonly limit?: number;
}

/** One system behind the waist. */
export interface Engine extends AsyncDisposable {
  readonly caps: Caps;
  /** An order of its own on engines that shard; a key prefix on the embedded one. Any text without U+0000. */
  store(namespace: string): Store;
  /**
   * Names of namespaces that hold a key, in the order of their bytes: where an operator begins to look. No state of one
   * moment: names may come and go while it reads. Left out: the engine cannot list them. @throws INVALID_OPTION
   */
  namespaces?(options?: NamespacesOptions): Promise<readonly string[]>;
  /** Looks at how the system behind is set up. Left out: there is nothing that could weaken what `caps` says. */
  doctor?(options?: CallOptions): Promise<readonly Finding[]>;
  /** Sessions end, calls in flight fail with CLOSED. Idempotent. */
  close(): Promise<void>;
}

/**
 * The smaller profile, for stores that only compare and set (Cassandra, PBFT): no sessions, no watch, one key at a time.
 * Expiry is by observation: a contender takes over what it saw unchanged for a whole TTL of its own clock.
 */
export interface CasStore {
  readonly namespace: string;
  readonly caps: Caps;
  get(key: Key, options?: CallOptions): Promise<CasEntry | null>;
  /** `expected: null`: only if absent. Answers what is there now, and whether this call put it there. */
  compareAndSet(
    change: { readonly key: Key; readonly expected: Revision | null; readonly value: Value | null },
    options?: CallOptions,
  ): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }>;
  /** In key order. */
  range(range: KeyRange, options?: CallOptions & { readonly limit?: number }): Promise<readonly CasEntry[]>;
}

export interface CasEntry {
  readonly key: string;
  readonly value: Uint8Array;
  /** Changes with each write of the key, and never repeats for it. */
  readonly revision: Revision;
}
