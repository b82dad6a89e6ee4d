/**
 * A saga's course as a state machine: it is told what became of steps and writes, and answers what is to be done next.
 *
 *   step ─► step ─► ... ─► write "pivot" ─► pivot ─► retriable ─► ... ─► completed
 *     │ refused, given up, too late            │ refused
 *     └──► write "back" ──► undo the steps that may have run, last stage first ◄──┘ ──► compensated
 *
 * Two writes decide everything, whatever the number of steps: the beginning, and the turn. "pivot" is written before the pivot is
 * asked: from then on its answer alone decides, and no clock does, so whoever takes over asks it again instead of guessing. A saga
 * that has none writes it after its last step: what was answered "completed" must not be turned back by whoever takes over.
 * "back" is written before the first compensation. What each step did is kept by the step's own barrier, not here.
 * Source: Garcia-Molina and Salem, "Sagas", SIGMOD 1987; pivot and retriable: Richardson, "Microservices Patterns", 2018, §4.3.
 * Pure: no clock, no store, no service.
 */
import { assert } from "../base/assert.ts";

export interface StepShape {
  readonly name: string;
  /** Its number in the saga, from 1: with the gid its idempotency key. */
  readonly branch: number;
  readonly canUndo: boolean;
  /** A barrier keeps its first answer and refuses a Try after its Cancel. */
  readonly isFenced: boolean;
}

/** Steps of one stage run at the same time. `pivot` has one; `retriable` stages stand behind it. */
export interface StageShape {
  readonly kind: "step" | "pivot" | "retriable";
  readonly steps: readonly StepShape[];
}

export type Turn = "none" | "pivot" | "back";

export type SagaAct =
  | { readonly kind: "do"; readonly step: StepShape }
  | { readonly kind: "undo"; readonly step: StepShape }
  | { readonly kind: "write"; readonly turn: "pivot" | "back" }
  | { readonly kind: "end"; readonly outcome: "completed" | "compensated" };

type Mode = "forward" | "writing" | "back" | "ended";

const nothing: readonly SagaAct[] = [];

export class SagaCore {
  readonly #stages: readonly StageShape[];
  readonly #pivotAt: number;
  /** Another process ran it before: any step may have been asked. */
  readonly #isTakenOver: boolean;
  #turn: Turn;
  #mode: Mode = "forward";
  #at = 0;
  readonly #started = new Set<number>();
  /** Asked, and not heard of. */
  readonly #open = new Set<number>();
  readonly #done = new Set<number>();
  readonly #undone = new Set<number>();
  /** Compensations that do not get through: the others go on without them. */
  readonly #stuck = new Set<number>();
  readonly #undoing = new Set<number>();

  constructor(stages: readonly StageShape[], { turn, isTakenOver }: { readonly turn: Turn; readonly isTakenOver: boolean }) {
    this.#stages = stages;
    const pivotAt = stages.findIndex(({ kind }) => kind === "pivot");
    this.#pivotAt = pivotAt === -1 ? stages.length : pivotAt;
    this.#turn = turn;
    this.#isTakenOver = isTakenOver;
  }

  get turn(): Turn {
    return this.#turn;
  }

  get isForward(): boolean {
    return this.#mode === "forward";
  }

