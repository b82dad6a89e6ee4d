/**
 * The namespaces in use: those that are kept in full stand in the order of keys; those that are one thin cell stand in no
 * order at all, so every cell is looked at, a thousand at a time between the commands of others. An operator's question.
 */
import { binaryStringToUtf8, toBinaryString } from "../../base/bytes.ts";
import { findNamespaces, keysTxn, pickNames } from "../../store/namespaces.ts";
import type { NamespacesOptions } from "../../store/store.ts";
import type { RedisLink } from "./link.ts";
import { redisLimits, timeoutMsDefault } from "./redis-caps.ts";
import type { ScriptCaller } from "./script-caller.ts";
import { scripts } from "./scripts.ts";
import { decodeRangeKeys, encodeTxn, listOf, textOf } from "./txn-codec.ts";

const cellsInStep = 1_000;

export async function namesInUse(
  { caller, link }: { readonly caller: ScriptCaller; readonly link: RedisLink },
  options: NamespacesOptions,
): Promise<readonly string[]> {
  const { signal, timeoutMs = timeoutMsDefault } = options;
  const call = { timeoutMs, signal, writes: false };
  // Thin ones first: one that is made full meanwhile is found twice, and not never.
  const thin: { readonly name: string; readonly session: string }[] = [];
  const sessions = new Set<string>();
  let cursor = "0";
  do {
    const [next, pairs] = listOf(await link.ask(["HSCAN", caller.metaKey, cursor, "COUNT", cellsInStep], call));
    const texts = listOf(pairs).map((each) => (each instanceof Uint8Array ? toBinaryString(each) : textOf(each)));
    for (let at = 0; at + 1 < texts.length; at += 2) {
      const [field, cell] = [texts[at] as string, texts[at + 1] as string];
      const session = /^\S+ \d+ (\d+)\n/.exec(cell)?.[1];
      if (/^s\d+$/.test(field)) sessions.add(field.slice(1));
      else if (field.startsWith("n") && session !== undefined) thin.push({ name: field.slice(1), session });
    }
    cursor = textOf(next);
  } while (cursor !== "0");
  const full = await findNamespaces(options, async ({ from, to }, limit) => {
    // The script asks each range for its namespace. No whole key lies between a bound and the same with the zero byte.
    const args = [redisLimits.resultBytesMax, 0, ...encodeTxn(keysTxn({ from: `${from}\0`, to }, limit))];
    return decodeRangeKeys(await caller.run(scripts.leanTxn, args, call));
  });
  const living = thin.filter(({ session }) => sessions.has(session)).map(({ name }) => binaryStringToUtf8(name));
  return pickNames([...new Set([...living, ...full])], options);
}
