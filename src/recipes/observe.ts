/**
 * The state of a range, at once and after every change, for whoever waits until something is true of it.
 *
 * Intuition: looking out of the window whenever there is a noise. The noise is the watch; what is true is only ever read
 * from the store, so a push that is lost, doubled or merged costs a look and no mistake.
 * Level-triggered: states in between may be missed, the present one may not.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { KeyRange, Revision, Store } from "../store/store.ts";
import { Bell, sleep } from "./bell.ts";
import { insist } from "./insist.ts";
import { pollMs } from "./key-watch.ts";

export interface RangeState {
  readonly revision: Revision;
  readonly entries: readonly Entry[];
  /** All keys of the range, also beyond the limit. */
  readonly count: number;
}

export interface ObserveOptions {
  readonly range: KeyRange;
  /** Default `key`. */
  readonly order?: "key" | "create";
  /** How many entries at most. Default: all. */
  readonly limit?: number;
  readonly keysOnly?: boolean;
  /** Ends the loop by its reason. */
  readonly signal: AbortSignal;
}

/** Without news a look is due all the same: a push may be lost. */
const lookEveryMs = 5_000;
/** One after another, changes of one moment make one look. */
const settleMs = 5;

/** Never ends by itself; rejects with the signal's reason. */
export async function* observeRange(store: Store, options: ObserveOptions): AsyncGenerator<RangeState, never, void> {
  const { range, order, limit, keysOnly, signal } = options;
  const op = {
    kind: "range",
    range,
    ...(order === undefined ? {} : { order }),
    ...(limit === undefined ? {} : { limit }),
    ...(keysOnly === undefined ? {} : { keysOnly }),
  } as const;
  const { platform, caps } = store;
  for (;;) {
    const { results, revision } = await insist(() => store.txn({ then: [op] }, { signal }), { platform, signal });
    const [listed] = results;
    assert(listed?.kind === "range", "a range is answered with entries");
    yield { revision, entries: listed.entries, count: listed.count };
    const bell = new Bell<true>();
    const watch = linkSignal(signal);
    try {
      if (caps.watch !== "none") {
        background(ringOnChange(store, { range, from: revision + 1, bell, signal: watch.signal }), "the watch on a range");
      }
      await bell.wait({ platform, timeoutMs: caps.watch === "none" ? pollMs : lookEveryMs, signal });
    } finally {
      watch.abort();
      watch.unlink();
    }
  }
}

/** The first state of which it is true. Rejects with the signal's reason. */
export async function untilRange(
  store: Store,
  options: ObserveOptions,
  isTrue: (state: RangeState) => boolean,
): Promise<RangeState> {
  for await (const state of observeRange(store, options)) {
    if (isTrue(state)) return state;
  }
  throw new Error("unreachable: the loop above has no end");
}

async function ringOnChange(
  store: Store,
  {
    range,
    from,
    bell,
    signal,
  }: { readonly range: KeyRange; readonly from: Revision; readonly bell: Bell<true>; readonly signal: AbortSignal },
): Promise<void> {
  let timeoutMs = settleMs;
  try {
    for await (const batch of store.watch(range, { from, signal })) {
      if (batch.kind === "resync" || batch.events.length > 0) break;
    }
  } catch {
    // What is wrong shows in the look that follows.
    timeoutMs = pollMs;
  }
  await sleep({ platform: store.platform, timeoutMs, signal, ref: false }).catch(() => undefined);
  if (!signal.aborted) bell.ring(true);
}
