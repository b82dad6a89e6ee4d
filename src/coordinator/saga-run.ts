/**
 * One saga as it runs in one process: carries out what its core says, with patience, and reports what became of it.
 *
 * A step without an answer is asked again, because its barrier answers the second time as the first; until its patience ends,
 * where the saga may still turn back, and for ever where it may not. Never two attempts of one step at a time.
 */
import { background } from "../base/background.ts";
import { linkSignal, onAbort } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import { sleep } from "../recipes/bell.ts";
import { ask, silent } from "./ask.ts";
import type { Epoch } from "./epoch.ts";
import { type SagaAct, SagaCore, type StageShape, type StepShape } from "./saga-core.ts";
import type { SagaEnd, SagaEntry, SagaLog } from "./saga-log.ts";
import type { ServiceReply } from "./service-port.ts";

/** What a step is given. */
export interface StepCall {
  readonly gid: string;
  readonly branch: number;
  readonly input: unknown;
  /** Of the steps that are done, by name. */
  readonly results: Readonly<Record<string, unknown>>;
  /** It stands behind the pivot: it is asked until it is done. */
  readonly mustSucceed: boolean;
  /** Calendar milliseconds of the saga's time. */
  readonly deadlineAtMs: number;
  readonly timeoutMs: number;
  readonly traceparent: string | undefined;
  /** Aborts when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

export type StepReply =
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "refused"; readonly reason: string; readonly details?: unknown }
  /** It was cancelled before. */
  | { readonly kind: "closed" }
  /** Nobody knows, or not now: ask again. */
  | { readonly kind: "later"; readonly why: string };

/** What a service's answer is to a saga. */
export function stepReplyOf(reply: ServiceReply): StepReply {
  switch (reply.kind) {
    case "done":
      return { kind: "done", result: reply.result };
    case "skipped":
      return { kind: "done", result: null };
    case "refused":
      return { kind: "refused", reason: reply.reason, details: reply.details };
    case "closed":
      return { kind: "closed" };
    case "busy":
    case "misconfigured":
      return { kind: "later", why: reply.why };
    case "standing":
      return { kind: "later", why: "a step was answered with a standing" };
  }
}

export interface StepWork {
  readonly do: (call: StepCall) => Promise<StepReply>;
  readonly undo?: (call: StepCall) => Promise<StepReply>;
  /** Of one attempt. */
  readonly timeoutMs: number;
  /** Attempts without an answer before the saga turns back, where it may. */
  readonly attemptsMax: number;
}

export interface SagaDefinition {
  readonly name: string;
  readonly stages: readonly StageShape[];
  /** By branch. */
  readonly work: ReadonlyMap<number, StepWork>;
}

export interface SagaRunParts {
  readonly definition: SagaDefinition;
  readonly entry: SagaEntry;
  readonly isTakenOver: boolean;
  readonly epoch: Epoch;
  readonly log: SagaLog;
  readonly platform: Platform;
  readonly retryMsMin: number;
  readonly retryMsMax: number;
  readonly signal: AbortSignal;
  readonly onTurn: (turn: "pivot" | "back", why: string) => void;
  readonly onAttention: (step: string, why: string) => void;
  readonly checkpoint: (step: SagaCheckpoint, gid: string, name: string) => void | Promise<void>;
}

/** Where a crash is most telling. */
export type SagaCheckpoint =
  | "saga-beginning"
  | "saga-begun"
  | "saga-do"
  | "saga-done"
  | "saga-refused"
  | "saga-turned"
  | "saga-undo"
  | "saga-undone"
  | "saga-ending"
  | "saga-ended";

/** After so many attempts an operator is told. */
const attentionAfter = 10;

export class SagaRun {
  readonly #parts: SagaRunParts;
  readonly #core: SagaCore;
  readonly #input: unknown;
  readonly #results: Record<string, unknown> = {};
  readonly #life;
  #entry: SagaEntry;
  #why = "";
  #details: unknown;
  readonly ended: Promise<SagaEnd | "lost">;
  #settle: (end: SagaEnd | "lost") => void = () => undefined;

