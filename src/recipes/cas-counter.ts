/**
 * A counter on a store that can only compare and set: read, add, set if nobody was faster, else again.
 *
 * The last value that was seen is tried first, so that a lone writer pays one set. An add whose answer was lost may have
 * happened (`definite: false`) and is not repeated.
 */
import { utf8Decode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { CallOptions, CasEntry, CasStore } from "../store/store.ts";
import { sleep } from "./bell.ts";
import type { CasSource } from "./cas-lock.ts";
import { checkName } from "./options.ts";

const cellKey = "cell/0";
const answerMsDefault = 10_000;
const pauseMsMax = 200;

/** Makes the handle of a counter; nothing is sent. @throws INVALID_OPTION @since 0.3.0 */
export function createCasCounter(source: CasSource, name: string): CasCounter {
  checkName(name, "counter");
  return new CasCounter(source, name);
}

/** @since 0.3.0 */
export class CasCounter {
  readonly name: string;
  readonly #store: CasStore;
  readonly #platform: Platform;
  #seen: CasEntry | null = null;

  /** Use `createCasCounter`. */
  constructor(source: CasSource, name: string) {
    this.name = name;
    this.#store = source.cas(`counter/${name}`);
    this.#platform = source.platform;
  }

  /** Adds a whole number, and answers with the sum. @throws NOT_A_NUMBER, TIMEOUT (may have happened unless `definite`) */
  async addAndGet(delta: number, { signal, timeoutMs = answerMsDefault }: CallOptions = {}): Promise<number> {
    if (!Number.isSafeInteger(delta)) throw conclaveError("NOT_A_NUMBER", `\`delta\` is ${delta}; it must be whole.`);
    const link = linkSignal(signal);
    const untilMs = this.#platform.now() + timeoutMs;
    try {
      for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
        const leftMs = untilMs - this.#platform.now();
        // Every set before was refused for certain.
        if (leftMs <= 0) throw conclaveError("TIMEOUT", `Others were always faster, for ${timeoutMs} ms.`, { definite: true });
        const sum = numberIn(this.#seen) + delta;
        if (!Number.isSafeInteger(sum)) throw conclaveError("NOT_A_NUMBER", "The sum is beyond 2^53.");
        const change = { key: cellKey, expected: this.#seen?.revision ?? null, value: String(sum) };
        const { applied, current } = await this.#store.compareAndSet(change, { timeoutMs: leftMs, signal: link.signal });
        this.#seen = current;
        if (applied) return sum;
        const drawnMs = pauseMs * (this.#platform.randomUint32() / 2 ** 32);
        await sleep({ platform: this.#platform, timeoutMs: drawnMs, signal: link.signal });
      }
    } finally {
      link.unlink();
    }
  }

  /** The sum, 0 where nobody has added. */
  async get(options: CallOptions = {}): Promise<number> {
    this.#seen = await this.#store.get(cellKey, options);
    return numberIn(this.#seen);
  }
}

/** @throws NOT_A_NUMBER */
function numberIn(entry: CasEntry | null): number {
  if (entry === null) return 0;
  const text = utf8Decode(entry.value);
  const number = Number(text);
  if (!/^-?[0-9]+$/.test(text) || !Number.isSafeInteger(number))
    throw conclaveError("NOT_A_NUMBER", "The value of a counter is no whole number.");
  return number;
}
