/**
 * An operation of a recorded history: what a client asked, what it was told, and when.
 *
 * Intuition: an envelope with two postmarks. The effect happened at some moment between them, and the checker looks for that moment.
 * Source: Herlihy & Wing, "Linearizability: a correctness condition for concurrent objects", TOPLAS 1990.
 * Assumes one clock stamped both ends of every operation in a history. Only the order of the stamps is used.
 */

/**
 * One operation of a history. An operation known not to have happened does not belong in a history: leave it out.
 *
 * @since 0.1.0
 */
export interface Operation<I, O> {
  /** The client that asked. It appears in explanations; the order of operations comes from the times alone. */
  readonly process: number;
  /** The object asked, when the history holds several independent ones. Every key is checked by itself. */
  readonly key?: string;
  readonly input: I;
  /** The answer. `undefined` when it is unknown, and always when `returnedAt` is `undefined`. */
  readonly output: O | undefined;
  /** When the request left the client. Milliseconds; fractions are welcome. */
  readonly invokedAt: number;
  /**
   * When the answer reached the client. Milliseconds, at or after `invokedAt`.
   * An operation invoked at exactly this time counts as concurrent: the clock did not see which came first.
   * `undefined` means the outcome is unknown: it may take effect then, at any later time, or never.
   */
  readonly returnedAt: number | undefined;
}
