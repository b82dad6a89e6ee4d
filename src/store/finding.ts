/**
 * What an engine found when it looked at how its system is set up: for `conclave doctor`, and for programs that ask.
 */
export interface Finding {
  /** `danger`: a promise does not hold as set up. `warning`: it holds under a condition that may fail. `note`: good to know. */
  readonly severity: "danger" | "warning" | "note";
  /** Stable, in capitals: `MAXMEMORY_EVICTS`. */
  readonly code: string;
  /** What is so, with the value that was found. */
  readonly message: string;
  /** What to do about it. */
  readonly remedy: string;
}
