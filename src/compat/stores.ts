/**
 * What stands where other libraries want a client of Redis: a Conclave connection, or an engine.
 */
import { conclaveError } from "../base/errors.ts";
import type { StoreSource } from "../recipes/options.ts";

/** What `connect` gives, or an engine of your own. */
export type Connected = StoreSource | { readonly engine: StoreSource };

/** @throws FOREIGN_CLIENT */
export function sourceOf(client: Connected): StoreSource {
  if (typeof client === "object" && client !== null) {
    if ("engine" in client && typeof client.engine?.store === "function") return client.engine;
    if ("store" in client && typeof client.store === "function") return client;
  }
  throw conclaveError(
    "FOREIGN_CLIENT",
    "This door takes what `connect(...)` of Conclave gives; the client handed in has no `engine`.",
  );
}

/** Sessions are shared by TTL, so a few round values serve everybody: the shortest that is no shorter than asked for. */
export function ttlMsFor(durationMs: number): number {
  return [2_000, 5_000, 15_000, 60_000].find((ttlMs) => ttlMs >= durationMs) ?? 60_000;
}
