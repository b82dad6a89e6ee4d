/**
 * The front door: `connect`, and what it gives.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "./base/errors.ts";
import type { ConclaveEvent } from "./base/event.ts";
import type { Telemetry } from "./base/ports.ts";
import { checkProtocolName, type ProtocolName } from "./base/protocol-name.ts";
import { isCassandraScheme } from "./engines/cassandra/address.ts";
import { connectCluster } from "./engines/embedded/cluster-engine.ts";
import { openInProcess } from "./engines/embedded/in-process-engine.ts";
import { notSupported } from "./engines/pbft/connect-pbft.ts";
import { isPostgresScheme } from "./engines/postgres/address.ts";
import { isRedisScheme } from "./engines/redis/address.ts";
import { isZkScheme } from "./engines/zookeeper/address.ts";
import { createPartitions, type Partitions, type PartitionsOptions } from "./partitions/partitions.ts";
import {
  type Barrier,
  createBarrier,
  createDoubleBarrier,
  type DoubleBarrier,
  type DoubleBarrierOptions,
} from "./recipes/barrier.ts";
import { type Config, type ConfigOptions, createConfig } from "./recipes/config.ts";
import {
  type Counter,
  type CounterOptions,
  createCounter,
  createSequence,
  type Sequence,
  type SequenceOptions,
} from "./recipes/counter.ts";
import { createElection, type Election, type ElectionOptions } from "./recipes/election.ts";
import { KeyValue } from "./recipes/key-value.ts";
import { createLatch, type Latch, type LatchOptions } from "./recipes/latch.ts";
import { createLock, type Lock, type LockOptions } from "./recipes/lock.ts";
import { type LockNamesOptions, lockNames } from "./recipes/lock-names.ts";
import { createLockSet, type LockSet } from "./recipes/lock-set.ts";
import { createMembership, type Membership, type MembershipOptions } from "./recipes/membership.ts";
import { createQueue, type QueueOptions, type WorkQueue } from "./recipes/queue.ts";
import { createRunOnce, type RunOnce, type RunOnceOptions } from "./recipes/run-once.ts";
import { createReadWriteLock, type ReadWriteLock } from "./recipes/rw-lock.ts";
import { createSemaphore, type Semaphore, type SemaphoreOptions } from "./recipes/semaphore.ts";
import { createTopic, type Topic, type TopicOptions } from "./recipes/topic.ts";
import type { Caps } from "./store/caps.ts";
import type { Engine } from "./store/store.ts";

export type { ErrorCode } from "./base/error-table.ts";
export { ConclaveError, ConflictError, CorruptionError, LostError, UnavailableError, UsageError } from "./base/errors.ts";
export type { ConclaveEvent } from "./base/event.ts";
export type { ProtocolName } from "./base/protocol-name.ts";
export {
  CassandraConnection,
  type ConnectCassandraOptions,
  connectCassandra,
} from "./engines/cassandra/cassandra-connection.ts";
export { type ClusterFile, readClusterFile } from "./engines/pbft/cluster-file.ts";
export { type ConnectPbftOptions, connectPbft, type PbftConnection } from "./engines/pbft/connect-pbft.ts";
export { generateKey, type KeyFile, readKeyFile } from "./engines/pbft/keys.ts";
export type { Migrate, Migration } from "./partitions/migration.ts";
export { Partitions, type PartitionsOptions } from "./partitions/partitions.ts";
export type { PartitionPlan, PlannedMove } from "./partitions/plan.ts";
export type { Shard } from "./partitions/shard.ts";
export { Barrier, DoubleBarrier, type DoubleBarrierMember, type DoubleBarrierOptions } from "./recipes/barrier.ts";
export { CasCounter } from "./recipes/cas-counter.ts";
export { CasElection, type CasLeader } from "./recipes/cas-election.ts";
export { CasHold } from "./recipes/cas-hold.ts";
export { CasLock, type CasLockOptions, type CasSource } from "./recipes/cas-lock.ts";
export { Config, type ConfigOptions, type ConfigState } from "./recipes/config.ts";
export { Counter, type CounterOptions, Sequence, type SequenceOptions } from "./recipes/counter.ts";
export { Election, Term } from "./recipes/election.ts";
export { Hold } from "./recipes/hold.ts";
export { KeyValue } from "./recipes/key-value.ts";
export { Latch, type LatchOptions } from "./recipes/latch.ts";
export { type AcquireOptions, Lock, type LockOptions } from "./recipes/lock.ts";
export type { LockNamesOptions } from "./recipes/lock-names.ts";
export { HoldSet, LockSet } from "./recipes/lock-set.ts";
export { type Member, Membership, type MembershipOptions, OwnMember } from "./recipes/membership.ts";
export { Delivery, type QueueOptions, WorkQueue } from "./recipes/queue.ts";
export { RunOnce, type RunOnceOptions, type RunOnceOutcome } from "./recipes/run-once.ts";
export { ReadWriteLock, WriteLock } from "./recipes/rw-lock.ts";
export { type AcquirePermitsOptions, Semaphore, type SemaphoreOptions } from "./recipes/semaphore.ts";
export { Topic, type TopicNews, type TopicOptions } from "./recipes/topic.ts";
export { op, when } from "./recipes/when.ts";
export type { Caps, Limits } from "./store/caps.ts";
export type { Entry } from "./store/entry.ts";
export type { Finding } from "./store/finding.ts";
export type {
  CallOptions,
  CasStore,
  Claim,
  Compare,
  Engine,
  Key,
  KeyRange,
  NamespacesOptions,
  Op,
  OpResult,
  Revision,
  Session,
  SessionId,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  Value,
  WatchBatch,
  WatchEvent,
  WatchOptions,
} from "./store/store.ts";

export interface ConnectOptions {
  /** See `connect`. */
  readonly url: string;
  /**
   * How the members agree. `memory:` and `file:` start with it, for good: a directory keeps its protocol. For `conclave://`
   * it is what the cluster must run. Default: that of the directory or cluster; "raft" where there is none yet.
   */
  readonly protocol?: ProtocolName;
  /** Refuse to talk to any other cluster. Only for `conclave://`. Default: whichever answers. */
  readonly cluster?: string;
  /** Shown to the members; what it means is theirs to say. Only for `conclave://`. Default: none. */
  readonly credential?: string | Uint8Array;
  /**
   * A client of your own, connected, recognised by its methods: `@redis/client`, or ioredis with
   * `autoResendUnfulfilledCommands: false`, for `redis:`; a `Client` of `@grpc/grpc-js` for `etcd:`; a Pool of `pg` for
   * `postgres:`. Closing stays yours. Default: our own connection.
   */
  readonly client?: unknown;
  /**
   * Certificates and the like, as Node's `tls.connect` takes them. For `rediss://`, `etcds://`, `zookeepers://`, `postgres://`.
   * Default: the system's.
   */
  readonly tls?: TlsOptions;
  /** How long the first answer may take. Not for `memory:` and `file:`. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  /** Gives up waiting for it; rejects with its reason. Does nothing to what is connected. Only for `conclave://`. */
  readonly signal?: AbortSignal;
  /** Told of everything that happens. Default: nobody. */
  readonly onEvent?: (event: ConclaveEvent) => void;
}

