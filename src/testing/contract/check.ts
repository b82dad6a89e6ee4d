/**
 * Plain assertions: they throw an Error that says what was expected, so any test runner can report them.
 */
import { ConclaveError, type ErrorCode } from "../../base/errors.ts";

export function isTrue(condition: unknown, whatMustHold: string): asserts condition {
  if (!condition) throw new Error(`Expected: ${whatMustHold}.`);
}

/** Equal as JSON: for numbers, texts, null and plain structures of them. */
export function equal(actual: unknown, expected: unknown, what: string): void {
  const [left, right] = [JSON.stringify(actual) ?? "undefined", JSON.stringify(expected) ?? "undefined"];
  if (left !== right) throw new Error(`Expected ${what} to be ${right}, it is ${left}.`);
}

export function isRising(numbers: readonly number[], what: string): void {
  const at = numbers.findIndex((number, index) => index > 0 && number <= (numbers[index - 1] as number));
  if (at >= 0)
    throw new Error(`Expected ${what} to rise, but ${numbers[at]} follows ${numbers[at - 1]} in ${JSON.stringify(numbers)}.`);
}

/** Answers with the error, which must be of one of the codes. */
export async function rejects(
  act: () => Promise<unknown>,
  codes: ErrorCode | readonly ErrorCode[],
  what: string,
): Promise<ConclaveError> {
  const allowed: readonly ErrorCode[] = typeof codes === "string" ? [codes] : codes;
  try {
    await act();
  } catch (error) {
    if (error instanceof ConclaveError && allowed.includes(error.code)) return error;
    throw new Error(`Expected ${what} to be refused with ${allowed.join(" or ")}; it failed otherwise.`, { cause: error });
  }
  throw new Error(`Expected ${what} to be refused with ${allowed.join(" or ")}; it succeeded.`);
}

/** Holds a rejection until somebody asks for it. */
export type Settled<T> = { readonly kind: "value"; readonly value: T } | { readonly kind: "error"; readonly error: unknown };

export function settled<T>(promise: Promise<T>): Promise<Settled<T>> {
  return promise.then(
    (value) => ({ kind: "value", value }),
    (error: unknown) => ({ kind: "error", error }),
  );
}
