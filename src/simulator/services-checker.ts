/**
 * The judge of the services' world: it sees what services really did and what the store really wrote, and what clients were told.
 *
 * During the run: a step happens once and is undone once, after it happened; stages in order, and back in reverse; nothing is
 * undone behind a pivot, and no pivot after something was undone; a Confirm needs a decision, a Cancel needs that there is none.
 * At the end: every saga is whole or undone, every transaction confirmed everywhere or nowhere, every answer true, nothing left.
 */
import type { Verdict } from "../coordinator/coordinator.ts";
import { type DecisionRecord, recordKeys, type SagaRecord } from "../coordinator/records.ts";
import type { StageShape, StepShape } from "../coordinator/saga-core.ts";
import type { SagaEnd } from "../coordinator/saga-log.ts";
import type { Txn } from "../store/store.ts";
import { must } from "./invariant-violation.ts";

interface Course {
  readonly stages: readonly StageShape[];
  readonly done: Set<number>;
  readonly undone: Set<number>;
  /** Writes of its record: a beginning, a turn, and one for each take-over. */
  writes: number;
  takeOvers: number;
  turn: SagaRecord["turn"];
  isEnded: boolean;
  /** Somebody was told that a step does not get through: from then on the others go on without it. */
  isStuck: boolean;
}

export class ServicesChecker {
  readonly #note: (text: string) => void;
  readonly #definitions: ReadonlyMap<string, readonly StageShape[]>;
  readonly #sagas = new Map<string, Course>();
  readonly #keys = new Map<string, string>();
  readonly #decided = new Map<string, "commit" | "abort">();
  readonly #alone = new Set<string>();
  readonly #transactions = new Map<string, { branches: number; readonly confirmed: Set<number>; readonly tried: Set<number> }>();

  constructor(definitions: ReadonlyMap<string, readonly StageShape[]>, note: (text: string) => void) {
    this.#definitions = definitions;
    this.#note = note;
  }

