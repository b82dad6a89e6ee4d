/**
 * The checker against somebody else's verdicts: the test data of Porcupine (github.com/anishathalye/porcupine, MIT).
 *
 * The recordings are no part of the repository. Without `../shared/histories` beside it the tests say so and are skipped.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { checkLinearizable } from "./check-linearizable.ts";
import { explain } from "./explain.ts";
import { readJepsenHistory } from "./jepsen-history.ts";
import { type KeyValueInput, type KeyValueOutput, keyValueModel } from "./key-value-model.ts";
import type { Operation } from "./operation.ts";
import { registerModel } from "./register-model.ts";

const directory = new URL("../../../../shared/histories/", import.meta.url);
const isPresent = existsSync(directory);
if (!isPresent) console.log(`Skipped: the recorded histories are not at ${directory.pathname}.`);

describe.skipIf(!isPresent)("recorded histories", () => {
  const files = isPresent ? readdirSync(directory) : [];
  const read = (file: string) => readFileSync(new URL(file, directory), "utf8");

  const verdicts: Record<string, boolean> = isPresent ? JSON.parse(read("linearizable.json")) : {};
  test.each(files.filter((file) => file.endsWith(".log")))("%s gets the verdict of Porcupine", (file) => {
    const verdict = checkLinearizable(registerModel, readJepsenHistory(jsonLinesOf(read(file))));
    expect({ file, linearizable: verdict.linearizable }, explain(verdict)).toEqual({ file, linearizable: verdicts[file] });
  });

  test.each(files.filter((file) => file.endsWith(".txt")))("%s gets the verdict in its name", (file) => {
    const verdict = checkLinearizable(keyValueModel, keyValueOperationsOf(read(file)));
    expect(verdict.linearizable, explain(verdict)).toBe(file.endsWith("-ok.txt"));
  });
});

/** `INFO  jepsen.util - 2	:invoke	:cas	[3 0]` as the JSON line that `readJepsenHistory` reads. */
function jsonLinesOf(log: string): string {
  return log
    .split("\n")
    .flatMap((line) => {
      const match = /^INFO\s+jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*)$/.exec(line);
      if (match === null) return [];
      const [, process, type, f, value = ""] = match;
      // etcd answers a cas with `fail` when it compared and found another value; it says so by repeating the values.
      const isMismatch = type === "fail" && f === "cas" && value.startsWith("[");
      const error = isMismatch ? { error: "mismatch" } : {};
      return [JSON.stringify({ process: Number(process), type, f, value: jsonValueOf(value), ...error })];
    })
    .join("\n");
}

function jsonValueOf(value: string): unknown {
  if (value === "nil" || value === ":timed-out") return null;
  return JSON.parse(value.replace(" ", ","));
}

/** `{:process 0, :type :ok, :f :get, :key "5", :value "x 0 0 y"}`, where the get of an absent key is an empty text. */
function keyValueOperationsOf(text: string): Operation<KeyValueInput, KeyValueOutput>[] {
  const operations: Operation<KeyValueInput, KeyValueOutput>[] = [];
  const open = new Map<string, number>();
  for (const [line, source] of text.split("\n").entries()) {
    const match = /^\{:process (\d+), :type :(\w+), :f :(\w+), :key "(.*)", :value (?:nil|"(.*)")\}$/.exec(source);
    if (match === null) continue;
    const [, process = "", type, f, key = "", value = ""] = match;
    if (type === "invoke") {
      open.set(process, operations.length);
      const input: KeyValueInput = f === "get" ? { f } : f === "put" ? { f, value } : { f: "append", value };
      operations.push({ process: Number(process), key, input, output: undefined, invokedAt: line, returnedAt: undefined });
    } else {
      const index = open.get(process) ?? -1;
      const output: KeyValueOutput = f === "get" ? { f, value: value || null } : f === "put" ? { f } : { f: "append" };
      operations[index] = { ...(operations[index] as (typeof operations)[number]), output, returnedAt: line };
    }
  }
  return operations;
}
