/**
 * Publish and subscribe: messages in one order, told to everybody who listens, with the last ones kept.
 *
 * Intuition: a notice board with room for so many notes. Who looks often sees every note; who was away too long sees that
 * some are gone. A subscriber is told of such a gap: it never happens in silence.
 *
 *   m/session/number   a message            in create order
 *   gone               the create revision of the newest message that was taken down
 *
 * Messages are kept for late subscribers, not for slow ones without end: this is no broker.
 */
import { assert } from "../base/assert.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Op, Revision, Store } from "../store/store.ts";
import { insist } from "./insist.ts";
import { decodeMetadata, encodeMetadata } from "./metadata.ts";
import { observeRange } from "./observe.ts";
import { checkCount, checkName, type StoreSource } from "./options.ts";

export interface TopicOptions {
  /** How many messages are kept. Default 1_000. The publisher that finds more takes the oldest down. */
  readonly keep?: number;
}

export type TopicNews =
  | { readonly kind: "message"; readonly payload: unknown; readonly revision: Revision }
  /** Messages after this subscriber's last one were taken down before it looked. Read the truth elsewhere. */
  | { readonly kind: "gap"; readonly revision: Revision };

/** @since 0.2.0 */
export const topicDefaults = { keep: 1_000 } as const;

const messages = { prefix: "m/" } as const;
const gone = "gone";
/** How many old messages one publisher takes down at once. */
const takeDownMax = 64;

/** Makes the handle of a topic; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createTopic(engine: StoreSource, name: string, options: TopicOptions = {}): Topic {
  checkName(name, "topic");
  const keep = options.keep ?? topicDefaults.keep;
  checkCount(keep, "keep");
  return new Topic(engine.store(`topic/${name}`), name, keep);
}

/** @since 0.2.0 */
export class Topic {
  readonly name: string;
  readonly keep: number;
  readonly #store: Store;

  /** Use `createTopic`, which checks the options. */
  constructor(store: Store, name: string, keep: number) {
    this.#store = store;
    this.name = name;
    this.keep = keep;
  }

  /**
   * Puts a message up; answers with its revision. One round trip, and one more now and then to take old ones down.
   * Once, also where an answer is lost and it is asked again; except where `keep` others came in between, took it down, and the
   * store keeps no claims (`Caps.claims`): then it is put up a second time.
   * @param payload Anything that JSON can carry. @throws TIMEOUT (may have happened), INVALID_OPTION
   */
  async publish(payload: unknown, options: CallOptions = {}): Promise<Revision> {
    const { platform } = this.#store;
    const value = encodeMetadata(payload, "payload");
    const key = `${messages.prefix}${platform.randomUint32()}/${platform.randomUint32()}`;
    const link = linkSignal(options.signal);
    try {
      const { revision, results, succeeded } = await insist(
        () =>
          this.#store.txn(
            {
              // By its key, a message is put once however often the call is sent, as long as it is up.
              if: [{ key, target: "exists", is: "equal", to: false }],
              then: [
                { kind: "put", key, value },
                { kind: "range", range: messages, order: "create", limit: takeDownMax, keysOnly: true },
              ],
              else: [{ kind: "get", key }],
            },
            { ...options, signal: link.signal },
          ),
        { platform, signal: link.signal },
      );
      const [first, listed] = results;
      if (!succeeded) {
        assert(first?.kind === "get", "a get is answered with an entry or null");
        return first.entry?.createRevision ?? revision;
      }
      assert(listed?.kind === "range", "a range is answered with entries");
      // Not at every message: half a board at a time where the board is small.
      const excess = listed.count - this.keep;
      if (excess >= Math.min(takeDownMax, Math.max(1, this.keep / 2))) await this.#takeDown(listed.entries.slice(0, excess));
      return revision;
    } finally {
      link.unlink();
    }
  }

  /**
   * Every message from `after` on, in order, until the signal aborts or the loop is left.
   * @param options.after The revision of the last message already seen. Default: only what is published from now on.
   */
  async *subscribe({
    after,
    signal,
  }: {
    readonly after?: Revision;
    readonly signal?: AbortSignal;
  } = {}): AsyncGenerator<TopicNews, void, void> {
    const link = linkSignal(signal);
    let seen = after;
    try {
      const range = { prefix: "" } as const;
      for await (const { entries, revision } of observeRange(this.#store, { range, order: "create", signal: link.signal })) {
        if (seen === undefined) {
          seen = revision;
          continue;
        }
        const takenDown = Number(entries.find(({ key }) => key === gone)?.text ?? 0);
        if (takenDown > seen) {
          seen = takenDown;
          yield { kind: "gap", revision: takenDown };
        }
        for (const entry of entries) {
          if (entry.key === gone || entry.createRevision <= seen) continue;
          seen = entry.createRevision;
          yield { kind: "message", payload: decodeMetadata(entry.value), revision: entry.createRevision };
        }
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.abort();
      link.unlink();
    }
  }

  /** All or none: another publisher may be at the same ones. */
  async #takeDown(old: readonly Entry[]): Promise<void> {
    const newest = old.at(-1);
    if (newest === undefined) return;
    const deletions = old.map(({ key }): Op => ({ kind: "delete", range: { key } }));
    try {
      await this.#store.txn({
        if: [{ key: newest.key, target: "createRevision", is: "equal", to: newest.createRevision }],
        then: [{ kind: "put", key: gone, value: String(newest.createRevision) }, ...deletions],
      });
    } catch {
      // The next publisher finds them.
    }
  }
}
