/**
 * Recovery: any node brings any transaction to its end once nobody minds it. No leader, no local log.
 *
 *   1  scan every resource for prepared branches of the domain; then note what this process minds itself
 *   2  read which epochs live                              (linearizable, after 1)
 *   3  read the cells                                      (after 2: what is not in them by now never will be)
 *   4  of each transaction whose epoch is gone, or is ours and no longer in flight:
 *      a cell says commit    commit every branch, prove it by its marker, delete the cell
 *      the name has an agent fence the agent's marker: there it commits, or never can; then finish the others
 *      neither               roll back (presumed abort)
 *
 * Why no record of an abort is needed: the epoch can never be had again, and the write of the decision compares it. Why 1 comes
 * first: a branch listed in 1 and without a cell in 3 was never decided, or is settled by now, and then the order to roll back
 * finds nothing. A PREPARE that was on its way when its coordinator died may still land: passes are repeated a while after each
 * death, and now and then for ever.
 * Runs when a coordinator's key vanishes, at the start, after `wake`, and by the clock. Two nodes may do it at once: each act is
 * idempotent and read from the same cell.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { linkSignal } from "../base/link-signal.ts";
import { Bell } from "../recipes/bell.ts";
import type { Entry } from "../store/entry.ts";
import type { KeyRange, Op } from "../store/store.ts";
import { ask, silent } from "./ask.ts";
import type { Epoch } from "./epoch.ts";
import { evidenceOf, type FinishContext, finishBranch } from "./finish.ts";
import { parseGid } from "./gid.ts";
import { type CoordinatorOptions, coordinatorDefaults } from "./options.ts";
import type { BranchRef } from "./participant.ts";
import { type DecisionRecord, decodeRecord, encodeRecord, type HeuristicRecord, recordKeys } from "./records.ts";

export interface RecoveryParts extends CoordinatorOptions {
  readonly domain: string;
  /** The epochs of this process that may still live. */
  readonly own: () => readonly Epoch[];
  /** The transaction is settled: its cell is gone, or says nothing that is still to do. */
  readonly onSettled: (gid: string) => void;
  readonly signal: AbortSignal;
}

/** What one pass did and left. */
export interface PassReport {
  readonly rolledBack: number;
  readonly committed: number;
  readonly heuristics: number;
  /** Transactions that wait for a resource. */
  readonly left: number;
  readonly unreachable: readonly string[];
}

interface Found {
  readonly gid: string;
  readonly branches: BranchRef[];
  readonly cell: DecisionRecord | undefined;
}

/**
 * After a death, and after a branch was left: when late packets may still land. What lands between two looks waits for the next,
 * so no two are further apart than half of the second within which a branch is to be cleared.
 */
const lookAfterMs = [0, 100, 250, 500, 1_000, 1_500, 2_000, 2_500, 3_000] as const;
/** Looks closer than this are one: a database that is down leaves branches of thousands of transactions. */
const lookGridMs = 10;
const retryMsMin = 50;
/** Also how long a database may be back before its branches are looked for. */
const retryMsMax = 1_000;
const pageSize = 200;
/** How long a missing branch is looked for before it counts as gone. */
const secondLookMs = 100;
const atOnceMax = 16;

