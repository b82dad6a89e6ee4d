/**
 * The ordinary file that holds a number: no version, no compare, nothing that could refuse a late writer.
 *
 * It stands for every resource in the world that knows nothing of fencing. One write of 128 bytes in place, so that a
 * process that is stopped or killed leaves either the old text or the new one.
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { type FileState, fileOrigin } from "./journal.ts";

const sizeBytes = 128;

export class NumberFile {
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = openSync(path, "r+");
  }

  /** An empty file, where none is. */
  static create(path: string): void {
    closeSync(openSync(path, "wx"));
  }

  /** @throws when the text is none that `write` makes */
  read(): FileState {
    const buffer = Buffer.alloc(sizeBytes);
    const lengthBytes = readSync(this.#descriptor, buffer, 0, sizeBytes, 0);
    if (lengthBytes === 0) return fileOrigin;
    const text = buffer.toString("utf8", 0, lengthBytes);
    const [, value, token, write] = /^(\d+) (\d+) (\S+) *\n$/.exec(text) ?? [];
    if (lengthBytes !== sizeBytes || write === undefined) throw new Error(`The number's file reads ${JSON.stringify(text)}.`);
    return { write, token: Number(token), value: Number(value) };
  }

  write({ value, token, write }: FileState): void {
    const text = `${`${value} ${token} ${write}`.padEnd(sizeBytes - 1)}\n`;
    writeSync(this.#descriptor, text, 0);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
