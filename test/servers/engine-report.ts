/**
 * Which engines the tests ran on, for the table at the end of `npm test`: each fixture notes itself once.
 */
import { appendFileSync } from "node:fs";

export interface EngineNote {
  /** "Redis, single", "etcd, three nodes". */
  readonly engine: string;
  /** What ran: the version as the program says it. */
  readonly version?: string;
  /** Why it did not. */
  readonly skipped?: string;
  /** How to get it. */
  readonly getIt?: string;
}

const noted = new Set<string>();

/** Written to the file that `npm test` names; elsewhere to nothing. */
export function noteEngine(note: EngineNote): void {
  const file = process.env.CONCLAVE_ENGINE_REPORT;
  if (file === undefined || noted.has(note.engine)) return;
  noted.add(note.engine);
  appendFileSync(file, `${JSON.stringify(note)}\n`);
}
