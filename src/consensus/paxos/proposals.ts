/**
 * The leader's slots that are proposed and not yet all known to be chosen: who has them on disk, and which are chosen.
 *
 * A slot is chosen by itself, as soon as a majority accepted it (PMMC §2.2, the commander); what is delivered is the
 * prefix without holes. One commander per slot, here a row in a table.
 */
import type { Index, LogEntry } from "../core.ts";
import { entryBytes } from "./slot-log.ts";

interface Proposal {
  readonly entry: LogEntry;
  /** Bit p: the member at position p has it on disk. A set, not a count: the same answer may come twice. */
  accepted: number;
  isChosen: boolean;
}

export class Proposals {
  readonly #slots = new Map<Index, Proposal>();
  readonly #majority: number;
  #bytes = 0;

  constructor(members: number) {
    this.#majority = Math.floor(members / 2) + 1;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(entry: LogEntry): void {
    this.#slots.set(entry.index, { entry, accepted: 0, isChosen: false });
    this.#bytes += entryBytes(entry);
  }

  /** The member has the slots on disk. Slots that are none of ours are ignored. */
  accepted(position: number, first: Index, last: Index): void {
    for (let index = first; index <= last; index++) {
      const proposal = this.#slots.get(index);
      if (proposal === undefined || proposal.isChosen) continue;
      proposal.accepted |= 1 << position;
      if (bitCount(proposal.accepted) >= this.#majority) proposal.isChosen = true;
    }
  }

  isChosen(index: Index): boolean {
    return this.#slots.get(index)?.isChosen ?? false;
  }

  /** The slot is chosen and delivered: nobody is asked for it any more. */
  drop(index: Index): void {
    const proposal = this.#slots.get(index);
    if (proposal === undefined) return;
    this.#bytes -= entryBytes(proposal.entry);
    this.#slots.delete(index);
  }

  clear(): void {
    this.#slots.clear();
    this.#bytes = 0;
  }
}

function bitCount(bits: number): number {
  let count = 0;
  for (let left = bits; left !== 0; left &= left - 1) count++;
  return count;
}
