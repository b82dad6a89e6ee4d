/**
 * The stream of one watch on a local server: what the machine tells, bent by the faults on its way to the reader.
 *
 * One reader. What it has not read yet is bounded: beyond that the state is sent instead, as every engine may do.
 */
import type { Platform } from "../base/ports.ts";
import type { BinaryRange } from "../store/key.ts";
import { isInRange } from "../store/key.ts";
import type { Machine } from "../store/machine.ts";
import { type MachineEvent, strippedEntry, toWatchEvent } from "../store/outcome.ts";
import type { Revision, WatchBatch } from "../store/store.ts";
import type { LocalFaults } from "./local-faults.ts";

export interface LocalWatchOptions {
  readonly machine: Machine;
  readonly platform: Platform;
  readonly range: BinaryRange;
  readonly from: Revision | undefined;
  readonly signal: AbortSignal | undefined;
  readonly faults: LocalFaults;
  /** Tells states only. */
  readonly level: boolean;
  /** Nothing passes while it is true; what was missed is made up for by a resync. */
  readonly isCutOff: () => boolean;
  readonly onEnd: (watch: LocalWatch) => void;
}

/** Batches that wait for the reader. */
const unreadMax = 1_000;

export class LocalWatch implements AsyncIterable<WatchBatch> {
  readonly #options: LocalWatchOptions;
  readonly #unread: WatchBatch[] = [];
  /** Kept back by `coalesce`. */
  #kept: (WatchBatch & { readonly kind: "changes" }) | undefined;
  #missed = false;
  /** Of the last batch on its way: none overtakes the one before, however fast it is. */
  #arrivesAtMs = 0;
  #isOver = false;
  #wake: (() => void) | undefined;
  readonly #unsubscribe: () => void;
  readonly #onAbort = (): void => this.end();

  constructor(options: LocalWatchOptions) {
    this.#options = options;
    const { from, machine, range, signal } = options;
    this.#unsubscribe = machine.subscribe((revision, events) => {
      if (revision >= (from ?? 0)) this.#onEvents(revision, events);
    });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted) this.end();
    if (from === undefined || from > machine.revision) return;
    const past = machine.changesSince(range, from);
    if (past.kind === "resync") this.#travel(this.#state());
    else this.#onEvents(past.revision, past.events);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void, void> {
    try {
      while (!this.#isOver) {
        const batch = this.#unread.shift();
        if (batch !== undefined) yield batch;
        else await this.#news();
      }
    } finally {
      this.end();
    }
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Ends quietly. Idempotent. */
  end(): void {
    this.#isOver = true;
    this.#unsubscribe();
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#options.onEnd(this);
    this.#wake?.();
  }

  /** The connection is back. */
  heal(): void {
    if (this.#missed) this.#travel(this.#state());
    this.#missed = false;
  }

  #onEvents(revision: Revision, events: readonly MachineEvent[]): void {
    const mine = events.filter((event) => isInRange(this.#options.range, event.key));
    if (mine.length === 0) return;
    if (this.#options.isCutOff()) this.#missed = true;
    else if (this.#options.level) this.#bend(this.#state());
    else this.#bend({ kind: "changes", revision, events: mine.map(toWatchEvent) });
  }

  #bend(batch: WatchBatch): void {
    const fault = this.#options.faults.batch?.(batch);
    const kept = this.#kept;
    this.#kept = undefined;
    const whole: WatchBatch =
      kept !== undefined && batch.kind === "changes" ? { ...batch, events: [...kept.events, ...batch.events] } : batch;
    if (fault?.kind === "drop") return;
    if (fault?.kind === "coalesce" && whole.kind === "changes") {
      this.#keep(whole, fault.delayMs);
      return;
    }
    this.#travel(fault?.kind === "resync" ? this.#state() : whole);
    if (fault?.kind === "duplicate") this.#travel(whole);
  }

  #keep(batch: WatchBatch & { readonly kind: "changes" }, delayMs: number): void {
    this.#kept = batch;
    this.#options.platform.setTimer(delayMs, () => {
      if (this.#kept !== batch) return;
      this.#kept = undefined;
      this.#travel(batch);
    });
  }

  #travel(batch: WatchBatch): void {
    const { faults, platform } = this.#options;
    const nowMs = platform.now();
    this.#arrivesAtMs = Math.max(this.#arrivesAtMs, nowMs + (faults.latencyMs?.() ?? 0));
    if (this.#arrivesAtMs === nowMs) this.#arrive(batch);
    else platform.setTimer(this.#arrivesAtMs - nowMs, () => this.#arrive(batch));
  }

  #arrive(batch: WatchBatch): void {
    if (this.#isOver) return;
    if (this.#unread.length >= unreadMax) {
      this.#unread.length = 0;
      this.#unread.push(this.#state());
    } else {
      this.#unread.push(batch);
    }
    this.#wake?.();
  }

  #state(): WatchBatch {
    const { revision, entries } = this.#options.machine.entriesIn(this.#options.range);
    return { kind: "resync", revision, entries: entries.map(strippedEntry) };
  }
}
