/**
 * Bad weather for a `LocalEngine`, from a seed: calls that are refused, lost, unanswered or late, pushes that vanish, double,
 * merge or become states. `isBad = false` ends it, for the part of a test in which everybody must be served.
 */
import type { BatchFault, CallFault, LocalFaults } from "./local-faults.ts";
import { VirtualPlatform } from "./virtual-platform.ts";

export interface Weather {
  isBad: boolean;
  readonly dice: Dice;
  readonly faults: LocalFaults;
}

export class Dice {
  readonly #platform: VirtualPlatform;
  constructor(seed: number) {
    this.#platform = new VirtualPlatform({ seed });
  }
  /** A whole number from 0 to below the limit. */
  below(limit: number): number {
    return this.#platform.randomUint32() % limit;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

/** The same seed gives the same weather. */
export function badWeather(seed: number, watch: "log" | "level"): Weather {
  const dice = new Dice(seed);
  const weather: Weather = {
    isBad: true,
    dice,
    faults: {
      latencyMs: () => (weather.isBad && dice.chance(60) ? dice.below(30) : 0),
      call: (): CallFault | undefined => {
        if (!weather.isBad || dice.chance(90)) return undefined;
        const kinds: CallFault[] = [
          { kind: "refuse" },
          { kind: "lose-request" },
          { kind: "lose-answer" },
          { kind: "late", delayMs: dice.below(2_500) },
        ];
        return kinds[dice.below(kinds.length)];
      },
      batch: (): BatchFault | undefined => {
        if (!weather.isBad || dice.chance(60)) return undefined;
        const kinds: BatchFault[] = [
          { kind: "drop" },
          { kind: "duplicate" },
          { kind: "coalesce", delayMs: 10 + dice.below(100) },
          ...(watch === "log" ? [{ kind: "resync" } as const] : []),
        ];
        return kinds[dice.below(kinds.length)];
      },
    },
  };
  return weather;
}
