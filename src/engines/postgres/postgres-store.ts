/**
 * A namespace on PostgreSQL: each txn is one call of one function, one round trip.
 */
import { type ConclaveError, conclaveError } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { FeedHub } from "../../client/feed-hub.ts";
import type { LeaseSessions } from "../../client/lease-sessions.ts";
import type { Caps } from "../../store/caps.ts";
import { checkTtl, readsOlderState } from "../../store/command.ts";
import { namespacePrefix, wholeRange } from "../../store/key.ts";
import { resolveTxn } from "../../store/resolve.ts";
import { checkMaxStall } from "../../store/stall.ts";
import type {
  CallOptions,
  KeyRange,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../../store/store.ts";
import type { FunctionCaller } from "./function-caller.ts";

export const timeoutMsDefault = 10_000;
export const ttlMsDefault = 15_000;

export interface PostgresStoreOptions {
  readonly namespace: string;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly caller: FunctionCaller;
  readonly sessions: LeaseSessions;
  readonly hub: FeedHub;
}

export class PostgresStore implements Store {
  readonly namespace: string;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly #options: PostgresStoreOptions;

  constructor(options: PostgresStoreOptions) {
    this.namespace = options.namespace;
    this.caps = options.caps;
    this.platform = options.platform;
    this.#options = options;
  }

  async txn(txn: Txn, { signal, timeoutMs = timeoutMsDefault }: CallOptions = {}): Promise<TxnResult> {
    signal?.throwIfAborted();
    if (txn.claim !== undefined) throw unsupported("claims");
    const resolved = resolveTxn(this.namespace, txn, this.caps.limits);
    if (readsOlderState(resolved)) throw unsupported("older revisions");
    return this.#options.caller.txn(resolved, { signal, timeoutMs });
  }

  async session(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#options.sessions.open(this.#ttlMsOf(options), options);
  }

  async sharedSession(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#options.sessions.shared(this.#ttlMsOf(options), options);
  }

  watch(range: KeyRange, { from, signal, namespace = this.namespace }: WatchOptions = {}): AsyncIterable<WatchBatch> {
    const prefix = namespacePrefix(namespace);
    return this.#options.hub.watch(prefix.slice(0, -1), { range: wholeRange(prefix, range, this.caps.limits), from, signal });
  }

  #ttlMsOf({ maxStallMs, ttlMs = Math.min(ttlMsDefault, this.caps.limits.ttlMsMax) }: SessionOptions): number {
    checkTtl(ttlMs, this.caps.limits);
    checkMaxStall(maxStallMs, this.caps);
    return ttlMs;
  }
}

function unsupported(what: string): ConclaveError {
  return conclaveError("UNSUPPORTED", `PostgreSQL keeps no ${what}.`);
}