  /** Each transaction that the store executed. */
  onStore(txn: Txn, succeeded: boolean): void {
    if (!succeeded) return;
    for (const op of txn.then) {
      if (op.kind === "delete" && "key" in op.range && String(op.range.key).startsWith(recordKeys.sagas)) {
        const course = this.#sagas.get(String(op.range.key).slice(recordKeys.sagas.length));
        if (course !== undefined) course.isEnded = true;
      }
      if (op.kind !== "put" || typeof op.key !== "string" || typeof op.value !== "string") continue;
      if (op.key.startsWith(recordKeys.decisions)) {
        const gid = op.key.slice(recordKeys.decisions.length);
        const { outcome } = JSON.parse(op.value) as DecisionRecord;
        must(!this.#decided.has(gid), "WriteOnce", () => `${gid} is decided twice`);
        this.#decided.set(gid, outcome);
        const entry = this.#transactions.get(gid);
        const isWhole = outcome === "abort" || entry === undefined || entry.tried.size === entry.branches;
        must(
          isWhole,
          "DecidedIsTried",
          () => `${gid} is decided to commit with ${entry?.tried.size} of ${entry?.branches} tried`,
        );
        this.#note(`store: ${gid} is decided to ${outcome}`);
      }
      if (op.key.startsWith(recordKeys.sagas))
        this.#onSaga(op.key.slice(recordKeys.sagas.length), JSON.parse(op.value) as SagaRecord);
    }
  }

  onTransaction(gid: string): { readonly tried: Set<number> } {
    const entry = { branches: 0, confirmed: new Set<number>(), tried: new Set<number>() };
    this.#transactions.set(gid, entry);
    return entry;
  }

  /** Before the commit: how many branches there are. One alone is decided by its service. */
  onCommitCall(gid: string, branches: number): void {
    const entry = this.#transactions.get(gid);
    if (entry !== undefined) entry.branches = branches;
    if (branches === 1) this.#alone.add(gid);
  }

  onVerdict(gid: string, verdict: Verdict): void {
    const isIn =
      this.#decided.get(gid) === "commit" || (this.#alone.has(gid) && this.#transactions.get(gid)?.confirmed.size === 1);
    if (verdict.kind === "committed") must(isIn, "AcknowledgedIsDecided", () => `${gid} was answered "committed" and is not`);
    if (verdict.kind === "aborted") must(!isIn, "AbortIsTrue", () => `${gid} was answered "aborted" and is committed`);
  }

  /** A service did something, once more. */
  onRun(service: string, did: "do" | "refuse" | "confirm" | "cancel", gid: string, branch: number): void {
    this.#note(`${service}: ${gid}/${branch} ${did}`);
    const course = this.#sagas.get(gid);
    if (course !== undefined) this.#onStep(course, did, gid, branch);
    else this.#onBranch(did, gid, branch);
  }

  onStuck(gid: string): void {
    const course = this.#sagas.get(gid);
    if (course !== undefined) course.isStuck = true;
  }

  /** What a client was told of its saga. */
  onSagaAnswer(gid: string, end: SagaEnd, key: string | undefined): void {
    this.#note(`told: ${gid} ${end.kind}`);
    const course = this.#sagas.get(gid);
    must(course !== undefined, "Known", () => `${gid} was answered and never begun`);
    if (course === undefined) return;
    this.#judgeEnd(gid, course, end.kind);
    if (key === undefined) return;
    const other = this.#keys.get(key);
    must(other === undefined || other === gid, "OncePerKey", () => `${key} was answered by ${other} and by ${gid}`);
    this.#keys.set(key, gid);
  }

  judge(keysLeft: readonly string[], open: readonly string[]): void {
    must(keysLeft.length === 0, "NothingLeft", () => `left in the store: ${keysLeft.join(", ")}`);
    for (const [gid, course] of this.#sagas) {
      must(course.isEnded, "SagasEnd", () => `${gid} never ended`);
      const isForward = course.undone.size === 0 && course.done.size === stepsOf(course).length;
      this.#judgeEnd(gid, course, isForward ? "completed" : "compensated");
      const writesMax = 2 + course.takeOvers * 2;
      must(
        course.writes <= writesMax,
        "TwoWrites",
        () => `${gid} wrote ${course.writes} times, taken over ${course.takeOvers} times`,
      );
    }
    for (const [gid, { branches, confirmed }] of this.#transactions) {
      const isIn = this.#decided.get(gid) === "commit" || (this.#alone.has(gid) && confirmed.size === 1);
      const due = isIn ? branches : 0;
      must(confirmed.size === due, "Atomicity", () => `${gid} is confirmed by ${confirmed.size} of ${branches}, due: ${due}`);
    }
    const hanging = open.filter((key) => this.#transactions.has(key.slice(0, key.lastIndexOf("/"))));
    must(hanging.length === 0, "NothingHangs", () => `tried and left: ${hanging.join(", ")}`);
  }

  #onSaga(gid: string, record: SagaRecord): void {
    let course = this.#sagas.get(gid);
    if (course === undefined) {
      const stages = this.#definitions.get(record.name) ?? [];
      const fresh = { writes: 0, takeOvers: 0, turn: "none", isEnded: false, isStuck: false } as const;
      course = { stages, done: new Set(), undone: new Set(), ...fresh };
      this.#sagas.set(gid, course);
    }
    const before = course.turn;
    must(before !== "back" || record.turn === "back", "TurnsOnce", () => `${gid} turns from back to ${record.turn}`);
    must(before !== "pivot" || record.turn !== "none", "TurnsOnce", () => `${gid} forgets its pivot`);
    this.#note(`store: saga ${gid} ${record.turn}, take-over ${record.takeOvers}`);
    course.writes++;
    course.turn = record.turn;
    course.takeOvers = record.takeOvers;
  }

  #onStep(course: Course, did: "do" | "refuse" | "confirm" | "cancel", gid: string, branch: number): void {
    const at = course.stages.findIndex(({ steps }) => steps.some((step) => step.branch === branch));
    const stage = course.stages[at] as StageShape;
    const pivot = course.stages.find(({ kind }) => kind === "pivot")?.steps[0];
    const isPastPivot = pivot !== undefined && course.done.has(pivot.branch);
    must(did !== "confirm", "SagasDoNotConfirm", () => `${gid}/${branch}`);
    if (did === "do") {
      must(!course.done.has(branch), "OncePerStep", () => `${gid}/${branch} happens twice`);
      const before = course.stages.slice(0, at).flatMap(({ steps }) => steps);
      const missing = before.find((step) => !course.done.has(step.branch));
      must(missing === undefined, "InOrder", () => `${gid}/${branch} before ${missing?.name}`);
      must(
        stage.kind === "step" || course.undone.size === 0,
        "NoPivotAfterUndo",
        () => `${gid}/${branch} after something was undone`,
      );
      must(
        stage.kind === "step" || course.turn === "pivot",
        "PivotIsWritten",
        () => `${gid}/${branch} before the turn was written`,
      );
      course.done.add(branch);
    }
    if (did === "cancel") {
      must(course.done.has(branch) && !course.undone.has(branch), "UndoneOnce", () => `${gid}/${branch}`);
      must(!isPastPivot, "NoUndoBehindPivot", () => `${gid}/${branch} is undone though the pivot is done`);
      must(stage.kind === "step", "OnlyStepsAreUndone", () => `${gid}/${branch}`);
      must(course.turn !== "none", "TurnBeforeUndo", () => `${gid}/${branch} is undone before anything was written`);
      const later = course.stages.slice(at + 1).flatMap(({ steps }) => steps);
      const early = later.find((step) => step.canUndo && course.done.has(step.branch) && !course.undone.has(step.branch));
      must(early === undefined || course.isStuck, "ReverseOrder", () => `${gid}/${branch} is undone before ${early?.name}`);
      course.undone.add(branch);
    }
  }

