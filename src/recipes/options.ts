/**
 * Options that several recipes take, checked at the door.
 */
import { conclaveError } from "../base/errors.ts";
import type { Limits } from "../store/caps.ts";
import type { Engine } from "../store/store.ts";

/** Where a recipe gets its stores: every Engine is one. */
export type StoreSource = Pick<Engine, "store">;

/** @throws INVALID_OPTION */
export function checkName(name: string, recipe: string): void {
  if (typeof name !== "string" || name === "") {
    throw conclaveError("INVALID_OPTION", `\`name\` of a ${recipe} must be a text that is not empty.`);
  }
  if (/^[ -~]+$/.test(name)) return;
  // A lone surrogate has no UTF-8 of its own: two such names would be one lock.
  if (name.includes("\u0000") || /\p{Surrogate}/u.test(name)) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`name\` ${JSON.stringify(name)} of a ${recipe} contains U+0000 or half a surrogate pair.`,
    );
  }
}

/** @throws INVALID_OPTION */
export function checkTtlMs(ttlMs: number, limits: Limits, engine: string): void {
  const { ttlMsMin, ttlMsMax } = limits;
  if (!Number.isSafeInteger(ttlMs) || ttlMs < ttlMsMin || ttlMs > ttlMsMax) {
    throw conclaveError("INVALID_OPTION", `\`ttlMs\` is ${ttlMs}; ${engine} takes whole ${ttlMsMin} to ${ttlMsMax}.`);
  }
}

/** @throws INVALID_OPTION */
export function checkWaitMs(waitMs: number): void {
  if (!(waitMs >= 0)) throw conclaveError("INVALID_OPTION", `\`waitMs\` is ${waitMs}; it must be 0 or more, or Infinity.`);
}

/** @throws INVALID_OPTION */
export function checkHoldTimes({
  maxHoldMs = Number.POSITIVE_INFINITY,
  minHoldMs = 0,
}: {
  readonly maxHoldMs?: number;
  readonly minHoldMs?: number;
}): void {
  if (!(maxHoldMs > 0)) throw conclaveError("INVALID_OPTION", `\`maxHoldMs\` is ${maxHoldMs}; it must be above 0.`);
  if (!(minHoldMs >= 0 && minHoldMs <= maxHoldMs)) {
    throw conclaveError("INVALID_OPTION", `\`minHoldMs\` is ${minHoldMs}; it must be from 0 to \`maxHoldMs\`.`);
  }
}

/** What only a lock by itself can do. @throws INVALID_OPTION */
export function refuseTurns(
  options: { readonly lockDelayMs?: number; readonly fairness?: string; readonly reentrant?: boolean },
  recipe: string,
): void {
  for (const field of ["lockDelayMs", "fairness", "reentrant"] as const) {
    if (options[field] !== undefined)
      throw conclaveError("INVALID_OPTION", `\`${field}\` is for plain locks; a ${recipe} does not take it.`);
  }
}

/** A whole number of at least one. @throws INVALID_OPTION */
export function checkCount(count: number, field: string): void {
  if (!Number.isSafeInteger(count) || count < 1) {
    throw conclaveError("INVALID_OPTION", `\`${field}\` is ${count}; it must be a whole number of at least 1.`);
  }
}
