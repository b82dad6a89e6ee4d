/**
 * Measures outages from the outside: writes one key a hundred times a second and remembers when each write was answered.
 *
 * A write begins every 10 ms whatever became of those before, so an outage is known to within 10 ms.
 * Each has a value of its own, so that the key's last value tells whether an acknowledged write was lost.
 */
import { ConclaveError } from "../index.ts";
import { monotonicMs } from "./clock.ts";

/** One write. The outcome is unknown while `ackedAtMs` is undefined, unless it `failed` for certain. */
export interface Probe {
  readonly startedAtMs: number;
  ackedAtMs: number | undefined;
  hasFailed: boolean;
}

/** Writes the value where the prober's values go. */
export type ProbeWrite = (value: string, options: { readonly timeoutMs: number }) => Promise<unknown>;

const everyMs = 10;
const timeoutMs = 1_000;
const openMax = 200;

export const probeKey = "probe";

export class Prober {
  /** By their values: the first wrote "0". */
  readonly probes: Probe[] = [];
  readonly #write: ProbeWrite;
  readonly #open = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;

  constructor(write: ProbeWrite) {
    this.#write = write;
    this.#timer = setInterval(() => this.#begin(), everyMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#open);
  }

  /** The first write begun after this moment that has been answered. */
  firstAckAfter(sinceMs: number): number | undefined {
    return firstAckAfter(this.probes, sinceMs);
  }

  #begin(): void {
    if (this.#open.size >= openMax) return;
    const probe: Probe = { startedAtMs: monotonicMs(), ackedAtMs: undefined, hasFailed: false };
    const value = String(this.probes.push(probe) - 1);
    const open = this.#write(value, { timeoutMs })
      .then(
        () => {
          probe.ackedAtMs = monotonicMs();
        },
        (error: unknown) => {
          probe.hasFailed = error instanceof ConclaveError && error.definite;
        },
      )
      .finally(() => this.#open.delete(open));
    this.#open.add(open);
  }
}

/** When the first write begun after the moment was answered; undefined: none was. */
export function firstAckAfter(probes: readonly Probe[], sinceMs: number): number | undefined {
  let firstMs: number | undefined;
  for (let index = indexAfter(probes, sinceMs); index < probes.length; index++) {
    const { startedAtMs, ackedAtMs } = probes[index] as Probe;
    // Whoever began later than this was answered later still.
    if (firstMs !== undefined && startedAtMs >= firstMs) break;
    if (ackedAtMs !== undefined && (firstMs === undefined || ackedAtMs < firstMs)) firstMs = ackedAtMs;
  }
  return firstMs;
}

/** Probes are in the order of their beginnings. */
function indexAfter(probes: readonly Probe[], sinceMs: number): number {
  let low = 0;
  let high = probes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((probes[middle] as Probe).startedAtMs < sinceMs) low = middle + 1;
    else high = middle;
  }
  return low;
}
