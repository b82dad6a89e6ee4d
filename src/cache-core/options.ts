/**
 * What a cache may be told, its defaults, and the checks at the door. Every time is milliseconds.
 *
 * One meaning for a TTL everywhere: 0 keeps nothing, Infinity keeps for ever, left out means the default; anything else
 * that is not a number of milliseconds is refused.
 */
import { conclaveError } from "../base/errors.ts";

export interface CacheOptions {
  /** How long a value is fresh. Default 60_000. Shortened by up to `jitter`, so that values born together do not die together. */
  readonly ttlMs?: number;
  /**
   * How much longer an expired value may be served while a new one is loaded, or when the load fails. Default 0.
   * An invalidated value is never served, grace or not.
   */
  readonly graceMs?: number;
  /** Of a load that answers `null` ("there is none"). Default: as `ttlMs`. */
  readonly negativeTtlMs?: number;
  /** How long a failed load is answered with the same failure. Default 0: only those who waited for it share it. */
  readonly errorTtlMs?: number;
  /**
   * How old the proof that invalidations are current may be; beyond it nothing cached is served. 10 to 3_600_000, or
   * Infinity (never checked). Default 2_000. Shorter is stricter, and asks the Store four times as often as this.
   */
  readonly maxStaleMs?: number;
  /** How long L2, and then the Store that is asked for the fill lease, may each hold up a read. Default 100. */
  readonly l2TimeoutMs?: number;
  /** How long L2 is left alone once it failed three times in a row. Default 1_000. */
  readonly l2BreakerMs?: number;
  /** How long a read waits for a load before it takes a value in its grace. Default 0: at once, the load goes on behind. */
  readonly softTimeoutMs?: number;
  /** How long a load may take before its signal aborts and it fails with LOAD_TIMEOUT. Default 30_000. */
  readonly hardTimeoutMs?: number;
  /**
   * How long a read waits for another process that loads the same key, before it loads by itself. Default 6_000: below
   * `leaseTtlMs` everybody who waits for a dead process would load just before one of them got its lease.
   */
  readonly leaseWaitMs?: number;
  /** How long a dead process keeps others from loading what it was loading. 1_000 to 600_000. Default 5_000. */
  readonly leaseTtlMs?: number;
  /** Share of the TTL that is drawn off at random. 0 to 1. Default 0.1. */
  readonly jitter?: number;
  /** How eagerly a value is loaded anew before it expires: XFetch's beta. 0: not at all. Default 1. */
  readonly earlyRefresh?: number;
  /**
   * `frozen`: plain objects and arrays are frozen on the way in, so no reader changes what the next one sees. `cloned`: each
   * reader has its own copy. `shared`: neither. Default `frozen`.
   */
  readonly values?: "frozen" | "cloned" | "shared";
}

/** What one read may be told otherwise. */
export interface ReadOptions
  extends Pick<CacheOptions, "ttlMs" | "graceMs" | "negativeTtlMs" | "softTimeoutMs" | "hardTimeoutMs" | "leaseWaitMs"> {
  /** Of the value, should it be loaded now; the load may set others. */
  readonly tags?: readonly string[];
  /** A token of `invalidate` or `set`: the answer is no older than that, on any process. */
  readonly atLeast?: string;
  /** Loads, whatever is cached. Default false. */
  readonly fresh?: boolean;
  /** Ends the wait of this caller; the load goes on for the others. */
  readonly signal?: AbortSignal;
}

export interface ReadManyOptions extends Omit<ReadOptions, "tags"> {
  /** Of every value, or of each by its key. */
  readonly tags?: readonly string[] | ((key: string) => readonly string[]);
}

