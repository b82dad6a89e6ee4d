/**
 * The claim of a holder, as it lies in a store that can only compare and set.
 */
import { utf8Decode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { CasEntry, Revision } from "../store/store.ts";

/** Who holds it, as others see it. */
export interface CasHolder {
  /** Of one acquisition; never used again. */
  readonly owner: string;
  readonly ttlMs: number;
  readonly meta: unknown;
  /** Rises with each renewal, and with each grant. */
  readonly revision: Revision;
}

/** The one key of a lock's namespace. */
export const claimKey = "holder";

/** @throws PROTOCOL */
export function holderOf({ value, revision }: CasEntry): CasHolder {
  try {
    const { owner, ttlMs, meta } = JSON.parse(utf8Decode(value)) as Record<string, unknown>;
    if (typeof owner === "string" && typeof ttlMs === "number" && ttlMs > 0) return { owner, ttlMs, meta, revision };
  } catch {
    // Said below.
  }
  throw conclaveError("PROTOCOL", "The key of a lock holds what no lock of Conclave writes.");
}