  #onBranch(did: "do" | "refuse" | "confirm" | "cancel", gid: string, branch: number): void {
    const entry = this.#transactions.get(gid);
    must(entry !== undefined, "Known", () => `${gid} was never begun`);
    if (entry === undefined) return;
    const outcome = this.#decided.get(gid);
    if (did === "do") {
      must(!entry.tried.has(branch), "OncePerStep", () => `${gid}/${branch} is tried twice`);
      entry.tried.add(branch);
    }
    if (did === "confirm") {
      must(outcome === "commit" || this.#alone.has(gid), "NoConfirmWithoutDecision", () => `${gid}/${branch}`);
      must(!entry.confirmed.has(branch), "OncePerStep", () => `${gid}/${branch} is confirmed twice`);
      entry.confirmed.add(branch);
    }
    if (did === "cancel") must(outcome !== "commit", "NoCancelAgainstDecision", () => `${gid}/${branch}`);
  }

  #judgeEnd(gid: string, course: Course, kind: SagaEnd["kind"]): void {
    const steps = stepsOf(course);
    if (kind === "completed") {
      const missing = steps.find((step) => !course.done.has(step.branch));
      must(missing === undefined, "CompletedIsWhole", () => `${gid} completed without ${missing?.name}`);
      must(course.undone.size === 0, "CompletedIsWhole", () => `${gid} completed and was undone`);
      return;
    }
    const pivot = course.stages.find((stage) => stage.kind === "pivot")?.steps[0];
    must(
      pivot === undefined || !course.done.has(pivot.branch),
      "CompensatedIsUndone",
      () => `${gid} was compensated and its pivot is done`,
    );
    const left = steps.find((step) => step.canUndo && course.done.has(step.branch) && !course.undone.has(step.branch));
    must(left === undefined, "CompensatedIsUndone", () => `${gid} was compensated and ${left?.name} is not undone`);
  }
}

function stepsOf({ stages }: Course): readonly StepShape[] {
  return stages.flatMap(({ steps }) => steps);
}
