/**
 * Lock-delay: after a holder was lost, the next one waits a while, so that what the lost one still sends arrives first.
 *
 * Intuition: after a crash the road stays closed until the dust has settled. A holder leaves a note when its turn comes and
 * takes it along when it releases; whoever finds somebody else's note waits as long as the note says, by its own clock and
 * from the moment of finding it, so never too short. One key for each lock, in a namespace beside it.
 *
 * Costs a round trip at each turn and one at each release, for those who ask for it; everybody who shares the lock must.
 * Makes late writes rarer, and impossible none of them: only a token or a guard does. Source: Chubby, OSDI 2006, section 2.4.
 */
import { assert } from "../base/assert.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { sleep } from "./bell.ts";
import { insist } from "./insist.ts";
import { decodeMetadata } from "./metadata.ts";
import type { StoreSource } from "./options.ts";
import type { Place } from "./place-claim.ts";

interface Note {
  readonly place: string;
  readonly delayMs: number;
}

const noteKey = "holder";
const answerMs = 5_000;

export class LockDelay {
  readonly #notes: Store;
  readonly #delayMs: number;

  constructor(engine: StoreSource, { queue, delayMs }: { readonly queue: Store; readonly delayMs: number }) {
    this.#notes = engine.store(`lock-delay/${queue.namespace}`);
    this.#delayMs = delayMs;
  }

  /**
   * Waits while a lost holder's time runs, then leaves a note of its own. With `mayWait` false it answers false where there
   * is something to wait for. Rejects with the signal's reason.
   */
  async begin(place: Place, { mayWait, signal }: { readonly mayWait: boolean; readonly signal: AbortSignal }): Promise<boolean> {
    const { platform } = this.#notes;
    const left = await insist(() => this.#read({ signal, timeoutMs: answerMs }), { platform, signal });
    if (left !== null && left.place !== place.key) {
      if (!mayWait) return false;
      await sleep({ platform, timeoutMs: left.delayMs, signal });
    }
    const value = JSON.stringify({ place: place.key, delayMs: this.#delayMs } satisfies Note);
    const write = (): Promise<unknown> =>
      this.#notes.txn({ then: [{ kind: "put", key: noteKey, value }] }, { signal, timeoutMs: answerMs });
    await insist(write, { platform, signal });
    return true;
  }

  /** Takes the note along. Where the store does not answer it stays, and the next holder waits for nothing. */
  async end(place: Place): Promise<void> {
    const value = JSON.stringify({ place: place.key, delayMs: this.#delayMs } satisfies Note);
    try {
      await this.#notes.txn(
        {
          if: [{ key: noteKey, target: "value", is: "equal", to: value }],
          then: [{ kind: "delete", range: { key: noteKey } }],
        },
        { timeoutMs: answerMs },
      );
    } catch {
      // A wait too many does no harm.
    }
  }

  async #read(options: CallOptions): Promise<Note | null> {
    const { results } = await this.#notes.txn({ then: [{ kind: "get", key: noteKey }] }, options);
    const [found] = results;
    assert(found?.kind === "get", "a get is answered with an entry or null");
    return found.entry === null ? null : (decodeMetadata(found.entry.value) as Note);
  }
}
