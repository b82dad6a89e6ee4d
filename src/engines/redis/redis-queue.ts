/**
 * A queue's join and leave by their purpose-made scripts, without the way through a txn: what a lock does all day.
 *
 * What they leave is what a txn reads and what a txn would have left. Whatever is not plain (an unknown server, a session to
 * end, a long value) is answered null, with nothing done: the txn sees to it.
 */

import { utf8ToBinaryString } from "../../base/bytes.ts";
import type { FeedHub } from "../../client/feed-hub.ts";
import type { CallOptions, Joined, NativeRecipes, QueueWaiter, Revision, SessionId } from "../../store/store.ts";
import { redisLimits, timeoutMsDefault } from "./redis-caps.ts";
import type { Argument, Reply } from "./resp.ts";
import type { ScriptCaller } from "./script-caller.ts";
import { type Script, scripts } from "./scripts.ts";
import { bytesArgument, listOf, malformed, numberOf } from "./txn-codec.ts";

/** What contenders say about themselves is short. */
const valueLengthMax = 8_192;

export class RedisQueue implements NativeRecipes {
  readonly #caller: ScriptCaller;
  readonly #hub: FeedHub;
  readonly #prefix: string;
  /** The field of its cell. */
  readonly #cell: Argument;

  /** `prefix`: see `namespacePrefix`. */
  constructor(prefix: string, { caller, hub }: { readonly caller: ScriptCaller; readonly hub: FeedHub }) {
    this.#caller = caller;
    this.#hub = hub;
    this.#prefix = prefix;
    this.#cell = bytesArgument(`n${prefix.slice(0, -1)}`);
  }

  async joinQueue(
    { key, value, session }: { readonly key: string; readonly value: string; readonly session: SessionId },
    options: CallOptions,
  ): Promise<Joined | null> {
    if (!isPlain(key) || value.length > valueLengthMax || this.#prefix.length + key.length > redisLimits.keyBytesMax) return null;
    const reply = await this.#run(scripts.join, [this.#cell, key, `s${session}`, value], options);
    if (typeof reply === "number") return reply === 0 ? null : { revision: reply, ahead: null };
    const [revision, count, ahead] = listOf(reply);
    if (!(ahead instanceof Uint8Array)) throw malformed();
    // Copied: a view would keep the whole chunk of the socket alive.
    return { revision: numberOf(revision), ahead: { key: new Uint8Array(ahead), count: numberOf(count) - 1 } };
  }

  async leaveQueue(key: string, options: CallOptions): Promise<true | null> {
    if (!isPlain(key)) return null;
    return (await this.#run(scripts.drop, [this.#cell, key], options)) === 1 ? true : null;
  }

  countDepartures({ key, ...waiter }: QueueWaiter, onTurn: (revision: Revision | null) => void): () => void {
    const whole = this.#prefix + utf8ToBinaryString(key);
    return this.#hub.watchDepartures(this.#prefix.slice(0, -1), { ...waiter, whole, onTurn });
  }

  #run(script: Script, args: readonly Argument[], { signal, timeoutMs = timeoutMsDefault }: CallOptions): Promise<Reply> {
    return this.#caller.run(script, args, { timeoutMs, writes: true, signal });
  }
}

/** What a thin cell can hold: no spaces, no control characters; see `scripts.ts`. */
function isPlain(key: string): boolean {
  for (let at = 0; at < key.length; at++) if (!(key.charCodeAt(at) > 0x20 && key.charCodeAt(at) < 0x7f)) return false;
  return key !== "";
}
