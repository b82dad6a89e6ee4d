/**
 * A broken invariant: the simulator found a bug, in the code under test or in itself. The name of the invariant is what the
 * kill table of planted bugs cites.
 */
export class InvariantViolation extends Error {
  override readonly name = "InvariantViolation";
  readonly invariant: string;
  /** Events that the world had delivered until then; the world says so. */
  steps?: number;
  constructor(invariant: string, details: string) {
    super(`${invariant}: ${details}`);
    this.invariant = invariant;
  }
}

/** The details are a function, because the message of a check that holds is never built. */
export function must(condition: boolean, invariant: string, details: () => string): void {
  if (!condition) throw new InvariantViolation(invariant, details());
}
