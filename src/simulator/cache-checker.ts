/**
 * The cache's promise as a judge: remembers every invalidation that was answered, and looks at every value that is served.
 *
 * A value is wrong where an invalidation of it had been answered before the read began, and the value's load had begun
 * before that invalidation did, and
 * - OwnProcess: the same process (and incarnation) had asked for it,
 * - AtLeast: the read named its token or a later one,
 * - Arrived: the stream had told this process of it,
 * - Bound: it had been answered longer ago than `maxStaleMs`.
 * Order is by a counter of its own, so that what happens at one virtual moment has an order too.
 */
import type { Target } from "../cache-core/invalidation.ts";
import { must } from "./invariant-violation.ts";

/** What the origin answers with: when its load began, and of which key it is. */
export interface Loaded {
  readonly key: string;
  readonly loadedAt: number;
  readonly by: string;
}

export interface Invalidated {
  readonly targets: readonly Target[];
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly answeredMs: number;
  readonly by: string;
  readonly token: number;
  /** Which store it was told to. */
  readonly life: number;
}

export interface ReadSeen {
  readonly key: string;
  readonly process: string;
  readonly startedAt: number;
  readonly startedMs: number;
  readonly atLeast: number | undefined;
  readonly life: number;
  /** The revision that the stream had told this process by then, of this life. */
  readonly toldRevision: number;
  readonly via: string;
}

export class CacheChecker {
  readonly #maxStaleMs: number;
  readonly #tagsOf: (key: string) => readonly string[];
  readonly #all: Invalidated[] = [];
  #order = 0;
  judged = 0;
  /** Reads that were older than some invalidation answered elsewhere, within the bound: what the bound is for. */
  staleWithinBound = 0;

  constructor(maxStaleMs: number, tagsOf: (key: string) => readonly string[]) {
    this.#maxStaleMs = maxStaleMs;
    this.#tagsOf = tagsOf;
  }

  next(): number {
    return ++this.#order;
  }

  answered(invalidated: Invalidated): void {
    this.#all.push(invalidated);
  }

  judge(read: ReadSeen, value: Loaded): void {
    this.judged++;
    must(value.key === read.key, "Foreign", () => `${read.via} of ${read.key} gave a value of ${value.key}`);
    let isStale = false;
    for (const each of this.#all) {
      if (each.answeredAt >= read.startedAt || value.loadedAt >= each.calledAt) continue;
      if (!each.targets.some((target) => this.#covers(target, read.key))) continue;
      isStale = true;
      const tell = (): string =>
        `${read.via} of ${read.key} by ${read.process} began at ${read.startedAt} (${read.startedMs.toFixed(1)} ms) and gave what ${value.by} began to load at ${value.loadedAt}; ` +
        `${each.by} had invalidated ${JSON.stringify(each.targets)} from ${each.calledAt} to ${each.answeredAt} (${each.answeredMs.toFixed(1)} ms), token ${each.token}`;
      must(each.by !== read.process, "OwnProcess", tell);
      const isNamed = read.atLeast !== undefined && read.life === each.life && read.atLeast >= each.token;
      must(!isNamed, "AtLeast", tell);
      must(each.life !== read.life || each.token > read.toldRevision, "Arrived", tell);
      must(each.answeredMs + this.#maxStaleMs >= read.startedMs, "Bound", tell);
    }
    if (isStale) this.staleWithinBound++;
  }

  #covers(target: Target, key: string): boolean {
    if (typeof target === "string") return target === key;
    if ("key" in target) return target.key === key;
    if ("tag" in target) return this.#tagsOf(key).includes(target.tag);
    return key.startsWith(target.prefix);
  }
}
