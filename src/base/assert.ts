/**
 * Assertions that stay on in production: a stopped replica is a fault that the protocol survives, a wrong one is not.
 */

/** A broken invariant. Nothing catches it but the host, which stops the member. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** States what must hold. */
export function assert(condition: unknown, whatMustHold: string): asserts condition {
  if (!condition) throw new AssertionError(`Invariant broken: ${whatMustHold}.`);
}

/** Closes a `switch` over a union: the compiler proves that no case is missing. */
export function unreachable(value: never): never {
  throw new AssertionError(`Invariant broken: no case for ${JSON.stringify(value)}.`);
}
