/**
 * Barging: whoever asks at the right moment gets it, instead of whoever came first.
 *
 * Intuition: a counter without numbered tickets. A process that is awake takes the next turn without the way to one that
 * sleeps, so a hot lock changes hands more often; in return nobody is promised a turn, and each release wakes all who barge.
 * Nobody stands in the queue, so barging contenders never overtake one who does: both kinds share a lock in peace.
 * Tokens rise all the same: a token is the revision of the txn that found the line empty.
 * Source: java.util.concurrent's unfair locks; the convoys that strict order makes are in Gray's and Blasgen's notes, 1979.
 */
import { background } from "../base/background.ts";
import { utf8Encode } from "../base/bytes.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Store } from "../store/store.ts";
import { Bell } from "./bell.ts";
import type { Contender } from "./campaign.ts";
import { pollMs, watchForEnd } from "./key-watch.ts";

/** Until the one in the way has gone, as far as one is told; rejects with the signal's reason. */
export async function whenWorthATry(
  store: Store,
  { inTheWay, ttlMs, signal }: { readonly inTheWay: Contender; readonly ttlMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const { caps, platform } = store;
  const bell = new Bell<true>();
  const link = linkSignal(signal);
  try {
    if (caps.watch !== "none") {
      const { key, createRevision } = inTheWay;
      const watched = watchForEnd(store, { key: utf8Encode(key), from: createRevision + 1, signal: link.signal });
      background(
        watched.then(() => bell.ring(true)),
        "the watch on who is in the way",
      );
    }
    const jitter = 0.5 + platform.randomUint32() / 2 ** 33;
    await bell.wait({ platform, timeoutMs: caps.watch === "none" ? pollMs * jitter : ttlMs / 3, signal });
  } finally {
    link.abort();
    link.unlink();
  }
}
