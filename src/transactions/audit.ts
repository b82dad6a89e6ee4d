/**
 * Compares the proofs of all databases: finds one that was restored to an older point, or failed over to a replica that lacked
 * what it had promised. No transaction's own view can: each side is consistent in itself.
 *
 * A marker names all branches of its transaction; one that is missing where it should be, and is not prepared either, is lost.
 */
import type { BranchRef, Participant } from "../coordinator/participant.ts";
import type { SqlResource } from "./resource.ts";

export interface AuditFinding {
  readonly gid: string;
  /** Where it is proven. */
  readonly in: readonly string[];
  /** Where it should be and is not. */
  readonly missingIn: readonly string[];
}

export interface AuditReport {
  readonly compared: number;
  readonly findings: readonly AuditFinding[];
  readonly unreachable: readonly string[];
  /** More markers than were compared. */
  readonly isCut: boolean;
}

const markersMax = 100_000;

export async function audit(
  // biome-ignore lint/suspicious/noExplicitAny: no handle is used here.
  sql: ReadonlyMap<string, SqlResource<any>>,
  participants: ReadonlyMap<string, Participant>,
  { sinceMs }: { readonly sinceMs: number },
): Promise<AuditReport> {
  const unreachable: string[] = [];
  const seen = new Map<string, { readonly parts: readonly BranchRef[]; readonly in: Set<string> }>();
  let isCut = false;
  await Promise.all(
    [...sql].map(async ([name, resource]) => {
      try {
        const markers = await resource.markersSince(sinceMs, markersMax);
        isCut ||= markers.length === markersMax;
        for (const { gid, parts } of markers) {
          const entry = seen.get(gid) ?? { parts, in: new Set<string>() };
          entry.in.add(name);
          seen.set(gid, entry);
        }
      } catch {
        unreachable.push(name);
      }
    }),
  );
  const findings: AuditFinding[] = [];
  for (const [gid, entry] of seen) {
    const suspects = entry.parts.filter(
      ({ resource }) => sql.has(resource) && !entry.in.has(resource) && !unreachable.includes(resource),
    );
    const missingIn: string[] = [];
    for (const ref of suspects) {
      // Committed a moment ago, older than the window, or still prepared: only what is neither is missing.
      const evidence = await participants.get(ref.resource)?.evidence(ref);
      if (evidence?.state === "absent") missingIn.push(ref.resource);
    }
    if (missingIn.length > 0) findings.push({ gid, in: [...entry.in], missingIn });
  }
  return { compared: seen.size, findings, unreachable, isCut };
}
