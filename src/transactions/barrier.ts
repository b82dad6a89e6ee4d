/**
 * A barrier over a place that keeps rows: what a service wraps its Try, Confirm and Cancel in, and a consumer its messages.
 *
 * The lines are written in the same local transaction as the work, so both are there or neither. What the lines mean is judged
 * by `coordinator/barrier.ts`; here is what surrounds it: the words of a refusal, the size of a result, and how long lines are kept.
 */

import { conclaveError } from "../base/errors.ts";
import type { BarrierPhase, BranchStanding, judge } from "../coordinator/barrier.ts";
import type { Abort } from "./errors.ts";

export interface BarrierCall {
  readonly gid: string;
  readonly branch: number;
  readonly phase: BarrierPhase;
  /** A refusal is not kept: it will be asked again until it is done. Default false. */
  readonly mustSucceed?: boolean;
}

/**
 * Runs inside the local transaction; what it returns is kept. Throwing `Abort` refuses, anything else undoes and may be retried.
 * `tried` is the Try's result, which Confirm and Cancel are given.
 */
export type BarrierWork<Handle> = (handle: Handle, tried: unknown) => unknown;

/** What became of a call. `isReplay`: it had been done before. */
export type BarrierAnswer =
  | { readonly kind: "done"; readonly result: unknown; readonly isReplay: boolean }
  | { readonly kind: "refused"; readonly reason: string; readonly details: unknown; readonly isReplay: boolean }
  | { readonly kind: "skipped" }
  | { readonly kind: "closed"; readonly why: "cancelled" | "confirmed" | "not-tried" };

export interface Barrier<Handle> {
  /** How long a line is kept at least. A call that could be older is refused by whoever knows its time. */
  readonly keptMs: number;
  /** Makes what it needs. Idempotent. */
  install(): Promise<void>;
  /** Once, whatever comes twice, late or in the wrong order. Rejects with what the work threw, or BUSY: then nothing happened. */
  run(call: BarrierCall, work: BarrierWork<Handle>): Promise<BarrierAnswer>;
  /**
   * For effects outside: `intent` is written down before the work runs, so that a Cancel runs even after a Try that failed. The
   * work may run again, and must be idempotent by the branch's name. @throws as `run`
   */
  runOutside(call: BarrierCall, work: () => Promise<unknown>): Promise<BarrierAnswer>;
  standing(gid: string, branch: number): Promise<BranchStanding>;
  /** Deletes lines older than `keptMs`; answers how many. Called now and then by whoever owns the barrier. */
  drop(): Promise<number>;
}

/** Seven days: a Cancel that comes later finds nothing to undo. */
export const barrierKeptMs = 7 * 86_400_000;
/** Characters of a result as JSON. */
export const barrierResultMax = 16_384;

/** @throws VALUE_TOO_LARGE */
export function encodeResult(value: unknown): string {
  const text = JSON.stringify(value ?? null) ?? "null";
  if (text.length > barrierResultMax) {
    throw conclaveError("VALUE_TOO_LARGE", `A result has ${text.length} characters; a barrier keeps up to ${barrierResultMax}.`);
  }
  return text;
}

export function decodeResult(text: string | null): unknown {
  return text === null || text === "" ? null : JSON.parse(text);
}

/** The words of a refusal, as they are kept. Null: the error is none. */
export function refusalOf(error: unknown): { readonly reason: string; readonly details: unknown } | null {
  // By shape: it may come from another copy of this package.
  if (!(error instanceof Error) || error.name !== "Abort" || !("reason" in error)) return null;
  const { reason, details } = error as Abort;
  return { reason, details: details ?? null };
}

/** What is answered when nothing is to be run. */
export function answerOf(judgement: Exclude<ReturnType<typeof judge>, { kind: "run" }>): BarrierAnswer {
  switch (judgement.kind) {
    case "replay":
      return { kind: "done", result: decodeResult(judgement.result), isReplay: true };
    case "refused": {
      const { reason, details } = decodeResult(judgement.result) as { reason: string; details: unknown };
      return { kind: "refused", reason, details, isReplay: true };
    }
    case "skip":
      return { kind: "skipped" };
    case "closed":
      return { kind: "closed", why: judgement.why === "expired" ? "cancelled" : judgement.why };
  }
}