/**
 * Opens a store and everything that stands on it.
 *
 * - `memory:` lives in this process and ends with it.
 * - `file:./data` lives in this process and on this disk; the directory belongs to one process at a time.
 * - `conclave://a:7400,b:7400,c:7400` is a cluster of `conclave serve`; any member that answers is enough.
 * - `redis://host:6379`, `rediss://` (TLS), `redis+sentinel://a,b,c/NAME`, `redis+cluster://a,b,c`: Redis 7 or Valkey.
 * - `etcd://a:2379,b:2379,c:2379`, `etcds://` (TLS): etcd 3.4 or newer, through `@grpc/grpc-js`.
 * - `postgres://user:password@host:5432/database`: PostgreSQL 12 or newer, by the package `pg`.
 * - `zookeeper://a:2181,b:2181,c:2181/CHROOT` or `zk://`, `zookeepers://` (TLS): ZooKeeper 3.6 or newer.
 *
 * ```ts
 * import { connect } from "conclave";
 *
 * const conclave = await connect("memory:");
 * await conclave.lock("invoice/42").run(async (hold) => {
 *   console.log(`one at a time, with token ${hold.token}`);
 * });
 * await conclave.close();
 * ```
 * @throws UNKNOWN_SCHEME, INVALID_OPTION (nothing was opened)
 * @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED
 * @throws CONNECTION_REFUSED, WRONG_CLUSTER, WRONG_PROTOCOL, OTHER_PROTOCOL, UNAUTHORIZED (no member could be reached)
 * @throws TLS_FAILED, READ_ONLY, UNSUPPORTED, TIMEOUT (what the server of another engine is not, or not yet)
 * @since 0.1.0
 */
