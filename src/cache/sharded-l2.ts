/**
 * L2 over many nodes: our ring says where a key lives, `replicas` of them hold it, and a node that fails is a miss and then
 * left out.
 *
 *   key -> owners on the ring, the dead skipped -> read the first; if it fails, the next -> none: a miss
 *   three failures in a row: out for `outMs`; its keys live on the nodes after it; then one call tries whether it is back
 *
 * A node that comes back brings values from before it left. They are judged by their revision like any other, so nothing
 * need be flushed. When a value expires is judged by the clock of the first node that is alive for the key: two servers whose
 * clocks differ shift expiries by as much.
 */
import { conclaveError } from "../base/errors.ts";
import type { L2 } from "../cache-core/l2.ts";
import { type Ring, ring } from "../hash/ring.ts";

export interface L2Node {
  /** A name that stays the node's: keys are placed by it. */
  readonly id: string;
  readonly l2: (cacheName: string) => L2;
  /** Default 1. */
  readonly weight?: number;
  /** Replicas spread over zones. */
  readonly zone?: string;
}

export interface ShardedL2Options {
  readonly nodes: readonly L2Node[];
  /** On how many nodes a value lies. Default 1. */
  readonly replicas?: number;
  /** How long one node may take. Milliseconds. Default 40: two fit into the default `l2TimeoutMs`. */
  readonly nodeTimeoutMs?: number;
  /** How long a failed node is left out. Milliseconds. Default 5_000. */
  readonly outMs?: number;
}

interface Shard {
  readonly l2: L2;
  failures: number;
  outUntilMs: number;
}

const failuresMax = 3;

/** @throws INVALID_OPTION @since 0.2.0 */
export function shardedL2(options: ShardedL2Options): (cacheName: string) => L2 {
  const { nodes, replicas = 1, nodeTimeoutMs = 40, outMs = 5_000 } = options;
  if (nodes.length === 0) throw conclaveError("INVALID_OPTION", "`nodes` is empty: an L2 over many nodes needs one at least.");
  if (!Number.isSafeInteger(replicas) || replicas < 1) {
    throw conclaveError("INVALID_OPTION", `\`replicas\` is ${replicas}; it must be a whole number from 1.`);
  }
  const placement = ring(
    nodes.map(({ id, weight, zone }) => ({
      id,
      ...(weight === undefined ? {} : { weight }),
      ...(zone === undefined ? {} : { zone }),
    })),
  );
  return (cacheName) => {
    const shards = new Map(nodes.map(({ id, l2 }): [string, Shard] => [id, { l2: l2(cacheName), failures: 0, outUntilMs: 0 }]));
    return new ShardedL2({ placement, shards, replicas, nodeTimeoutMs, outMs });
  };
}

class ShardedL2 implements L2 {
  readonly name = "sharded";
  readonly #placement: Ring;
  readonly #shards: ReadonlyMap<string, Shard>;
  readonly #replicas: number;
  readonly #nodeTimeoutMs: number;
  readonly #outMs: number;

  constructor(parts: {
    readonly placement: Ring;
    readonly shards: ReadonlyMap<string, Shard>;
    readonly replicas: number;
    readonly nodeTimeoutMs: number;
    readonly outMs: number;
  }) {
    this.#placement = parts.placement;
    this.#shards = parts.shards;
    this.#replicas = parts.replicas;
    this.#nodeTimeoutMs = parts.nodeTimeoutMs;
    this.#outMs = parts.outMs;
  }

  async get(key: string): Promise<string | null> {
    for (const shard of this.#living(key)) {
      const answer = await this.#call(shard, () => shard.l2.get(key));
      if (typeof answer?.value === "string") return answer.value;
    }
    return null;
  }

  async set(key: string, text: string, ttlMs: number): Promise<void> {
    await Promise.all(this.#living(key).map((shard) => this.#call(shard, () => shard.l2.set(key, text, ttlMs))));
  }

  async delete(key: string): Promise<void> {
    await Promise.all(this.#living(key).map((shard) => this.#call(shard, () => shard.l2.delete(key))));
  }

  clockMs(key: string): number | undefined {
    for (const shard of this.#living(key)) {
      const clockMs = shard.l2.clockMs(key);
      if (clockMs !== undefined) return clockMs;
    }
    return undefined;
  }

  /** The first `replicas` owners that are not out. */
  #living(key: string): Shard[] {
    const nowMs = performance.now();
    const hasOut = [...this.#shards.values()].some(({ outUntilMs }) => outUntilMs > nowMs);
    const owners = this.#placement.owners(wellFormed(key), hasOut ? this.#shards.size : this.#replicas);
    const living = owners.map((id) => this.#shards.get(id) as Shard).filter(({ outUntilMs }) => outUntilMs <= nowMs);
    return living.slice(0, this.#replicas);
  }

  /** Undefined: it failed. Never rejects: a node that is gone is a miss. */
  #call<T>(shard: Shard, act: () => Promise<T>): Promise<{ readonly value: T } | undefined> {
    return new Promise((resolve) => {
      const fail = (): void => {
        shard.failures++;
        if (shard.failures >= failuresMax) shard.outUntilMs = performance.now() + this.#outMs;
        resolve(undefined);
      };
      const timer = setTimeout(fail, this.#nodeTimeoutMs);
      act().then(
        (value) => {
          clearTimeout(timer);
          shard.failures = 0;
          resolve({ value });
        },
        () => {
          clearTimeout(timer);
          fail();
        },
      );
    });
  }
}

/** The ring takes any text; half a surrogate pair is placed like its replacement, and stored under its own name. */
function wellFormed(key: string): string {
  return /\p{Surrogate}/u.test(key) ? key.replace(/\p{Surrogate}/gu, "\ufffd") : key;
}
