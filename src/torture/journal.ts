/**
 * What a client of the torture run writes down, and how: one JSON object a line, in a file of its own.
 *
 * Each line is in the hands of the system before the client goes on, so a client killed at any moment leaves everything up
 * to it. What is about to happen is written before, what came of it after: a beginning without an end is an unknown
 * outcome. The file is not synced: processes die here, the machine does not.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Interval } from "./clock.ts";

/** The locks of a run: one guards the file, one guards the set. */
export type LockName = "file" | "set";

/** What the file said: which write made it, by which holder, and the number. */
export interface FileState {
  readonly write: string;
  readonly token: number;
  readonly value: number;
}

/** The file before anybody has written. */
export const fileOrigin: FileState = { write: "origin", token: 0, value: 0 };

export type RegisterFunction = "read" | "write" | "cas";

export type JournalEvent =
  /** `acquire` had resolved by then. */
  | { readonly kind: "grant"; readonly lock: LockName; readonly token: number; readonly atMs: number }
  /** The clock was read first, then the hold said that it is held. */
  | { readonly kind: "held"; readonly lock: LockName; readonly token: number; readonly atMs: number }
  | { readonly kind: "not-granted"; readonly lock: LockName; readonly code: string }
  /** The file was read under the lock, and will be written as `write` unless the hold is lost. */
  | {
      readonly kind: "file.begin";
      readonly write: string;
      readonly token: number;
      readonly saw: FileState;
      readonly readAtMs: number;
    }
  | FileEnd
  | { readonly kind: "set.begin"; readonly element: string; readonly token: number }
  | SetEnd
  | {
      readonly kind: "register.begin";
      readonly f: RegisterFunction;
      readonly key: string;
      /** Of a write the value, of a compare-and-set the pair, of a read null. */
      readonly value: string | null | readonly [string | null, string];
      readonly atMs: number;
    }
  | {
      readonly kind: "register.end";
      readonly type: "ok" | "fail" | "info";
      /** What a read saw; otherwise left out. */
      readonly value?: string | null;
      readonly error?: string;
      readonly atMs: number;
    }
  /** The client ended in its own time, with nothing open. */
  | { readonly kind: "finished" };

export type FileEnd =
  | {
      readonly kind: "file.end";
      readonly write: string;
      readonly outcome: "written";
      /** Before the clock was asked by `assertHeld()`. */
      readonly assertedAtMs: number;
      readonly assertedAtWallMs: number;
      readonly deadlineMs: number;
      /** After the write returned. */
      readonly writtenAtMs: number;
      readonly writtenAtWallMs: number;
      /** It stopped itself between the two. */
      readonly stop?: Interval;
    }
  | { readonly kind: "file.end"; readonly write: string; readonly outcome: "not-held" };

export interface SetEnd {
  readonly kind: "set.end";
  readonly element: string;
  /** `refused`: the guard did not hold. `failed`: for certain not. `unknown`: perhaps. */
  readonly outcome: "added" | "refused" | "failed" | "unknown";
  readonly code?: string;
  /** After a refusal: what the hold said of itself. */
  readonly stillHeld?: boolean;
}

/** Appends to a journal. */
export class JournalWriter {
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = openSync(path, "a");
  }

  write(event: JournalEvent): void {
    writeSync(this.#descriptor, `${JSON.stringify(event)}\n`);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** A last line that was cut off by a kill is left out: what it was to say had not been relied upon yet. */
export function readJournal(path: string): JournalEvent[] {
  const lines = readFileSync(path, "utf8").split("\n");
  const tail = lines.pop() as string;
  const events = lines.map((line) => JSON.parse(line) as JournalEvent);
  if (tail === "") return events;
  try {
    events.push(JSON.parse(tail) as JournalEvent);
  } catch {
    // Cut off.
  }
  return events;
}