export async function connect(where: string | ConnectOptions): Promise<Conclave> {
  const options: ConnectOptions = typeof where === "string" ? { url: where } : where;
  return new Conclave(await openEngine(options));
}

/** A connection: recipes by name, and the store below them. */
export class Conclave implements AsyncDisposable {
  /** The engine below, for recipes of your own. */
  readonly engine: Engine;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** What this engine promises, on what condition. */
  get caps(): Caps {
    return this.engine.caps;
  }

  /** Keys and values under a namespace of their own. Default namespace: "default". */
  store(namespace = "default"): KeyValue {
    return new KeyValue(this.engine.store(namespace));
  }

  /** A lock by name: any text without U+0000. Everyone who names it shares it. */
  lock(name: string, options?: LockOptions): Lock {
    return createLock(this.engine, name, options);
  }

  /** Several locks at once, by the same names as `lock`: all or none. */
  locks(names: readonly string[], options?: LockOptions): LockSet {
    return createLockSet(this.engine, names, options);
  }

  /**
   * Names of locks (or of read/write locks) that somebody holds or waits for, as they are read.
   * @throws UNSUPPORTED
   */
  lockNames(options?: LockNamesOptions): AsyncGenerator<string, void, void> {
    return lockNames(this.engine, options);
  }

  /** A read/write lock by name: many readers or one writer, in the order of asking. */
  readWriteLock(name: string, options?: LockOptions): ReadWriteLock {
    return createReadWriteLock(this.engine, name, options);
  }

  /** A semaphore by name: at most so many permits at once. */
  semaphore(name: string, options: SemaphoreOptions): Semaphore {
    return createSemaphore(this.engine, name, options);
  }

  /** A gate by name, that somebody closes and opens. */
  barrier(name: string): Barrier {
    return createBarrier(this.engine, name);
  }

  /** A double barrier by name: a party that starts together and ends together. */
  doubleBarrier(name: string, options: DoubleBarrierOptions): DoubleBarrier {
    return createDoubleBarrier(this.engine, name, options);
  }

  /** A latch by name: opens after so many different reports. */
  latch(name: string, options: LatchOptions): Latch {
    return createLatch(this.engine, name, options);
  }

  /** A counter by name. */
  counter(name: string, options?: CounterOptions): Counter {
    return createCounter(this.engine, name, options);
  }

  /** Numbers by name, each given out once. */
  sequence(name: string, options?: SequenceOptions): Sequence {
    return createSequence(this.engine, name, options);
  }

  /** A shared value by name, changed only where nobody else has changed it, and followed. */
  config<T>(name: string, options?: ConfigOptions<T>): Config<T> {
    return createConfig(this.engine, name, options);
  }

  /**
   * Equal parts of the keys, each held by one member at a time, evenly, moved one by one as members come and go.
   * @throws INVALID_OPTION
   */
  partitions(name: string, options?: PartitionsOptions): Partitions {
    return createPartitions(this.engine, name, options);
  }

  /** A group by name: who is here. */
  membership(name: string, options?: MembershipOptions): Membership {
    return createMembership(this.engine, name, options);
  }

  /** A bounded queue by name, whose items come back from consumers that die. */
  queue(name: string, options?: QueueOptions): WorkQueue {
    return createQueue(this.engine, name, options);
  }

  /** A topic by name: messages to everybody who listens. */
  topic(name: string, options?: TopicOptions): Topic {
    return createTopic(this.engine, name, options);
  }

  /** A job by name, of which each tick is run by one process. */
  runOnce(name: string, options?: RunOnceOptions): RunOnce {
    return createRunOnce(this.engine, name, options);
  }