export class Recovery {
  readonly #parts: RecoveryParts;
  readonly #answerMs: number;
  readonly #bell = new Bell<void>();
  #retryMs = retryMsMin;
  /** When to look, each on the grid. */
  readonly #dueMs = new Set<number>();
  #passing: Promise<PassReport> | undefined;

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
    this.#answerMs = parts.answerMs ?? coordinatorDefaults.answerMs;
  }

  start(): void {
    background(this.#run(), "transaction recovery");
    background(this.#watchDeaths(), "watch of coordinators");
  }

  /** Something was left unfinished, or somebody died: look soon, and a few times more. */
  wake(afterMs: readonly number[] = lookAfterMs): void {
    const nowMs = this.#parts.store.platform.now();
    for (const delayMs of afterMs) this.#dueMs.add(Math.floor((nowMs + delayMs) / lookGridMs) * lookGridMs);
    this.#bell.ring();
  }

  /** One pass, now; those who ask meanwhile share it. */
  pass(): Promise<PassReport> {
    this.#passing ??= this.#pass().finally(() => {
      this.#passing = undefined;
    });
    return this.#passing;
  }

  async #run(): Promise<void> {
    const { signal, store } = this.#parts;
    const { platform } = store;
    const scanEveryMs = this.#parts.scanEveryMs ?? coordinatorDefaults.scanEveryMs;
    this.wake();
    let lastMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      try {
        const nextMs = Math.min(lastMs + scanEveryMs, ...this.#dueMs);
        const waitMs = nextMs - platform.now();
        if (waitMs > 0) {
          await this.#bell.wait({ platform, timeoutMs: waitMs, signal, ref: false });
          continue;
        }
        lastMs = platform.now();
        for (const dueMs of this.#dueMs) if (dueMs <= lastMs) this.#dueMs.delete(dueMs);
        const { left, unreachable } = await this.pass();
        if (left === 0 && unreachable.length === 0) this.#retryMs = retryMsMin;
        else this.#retryLater();
      } catch (error) {
        if (signal.aborted) return;
        this.#parts.telemetry?.emit({ kind: "transaction.recovery-failed", why: String(error) });
        this.#retryLater();
      }
    }
  }

  #retryLater(): void {
    // A fifth of the pause is drawn: nodes that failed together do not come back together.
    const { platform } = this.#parts.store;
    this.wake([this.#retryMs * (0.9 + platform.randomUint32() / 2 ** 32 / 5)]);
    this.#retryMs = Math.min(this.#retryMs * 2, retryMsMax);
  }

  async #watchDeaths(): Promise<void> {
    const { store, signal } = this.#parts;
    while (!signal.aborted) {
      try {
        for await (const batch of store.watch({ prefix: recordKeys.coordinators }, { signal })) {
          if (batch.kind === "resync" || batch.events.some(({ kind }) => kind === "delete")) {
            // What an earlier one left may have made the retries slow; the new one's branches are not to wait for that.
            this.#retryMs = retryMsMin;
            this.wake();
          }
        }
        return;
      } catch {
        // The scan by the clock finds what an interrupted watch misses.
        if (signal.aborted) return;
        this.wake();
        await this.#pause(250);
      }
    }
  }

  async #pass(): Promise<PassReport> {
    const { domain, participants, own } = this.#parts;
    const scans = await Promise.all(
      [...participants].map(async ([name, participant]) => {
        const answer = await ask(this.#platform, this.#answerMs, () => participant.scan(domain));
        return [name, answer === silent ? "unreachable" : answer] as const;
      }),
    );
    // Before the cells are read: of a transaction that is let go of later, the cells may not know the decision yet.
    const minded = new Set(own().flatMap(({ inFlight }) => [...inFlight]));
    const living = await this.#livingEpochs();
    const cells = await this.#readCells();
    const found = new Map<string, Found>();
    for (const [gid, cell] of cells) found.set(gid, { gid, branches: [], cell });
    for (const [, branches] of scans) {
      for (const ref of branches === "unreachable" ? [] : branches) {
        const entry: Found = found.get(ref.gid) ?? { gid: ref.gid, branches: [], cell: undefined };
        entry.branches.push(ref);
        found.set(ref.gid, entry);
      }
    }
    const mine = new Map(own().map((epoch) => [epoch.number, epoch]));
    const abandoned = [...found.values()].filter(({ gid }) => {
      const epoch = parseGid(gid)?.epoch;
      // Of a newer epoch than the list of the living: alive, as far as we know.
      if (epoch === undefined || epoch > living.revision) return false;
      if (!living.epochs.has(epoch)) return true;
      return mine.has(epoch) && !minded.has(gid) && !mine.get(epoch)?.inFlight.has(gid);
    });
    const report = { rolledBack: 0, committed: 0, heuristics: 0, left: 0 };
    const queue = abandoned.values();
    const work = async (): Promise<void> => {
      for (const each of queue) {
        const did = await this.#settle(each, mine.get(parseGid(each.gid)?.epoch ?? 0));
        report[did]++;
      }
    };
    await Promise.all(Array.from({ length: Math.min(atOnceMax, abandoned.length) }, work));
    const unreachable = scans.flatMap(([name, branches]) => (branches === "unreachable" ? [name] : []));
    if (report.rolledBack + report.committed + report.heuristics + report.left > 0) {
      this.#parts.telemetry?.emit({ kind: "transaction.recovered", ...report });
    }
    return { ...report, unreachable };
  }

  /** Brings one transaction to its end. `live`: its epoch, where it is ours and not over. */
  async #settle(found: Found, live: Epoch | undefined): Promise<"rolledBack" | "committed" | "heuristics" | "left"> {
    const { gid, cell } = found;
    if (cell?.outcome === "commit") return this.#settleCommit(found, cell.branches, live);
    const agent = parseGid(gid)?.agent;
    if (cell === undefined && agent !== undefined) {
      const isIn = await this.#fenceAgent({ gid, branch: 0, resource: agent });
      if (isIn === "later") return "left";
      if (isIn) return this.#settleCommit(found, found.branches, live);
    }
    return this.#settleRollback(found, live);
  }

  async #settleCommit(
    found: Found,
    branches: readonly BranchRef[],
    live: Epoch | undefined,
  ): Promise<"committed" | "heuristics" | "left"> {
    const { gid } = found;
    const endings = await Promise.all(
      branches.map(async (ref) => {
        const context = this.#context(ref.resource);
        if (context === undefined) return { kind: "later", why: "nobody here can reach it" } as const;
        // A listed branch names the session that holds it.
        const listed = found.branches.find((each) => each.branch === ref.branch && each.resource === ref.resource);
        let ending = await finishBranch(context, listed ?? ref, "commit");
        if (ending.kind === "gone") {
          await this.#pause(secondLookMs);
          ending = await finishBranch(context, ref, "commit");
        }
        if (ending.kind === "settled") await this.#parts.checkpoint?.("recovery-committed", gid, ref.resource);
        return ending;
      }),
    );
    if (endings.some(({ kind }) => kind === "later")) return "left";
    await this.#parts.checkpoint?.("recovery-proven", gid, "");
    const isWhole = endings.every(({ kind }) => kind === "settled");
    if (!isWhole) {
      const states = branches.map((ref, at) => ({
        ...ref,
        state: endings[at]?.kind === "settled" ? ("committed" as const) : ("absent" as const),
      }));
      await this.#recordHeuristic(gid, {
        kind: states.some(({ state }) => state === "committed") ? "mixed" : "rolled-back",
        branches: states,
        atMs: this.#platform.wallMs(),
      });
    }
    if (live?.kept.has(gid) !== true) await this.#forget(gid, found.cell !== undefined);
    this.#parts.onSettled(gid);
    return isWhole ? "committed" : "heuristics";
  }

  async #settleRollback({ gid, branches, cell }: Found, live: Epoch | undefined): Promise<"rolledBack" | "heuristics" | "left"> {
    let isLeft = false;
    let isHeuristic = false;
    for (const ref of branches) {
      const context = this.#context(ref.resource);
      const ending = context === undefined ? ({ kind: "later" } as const) : await finishBranch(context, ref, "rollback");
      if (ending.kind === "settled") await this.#parts.checkpoint?.("recovery-rolled-back", gid, ref.resource);
      if (ending.kind === "later") isLeft = true;
      if (ending.kind === "in" && (await this.#isHalf(gid, ending.parts))) isHeuristic = true;
    }
    if (isLeft) return "left";
    if (cell !== undefined && live?.kept.has(gid) !== true) await this.#forget(gid, true);
    this.#parts.onSettled(gid);
    return isHeuristic ? "heuristics" : "rolledBack";
  }

  /**
   * A branch that was to be rolled back has committed. If all others have too, another node settled it while we looked; if
   * one has not, somebody's hand was in it.
   */
  async #isHalf(gid: string, parts: readonly BranchRef[]): Promise<boolean> {
    const states = await Promise.all(
      parts.map(async (ref) => {
        const context = this.#context(ref.resource);
        return { ...ref, ...(context === undefined ? { state: "unreachable" as const } : await evidenceOf(context, ref)) };
      }),
    );
    if (!states.some(({ state }) => state === "absent")) return false;
    await this.#recordHeuristic(gid, { kind: "committed", branches: states, atMs: this.#platform.wallMs() });
    return true;
  }

  async #fenceAgent(ref: BranchRef): Promise<boolean | "later"> {
    const context = this.#context(ref.resource);
    if (context === undefined) return "later";
    const answer = await ask(this.#platform, this.#answerMs, () => context.participant.fence(ref));
    if (answer === silent || answer === "busy" || answer === "unreachable") return "later";
    await this.#parts.checkpoint?.("recovery-fenced", ref.gid, ref.resource);
    return answer === "committed";
  }

  async #recordHeuristic(gid: string, record: HeuristicRecord): Promise<void> {
    const key = recordKeys.heuristic(gid);
    await this.#parts.store.txn({
      if: [{ key, target: "exists", is: "equal", to: false }],
      then: [{ kind: "put", key, value: encodeRecord(record) }],
    });
    this.#parts.telemetry?.emit({ kind: "transaction.heuristic", gid, outcome: record.kind });
  }

  async #forget(gid: string, isThere: boolean): Promise<void> {
    if (isThere) await this.#parts.store.txn({ then: [{ kind: "delete", range: { key: recordKeys.decision(gid) } }] });
  }

  async #livingEpochs(): Promise<{ readonly epochs: ReadonlySet<number>; readonly revision: number }> {
    const { entries, revision } = await this.#page({ prefix: recordKeys.coordinators });
    const epochs = new Set(entries.map(({ createRevision }) => createRevision));
    return { epochs, revision };
  }

  async #readCells(): Promise<ReadonlyMap<string, DecisionRecord>> {
    const { entries } = await this.#page({ prefix: recordKeys.decisions });
    return new Map(entries.map((entry) => [entry.key.slice(recordKeys.decisions.length), decodeRecord(entry.text)]));
  }

  /** All of a range, in pages. The revision is that of the first page. */
  async #page(whole: { readonly prefix: string }): Promise<{ readonly entries: readonly Entry[]; readonly revision: number }> {
    const entries: Entry[] = [];
    let revision: number | undefined;
    // The character after "/" ends a prefix of ours.
    const to = `${whole.prefix.slice(0, -1)}0`;
    for (let range: KeyRange = { from: whole.prefix, to }; ; ) {
      const op: Op = { kind: "range", range, limit: pageSize };
      const answer = await this.#parts.store.txn({ then: [op] }, { signal: this.#parts.signal });
      const [listed] = answer.results;
      assert(listed?.kind === "range", "a range is answered with entries");
      revision ??= answer.revision;
      entries.push(...listed.entries);
      const last = listed.entries.at(-1);
      if (!listed.more || last === undefined) return { entries, revision };
      range = { from: `${last.key}\u0000`, to };
    }
  }

  #context(resource: string): FinishContext | undefined {
    const participant = this.#parts.participants.get(resource);
    if (participant === undefined) return undefined;
    const { checkpoint } = this.#parts;
    return {
      platform: this.#platform,
      participant,
      answerMs: this.#answerMs,
      ...(checkpoint === undefined
        ? {}
        : { onEvicted: (ref: BranchRef) => checkpoint("recovery-evicted", ref.gid, ref.resource) }),
    };
  }

  get #platform() {
    return this.#parts.store.platform;
  }

  async #pause(ms: number): Promise<void> {
    const closing = linkSignal(this.#parts.signal);
    try {
      await new Bell<never>().wait({ platform: this.#platform, timeoutMs: ms, signal: closing.signal, ref: false });
    } catch {
      // Closing: whoever waits looks at the signal.
    } finally {
      closing.unlink();
    }
  }
}
