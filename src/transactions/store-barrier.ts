/**
 * The barrier in the Conclave store: lines and work are one transaction of the store, which compares that the lines were free.
 *
 * Two who come at the same time both run their work, which only collects writes; one of the two transactions wins, and the other
 * finds the line taken and answers from it. Work must not have effects of its own: what counts is what it puts into the handle.
 */
import { conclaveError } from "../base/errors.ts";
import {
  type BarrierLines,
  type BranchStanding,
  type ForwardWord,
  judge,
  type SecondWord,
  standingOf,
} from "../coordinator/barrier.ts";
import type { Compare, Engine, Op, Store } from "../store/store.ts";
import {
  answerOf,
  type Barrier,
  type BarrierAnswer,
  type BarrierCall,
  type BarrierWork,
  barrierKeptMs,
  decodeResult,
  encodeResult,
  refusalOf,
} from "./barrier.ts";
import { StoreBranch, type StoreHandle } from "./store-branch.ts";

export interface StoreBarrierOptions {
  /** The service's name: its lines live in the namespace `barrier/<name>`. */
  readonly name: string;
  /** Where the work's keys live. Default "default". Needs `caps.crossNamespace`. */
  readonly namespace?: string;
  /** How long lines are kept. Milliseconds, an hour at least. Default seven days. */
  readonly keptMs?: number;
  /** Lines that are kept at most; a Try beyond it is refused with BUSY until `drop` has made room. Default 1_000_000. */
  readonly linesMax?: number;
}

interface Line {
  readonly word: ForwardWord | SecondWord;
  readonly result: string | null;
  /** Calendar milliseconds: for `drop`. */
  readonly atMs: number;
}

const attemptsMax = 10;
const dropMax = 60;

/** A barrier in the store: `storeBarrier(conclave.engine, { name: "inventory" })`. Work is given a `StoreHandle`. @since 0.2.0 */
export function storeBarrier(engine: Engine, options: StoreBarrierOptions): Barrier<StoreHandle> {
  if (!engine.caps.crossNamespace) {
    throw conclaveError("UNSUPPORTED", `${engine.caps.engine} cannot write two namespaces in one transaction.`);
  }
  const { keptMs = barrierKeptMs } = options;
  if (!(keptMs >= 3_600_000)) throw conclaveError("INVALID_OPTION", `\`keptMs\` is ${keptMs}; it must be an hour or more.`);
  return new StoreBarrier(engine.store(`barrier/${options.name}`), {
    namespace: "default",
    linesMax: 1_000_000,
    ...options,
    keptMs,
  });
}

class StoreBarrier implements Barrier<StoreHandle> {
  readonly keptMs: number;
  readonly #store: Store;
  readonly #options: Required<StoreBarrierOptions>;
  #isFull = false;

  constructor(store: Store, options: Required<StoreBarrierOptions>) {
    this.#store = store;
    this.#options = options;
    this.keptMs = options.keptMs;
  }

  install(): Promise<void> {
    return Promise.resolve();
  }

