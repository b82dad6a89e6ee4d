/**
 * The first tier: values in this process, bounded, behind one small interface whatever policy decides who stays.
 *
 * Intuition: a desk. What lies on it is at hand at once, there is room for so much, and the art is in what goes back to
 * the shelf. `w-tinylfu` (the default) keeps what is used often and lets a newcomer in only if it is asked for more than
 * what it would displace; how much of the desk is for newcomers it finds out by itself.
 * Nothing here knows a clock, a timer or dice: `now` and `random` are handed in.
 */
import { conclaveError } from "../../base/errors.ts";
import { Lru } from "./lru.ts";
import type { Policy } from "./policy.ts";
import { S3Fifo } from "./s3-fifo.ts";
import { Shadows } from "./shadows.ts";
import { Sieve } from "./sieve.ts";
import { SlotTable } from "./slot-table.ts";
import { WTinyLfu } from "./w-tiny-lfu.ts";

export interface L1<V> {
  /** The value, which counts as used; undefined when it is absent or over. */
  get(key: string): V | undefined;
  /** The value, without counting as a use. */
  peek(key: string): V | undefined;
  /**
   * Stores the value. `weight`: default 1; what is heavier than the whole is not stored, and what was there is dropped.
   * `expiresMs`: the moment, by `now`, from which it is over (not a duration). Default: never. Already over: not stored.
   * @throws INVALID_OPTION (a weight that is negative or no number, an `expiresMs` that is NaN)
   */
  set(key: string, value: V, weight?: number, expiresMs?: number): void;
  /** Whether it was there. */
  delete(key: string): boolean;
  clear(): void;
  /** Takes out up to `limit` entries that are over; default all. For the host's housekeeping. How many went. */
  sweep(limit?: number): number;
  /** Entries, also those that are over and not yet taken out. */
  readonly size: number;
  /** The sum of the weights. */
  readonly weight: number;
  /** In no order. What is over may still be named. Keys added meanwhile may be left out. */
  keys(): IterableIterator<string>;
}

export type L1Policy = "w-tinylfu" | "s3-fifo" | "sieve" | "lru";

export interface L1Options {
  /** Default `w-tinylfu`. */
  readonly policy?: L1Policy;
  /** How many entries at most; weights are not asked. From 1. One of the two bounds must be given. */
  readonly entriesMax?: number;
  /** How much weight at most; `set` says what each entry weighs. From 1. */
  readonly bytesMax?: number;
  /** The clock of `expiresMs`. It is read when an entry that can expire is read: a coarse one (once per turn) is faster. */
  readonly now: () => number;
  /** Uniform unsigned 32-bit numbers: w-tinylfu lets a doubtful newcomer in now and then. Default: never. */
  readonly random?: () => number;
  /** Told of each entry that is displaced, deleted, replaced or swept: to keep an index of tags, say. */
  readonly onRemove?: (key: string, value: unknown) => void;
}

/** @throws INVALID_OPTION @since 0.2.0 */
export function createL1<V>(options: L1Options): L1<V> {
  const { entriesMax, bytesMax, now, onRemove } = options;
  const weightMax = entriesMax ?? bytesMax;
  if (weightMax === undefined || (entriesMax !== undefined && bytesMax !== undefined)) {
    throw conclaveError("INVALID_OPTION", "An L1 needs `entriesMax` or `bytesMax`, and not both.");
  }
  if (!Number.isSafeInteger(weightMax) || weightMax < 1 || (entriesMax !== undefined && entriesMax > entriesLimit)) {
    const name = entriesMax === undefined ? "bytesMax" : "entriesMax";
    throw conclaveError("INVALID_OPTION", `\`${name}\` must be a whole number from 1; got ${weightMax}.`);
  }
  const policy = policyOf(options, weightMax);
  return new SlotTable<V>({ policy, weightMax, isCounting: entriesMax !== undefined, now, onRemove });
}

const entriesLimit = 2 ** 24;

function policyOf({ policy = "w-tinylfu", random }: L1Options, weightMax: number): Policy {
  switch (policy) {
    case "w-tinylfu":
      return new WTinyLfu({ weightMax, random, tuner: new Shadows(weightMax) });
    case "s3-fifo":
      return new S3Fifo(weightMax);
    case "sieve":
      return new Sieve();
    case "lru":
      return new Lru();
    default:
      throw conclaveError("INVALID_OPTION", `\`policy\` must be w-tinylfu, s3-fifo, sieve or lru; got ${String(policy)}.`);
  }
}
