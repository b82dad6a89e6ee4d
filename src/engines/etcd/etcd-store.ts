/**
 * A namespace on etcd: each txn is one of etcd's where that can say it, else a reading and a guarded writing.
 */
import { type ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { Caps } from "../../store/caps.ts";
import { checkTtl, isReadOnly, type ResolvedTxn, type SessionNumber } from "../../store/command.ts";
import { namespacePrefix, wholeRange } from "../../store/key.ts";
import { resolveTxn } from "../../store/resolve.ts";
import { checkMaxStall } from "../../store/stall.ts";
import type {
  CallOptions,
  KeyRange,
  OpResult,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../../store/store.ts";
import { directTxnOf } from "./direct-txn.ts";
import type { EtcdSessions } from "./etcd-sessions.ts";
import type { EtcdKeys } from "./keys.ts";
import type { EtcdLink } from "./link.ts";
import { decodeTxn, type EtcdTxn, type EtcdTxnAnswer, encodeTxn, paths } from "./messages.ts";
import { runOptimistically } from "./optimistic-txn.ts";
import type { WatchStream } from "./watch-stream.ts";

export const timeoutMsDefault = 10_000;
const ttlMsDefault = 15_000;
const againMs = 20;

export interface EtcdParts {
  readonly caps: Caps;
  readonly platform: Platform;
  readonly link: EtcdLink;
  readonly keys: EtcdKeys;
  readonly sessions: EtcdSessions;
  readonly watches: WatchStream;
}

export class EtcdStore implements Store {
  readonly namespace: string;
  readonly #parts: EtcdParts;

  constructor(namespace: string, parts: EtcdParts) {
    this.namespace = namespace;
    this.#parts = parts;
  }

  get caps(): Caps {
    return this.#parts.caps;
  }

  get platform(): Platform {
    return this.#parts.platform;
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    options.signal?.throwIfAborted();
    if (txn.claim !== undefined) throw conclaveError("UNSUPPORTED", "etcd keeps no claims.");
    const resolved = resolveTxn(this.namespace, txn, this.caps.limits);
    try {
      return await runTxn(this.#parts, resolved, options);
    } catch (error) {
      // After the caller has heard why: then it knows a session that is over from a wait that is.
      if (hasCode(error, "SESSION_EXPIRED")) this.platform.defer(() => this.#parts.sessions.onGone(sessionsIn(resolved)));
      throw error;
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

  watch(range: KeyRange, { from, signal, namespace = this.namespace, ref = true }: WatchOptions = {}): AsyncIterable<WatchBatch> {
    const whole = wholeRange(namespacePrefix(namespace), range, this.caps.limits);
    return this.#parts.watches.watch(whole, { from, signal, ref });
  }

  #ttlMsOf({ maxStallMs, ttlMs = ttlMsDefault }: SessionOptions): number {
    checkTtl(ttlMs, this.caps.limits);
    checkMaxStall(maxStallMs, this.caps);
    return ttlMs;
  }
}

function sessionsIn({ then, else: otherwise }: ResolvedTxn): readonly SessionNumber[] {
  const named = [...then, ...otherwise].flatMap((op) => (op.kind === "put" && op.session !== null ? [op.session] : []));
  return [...new Set(named)];
}

/** A reading is asked again as long as there is time; what may write is the caller's to repeat. */
export async function runTxn(
  parts: Pick<EtcdParts, "caps" | "keys" | "link" | "platform">,
  txn: ResolvedTxn,
  { signal, timeoutMs = timeoutMsDefault }: CallOptions,
): Promise<TxnResult> {
  const { caps, keys, link, platform } = parts;
  const untilMs = platform.now() + timeoutMs;
  const send = async (request: EtcdTxn): Promise<EtcdTxnAnswer> => {
    const isReading = [...request.then, ...request.else].every((op) => op.kind === "range");
    for (;;) {
      try {
        const leftMs = untilMs - platform.now();
        // A reading that a sleeping member does not answer is asked of another one.
        const attemptMs = isReading && link.endpoints.length > 1 ? Math.max(500, leftMs / 3) : leftMs;
        return decodeTxn(await link.call(paths.txn, encodeTxn(request), { timeoutMs: Math.min(leftMs, attemptMs), signal }));
      } catch (error) {
        if (!isReading || !isWorthAnother(error) || platform.now() + againMs > untilMs) throw error;
        await new Promise<void>((resolve) => void platform.setTimer(againMs, resolve, { ref: true }));
      }
    }
  };
  const direct = directTxnOf(txn, keys);
  const isTimeUp = (): boolean => platform.now() > untilMs;
  const optimistic = { keys, limits: caps.limits, platform, send, isTimeUp };
  if (direct === undefined) return runOptimistically(txn, optimistic);
  const answer = await send(direct.request);
  const result = direct.decode(answer);
  if (result !== undefined) return result;
  if (isReadOnly(txn)) return runOptimistically(txn, optimistic);
  return withoutTies(txn, answer, { keys, send });
}

/**
 * It wrote, and at the edge of some limit stand keys that were created together: those ranges are read again, whole, as
 * they were at that revision. Assumes that no operation after such a range writes into it.
 */
async function withoutTies(
  txn: ResolvedTxn,
  answer: EtcdTxnAnswer,
  { keys, send }: { readonly keys: EtcdKeys; readonly send: (txn: EtcdTxn) => Promise<EtcdTxnAnswer> },
): Promise<TxnResult> {
  const branch = answer.succeeded ? txn.then : txn.else;
  const results: OpResult[] = [];
  let at = 0;
  for (const op of branch) {
    const one = directTxnOf({ ...txn, compares: [], then: [op], else: [] }, keys);
    const width = one?.request.then.length ?? 0;
    const part = { ...answer, succeeded: true, answers: answer.answers.slice(at, at + width) };
    at += width;
    let result = one?.decode(part)?.results[0];
    if (result === undefined && op.kind === "range") {
      const whole = directTxnOf(
        { ...txn, compares: [], then: [{ ...op, limit: null, atRevision: answer.revision }], else: [] },
        keys,
      );
      const found = whole?.decode(await send(whole.request))?.results[0];
      if (found?.kind === "range")
        result = {
          ...found,
          entries: found.entries.slice(0, op.limit ?? undefined),
          more: found.count > (op.limit ?? found.count),
        };
    }
    if (result === undefined) throw conclaveError("PROTOCOL", "etcd did not answer each operation.", { definite: false });
    results.push(result);
  }
  return { succeeded: answer.succeeded, revision: answer.revision, results };
}

function isWorthAnother(error: unknown): boolean {
  return ["CONNECTION_LOST", "NO_QUORUM", "TIMEOUT", "CONNECTION_REFUSED"].some((code) =>
    hasCode(error, code as ConclaveError["code"]),
  );
}
