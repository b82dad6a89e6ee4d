/**
 * A resource: a database that takes part in transactions, with what the manager needs beside the coordinator's `Participant`.
 */
import type { Branch, BranchRef, Participant } from "../coordinator/participant.ts";

/** One finding of `doctor`. `error`: transactions will fail or lose; `warning`: they will hold, with the limit that is named. */
export interface Finding {
  readonly level: "ok" | "warning" | "error";
  readonly check: string;
  readonly message: string;
}

/** A proof of commit, as `audit` and `readAtomic` read it. */
export interface MarkerRow {
  readonly gid: string;
  readonly branch: number;
  /** The branches of the whole transaction. */
  readonly parts: readonly BranchRef[];
}

export interface OpenOptions {
  readonly isReadOnly: boolean;
  /** Milliseconds that are left. Never more than the transaction's. */
  readonly timeoutMs: number;
}

/** A branch with the handle that user code works with. Nothing is sent before the first statement. */
export interface ResourceBranch<Handle> extends Branch {
  readonly handle: Handle;
  /** Whether anything was sent, or kept for the last packet: a branch that is not takes no part. */
  readonly isUsed: boolean;
  /** Takes no more statements, used or not. Those that it has taken are still sent, if it comes to a vote. */
  seal(): void;
}

/** Runs on one snapshot. */
export interface Snapshot<Handle> {
  readonly handle: Handle;
  /** Markers visible in it that are younger than this. */
  markers(withinMs: number): Promise<readonly MarkerRow[]>;
  close(): Promise<void>;
}

/** A database. Made by `postgres` or `mariadb`. */
export interface SqlResource<Handle> {
  readonly kind: "postgres" | "mariadb";
  /** Which driver, where: for messages. Holds no password. */
  readonly title: string;
  /** The manager says under which name it knows the resource. */
  bind(name: string): Participant;
  branch(ref: BranchRef, options: OpenOptions): ResourceBranch<Handle>;
  snapshot(): Promise<Snapshot<Handle>>;
  /** Makes the marker table, or brings it up to date. */
  migrate(): Promise<void>;
  /** The marker of a transaction in any branch number. */
  marker(gid: string): Promise<MarkerRow | null>;
  markersSince(sinceMs: number, limit: number): Promise<readonly MarkerRow[]>;
  /** Deletes markers older than this, but for these transactions; answers how many. */
  dropMarkers(olderThanMs: number, keep: readonly string[]): Promise<number>;
  doctor(): Promise<readonly Finding[]>;
  close(): Promise<void>;
}

/** What a resource's handle is. */
export type HandleOf<R> =
  R extends SqlResource<infer Handle> ? Handle : R extends { readonly handle: infer Handle } ? Handle : never;
