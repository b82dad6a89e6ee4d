/**
 * A model says what an object does when one client uses it alone. The checker asks whether many clients could tell the difference.
 *
 * Source: the sequential specification of Herlihy & Wing, TOPLAS 1990.
 * Assumes every function here is pure, and that a state is never changed after it was handed out.
 * Leaves out specifications where one answer leads to several states.
 */

/**
 * A sequential specification: states of type `S`, requests of type `I`, answers of type `O`.
 *
 * @since 0.1.0
 */
export interface Model<S, I, O> {
  /** The state before the first operation. Neither null nor undefined; `nil` is there for an object that holds nothing. */
  readonly initial: S;

  /**
   * The state after `input` was answered with `output`, or null when that answer is impossible in `state`.
   * An `undefined` output is an unknown one: it accepts every state, and does there what the answer would have been true of.
   */
  step(state: S, input: I, output: O | undefined): S | null;

  /**
   * A text that is equal for equal states and different for different ones.
   * Default: strings, numbers and other primitives stand for themselves, arrays and plain objects become JSON.
   * States of any other class need this function, and so do plain ones that hold what JSON loses (a Map, a NaN, an undefined).
   */
  key?(state: S): string;

  /** What is true of this operation, with this output, in every state. Default: nothing, which is always right and often slow. */
  hint?(input: I, output: O | undefined): Hint<S>;

  /**
   * False promises that the operations whose hint names no state (appends, increments) can never turn `state` into `later`, one after
   * the other and without any help. Default: they might.
   */
  canBecome?(state: S, later: S): boolean;
}

/**
 * What a model promises about one operation. A false promise makes the verdict wrong; a missing one only costs time.
 *
 * @since 0.1.0
 */
export interface Hint<S> {
  /** It leaves every state unchanged. The checker places it the moment it fits. */
  readonly isRead?: boolean;
  /** The only state it fits. */
  readonly from?: S;
  /** The state it leads to, from every state it fits. */
  readonly to?: S;
  /** In place of `to`: the state it leads to when it does not leave the state unchanged. */
  readonly maybeTo?: S;
}
