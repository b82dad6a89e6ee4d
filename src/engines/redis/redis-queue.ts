/**
 * A queue's join and leave by their purpose-made scripts, without the way through a txn: what a lock does all day.
 *
 * The same scripts, and so the same keys and pushes, that `fast-path.ts` finds for a txn of the same shape. Whatever is not
 * plain (an unknown server, a session to end, a long value) is answered null, with nothing done: the txn sees to it.
 */
import { toBinaryString, utf8ToBinaryString } from "../../base/bytes.ts";
import { namespacePrefix, stripNamespace } from "../../store/key.ts";
import type { CallOptions, NativeRecipes, SessionId } from "../../store/store.ts";
import { redisLimits, timeoutMsDefault } from "./redis-caps.ts";
import type { Argument, Reply } from "./resp.ts";
import type { ScriptCaller } from "./script-caller.ts";
import { type Script, scripts } from "./scripts.ts";
import { bytesArgument, listOf, numberOf, textOf } from "./txn-codec.ts";

/** What contenders say about themselves is short. */
const valueLengthMax = 8_192;

export class RedisQueue implements NativeRecipes {
  readonly #caller: ScriptCaller;
  readonly #prefix: string;
  readonly #name: Argument;

  constructor(namespace: string, caller: ScriptCaller) {
    this.#caller = caller;
    this.#prefix = namespacePrefix(namespace);
    this.#name = bytesArgument(this.#prefix.slice(0, -1));
  }

  async joinQueue(
    { key, value, session }: { readonly key: string; readonly value: string; readonly session: SessionId },
    options: CallOptions,
  ): Promise<{ revision: number; ahead: Uint8Array | null; aheadCount: number } | null> {
    const whole = this.#prefix + utf8ToBinaryString(key);
    if (value.length > valueLengthMax || whole.length > redisLimits.keyBytesMax) return null;
    const reply = listOf(await this.#run(scripts.join, [bytesArgument(whole), value, session, this.#name], options));
    if (textOf(reply[0]) !== "OK") return null;
    const ahead = reply[3];
    return {
      revision: numberOf(reply[1]),
      ahead: ahead instanceof Uint8Array ? keyBytesOf(ahead) : null,
      aheadCount: numberOf(reply[2]) - 1,
    };
  }

  async leaveQueue(key: string, options: CallOptions): Promise<true | null> {
    const whole = this.#prefix + utf8ToBinaryString(key);
    const reply = listOf(await this.#run(scripts.drop, [bytesArgument(whole), this.#name], options));
    return textOf(reply[0]) === "OK" ? true : null;
  }

  #run(script: Script, args: readonly Argument[], { signal, timeoutMs = timeoutMsDefault }: CallOptions): Promise<Reply> {
    const call = { timeoutMs, writes: true };
    return this.#caller.run(script, args, signal === undefined ? call : { ...call, signal });
  }
}

function keyBytesOf(whole: Uint8Array): Uint8Array {
  return whole.slice(whole.length - stripNamespace(toBinaryString(whole)).length);
}
