/**
 * A namespace on Redis: each txn is one script, one round trip.
 */
import { type ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { FeedHub } from "../../client/feed-hub.ts";
import type { LeaseSessions } from "../../client/lease-sessions.ts";
import type { Caps } from "../../store/caps.ts";
import { checkTtl, isReadOnly, type ResolvedTxn, readsOlderState } from "../../store/command.ts";
import { namespacePrefix, wholeRange } from "../../store/key.ts";
import { resolveTxn } from "../../store/resolve.ts";
import { checkMaxStall } from "../../store/stall.ts";
import type {
  CallOptions,
  KeyRange,
  NativeRecipes,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../../store/store.ts";
import { redisLimits, timeoutMsDefault } from "./redis-caps.ts";
import { RedisQueue } from "./redis-queue.ts";
import type { Argument } from "./resp.ts";
import type { ScriptCaller } from "./script-caller.ts";
import { scripts } from "./scripts.ts";
import { decodeTxnReply, encodeTxn, puts } from "./txn-codec.ts";

export const ttlMsDefault = 15_000;
const againMs = 20;

export interface RedisStoreOptions {
  readonly namespace: string;
  /** See `namespacePrefix`. */
  readonly prefix: string;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly caller: ScriptCaller;
  readonly sessions: LeaseSessions;
  readonly hub: FeedHub;
}

export class RedisStore implements Store {
  readonly namespace: string;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly #options: RedisStoreOptions;
  #native: RedisQueue | undefined;

  constructor(options: RedisStoreOptions) {
    this.namespace = options.namespace;
    this.caps = options.caps;
    this.platform = options.platform;
    this.#options = options;
  }

  get native(): NativeRecipes {
    this.#native ??= new RedisQueue(this.#options.prefix, this.#options);
    return this.#native;
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    options.signal?.throwIfAborted();
    if (txn.claim !== undefined) throw unsupported("claims");
    const resolved = resolveTxn(this.namespace, txn, this.caps.limits);
    if (readsOlderState(resolved)) throw unsupported("older revisions");
    return runTxn(this.#options, resolved, options);
  }

  async session(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#options.sessions.open(this.#ttlMsOf(options), options);
  }

  async sharedSession(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#options.sessions.shared(this.#ttlMsOf(options), options);
  }

  sharedSessionIfOpen(options: SessionOptions): Session | undefined {
    return this.#options.sessions.sharedIfOpen(this.#ttlMsOf(options), options);
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

/**
 * A reading is asked again as long as there is time; what may write is the caller's to repeat.
 * `follows`: a subscription stands, and every later change of what is read must be told.
 */
export async function runTxn(
  { caller, platform, follows = false }: Pick<RedisStoreOptions, "caller" | "platform"> & { readonly follows?: boolean },
  txn: ResolvedTxn,
  { signal, timeoutMs = timeoutMsDefault }: CallOptions,
): Promise<TxnResult> {
  const reads = isReadOnly(txn);
  const script = puts(txn) ? scripts.txn : scripts.leanTxn;
  const args: readonly Argument[] = [redisLimits.resultBytesMax, follows ? 1 : 0, ...encodeTxn(txn)];
  const untilMs = platform.now() + timeoutMs;
  for (;;) {
    const call = { timeoutMs: untilMs - platform.now(), writes: !reads, ...(signal === undefined ? {} : { signal }) };
    try {
      return decodeTxnReply(txn, await caller.run(script, args, call));
    } catch (error) {
      const isWorthAnother = hasCode(error, "CONNECTION_LOST") && (reads || (error as ConclaveError).definite);
      if (!isWorthAnother || platform.now() + againMs > untilMs) throw error;
    }
  }
}

function unsupported(what: string): ConclaveError {
  return conclaveError("UNSUPPORTED", `Redis keeps no ${what}.`);
}
