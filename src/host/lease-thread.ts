/**
 * The thread that keeps sessions alive while the event loop of its starter is blocked: what runs in it.
 *
 * It opens the same engine once more, over connections of its own, and tells it to keep alive what it is told to keep. The
 * engine does that as it does for its own sessions: follows a new leader, says again what was not answered, stops by the
 * clock. Nothing here ends a session at the store: that is the holder's.
 */
import { parentPort, workerData } from "node:worker_threads";
import { onAbort } from "../base/link-signal.ts";
import type { ClientSession } from "../client/session.ts";
import type { LeaseKeeping } from "../client/stall-keeper.ts";
import { LeaseCell } from "./lease-cell.ts";

/** What the thread is started with. */
export interface LeaseThreadData {
  /** Of the module that exports `openLeases`. */
  readonly module: string;
  readonly settings: unknown;
}

/** To the thread. */
export type LeaseOrder =
  | {
      readonly kind: "keep";
      readonly number: number;
      readonly id: string;
      readonly ttlMs: number;
      readonly maxStallMs: number;
      readonly memory: SharedArrayBuffer;
    }
  | { readonly kind: "forget"; readonly number: number };

/** From the thread: a first keep-alive was confirmed; it is kept no more, for whatever reason; nothing can be kept. */
export type LeaseNews =
  | { readonly kind: "kept" | "over"; readonly number: number }
  | { readonly kind: "failed"; readonly why: string };

/** A lease that says when it is confirmed for the first time. */
class ToldCell extends LeaseCell {
  #onFirst: (() => void) | undefined;

  constructor(order: Extract<LeaseOrder, { readonly kind: "keep" }>, onFirst: () => void) {
    super(order.maxStallMs, order.memory);
    this.#onFirst = onFirst;
  }

  override confirm(sentMs: number): void {
    super.confirm(sentMs);
    this.#onFirst?.();
    this.#onFirst = undefined;
  }
}

async function keepLeases(): Promise<void> {
  const { module, settings } = workerData as LeaseThreadData;
  const tell = (news: LeaseNews): void => parentPort?.postMessage(news);
  const sessions = new Map<number, ClientSession>();
  let leases: LeaseKeeping;
  try {
    const { openLeases } = (await import(module)) as { readonly openLeases: (settings: unknown) => Promise<LeaseKeeping> };
    leases = await openLeases(settings);
  } catch (error) {
    tell({ kind: "failed", why: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
  parentPort?.on("message", (order: LeaseOrder) => {
    const { number } = order;
    sessions.get(number)?.abandon();
    sessions.delete(number);
    if (order.kind === "forget") return;
    const lease = new ToldCell(order, () => tell({ kind: "kept", number }));
    const session = leases.adopt({ id: order.id, ttlMs: order.ttlMs, lease });
    sessions.set(number, session);
    onAbort(session.lost, () => {
      if (sessions.get(number) !== session) return;
      sessions.delete(number);
      tell({ kind: "over", number });
    });
  });
}

if (parentPort !== null) await keepLeases();