  /** Whether a no of this step, or the end of patience with it, may turn the saga back. Else it is asked until it is done. */
  mayFail({ branch }: StepShape, how: "refused" | "given-up" | "closed"): boolean {
    if (this.#turn === "none") return true;
    const at = this.#stages.findIndex(({ steps }) => steps.some((step) => step.branch === branch));
    if (how === "given-up" || at > this.#pivotAt) return false;
    // An earlier step that was cancelled says that the pivot had refused; one that refuses now did not do so before.
    return how === "closed" || at === this.#pivotAt;
  }

  begin(): readonly SagaAct[] {
    return this.#turn === "back" ? this.#goBack() : this.#enter();
  }

  onDone({ branch }: StepShape): readonly SagaAct[] {
    this.#open.delete(branch);
    this.#done.add(branch);
    if (this.#mode === "back") return this.#undoStage();
    if (this.#mode !== "forward") return nothing;
    if (!this.#stage().steps.every((step) => this.#done.has(step.branch))) return nothing;
    this.#at++;
    return this.#enter();
  }

  /** Only where `mayFail`. */
  onFailed(step: StepShape): readonly SagaAct[] {
    this.#open.delete(step.branch);
    if (this.#mode === "back") return this.#undoStage();
    if (this.#mode !== "forward") return nothing;
    // A fenced pivot says no again to whoever asks again: its refusal needs no write of ours.
    if (this.#turn === "pivot" && step.isFenced) return this.#goBack();
    return this.#write("back");
  }

  /** It may have happened, and nobody asks any more, because the saga has turned. */
  onAbandoned({ branch }: StepShape): readonly SagaAct[] {
    this.#open.delete(branch);
    return this.#mode === "back" ? this.#undoStage() : nothing;
  }

  /** The time is over, or somebody asks for it: it turns back, unless its pivot has been or is being let go. */
  onCancel(): readonly SagaAct[] {
    return this.#mode === "forward" && this.#turn === "none" ? this.#write("back") : nothing;
  }

  /** What stands in the record now: as a rule what was asked for. */
  onWritten(turn: Turn): readonly SagaAct[] {
    assert(this.#mode === "writing", "a turn is answered that was asked for");
    this.#turn = turn;
    if (turn === "back") return this.#goBack();
    this.#mode = "forward";
    return this.#enter();
  }

  onUndone({ branch }: StepShape): readonly SagaAct[] {
    this.#undoing.delete(branch);
    this.#stuck.delete(branch);
    this.#undone.add(branch);
    return this.#undoStage();
  }

  /** It is tried on, and the others are compensated meanwhile. */
  onStuck({ branch }: StepShape): readonly SagaAct[] {
    this.#stuck.add(branch);
    return this.#undoStage();
  }

  #stage(): StageShape {
    const stage = this.#stages[this.#at];
    assert(stage !== undefined, "a saga that runs is in one of its stages");
    return stage;
  }

  #enter(): readonly SagaAct[] {
    if (this.#at === this.#pivotAt && this.#turn === "none") return this.#write("pivot");
    if (this.#at === this.#stages.length) return this.#end("completed");
    return this.#ask(this.#stage().steps);
  }

  #ask(steps: readonly StepShape[]): readonly SagaAct[] {
    for (const { branch } of steps) {
      this.#started.add(branch);
      this.#open.add(branch);
    }
    return steps.map((step) => ({ kind: "do", step }));
  }

  #write(turn: "pivot" | "back"): readonly SagaAct[] {
    this.#mode = "writing";
    return [{ kind: "write", turn }];
  }

  #goBack(): readonly SagaAct[] {
    this.#mode = "back";
    // What stands behind the pivot never ran; the pivot itself refused, or was never asked.
    this.#at = this.#pivotAt - 1;
    return this.#undoStage();
  }

  /** Stage by stage from the last: a stage is undone once nothing of it is on its way and everything behind it is undone. */
  #undoStage(): readonly SagaAct[] {
    if (this.#mode !== "back") return nothing;
    const acts: SagaAct[] = [];
    for (; this.#at >= 0; this.#at--) {
      const steps = this.#stage().steps.filter((step) => this.#isSuspect(step));
      if (steps.some(({ branch }) => this.#open.has(branch))) return acts;
      const left = steps.filter(({ branch, canUndo }) => canUndo && !this.#undone.has(branch));
      for (const step of left) {
        if (this.#undoing.has(step.branch)) continue;
        this.#undoing.add(step.branch);
        acts.push({ kind: "undo", step });
      }
      if (left.some(({ branch }) => !this.#stuck.has(branch))) return acts;
    }
    return this.#stuck.size > 0 ? acts : [...acts, ...this.#end("compensated")];
  }

  /** Whether it may have run: who took over cannot know, and asks the barrier. */
  #isSuspect({ branch }: StepShape): boolean {
    return this.#isTakenOver || this.#started.has(branch);
  }

  #end(outcome: "completed" | "compensated"): readonly SagaAct[] {
    this.#mode = "ended";
    return [{ kind: "end", outcome }];
  }
}
