/**
 * How long the branches of a dead coordinator stay prepared: from the moment at which its key vanished, or at which the branch
 * first appeared if that is later (a process that slept may still prepare), to the last look that saw it.
 */
import type { Store } from "../../src/store/store.ts";
import type { Rig } from "./rig.ts";

/** Of the coordinators whose end was seen since the last `take`. Milliseconds. */
export interface Clearing {
  readonly count: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly worstMs: number;
}

export class Fences {
  readonly #rig: Rig;
  readonly #store: () => Store;
  readonly #ending = new AbortController();
  readonly #fencedMs = new Map<string, number>();
  readonly #seen = new Map<string, { readonly firstMs: number; lastMs: number }>();
  #took: number[] = [];

  /** `store`: of the connection that is open at this moment. */
  constructor(rig: Rig, store: () => Store) {
    this.#rig = rig;
    this.#store = store;
    void this.#follow();
    void this.#poll();
  }

  take(): Clearing {
    const sorted = this.#took.sort((one, other) => one - other);
    this.#took = [];
    const at = (share: number): number => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
    return { count: sorted.length, medianMs: at(0.5), p99Ms: at(0.99), worstMs: at(1) };
  }

  stop(): void {
    this.#ending.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        for await (const batch of this.#store().watch({ prefix: "coord/" }, { signal })) {
          if (batch.kind !== "changes") continue;
          for (const event of batch.events)
            if (event.kind === "delete") this.#fencedMs.set(event.key.slice("coord/".length), performance.now());
        }
      } catch {
        // The connection is replaced now and then.
      }
      await pause(50);
    }
  }

  async #poll(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      try {
        const { rows } = await this.#rig.leftPool.query("SELECT gid FROM pg_prepared_xacts");
        const [recover] = await this.#rig.rightPool.query("XA RECOVER");
        const names = [
          ...rows.map(({ gid }) => gid as string),
          ...(recover as { data: string }[]).map(({ data }) => data.toString()),
        ];
        this.#look(names, performance.now());
      } catch {
        // A database is down at this moment.
      }
      await pause(10);
    }
  }

  #look(names: readonly string[], nowMs: number): void {
    const present = new Set(names);
    for (const name of present) {
      const seen = this.#seen.get(name);
      if (seen === undefined) this.#seen.set(name, { firstMs: nowMs, lastMs: nowMs });
      else seen.lastMs = nowMs;
    }
    for (const [name, { firstMs, lastMs }] of this.#seen) {
      if (present.has(name)) continue;
      this.#seen.delete(name);
      const fencedMs = this.#fencedMs.get(name.split(".")[2] ?? "");
      if (fencedMs !== undefined && lastMs >= fencedMs) this.#took.push(lastMs - Math.max(fencedMs, firstMs));
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
