/**
 * The barrier: what a service makes of Try, Confirm and Cancel that come twice, late, or in the wrong order.
 *
 * Intuition: a guest book with two lines for each branch. Whoever comes writes into the line before doing anything, in the same
 * local transaction; who finds the line taken reads there what became of it.
 *
 *   line 0   try      the Try ran; its result is kept          line 1   confirm   with its result
 *            refuse   the Try said no; the words are kept               cancel    with its result
 *            intent   a Try with effects outside is under way
 *            abort    a Cancel came first: no Try will run any more
 *
 *   empty cancel      Cancel finds line 0 empty: writes `abort`, does nothing else
 *   hanging try       Try finds `abort`: refused. Others answer success here, and what they reserve hangs for ever
 *   duplicate         finds its own word: is answered with the first result
 *
 * Source of the three cases: Seata's and dtm's barriers; where they differ: the result is kept, and a late Try is refused.
 * Pure: this file only judges lines that somebody else has read.
 */

/** What the coordinator asks of a branch. */
export type BarrierPhase = "try" | "confirm" | "cancel";

export type ForwardWord = "try" | "refuse" | "intent" | "abort";
export type SecondWord = "confirm" | "cancel";

/** One line as it was read. `result` is what was kept with it. */
export interface BarrierLine<Word> {
  readonly word: Word;
  readonly result: string | null;
}

export interface BarrierLines {
  readonly forward: BarrierLine<ForwardWord> | null;
  readonly second: BarrierLine<SecondWord> | null;
}

/**
 * - `run`: do the work, with what the Try left.
 * - `replay`: it was done before; answer with what was kept.
 * - `refused`: the Try had said no.
 * - `skip`: there is nothing to cancel.
 * - `closed`: it may not be done any more.
 */
export type BarrierJudgement =
  | { readonly kind: "run"; readonly tried: string | null }
  | { readonly kind: "replay"; readonly result: string | null }
  | { readonly kind: "refused"; readonly result: string | null }
  | { readonly kind: "skip" }
  | { readonly kind: "closed"; readonly why: ClosedWhy };

/** `expired`: judged by the deadline that came with it, before any line is read. */
export type ClosedWhy = "cancelled" | "confirmed" | "not-tried" | "expired";

/** What line 0 must hold before `phase` may write: for a Try and a Cancel it is claimed first, for a Confirm it is only read. */
export function judge(phase: BarrierPhase, { forward, second }: BarrierLines): BarrierJudgement {
  switch (phase) {
    case "try":
      return judgeTry(forward, second);
    case "confirm":
      return judgeConfirm(forward, second);
    case "cancel":
      return judgeCancel(forward, second);
  }
}

function judgeTry(forward: BarrierLines["forward"], second: BarrierLines["second"]): BarrierJudgement {
  switch (forward?.word) {
    case undefined:
      return { kind: "run", tried: null };
    case "abort":
      return { kind: "closed", why: "cancelled" };
    case "refuse":
      return { kind: "refused", result: forward.result };
    case "intent":
      // Its first run died, or is still at it: the work outside is idempotent by the key that it is given.
      return second === null ? { kind: "run", tried: null } : { kind: "closed", why: "cancelled" };
    case "try":
      // A Try that was cancelled is no success any more, even for a copy that was sent before.
      return second?.word === "cancel" ? { kind: "closed", why: "cancelled" } : { kind: "replay", result: forward.result };
  }
}

function judgeConfirm(forward: BarrierLines["forward"], second: BarrierLines["second"]): BarrierJudgement {
  if (forward === null) return { kind: "closed", why: "not-tried" };
  if (forward.word !== "try") return { kind: "closed", why: "cancelled" };
  if (second === null) return { kind: "run", tried: forward.result };
  return second.word === "confirm" ? { kind: "replay", result: second.result } : { kind: "closed", why: "cancelled" };
}

function judgeCancel(forward: BarrierLines["forward"], second: BarrierLines["second"]): BarrierJudgement {
  if (forward === null || forward.word === "abort" || forward.word === "refuse") return { kind: "skip" };
  if (second === null) return { kind: "run", tried: forward.result };
  return second.word === "cancel" ? { kind: "replay", result: second.result } : { kind: "closed", why: "confirmed" };
}

/** What a service says of a branch when it is asked how it stands. */
export type BranchStanding = "absent" | "tried" | "refused" | "cancelled" | "confirmed";

export function standingOf({ forward, second }: BarrierLines): BranchStanding {
  if (second !== null) return second.word === "confirm" ? "confirmed" : "cancelled";
  switch (forward?.word) {
    case undefined:
      return "absent";
    case "abort":
      return "cancelled";
    case "refuse":
      return "refused";
    default:
      return "tried";
  }
}
