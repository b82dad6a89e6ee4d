/**
 * What goes to standard output: JSON lines for programs, plain text for people, colours only on a terminal.
 */
import { styleText } from "node:util";
import type { Entry } from "../store/entry.ts";

type Style = Parameters<typeof styleText>[0];

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** For progress and remarks: they must not mix with the answer. */
export function remark(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Coloured where standard output is a terminal that wants colours. */
export function style(how: Style, text: string): string {
  return styleText(how, text, { stream: process.stdout });
}

/** Text in a line of its own: control characters of a stored value must neither break the line nor reach the terminal. */
export function oneLine(text: string): string {
  return text.replace(/\p{Control}/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** An entry as a program reads it. Bytes that are no UTF-8 come as base64, under another name. */
export function entryJson(entry: Entry, options: { readonly keysOnly?: boolean } = {}): Record<string, unknown> {
  const { createRevision, modRevision, version, session } = entry;
  const value = options.keysOnly === true ? {} : bytesJson("value", entry.value);
  return { ...bytesJson("key", entry.keyBytes), ...value, createRevision, modRevision, version, session };
}

function bytesJson(name: string, bytes: Uint8Array): Record<string, string> {
  try {
    return { [name]: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { [`${name}Base64`]: Buffer.from(bytes).toString("base64") };
  }
}

/** Columns as wide as their widest cell. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
