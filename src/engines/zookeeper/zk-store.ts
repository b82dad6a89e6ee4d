/**
 * A namespace on ZooKeeper: see `zk-txn.ts` for what a txn costs.
 */
import { conclaveError } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import type { Caps } from "../../store/caps.ts";
import { checkTtl, readsOlderState } from "../../store/command.ts";
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
import { ZkQueue } from "./zk-queue.ts";
import type { ZkSessions } from "./zk-sessions.ts";
import { runZkTxn, type ZkTxnParts } from "./zk-txn.ts";
import type { ZkWatches } from "./zk-watches.ts";

const ttlMsDefault = 15_000;

export interface ZkStoreParts {
  readonly caps: Caps;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly sessions: ZkSessions;
  readonly watches: ZkWatches;
  readonly txns: ZkTxnParts;
}

export class ZkStore implements Store {
  readonly namespace: string;
  readonly #parts: ZkStoreParts;
  #native: ZkQueue | undefined;

  constructor(namespace: string, parts: ZkStoreParts) {
    this.namespace = namespace;
    this.#parts = parts;
  }

  get caps(): Caps {
    return this.#parts.caps;
  }

  get platform(): Platform {
    return this.#parts.platform;
  }

  get native(): NativeRecipes {
    const { processHold, txns } = this.#parts;
    this.#native ??= new ZkQueue({ store: this, namespace: namespacePrefix(this.namespace).slice(0, -1), txns, processHold });
    return this.#native;
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    const { processHold, txns } = this.#parts;
    options.signal?.throwIfAborted();
    if (txn.claim !== undefined) throw conclaveError("UNSUPPORTED", "ZooKeeper keeps no claims.");
    const resolved = resolveTxn(this.namespace, txn, this.caps.limits);
    if (readsOlderState(resolved))
      throw conclaveError("UNSUPPORTED", "ZooKeeper keeps the present state alone, no older revisions.");
    processHold.retain();
    try {
      return await runZkTxn(resolved, txns, options);
    } finally {
      processHold.release();
    }
  }

  async session(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#parts.sessions.open(this.#ttlMsOf(options), options);
  }

  async sharedSession(options: SessionOptions = {}): Promise<Session> {
    options.signal?.throwIfAborted();
    return this.#parts.sessions.shared(this.#ttlMsOf(options), options);
  }

  sharedSessionIfOpen(options: SessionOptions): Session | undefined {
    return this.#parts.sessions.sharedIfOpen(this.#ttlMsOf(options));
  }

  watch(range: KeyRange, { from, signal, namespace = this.namespace, ref = true }: WatchOptions = {}): AsyncIterable<WatchBatch> {
    const whole = wholeRange(namespacePrefix(namespace), range, this.caps.limits);
    return this.#parts.watches.watch(whole, { from, signal, ref });
  }

  #ttlMsOf({ maxStallMs, ttlMs = Math.min(ttlMsDefault, this.caps.limits.ttlMsMax) }: SessionOptions): number {
    checkTtl(ttlMs, this.caps.limits);
    checkMaxStall(maxStallMs, this.caps);
    return ttlMs;
  }
}
