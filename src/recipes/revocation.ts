/**
 * A request to yield, from anybody to whoever holds: a word at the door, not a hand on the collar.
 *
 * One key for each lock, in a namespace beside it: the latest request replaces the one before, and names the place that
 * it means, so that it says nothing to the next holder. Source: Apache Curator's Revocable locks, without their thread.
 */
import { assert } from "../base/assert.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { insist } from "./insist.ts";
import { decodeMetadata } from "./metadata.ts";
import type { StoreSource } from "./options.ts";

export interface YieldRequest {
  /** The key of the place that is meant. */
  readonly place: string;
  readonly reason: string;
}

/** A store that most locks never need, made on first use. */
export type Revocations = () => Store;

const requestKey = "request";
const lastWordMs = 2_000;

/** Where the requests to the holders of this store's queue lie. */
export function revocationsOf(engine: StoreSource, queue: Store): Revocations {
  let store: Store | undefined;
  return () => {
    store ??= engine.store(`revoke/${queue.namespace}`);
    return store;
  };
}

export async function askToYield(revocations: Store, request: YieldRequest, options: CallOptions): Promise<void> {
  await revocations.txn({ then: [{ kind: "put", key: requestKey, value: JSON.stringify(request) }] }, options);
}

/** The reason, once somebody asks this place to yield; null when the signal aborts first. */
export async function whenAskedToYield(revocations: Store, place: string, signal: AbortSignal): Promise<string | null> {
  const { platform } = revocations;
  try {
    for (;;) {
      const { request, revision } = await insist(() => read(revocations, { signal }), { platform, signal, ref: false });
      if (request?.place === place) return request.reason;
      for await (const batch of revocations.watch({ key: requestKey }, { from: revision + 1, signal })) {
        if (batch.kind === "resync" || batch.events.length > 0) break;
      }
      if (signal.aborted) return null;
    }
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}

/** What was last said to this place; null: nothing, or no answer. */
export async function lastRequestTo(revocations: Store, place: string): Promise<string | null> {
  try {
    const { request } = await read(revocations, { timeoutMs: lastWordMs });
    return request?.place === place ? request.reason : null;
  } catch {
    return null;
  }
}

async function read(
  revocations: Store,
  options: CallOptions,
): Promise<{ readonly request: YieldRequest | null; readonly revision: number }> {
  const { results, revision } = await revocations.txn({ then: [{ kind: "get", key: requestKey }] }, options);
  const [found] = results;
  assert(found?.kind === "get", "a get is answered with an entry or null");
  return { request: found.entry === null ? null : (decodeMetadata(found.entry.value) as YieldRequest), revision };
}
