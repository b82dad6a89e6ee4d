/**
 * What the runner and its client processes say to each other over the IPC channel. Everything that matters for the verdict
 * is in the journals instead: a message may die with its process, a journal does not.
 */

import type { PbftAccess } from "./pbft-files.ts";

/** The one argument of `client.js`, as JSON. */
export interface ClientConfiguration {
  /** "3.1": the second incarnation of slot 3. */
  readonly name: string;
  readonly seed: number;
  readonly url: string;
  readonly cluster: string;
  /** The run's directory: journal and number file lie there. */
  readonly directory: string;
  readonly ttlMs: number;
  /** A store that only compares and sets, and by which key this client is known there. */
  readonly pbft?: PbftAccess;
}

export type ToClient =
  | { readonly kind: "finish" }
  /** Stop yourself when you next come to this moment, for about so long: the runner wakes you. */
  | { readonly kind: "stop-at"; readonly moment: StopMoment; readonly forMs: number };

/**
 * Where a pause hurts most.
 * `before-look`: under the lock of the file, right before `assertHeld()`, which must refuse if it was too long.
 * `after-look`: between `assertHeld()` and the write: the gap that nothing can protect.
 * `before-addition`: under the lock of the set, right before the guarded txn, which must be refused if it was too long.
 */
export type StopMoment = "before-look" | "after-look" | "before-addition";

export const stopMoments: readonly StopMoment[] = ["before-look", "after-look", "before-addition"];

export type FromClient =
  /** Connected and at work. */
  | { readonly kind: "ready" }
  | { readonly kind: "progress"; readonly grants: number; readonly operations: number }
  /** The next thing is SIGSTOP. */
  | { readonly kind: "stopping"; readonly forMs: number }
  | { readonly kind: "resumed" };
