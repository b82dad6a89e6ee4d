/**
 * The watch on one key until it is deleted: what a waiter looks at, and what a holder fears.
 */
import { utf8Encode } from "../base/bytes.ts";
import type { KeyRange, Revision, Store, WatchBatch } from "../store/store.ts";
import { sleep } from "./bell.ts";

/** Between looks where an engine cannot watch, and after a watch that failed. */
export const pollMs = 250;

/** `gone`: the watched key was deleted, at this revision where the engine tells every event. `turn`: nobody is ahead since. */
export type Wake =
  | { readonly kind: "turn"; readonly revision: Revision }
  | { readonly kind: "gone"; readonly key: Uint8Array; readonly revision: Revision | null }
  | { readonly kind: "look" };

/** True once the key was deleted by anybody; false when the signal aborts first, and where an engine cannot watch. */
export async function whenDeleted(
  store: Store,
  { key, from, signal }: { readonly key: string; readonly from: Revision; readonly signal: AbortSignal },
): Promise<boolean> {
  while (!signal.aborted && store.caps.watch !== "none") {
    const wake = await watchForEnd(store, { key: utf8Encode(key), from, signal });
    if (wake.kind === "gone") return true;
  }
  return false;
}

/** Watches one key until it is deleted. On any trouble, after a pause, it is a reason to look. */
export async function watchForEnd(
  store: Store,
  { key, from, signal }: { readonly key: Uint8Array; readonly from: Revision; readonly signal: AbortSignal },
): Promise<Wake> {
  const exact = store.caps.watch === "log";
  try {
    for await (const batch of store.watch({ key }, { from, signal })) {
      const end = endIn(batch);
      if (end !== undefined) return { kind: "gone", key, revision: exact ? end : null };
    }
  } catch {
    // What is wrong shows in the look that follows.
  }
  await sleep({ platform: store.platform, timeoutMs: pollMs, signal, ref: false }).catch(() => undefined);
  return { kind: "look" };
}

/**
 * Counts the departures of those who were ahead, on an engine that tells every event: `turn` at that of the last one.
 * `count` of them stood in the range, created before mine, when the state before `from` was read.
 */
export async function watchDepartures(
  store: Store,
  {
    range,
    count,
    createdBefore,
    from,
    signal,
  }: {
    readonly range: KeyRange;
    readonly count: number;
    readonly createdBefore: Revision;
    readonly from: Revision;
    readonly signal: AbortSignal;
  },
): Promise<Wake> {
  // By what was created when, so that an event told twice counts once.
  const departed = new Set<string>();
  try {
    for await (const batch of store.watch(range, { from, signal })) {
      if (batch.kind === "resync") return { kind: "look" };
      for (const event of batch.events) {
        if (event.kind === "delete" && event.previous.createRevision < createdBefore) departed.add(event.key);
        if (departed.size === count) return { kind: "turn", revision: event.revision };
      }
    }
  } catch {
    // What is wrong shows in the look that follows.
  }
  await sleep({ platform: store.platform, timeoutMs: pollMs, signal, ref: false }).catch(() => undefined);
  return { kind: "look" };
}

/** The revision at which the one watched key vanished, null where only its absence is told; undefined: it is there. */
function endIn(batch: WatchBatch): Revision | null | undefined {
  switch (batch.kind) {
    case "resync":
      return batch.entries.length === 0 ? null : undefined;
    case "changes":
      return batch.events.find((event) => event.kind === "delete")?.revision;
  }
}
