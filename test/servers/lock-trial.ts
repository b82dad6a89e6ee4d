/**
 * The trial of a lock in bad weather, the same for every engine: many contenders add to a counter that nothing else guards.
 */
import { createLock } from "../../src/recipes/lock.ts";
import type { Engine } from "../../src/store/store.ts";

export const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(isSo: () => boolean | Promise<boolean>, what: string, ms = 20_000): Promise<void> {
  const untilMs = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > untilMs) throw new Error(`Not within ${ms} ms: ${what}.`);
    await pass(20);
  }
}

/** Numbers from 0 to 1, the same for the same seed. */
export function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
}

export interface Trial {
  readonly engines: readonly Engine[];
  readonly name: string;
  readonly ttlMs: number;
  /** How often each engine's contender enters. */
  readonly turns: number;
}

export interface TrialResult {
  readonly entered: number;
  /** Entries that found somebody inside whose hold still counted. */
  readonly together: number;
  /** Tokens in the order of entering. */
  readonly tokens: readonly number[];
  /** Of entries that ended because the hold was lost: no mistake of the lock. */
  readonly lost: number;
}

export async function tryLock({ engines, name, ttlMs, turns }: Trial): Promise<TrialResult> {
  let together = 0;
  let lost = 0;
  const tokens: number[] = [];
  let inside: { readonly held: boolean } | undefined;
  const contend = async (engine: Engine): Promise<void> => {
    const lock = createLock(engine, name, { ttlMs });
    for (let turn = 0; turn < turns; ) {
      try {
        await lock.run(
          async (hold) => {
            if (inside?.held) together++;
            inside = hold;
            tokens.push(hold.token);
            await pass(2);
            if (inside === hold) inside = undefined;
          },
          { waitMs: 60_000 },
        );
        turn++;
      } catch {
        // A session that was lost, or had ended before anybody knew: entered anew.
        lost++;
        if (lost > 200) throw new Error(`The holds are lost again and again on ${name}.`);
        await pass(20);
      }
    }
  };
  await Promise.all(engines.map(contend));
  return { entered: tokens.length, together, tokens, lost };
}

export function isRising(tokens: readonly number[]): boolean {
  return tokens.every((token, at) => at === 0 || token > (tokens[at - 1] as number));
}