  async run(call: BarrierCall, work: BarrierWork<StoreHandle>): Promise<BarrierAnswer> {
    if (this.#isFull && call.phase === "try") throw conclaveError("BUSY", `The barrier holds ${this.#options.linesMax} lines.`);
    const keys = keysOf(call);
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const lines = await this.#read(call);
      const judgement = judge(call.phase, lines);
      if (judgement.kind === "skip" && lines.forward === null) {
        if (await this.#write({ free: [keys[0]], puts: { [keys[0]]: this.#line("abort", null) } })) return { kind: "skipped" };
        continue;
      }
      if (judgement.kind !== "run") return answerOf(judgement);
      const isForward = call.phase === "try";
      if (isForward && lines.forward !== null) throw conclaveError("BUSY", "This branch is being tried outside of the store.");
      const handle = new StoreBranch(this.#store, this.#options.namespace);
      let word: ForwardWord | SecondWord = call.phase;
      let kept: unknown;
      let isRefused = false;
      try {
        kept = await work(handle, decodeResult(judgement.tried));
      } catch (error) {
        const refusal = refusalOf(error);
        if (refusal === null || !isForward) throw error;
        if (call.mustSucceed === true) return { kind: "refused", ...refusal, isReplay: false };
        [word, kept, isRefused] = ["refuse", refusal, true];
      }
      handle.close();
      const text = encodeResult(kept);
      const key = keys[isForward ? 0 : 1];
      // Also a refusal rests on what it read: it holds only while that has not changed.
      const compares = [...handle.compares];
      const free = isForward ? keys : [keys[1]];
      const puts = { [key]: this.#line(word, text) };
      if (!(await this.#write({ free, puts, compares, writes: isRefused ? [] : handle.writes }))) continue;
      if (!isRefused) return { kind: "done", result: decodeResult(text), isReplay: false };
      return { kind: "refused", ...(kept as { reason: string; details: unknown }), isReplay: false };
    }
    throw conclaveError("BUSY", "What this branch reads changes all the time.");
  }

  async runOutside(call: BarrierCall, work: () => Promise<unknown>): Promise<BarrierAnswer> {
    const keys = keysOf(call);
    await this.#write({ free: [keys[0]], puts: { [keys[0]]: this.#line("intent", null) } });
    const judgement = judge("try", await this.#read(call));
    if (judgement.kind !== "run") return answerOf(judgement);
    let word: ForwardWord = "try";
    let kept: unknown;
    try {
      kept = await work();
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === null) throw error;
      [word, kept] = ["refuse", refusal];
    }
    const text = encodeResult(kept);
    const intent: Compare = { key: keys[0], target: "exists", is: "equal", to: true };
    const isFirst = await this.#write({ free: [keys[1]], puts: { [keys[0]]: this.#line(word, text) }, compares: [intent] });
    if (!isFirst) {
      const now = judge("try", await this.#read(call));
      if (now.kind !== "run") return answerOf(now);
      throw conclaveError("BUSY", "This branch is in somebody else's hands at this moment.");
    }
    if (word === "try") return { kind: "done", result: decodeResult(text), isReplay: false };
    return { kind: "refused", ...(kept as { reason: string; details: unknown }), isReplay: false };
  }

  async standing(gid: string, branch: number): Promise<BranchStanding> {
    return standingOf(await this.#read({ gid, branch }));
  }

  async drop(): Promise<number> {
    const { results } = await this.#store.txn({
      then: [{ kind: "range", range: { prefix: "" }, order: "create", limit: dropMax }],
    });
    const [listed] = results;
    if (listed?.kind !== "range") return 0;
    const beforeMs = this.#store.platform.wallMs() - this.keptMs;
    const old = listed.entries.filter(({ text }) => (JSON.parse(text) as Line).atMs < beforeMs);
    this.#isFull = listed.count - old.length >= this.#options.linesMax;
    if (old.length === 0) return 0;
    await this.#store.txn({ then: old.map(({ key }) => ({ kind: "delete", range: { key } }) as const) });
    return old.length;
  }

  async #read(call: { readonly gid: string; readonly branch: number }): Promise<BarrierLines> {
    const { results } = await this.#store.txn({ then: keysOf(call).map((key) => ({ kind: "get", key }) as const) });
    const [forward, second] = results.map((result) =>
      result.kind === "get" && result.entry !== null ? (JSON.parse(result.entry.text) as Line) : null,
    );
    return { forward: (forward ?? null) as BarrierLines["forward"], second: (second ?? null) as BarrierLines["second"] };
  }

  /** False: a line was taken, or something that the work read has changed. An unanswered write rejects; asked again it is found. */
  async #write({
    free,
    puts,
    compares = [],
    writes = [],
  }: {
    readonly free: readonly string[];
    readonly puts: Readonly<Record<string, string>>;
    readonly compares?: readonly Compare[];
    readonly writes?: readonly Op[];
  }): Promise<boolean> {
    const { succeeded } = await this.#store.txn({
      if: [...free.map((key) => ({ key, target: "exists", is: "equal", to: false }) as const), ...compares],
      then: [...Object.entries(puts).map(([key, value]) => ({ kind: "put", key, value }) as const), ...writes],
    });
    return succeeded;
  }

  #line(word: Line["word"], result: string | null): string {
    return JSON.stringify({ word, result, atMs: this.#store.platform.wallMs() } satisfies Line);
  }
}

function keysOf({ gid, branch }: { readonly gid: string; readonly branch: number }): readonly [string, string] {
  return [`${gid}/${branch}/0`, `${gid}/${branch}/1`];
}