  constructor(parts: SagaRunParts) {
    this.#parts = parts;
    this.#entry = parts.entry;
    const { record } = parts.entry;
    this.#why = record.why ?? "";
    this.#input = JSON.parse(record.input);
    this.#life = linkSignal(parts.signal);
    this.#core = new SagaCore(parts.definition.stages, { turn: record.turn, isTakenOver: parts.isTakenOver });
    this.ended = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  get entry(): SagaEntry {
    return this.#entry;
  }

  start(): void {
    const { platform, epoch, entry } = this.#parts;
    const stop = (): void => this.#lost();
    const forget = [onAbort(epoch.session.lost, stop), onAbort(this.#life.signal, stop)];
    const timer = platform.setTimer(Math.max(0, entry.record.deadlineAtMs - platform.wallMs()), () =>
      this.cancel("its time was over"),
    );
    background(
      this.ended.then(() => {
        timer.cancel();
        for (const each of forget) each();
        this.#life.unlink();
        this.#life.abort();
      }),
      "end of a saga",
    );
    this.#act(this.#core.begin());
  }

  /** Turns it back if it may still turn. */
  cancel(why: string): void {
    const acts = this.#core.onCancel();
    if (acts.length > 0) this.#why = why;
    this.#act(acts);
  }

  #act(acts: readonly SagaAct[]): void {
    for (const act of acts) {
      switch (act.kind) {
        case "do":
          this.#go(this.#do(act.step));
          break;
        case "undo":
          this.#go(this.#undo(act.step));
          break;
        case "write":
          this.#go(this.#write(act.turn));
          break;
        case "end":
          this.#go(this.#end(act.outcome));
          break;
      }
    }
  }

  /** What a run throws is the end of its life here, by the signal. */
  #go(work: Promise<void>): void {
    work.catch((error: unknown) => {
      if (!this.#life.signal.aborted) this.#parts.onAttention("", error instanceof Error ? error.message : String(error));
      this.#lost();
    });
  }

  async #do(step: StepShape): Promise<void> {
    const { attemptsMax } = this.#work(step);
    let pauseMs = this.#parts.retryMsMin;
    for (let attempt = 1; ; attempt++) {
      await this.#check("saga-do", step);
      const reply = await this.#attempt(step, "do");
      if (this.#life.signal.aborted) return;
      if (reply.kind === "done") {
        this.#results[step.name] = reply.result;
        await this.#check("saga-done", step);
        return this.#act(this.#core.onDone(step));
      }
      if (!this.#core.isForward) return this.#act(this.#core.onAbandoned(step));
      const how = reply.kind === "later" ? "given-up" : reply.kind;
      const isOver = how !== "given-up" || attempt >= attemptsMax;
      if (isOver && this.#core.mayFail(step, how)) {
        this.#why ||= `${step.name}: ${reply.kind === "refused" ? reply.reason : reply.kind === "later" ? reply.why : "it was cancelled"}`;
        if (reply.kind === "refused") this.#details = reply.details;
        await this.#check("saga-refused", step);
        return this.#act(this.#core.isForward ? this.#core.onFailed(step) : this.#core.onAbandoned(step));
      }
      if (attempt === attentionAfter)
        this.#parts.onAttention(step.name, reply.kind === "closed" ? "it was cancelled" : wordsOf(reply));
      await this.#pause(pauseMs);
      pauseMs = Math.min(pauseMs * 2, this.#parts.retryMsMax);
      if (!this.#core.isForward) return this.#act(this.#core.onAbandoned(step));
    }
  }

  /** Never gives up: what cannot be undone now is told, and tried on while the others are undone. */
  async #undo(step: StepShape): Promise<void> {
    let pauseMs = this.#parts.retryMsMin;
    for (let attempt = 1; ; attempt++) {
      await this.#check("saga-undo", step);
      const reply = await this.#attempt(step, "undo");
      if (this.#life.signal.aborted) return;
      if (reply.kind === "done") {
        await this.#check("saga-undone", step);
        return this.#act(this.#core.onUndone(step));
      }
      if (attempt === attentionAfter) {
        this.#parts.onAttention(step.name, reply.kind === "closed" ? "it says that it was confirmed" : wordsOf(reply));
        this.#act(this.#core.onStuck(step));
      }
      await this.#pause(pauseMs);
      pauseMs = Math.min(pauseMs * 2, this.#parts.retryMsMax);
    }
  }

  async #write(turn: "pivot" | "back"): Promise<void> {
    const { log, epoch } = this.#parts;
    const record = { ...this.#entry.record, turn, ...(turn === "back" ? { why: this.#why } : {}) };
    const written = await log.rewrite(epoch, this.#entry, record);
    if (written === null) return this.#lost();
    this.#entry = written;
    const now = written.record.turn;
    if (now !== "none") this.#parts.onTurn(now, this.#why);
    await this.#check("saga-turned", undefined);
    this.#act(this.#core.onWritten(now));
  }

  async #end(outcome: "completed" | "compensated"): Promise<void> {
    await this.#check("saga-ending", undefined);
    const end: SagaEnd =
      outcome === "completed"
        ? { kind: "completed", results: this.#results }
        : { kind: "compensated", why: this.#why, ...(this.#details === undefined ? {} : { details: this.#details }) };
    this.#settle(end);
  }

  async #attempt(step: StepShape, way: "do" | "undo"): Promise<StepReply> {
    const { platform } = this.#parts;
    const work = this.#work(step);
    const { record, gid } = this.#entry;
    const life = linkSignal(this.#life.signal);
    const call: StepCall = {
      gid,
      branch: step.branch,
      input: this.#input,
      results: this.#results,
      mustSucceed: this.#core.turn === "pivot" && !this.#core.mayFail(step, "refused"),
      deadlineAtMs: record.deadlineAtMs,
      timeoutMs: work.timeoutMs,
      traceparent: record.traceparent,
      signal: life.signal,
    };
    let failure = "no answer in time";
    const asked = async (): Promise<StepReply> => {
      try {
        return (await work[way]?.(call)) ?? { kind: "done", result: null };
      } catch (error) {
        failure = error instanceof Error ? error.message : String(error);
        throw error;
      }
    };
    try {
      const reply = await ask(platform, work.timeoutMs, asked);
      return reply === silent ? { kind: "later", why: failure } : reply;
    } finally {
      life.unlink();
      // An attempt that was given up ends, so that it does not run beside the next one.
      life.abort();
    }
  }

  #work({ branch }: StepShape): StepWork {
    return this.#parts.definition.work.get(branch) as StepWork;
  }

  async #pause(ms: number): Promise<void> {
    const { platform } = this.#parts;
    const jitter = 0.5 + platform.randomUint32() / 2 ** 32;
    await sleep({ platform, timeoutMs: ms * jitter, signal: this.#life.signal, ref: false });
  }

  async #check(at: SagaCheckpoint, step: StepShape | undefined): Promise<void> {
    await this.#parts.checkpoint(at, this.#entry.gid, step?.name ?? "");
  }

  #lost(): void {
    this.#settle("lost");
  }
}

function wordsOf(reply: Extract<StepReply, { kind: "refused" | "later" }>): string {
  return reply.kind === "refused" ? reply.reason : reply.why;
}
