/**
 * Durations as people write them: `500ms`, `10s`, `2m`, `1h`. A number without a unit is refused: ten what?
 */
import { conclaveError } from "../base/errors.ts";

const unitsMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** Milliseconds. @throws INVALID_OPTION */
export function parseDuration(text: string): number {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  if (amount === undefined)
    throw conclaveError("INVALID_OPTION", `"${text}" is no duration: write it like 500ms, 10s, 2m or 1h.`);
  return Math.round(Number(amount) * unitsMs[unit as keyof typeof unitsMs]);
}
