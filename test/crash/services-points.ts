/**
 * Where processes die while services, sagas and outboxes are at work: `npm run crash -- --only tcc|saga|outbox`.
 */
import type { Checkpoint } from "../../src/coordinator/options.ts";
import type { SagaCheckpoint } from "../../src/coordinator/saga-run.ts";
import type { RelayCheckpoint } from "../../src/transactions/outbox-relay.ts";

export interface ServicePoint {
  readonly id: string;
  readonly kind: "tcc" | "saga" | "outbox";
  readonly what: string;
  /**
   * A step of the coordinator, of a saga or of a relay; `wire-*` is the request itself, in the victim; `saga-told` the client's
   * answer, written down.
   */
  readonly at?: Checkpoint | SagaCheckpoint | RelayCheckpoint | "wire-before" | "wire-after" | "saga-told";
  /** A saga that has no pivot, and whose time is over before anybody takes it over. */
  readonly plain?: boolean;
  /** The saga's step, or the resource. */
  readonly name?: string;
  /** Not at the step but up to so long after it. */
  readonly afterMsMax?: number;
  /** `kill-service`: the service dies between its local commit and its answer, to the request of this phase. */
  readonly act: "kill" | "stop" | "kill-service" | "five-times";
  readonly phase?: "try" | "confirm" | "cancel";
  /** The second service says no. */
  readonly refused?: boolean;
  /** The Try that was never sent arrives after the Cancel. */
  readonly lateTry?: boolean;
  /** A service is down while others finish, for so long. */
  readonly downMs?: number;
}

export const servicePoints: readonly ServicePoint[] = [
  { id: "H1", kind: "tcc", what: "begun, nobody written down", at: "begun", act: "kill" },
  { id: "H2", kind: "tcc", what: "written down, no Try sent", at: "wire-before", act: "kill" },
  { id: "H3", kind: "tcc", what: "the Try ran, its answer is lost", at: "wire-after", act: "kill" },
  { id: "H4", kind: "tcc", what: "the Try comes after its Cancel", at: "wire-before", act: "kill", lateTry: true },
  { id: "H5", kind: "tcc", what: "every request five times at once", act: "five-times" },
  { id: "H6a", kind: "tcc", what: "the service dies after its Try committed", act: "kill-service", phase: "try" },
  { id: "H6b", kind: "tcc", what: "the service dies after its Confirm committed", act: "kill-service", phase: "confirm" },
  {
    id: "H6c",
    kind: "tcc",
    what: "the service dies after its Cancel committed",
    act: "kill-service",
    phase: "cancel",
    refused: true,
  },
  { id: "H7", kind: "tcc", what: "decided, and a service is down for seconds", at: "decided", act: "kill", downMs: 2_000 },
  { id: "H9", kind: "tcc", what: "all tried and prepared, nothing decided", at: "all-prepared", act: "kill" },
  { id: "H10", kind: "tcc", what: "decided, no Confirm sent", at: "decided", act: "kill" },
  { id: "H11", kind: "tcc", what: "one confirmed, the others not", at: "committed", name: "stock", act: "kill" },
  { id: "H12", kind: "tcc", what: "refused, before the first Cancel", at: "wire-after", act: "kill", refused: true, name: "pay" },
  { id: "H13", kind: "tcc", what: "zombie: all tried, its time is over", at: "all-prepared", act: "stop" },
  { id: "G1", kind: "saga", what: "begun, no step asked", at: "saga-begun", act: "kill" },
  { id: "G2a", kind: "saga", what: "the second step on its way", at: "saga-do", name: "hold", afterMsMax: 8, act: "kill" },
  { id: "G2b", kind: "saga", what: "the second step done", at: "saga-done", name: "hold", act: "kill" },
  { id: "G3", kind: "saga", what: "refused, the turn not written", at: "saga-refused", name: "hold", refused: true, act: "kill" },
  { id: "G4a", kind: "saga", what: "turned back, nothing undone", at: "saga-turned", refused: true, act: "kill" },
  { id: "G4b", kind: "saga", what: "the first undo on its way", at: "saga-undo", refused: true, afterMsMax: 8, act: "kill" },
  { id: "G4c", kind: "saga", what: "one undone", at: "saga-undone", refused: true, act: "kill" },
  { id: "G5a", kind: "saga", what: "the pivot on its way", at: "saga-do", name: "charge", afterMsMax: 8, act: "kill" },
  { id: "G5b", kind: "saga", what: "the pivot done", at: "saga-done", name: "charge", act: "kill" },
  { id: "G5c", kind: "saga", what: "behind the pivot", at: "saga-do", name: "ship", afterMsMax: 8, act: "kill" },
  { id: "G8", kind: "saga", what: "at its end, nothing written", at: "saga-ending", act: "kill" },
  { id: "G9", kind: "saga", what: "its end written", at: "saga-ended", act: "kill" },
  { id: "G10", kind: "saga", what: "the service dies after its Try committed", act: "kill-service", phase: "try" },
  {
    id: "G11",
    kind: "saga",
    what: "the service dies after its undo committed",
    act: "kill-service",
    phase: "cancel",
    refused: true,
  },
  { id: "G12", kind: "saga", what: "without a pivot: told, its end not written", at: "saga-told", plain: true, act: "kill" },
  { id: "GZ1", kind: "saga", what: "zombie: before the second step", at: "saga-do", name: "hold", act: "stop" },
  { id: "GZ2", kind: "saga", what: "zombie: the pivot done", at: "saga-done", name: "charge", act: "stop" },
  { id: "GZ3", kind: "saga", what: "zombie: turned back", at: "saga-turned", refused: true, act: "stop" },
  { id: "B1", kind: "outbox", what: "read, not yet told", at: "relay-read", act: "kill" },
  { id: "B2", kind: "outbox", what: "told, not yet deleted", at: "relay-published", act: "kill" },
  { id: "B2b", kind: "outbox", what: "deleted", at: "relay-removed", act: "kill" },
  { id: "B3", kind: "outbox", what: "zombie: read, tells after its time", at: "relay-read", act: "stop" },
  { id: "B3b", kind: "outbox", what: "zombie: told, deletes after its time", at: "relay-published", act: "stop" },
  { id: "B5", kind: "outbox", what: "emitted in a branch, nothing decided", at: "all-prepared", act: "kill" },
  { id: "B6", kind: "outbox", what: "emitted in a branch, decided", at: "decided", act: "kill" },
];