  /** An election by name: one leader at a time, in terms. */
  election(name: string, options?: ElectionOptions): Election {
    return createElection(this.engine, name, options);
  }

  /** Sessions end, so locks pass on; calls in flight fail with CLOSED. Idempotent. */
  close(): Promise<void> {
    return this.engine.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function openEngine(options: ConnectOptions): Promise<Engine> {
  const { url, onEvent } = options;
  if (typeof url !== "string") throw conclaveError("INVALID_OPTION", "`url` must be a string.");
  const telemetry: Telemetry<ConclaveEvent> | undefined = onEvent === undefined ? undefined : { emit: onEvent };
  const observed = telemetry === undefined ? {} : { telemetry };
  const agreement = options.protocol === undefined ? {} : { protocol: checkProtocolName(options.protocol, "`protocol`") };
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase();
  const rest = url.slice((scheme?.length ?? 0) + 1);
  switch (scheme) {
    case "memory":
      if (rest !== "") throw conclaveError("INVALID_OPTION", `"${url}": memory: takes nothing after it.`);
      return openInProcess({ directory: undefined, ...agreement, ...observed });
    case "file":
      if (rest === "") throw conclaveError("INVALID_OPTION", `"${url}" names no directory.`);
      return openInProcess({ directory: directoryOf(rest), ...agreement, ...observed });
    case "conclave":
      return connectCluster({ ...options, ...observed });
    default:
      if (scheme !== undefined && isRedisScheme(scheme)) return openRedisLazily(options, observed);
      if (scheme === "etcd" || scheme === "etcds") return openEtcdLazily(options, observed);
      if (scheme !== undefined && isPostgresScheme(scheme)) return openPostgresLazily(options, observed);
      if (scheme !== undefined && isZkScheme(scheme)) return openZooKeeperLazily(options, observed);
      if (scheme !== undefined && isCassandraScheme(scheme))
        throw conclaveError(
          "UNSUPPORTED",
          "Cassandra only compares and sets: use connectCassandra(url), which gives locks, elections and counters.",
        );
      if (scheme === "conclave+pbft") throw notSupported("A connection with recipes");
      throw conclaveError("UNKNOWN_SCHEME", `"${url}" begins with no scheme that Conclave knows.`);
  }
}

/** Loaded on demand: who uses another engine does not pay for this one. */
async function openRedisLazily(options: ConnectOptions, observed: Observed): Promise<Engine> {
  const { openRedis } = await import("./engines/redis/redis-engine.ts");
  return openRedis(forServer(options, observed));
}

/** The same of etcd, and of `@grpc/grpc-js` with it. */
async function openEtcdLazily(options: ConnectOptions, observed: Observed): Promise<Engine> {
  const { openEtcd } = await import("./engines/etcd/etcd-engine.ts");
  return openEtcd(forServer(options, observed));
}

/** The same of PostgreSQL, and of `pg` with it. */
async function openPostgresLazily(options: ConnectOptions, observed: Observed): Promise<Engine> {
  const { openPostgres } = await import("./engines/postgres/postgres-engine.ts");
  return openPostgres(forServer(options, observed));
}

/** The same of ZooKeeper. */
async function openZooKeeperLazily(options: ConnectOptions, observed: Observed): Promise<Engine> {
  if (options.client !== undefined)
    throw conclaveError("INVALID_OPTION", "The ZooKeeper engine has a client of its own and takes none.");
  const { openZooKeeper } = await import("./engines/zookeeper/zk-engine.ts");
  return openZooKeeper(forServer(options, observed));
}

interface Observed {
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

/** What an engine on another system's server is told. */
function forServer(
  { url, timeoutMs, tls, client }: ConnectOptions,
  observed: Observed,
): Pick<ConnectOptions, "url" | "timeoutMs" | "tls" | "client"> & Observed {
  return {
    url,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(tls === undefined ? {} : { tls }),
    ...(client === undefined ? {} : { client }),
    ...observed,
  };
}

/** `file:./data`, `file:/var/lib/x`, `file:///var/lib/x`. */
function directoryOf(rest: string): string {
  return decodeURIComponent(rest.startsWith("//") ? rest.replace(/^\/\/(?:localhost)?/, "") : rest);
}
