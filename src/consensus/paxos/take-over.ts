/**
 * Phase 1 as the candidate sees it: who promised, and for each slot the value that must be proposed again.
 *
 * Intuition: before the new chair opens the meeting she asks a majority for their notes. Of each agenda item she keeps the
 * note with the latest date, because an older one cannot have been decided once a majority heard of the later chair.
 * Source: "Paxos Made Simple" §2.2, condition P2c: "v is the value of the highest-numbered proposal among all proposals
 * numbered less than n accepted by the acceptors in S"; PMMC §2.3, `pmax`.
 */
import { assert } from "../../base/assert.ts";
import type { Index, LogEntry, MemberId } from "../core.ts";
import type { Ballot } from "./ballot.ts";

/** What one acceptor told, a page at a time. */
export interface Report {
  readonly from: Index;
  /** 0: complete. */
  readonly next: Index;
  /** Its entries up to here are chosen. */
  readonly chosen: Index;
  readonly entries: readonly LogEntry[];
}

export class TakeOver {
  readonly ballot: Ballot;
  /** The first slot that was not known to be chosen when the candidate began: phase 1 covers it and all above. */
  readonly from: Index;
  /** Members whose report is complete. A promise counts only then: half a report may hide the value that was chosen. */
  readonly promised = new Set<MemberId>();
  readonly #open = new Map<MemberId, { next: Index; readonly chosen: Index }>();
  readonly #accepted = new Map<Index, LogEntry>();
  readonly #known = new Map<Index, LogEntry>();
  #chosen: Index;
  #last: Index;
  #hasProgressed = false;

  constructor(ballot: Ballot, from: Index) {
    this.ballot = ballot;
    this.from = from;
    this.#chosen = from - 1;
    this.#last = from - 1;
  }

  /** Everything up to here is chosen, as the promises tell. */
  get chosen(): Index {
    return this.#chosen;
  }

  /** The highest slot for which anybody accepted anything. */
  get last(): Index {
    return this.#last;
  }

  /** Where the member's report goes on. */
  nextOf(member: MemberId): Index {
    return this.#open.get(member)?.next ?? this.from;
  }

  /** Whether a page came since this was asked last. */
  takeProgress(): boolean {
    const progressed = this.#hasProgressed;
    this.#hasProgressed = false;
    return progressed;
  }

  /** Takes a page. Answers whether it is the one that was due; pages that come twice or late are ignored. */
  report(member: MemberId, report: Report): boolean {
    if (this.promised.has(member) || report.from !== this.nextOf(member)) return false;
    this.#hasProgressed = true;
    // What was chosen when the first page was written: of a slot that was learned between two pages, an earlier page may
    // name a value that was not.
    const chosen = this.#open.get(member)?.chosen ?? report.chosen;
    for (const entry of report.entries) this.#take(entry, chosen);
    if (report.next === 0) {
      // Only of a complete report: the entries up to it are all here then.
      this.#chosen = Math.max(this.#chosen, chosen);
      this.promised.add(member);
    } else {
      this.#open.set(member, { next: report.next, chosen });
    }
    return true;
  }

  #take(entry: LogEntry, chosen: Index): void {
    if (entry.index < this.from) return;
    this.#last = Math.max(this.#last, entry.index);
    if (entry.index <= chosen) this.#known.set(entry.index, entry);
    const best = this.#accepted.get(entry.index);
    if (best === undefined || ballotOf(entry) > ballotOf(best)) this.#accepted.set(entry.index, entry);
  }

  /** The chosen value of a slot up to `chosen`. */
  chosenAt(index: Index): LogEntry {
    const entry = this.#known.get(index);
    assert(entry !== undefined, "a complete report names every chosen value from the slot that was asked for");
    return entry;
  }

  /** What must be proposed for the slot; undefined leaves the choice free. */
  highestAt(index: Index): LogEntry | undefined {
    return this.#accepted.get(index);
  }
}

function ballotOf(entry: LogEntry): Ballot {
  assert(entry.ballot !== undefined, "an accepted entry has a ballot");
  return entry.ballot;
}