export interface WriteOptions extends Pick<CacheOptions, "ttlMs" | "graceMs" | "negativeTtlMs"> {
  readonly tags?: readonly string[];
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** @since 0.1.0 */
export const cacheDefaults = {
  ttlMs: 60_000,
  graceMs: 0,
  errorTtlMs: 0,
  maxStaleMs: 2_000,
  l2TimeoutMs: 100,
  l2BreakerMs: 1_000,
  softTimeoutMs: 0,
  hardTimeoutMs: 30_000,
  leaseWaitMs: 6_000,
  leaseTtlMs: 5_000,
  jitter: 0.1,
  earlyRefresh: 1,
  values: "frozen",
} as const;

export type CheckedOptions = Required<Omit<CacheOptions, "negativeTtlMs">> & { readonly negativeTtlMs: number | undefined };

export const tagsMax = 64;

/** @throws INVALID_OPTION */
export function checkCacheOptions(options: CacheOptions): CheckedOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const checked = { negativeTtlMs: undefined, ...cacheDefaults, ...given } as CheckedOptions;
  checkDurations(checked, durations);
  checkRange("maxStaleMs", checked.maxStaleMs, 10, 3_600_000, true);
  checkRange("leaseTtlMs", checked.leaseTtlMs, 1_000, 600_000, false);
  checkRange("jitter", checked.jitter, 0, 1, false);
  checkRange("earlyRefresh", checked.earlyRefresh, 0, 100, false);
  if (!["frozen", "cloned", "shared"].includes(checked.values)) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`values\` is ${JSON.stringify(checked.values)}; it is "frozen", "cloned" or "shared".`,
    );
  }
  return checked;
}

const durations = [
  "ttlMs",
  "graceMs",
  "negativeTtlMs",
  "errorTtlMs",
  "l2TimeoutMs",
  "l2BreakerMs",
  "softTimeoutMs",
  "hardTimeoutMs",
  "leaseWaitMs",
] as const;

/** @throws INVALID_OPTION */
export function checkReadOptions(options: ReadOptions | WriteOptions): void {
  checkDurations(options, durations);
  if (options.tags !== undefined) checkTags(options.tags);
  const { atLeast } = options as ReadOptions;
  if (atLeast !== undefined && !(typeof atLeast === "string" && /^[0-9a-z]*:\d+$/.test(atLeast))) {
    throw conclaveError("INVALID_OPTION", `\`atLeast\` is ${atLeast}; it must be a token that \`invalidate\` answered with.`);
  }
}

/** @throws INVALID_OPTION */
export function checkDuration(name: string, value: unknown): void {
  if (typeof value === "number" && value >= 0) return;
  throw conclaveError("INVALID_OPTION", `\`${name}\` is ${String(value)}; it must be milliseconds from 0, or Infinity.`);
}

/** @throws INVALID_OPTION */
export function checkTags(tags: readonly string[]): void {
  if (!Array.isArray(tags) || tags.length > tagsMax || tags.some((tag) => typeof tag !== "string")) {
    throw conclaveError("INVALID_OPTION", `\`tags\` must be at most ${tagsMax} texts.`);
  }
}

/** @throws KEY_INVALID */
export function checkKey(key: unknown): asserts key is string {
  if (typeof key !== "string") throw conclaveError("KEY_INVALID", `A cache key is a text; this one is ${typeof key}.`);
}

/** @throws INVALID_OPTION */
export function checkLoad(load: unknown): void {
  if (typeof load !== "function") throw conclaveError("INVALID_OPTION", `\`load\` must be a function; it is ${typeof load}.`);
}

function checkDurations(options: object, names: readonly string[]): void {
  for (const name of names) {
    const value = (options as Record<string, unknown>)[name];
    if (value !== undefined) checkDuration(name, value);
  }
}

function checkRange(name: string, value: number, low: number, high: number, orInfinity: boolean): void {
  if ((value >= low && value <= high) || (orInfinity && value === Number.POSITIVE_INFINITY)) return;
  const rest = orInfinity ? ", or Infinity" : "";
  throw conclaveError("INVALID_OPTION", `\`${name}\` is ${value}; it must be from ${low} to ${high}${rest}.`);
}
