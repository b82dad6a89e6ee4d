/**
 * Puts a cache together on Node: the core, a first tier, and a second one where there is a client for it.
 */
import { conclaveError } from "../base/errors.ts";
import type { Telemetry } from "../base/ports.ts";
import { Cache } from "../cache-core/cache.ts";
import type { CacheEntry } from "../cache-core/cache-entry.ts";
import type { CacheEvent } from "../cache-core/event.ts";
import { roughBytes } from "../cache-core/keep-whole.ts";
import { createL1, type L1Policy } from "../cache-core/l1/l1.ts";
import type { Codec, L2 } from "../cache-core/l2.ts";
import type { CacheOptions } from "../cache-core/options.ts";
import { checkName, type StoreSource } from "../recipes/options.ts";
import { textCodec } from "./text-codec.ts";

export interface CreateCacheOptions<V> extends CacheOptions {
  /** Who stays in the first tier when it is full. Default `w-tinylfu`, which adapts. */
  readonly policy?: L1Policy;
  /** The bound of the first tier in entries. Default 10_000. */
  readonly entriesMax?: number;
  /** A bound in bytes instead; values are weighed by `weigh`, or roughly. */
  readonly bytesMax?: number;
  readonly weigh?: (value: V) => number;
  /** The second tier: `redisL2({ client })`. Default: none; then each process loads for itself. */
  readonly l2?: (cacheName: string) => L2;
  /** How values are written in L2. Default: JSON where it is faithful, else V8's structured clone. */
  readonly codec?: Codec;
  /** Hears what happens. */
  readonly onEvent?: (event: CacheEvent) => void;
}

/**
 * Makes a cache by name; every process that names it on the same store shares its invalidations.
 *
 * ```ts
 * import { connect } from "conclave";
 * import { createCache } from "conclave/cache";
 *
 * const conclave = await connect("memory:");
 * const users = createCache<{ name: string }>(conclave, "users", { ttlMs: 300_000 });
 * const user = await users.get("42", async () => ({ name: "Ada" }));
 * await users.invalidate("42");
 * await users.close();
 * await conclave.close();
 * ```
 * @param conclave What `connect` gave, or any engine.
 * @throws INVALID_OPTION
 * @since 0.1.0
 */
export function createCache<V = unknown>(
  conclave: StoreSource | { readonly engine: StoreSource },
  name: string,
  options: CreateCacheOptions<V> = {},
): Cache<V> {
  checkName(name, "cache");
  const { policy = "w-tinylfu", entriesMax = 10_000, bytesMax, weigh, l2, codec = textCodec, onEvent, ...rest } = options;
  checkBound("entriesMax", entriesMax);
  if (bytesMax !== undefined) checkBound("bytesMax", bytesMax);
  const engine = "engine" in conclave ? conclave.engine : conclave;
  const store = engine.store(`cache/${name}`);
  const telemetry: Telemetry<CacheEvent> | undefined = onEvent === undefined ? undefined : { emit: onEvent };
  return new Cache<V>({
    name,
    store,
    platform: store.platform,
    // The core judges itself when a value is over: the first tier needs no clock.
    l1: createL1<CacheEntry<V>>({
      policy,
      ...(bytesMax === undefined ? { entriesMax } : { bytesMax }),
      now: () => 0,
      random: () => store.platform.randomUint32(),
    }),
    l2: l2?.(name),
    codec,
    options: rest,
    weigh: bytesMax === undefined ? undefined : (weigh ?? roughBytes),
    telemetry,
  });
}

function checkBound(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 1) return;
  throw conclaveError("INVALID_OPTION", `\`${name}\` is ${value}; it must be a whole number from 1.`);
}
