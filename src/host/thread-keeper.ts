/**
 * Sessions kept alive from another thread: the side of the holder. See `lease-thread.ts` for the other one, and
 * `client/stall-keeper.ts` for what both agree on.
 *
 * One thread for each engine that was opened, started by the first session that asks for it. It never keeps the process
 * alive. A thread that dies is started anew; in the meantime the holder's own event loop says the keep-alives, and a block
 * is survived no longer than without a keeper.
 */
import { Worker } from "node:worker_threads";
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { linkSignal, onAbort, raceSignal } from "../base/link-signal.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import type { ClientSession } from "../client/session.ts";
import type { KeepOptions, StallKeeper } from "../client/stall-keeper.ts";
import { LeaseCell } from "./lease-cell.ts";
import type { LeaseNews, LeaseOrder, LeaseThreadData } from "./lease-thread.ts";

const keepTimeoutMs = 10_000;
/** Before a thread that died is started anew. */
const restartMs = 1_000;

export interface ThreadKeeperOptions extends LeaseThreadData {
  readonly platform: Platform;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

interface Kept {
  readonly session: ClientSession;
  readonly cell: LeaseCell;
  readonly onKept: () => void;
  readonly onFailed: (why: unknown) => void;
  isKept: boolean;
}

export class ThreadKeeper implements StallKeeper {
  readonly #options: ThreadKeeperOptions;
  readonly #kept = new Map<number, Kept>();
  #lastNumber = 0;
  #worker: Worker | undefined;
  /** Why the present thread says that it failed. */
  #failure: string | undefined;
  #restartTimer: Timer | undefined;
  #isClosed = false;

  constructor(options: ThreadKeeperOptions) {
    this.#options = options;
  }

  async keep(session: ClientSession, { maxStallMs, signal, timeoutMs = keepTimeoutMs }: KeepOptions): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const number = ++this.#lastNumber;
    const cell = new LeaseCell(maxStallMs);
    session.keptBy(cell);
    const link = linkSignal(signal);
    const late = (): void => link.abort(conclaveError("TIMEOUT", `No thread kept the session after ${timeoutMs} ms.`));
    const timer = this.#options.platform.setTimer(timeoutMs, late, { ref: true });
    try {
      const kept = new Promise<void>((onKept, onFailed) => {
        this.#kept.set(number, { session, cell, onKept, onFailed, isKept: false });
        onAbort(session.lost, () => this.#forget(number, session.lost.reason));
        this.#tellAbout(number);
      });
      await raceSignal(kept, link.signal);
    } catch (error) {
      this.#forget(number, error);
      throw error;
    } finally {
      timer.cancel();
      link.unlink();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#restartTimer?.cancel();
    const worker = this.#worker;
    this.#worker = undefined;
    for (const number of [...this.#kept.keys()]) this.#forget(number, conclaveError("CLOSED", "The engine was closed."));
    await worker?.terminate();
  }

  #forget(number: number, why: unknown): void {
    const kept = this.#kept.get(number);
    if (kept === undefined) return;
    this.#kept.delete(number);
    kept.onFailed(why);
    this.#worker?.postMessage({ kind: "forget", number } satisfies LeaseOrder);
  }

  #tellAbout(number: number): void {
    const kept = this.#kept.get(number);
    if (kept === undefined || this.#isClosed) return;
    this.#worker ??= this.#start();
    const { cell, session } = kept;
    const { maxStallMs, memory } = cell;
    const order: LeaseOrder = { kind: "keep", number, id: session.id, ttlMs: session.ttlMs, maxStallMs, memory };
    this.#worker.postMessage(order);
  }

  /** @throws KEEPER_FAILED: the settings hold something that cannot go to another thread */
  #start(): Worker {
    const { module, settings } = this.#options;
    // The built package is JavaScript; where the sources themselves run, Node has to be one that reads them.
    const file = import.meta.url.endsWith(".ts") ? "./lease-thread.ts" : "./lease-thread.js";
    let worker: Worker;
    try {
      worker = new Worker(new URL(file, import.meta.url), { workerData: { module, settings } satisfies LeaseThreadData });
    } catch (error) {
      throw conclaveError("KEEPER_FAILED", "The thread that keeps sessions alive cannot be started.", { cause: error });
    }
    this.#failure = undefined;
    worker.unref();
    worker.on("message", (news: LeaseNews) => this.#onNews(worker, news));
    worker.on("error", (error) => this.#onDown(worker, error));
    worker.on("exit", (code) => this.#onDown(worker, new Error(this.#failure ?? `It ended with code ${code}.`)));
    return worker;
  }

  #onNews(worker: Worker, news: LeaseNews): void {
    if (worker !== this.#worker) return;
    if (news.kind === "failed") {
      this.#failure = news.why;
      return;
    }
    const kept = this.#kept.get(news.number);
    if (kept === undefined) return;
    if (news.kind === "kept") {
      kept.isKept = true;
      kept.onKept();
    } else if (kept.session.alive) {
      // It knows better than this thread, or was too late by a hair: ask the store, and have it kept again if it lives.
      kept.session.onLeader();
      this.#tellAbout(news.number);
    }
  }

  #onDown(worker: Worker, why: Error): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    this.#options.telemetry?.emit({ kind: "keeper.down", why: why.message });
    const error = conclaveError("KEEPER_FAILED", "The thread that keeps sessions alive has ended.", { cause: why });
    for (const [number, { isKept }] of [...this.#kept]) if (!isKept) this.#forget(number, error);
    if (this.#kept.size === 0) return;
    this.#restartTimer = this.#options.platform.setTimer(restartMs, () => {
      for (const number of this.#kept.keys()) this.#tellAbout(number);
    });
  }
}
