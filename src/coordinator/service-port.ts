/**
 * How a coordinator speaks to a service: one question, one answer, whatever carries them. HTTP in production, a model in the
 * simulator.
 */
import type { BarrierPhase, BranchStanding, ClosedWhy } from "./barrier.ts";

export interface ServiceCall {
  readonly phase: BarrierPhase | "status";
  readonly gid: string;
  readonly branch: number;
  /** Of a Try: which of the service's actions. A Confirm or Cancel finds it in the barrier. */
  readonly action?: string;
  readonly body?: unknown;
  /** Calendar milliseconds. A Try that arrives after it, and a grace for clocks, is refused. */
  readonly deadlineAtMs?: number;
  /** A step behind the pivot: a refusal is not kept, because it will be asked again until it is done. */
  readonly mustSucceed?: boolean;
  readonly traceparent?: string;
}

export type ServiceReply =
  | { readonly kind: "done"; readonly result: unknown }
  /** There was nothing to cancel. */
  | { readonly kind: "skipped" }
  /** The service's own no, in its own words. */
  | { readonly kind: "refused"; readonly reason: string; readonly details: unknown }
  | { readonly kind: "closed"; readonly why: ClosedWhy }
  /** Ask again in a while. */
  | { readonly kind: "busy"; readonly why: string }
  /** It will go on answering so until somebody changes something. */
  | { readonly kind: "misconfigured"; readonly why: string }
  | { readonly kind: "standing"; readonly standing: BranchStanding };

export interface ServicePort {
  /** Rejects when no answer came: it may have happened. */
  send(call: ServiceCall, options: { readonly timeoutMs: number; readonly signal?: AbortSignal }): Promise<ServiceReply>;
}
