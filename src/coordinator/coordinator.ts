/**
 * The coordinator: two-phase commit with presumed abort, one write of the store per committed transaction and none for others.
 *
 *   prepare all ──yes──► write the decision ──► commit all ──► forget, later, in batches
 *       │ no, silence       │ refused
 *       └──► roll back all ◄┘
 *
 * Shortcuts: a branch that only read votes so and is out; a single writer commits in one phase, and its database decides; the
 * last agent is prepared by nobody: its own commit is the decision, and the store is not asked.
 * What the fast path leaves unfinished (a connection lost, a database down) is dropped into `Recovery`, which also serves the
 * transactions of coordinators that died: there is one way to finish, and it is tested all the time.
 * Source: Gray, "Notes on data base operating systems", 1978; Mohan et al., TODS 1986 (presumed abort, read-only);
 * Lampson & Lomet, VLDB 1993. Where they differ: the log is a replicated store, and any node may recover.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { type LinkedSignal, linkSignal, raceSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import { sleep } from "../recipes/bell.ts";
import { insist } from "../recipes/insist.ts";
import type { Compare, Op, Store } from "../store/store.ts";
import { ask, silent } from "./ask.ts";
import { type Decision, decide, decisionAnswerMs, type Proposal } from "./decide.ts";
import { DecisionBatch } from "./decision-batch.ts";
import { type Epoch, openEpoch } from "./epoch.ts";
import { evidenceOf } from "./finish.ts";
import { gidOf, randomName } from "./gid.ts";
import { type Checkpoint, type CoordinatorOptions, checkCaps, coordinatorDefaults } from "./options.ts";
import type { Branch, BranchRef } from "./participant.ts";
import { type IdempotencyRecord, recordKeys } from "./records.ts";
import { Recovery } from "./recovery.ts";

/** A transaction that has begun: its name, and the epoch that may decide it. */
export interface Ticket {
  readonly gid: string;
  readonly epoch: Epoch;
}

export interface Plan {
  /** Those that were opened, without the agent. */
  readonly branches: readonly Branch[];
  /** Commits last, and thereby decides. */
  readonly agent?: Branch | undefined;
  /** Of the store participant. */
  readonly compares?: readonly Compare[];
  readonly writes?: readonly Op[];
  readonly key?: { readonly name: string; readonly fingerprint: string; readonly result: string } | undefined;
  /** Of the store's clock: until then it is prepared and decided, or aborted. */
  readonly deadlineMs: number;
  readonly traceparent?: string | undefined;
}

export type AbortWhy = "vote" | "deadline" | "conflict" | "refused" | "fenced";

export type Verdict =
  /** `isSettled`: every resource has confirmed. Where it is false, recovery goes on to see to it. */
  | { readonly kind: "committed"; readonly isSettled: boolean }
  | {
      readonly kind: "aborted";
      readonly why: AbortWhy;
      readonly resource?: string;
      readonly detail?: string;
      readonly cause?: unknown;
    }
  /** Another transaction with the same key was first; nothing of this one stays. */
  | { readonly kind: "replayed"; readonly record: IdempotencyRecord }
  | { readonly kind: "unknown"; readonly why: string };

/** Figures of this process since it started. */
export interface CoordinatorFigures {
  readonly begun: number;
  readonly committed: number;
  readonly aborted: number;
  readonly unknown: number;
  readonly fenced: number;
  readonly inFlight: number;
  /** Decided or doubtful here, and not yet finished everywhere. */
  readonly inDoubt: number;
  readonly oldestInDoubtMs: number;
}

/** Settled, and its cell still stands. */
interface Forgettable {
  readonly gid: string;
  readonly epoch: Epoch;
  readonly sinceMs: number;
}

/** While nobody decides. Otherwise cells go with the next decisions, so many with each. */
const forgetAfterMs = 500;
const forgetMax = 64;
const forgetWithDecision = 4;
/** Tidying of idempotency keys. */
const tidyEveryMs = 60_000;
const tidyMax = 100;

export class Coordinator {
  readonly domain: string;
  readonly recovery: Recovery;
  readonly #options: CoordinatorOptions;
  readonly #store: Store;
  readonly #answerMs: number;
  readonly #closing = new AbortController();
  readonly #batch: DecisionBatch;
  #epoch: Promise<Epoch>;
  /** The same, while it is there. */
  #openedEpoch: Epoch | undefined;
  readonly #epochs = new Set<Epoch>();
  readonly #forgetting: Forgettable[] = [];
  #isFlushing = false;
  #isForgetTimed = false;
  /** Since when each waits to be settled, and who waits for it. */
  readonly #inDoubt = new Map<string, { readonly sinceMs: number; readonly wake: Set<() => void> }>();
  readonly #counts = { begun: 0, committed: 0, aborted: 0, unknown: 0, fenced: 0 };

  /**
   * Checks the store, reads or makes the domain, hangs up the first badge and starts to recover.
   * @throws UNSUPPORTED (the store cannot hold a decision), TIMEOUT, NO_QUORUM
   */
  static async open(options: CoordinatorOptions): Promise<Coordinator> {
    checkCaps(options.store.caps, options.acceptVolatileDecisions);
    const coordinator = new Coordinator(options, await readDomain(options.store));
    await coordinator.#epoch;
    coordinator.recovery.start();
    background(coordinator.#tidy(), "tidying of idempotency keys");
    return coordinator;
  }

  /** Use `open`, which waits for the first epoch. */
  private constructor(options: CoordinatorOptions, domain: string) {
    this.domain = domain;
    this.#options = options;
    this.#store = options.store;
    this.#answerMs = options.answerMs ?? coordinatorDefaults.answerMs;
    this.#batch = new DecisionBatch(options.store, { answerMs: decisionAnswerMs, signal: this.#closing.signal });
    this.recovery = new Recovery({
      ...options,
      domain,
      own: () => [...this.#epochs],
      onSettled: (gid) => this.#settled(gid),
      signal: this.#closing.signal,
    });
    this.#epoch = this.#openEpoch();
  }

  get platform(): Platform {
    return this.#store.platform;
  }

  get figures(): CoordinatorFigures {
    let inFlight = 0;
    for (const epoch of this.#epochs) inFlight += epoch.inFlight.size;
    const oldest = this.#inDoubt.values().next().value;
    const oldestInDoubtMs = oldest === undefined ? 0 : this.platform.now() - oldest.sinceMs;
    return { ...this.#counts, inFlight, inDoubt: this.#inDoubt.size, oldestInDoubtMs };
  }

  /** Whether this process minds it at this moment. */
  isInFlight(gid: string): boolean {
    return [...this.#epochs].some((epoch) => epoch.inFlight.has(gid));
  }

  /** The epoch under which this process writes at this moment; waits while a lost one is replaced. */
  currentEpoch(): Promise<Epoch> {
    return this.#epoch;
  }

  /** Whether `begin` has nothing to wait for: then nobody needs to watch the clock over it. */
  get isReady(): boolean {
    return this.#openedEpoch !== undefined;
  }

  /** Whether the epoch is one of this process that may still live. */
  isOwn(epoch: number): boolean {
    return [...this.#epochs].some(({ number }) => number === epoch);
  }

  /**
   * A name for a new transaction. Nothing is sent. Waits while a lost session is replaced.
   * @throws BUSY, CLOSED, or the signal's reason
   */
  async begin(options: { readonly agent?: string | undefined; readonly signal?: AbortSignal | undefined } = {}): Promise<Ticket> {
    if (this.#closing.signal.aborted) throw closed();
    options.signal?.throwIfAborted();
    const epoch = this.#openedEpoch ?? (await raceSignal(this.#epoch, options.signal));
    const inFlightMax = this.#options.inFlightMax ?? coordinatorDefaults.inFlightMax;
    if (epoch.inFlight.size >= inFlightMax) {
      throw conclaveError("BUSY", `${inFlightMax} transactions are in flight; this one was not begun.`);
    }
    const gid = gidOf(epoch.prefix, epoch.nextSequence(), options.agent);
    epoch.inFlight.add(gid);
    this.#counts.begun++;
    await this.#checkpoint("begun", gid);
    return { gid, epoch };
  }

  /** Brings the transaction to its outcome. Never rejects for what a participant or the store does. */
  async commit(ticket: Ticket, plan: Plan): Promise<Verdict> {
    const verdict = await this.#commit(ticket, plan);
    switch (verdict.kind) {
      case "committed":
        this.#counts.committed++;
        break;
      case "aborted":
        this.#counts.aborted++;
        if (verdict.why === "fenced") this.#counts.fenced++;
        break;
      case "replayed":
        this.#counts.aborted++;
        break;
      case "unknown":
        this.#counts.unknown++;
        break;
    }
    this.#options.telemetry?.emit({ kind: "transaction.ended", gid: ticket.gid, outcome: verdict.kind });
    return verdict;
  }

  /** The work failed before it came to a vote. */
  async rollback(ticket: Ticket, branches: readonly Branch[]): Promise<void> {
    this.#counts.aborted++;
    await this.#rollBackAll(ticket, branches);
  }

  /** Ends the epoch, which others see at once; transactions still in flight are settled by whoever recovers. Idempotent. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    await this.#flushForgetting();
    this.#closing.abort(closed());
    const epoch = await this.#epoch.catch(() => undefined);
    await epoch?.session.close();
  }

  async #commit(ticket: Ticket, plan: Plan): Promise<Verdict> {
    const { agent, branches } = plan;
    const writes = plan.writes ?? [];
    const touchesStore = writes.length > 0 || (plan.compares ?? []).length > 0 || plan.key !== undefined;
    const alone = agent ?? branches[0];
    if (!touchesStore && alone !== undefined && !alone.isReadOnly && branches.length + (agent === undefined ? 0 : 1) === 1) {
      return this.#commitAlone(ticket, alone, [], plan);
    }
    const all = agent === undefined ? branches : [...branches, agent];
    const refused = await this.#prepareAll(ticket, branches, { parts: partsOf(all), deadlineMs: plan.deadlineMs });
    if (refused !== undefined && refused.kind !== "yes") {
      await this.#checkpoint("refused", ticket.gid);
      await this.#rollBackAll(ticket, all);
      return refused.verdict;
    }
    const writers = refused?.writers ?? [];
    await this.#checkpoint("all-prepared", ticket.gid);
    if (agent !== undefined) return this.#commitAlone(ticket, agent, writers, plan);
    if (writers.length === 0 && !touchesStore) {
      this.#done(ticket);
      return { kind: "committed", isSettled: true };
    }
    return this.#commitDecided(ticket, writers, plan);
  }

  /** All in parallel. The first that does not agree settles it, but everyone is heard: a late "yes" must be rolled back. */
  async #prepareAll(
    { gid }: Ticket,
    branches: readonly Branch[],
    { parts, deadlineMs }: { readonly parts: readonly BranchRef[]; readonly deadlineMs: number },
  ): Promise<
    { readonly kind: "yes"; readonly writers: readonly Branch[] } | { readonly kind: "no"; readonly verdict: Verdict } | undefined
  > {
    const votes = await Promise.all(
      branches.map(async (branch) => {
        const { resource } = branch.ref;
        await this.#checkpoint("prepare", gid, resource);
        const answer = await ask(this.platform, deadlineMs - this.platform.now(), () => branch.prepare(parts));
        if (answer !== silent && answer.vote === "yes") await this.#checkpoint("prepared", gid, resource);
        return { branch, answer };
      }),
    );
    const refusal = votes.find(({ answer }) => answer === silent || answer.vote === "no");
    if (refusal === undefined) {
      const writers = votes.filter(({ answer }) => answer !== silent && answer.vote === "yes");
      return { kind: "yes", writers: writers.map(({ branch }) => branch) };
    }
    const { resource } = refusal.branch.ref;
    if (refusal.answer === silent) {
      // A timer may ring a moment before the clock says so.
      const isLate = this.platform.now() >= deadlineMs - 1;
      const detail = isLate ? "it did not prepare in time" : "its connection was lost while it prepared";
      return { kind: "no", verdict: { kind: "aborted", why: isLate ? "deadline" : "vote", resource, detail } };
    }
    const { why } = refusal.answer;
    return { kind: "no", verdict: { kind: "aborted", why: "vote", resource, ...(why === undefined ? {} : { detail: why }) } };
  }

  async #commitDecided(ticket: Ticket, writers: readonly Branch[], plan: Plan): Promise<Verdict> {
    const { gid, epoch } = ticket;
    await this.#checkpoint("deciding", gid);
    const forget = this.#forgetting.splice(0, forgetWithDecision);
    // A child of its own: a thousand decisions are one listener on the closing.
    const closing = linkSignal(this.#closing.signal);
    const proposal: Proposal = {
      gid,
      epoch,
      record: {
        outcome: "commit",
        branches: writers.map(({ ref }) => ref),
        atMs: this.platform.wallMs(),
        traceparent: plan.traceparent,
      },
      compares: plan.compares ?? [],
      writes: plan.writes ?? [],
      key: plan.key === undefined ? undefined : this.#keyOf(gid, plan.key),
      forget: forget.map((settled) => settled.gid),
      deadlineMs: plan.deadlineMs,
      closing,
    };
    const deciding = this.#decide(proposal, { forget, writers });
    // The caller is told in time; the resolution goes on behind it.
    const graceMs = plan.deadlineMs + this.#answerMs - this.platform.now();
    const decision = await ask(this.platform, graceMs, () => deciding);
    if (decision === silent) {
      this.#startDoubt(gid);
      background(
        deciding.then(
          (late) => this.#carryOut(ticket, late, writers, plan),
          () => this.#handOver(ticket),
        ),
        "late decision",
      );
      return { kind: "unknown", why: "the store has not said whether the decision was written" };
    }
    return this.#carryOut(ticket, decision, writers, plan);
  }

  async #decide(
    proposal: Proposal,
    { forget, writers }: { readonly forget: readonly Forgettable[]; readonly writers: readonly Branch[] },
  ): Promise<Decision> {
    try {
      const decision = await decide(this.#store, proposal, this.#batch);
      const hasForgotten = (decision.kind === "committed" || decision.kind === "aborted") && decision.hasForgotten === true;
      if (hasForgotten) await this.#forgotten(forget);
      else this.#forgetting.unshift(...forget);
      return await this.#resolveDoubt(decision, writers, proposal.closing);
    } finally {
      proposal.closing.unlink();
    }
  }

  /** The epoch is over and a write of the decision went unanswered: whoever recovered has left its mark, or left none. */
  async #resolveDoubt(decision: Decision, writers: readonly Branch[], closing: LinkedSignal): Promise<Decision> {
    if (decision.kind !== "doubtful" || writers.length === 0) return decision;
    for (;;) {
      const states = await Promise.all(
        writers.map(({ ref }) => {
          const participant = this.#options.participants.get(ref.resource);
          assert(participant !== undefined, "a branch belongs to a known resource");
          return evidenceOf({ platform: this.platform, participant, answerMs: this.#answerMs }, ref);
        }),
      );
      // A cell is forgotten only after every branch is in: one that is not in tells that there never was a cell.
      if (states.some(({ state }) => state === "absent" || state === "prepared")) return { kind: "aborted", why: "fenced" };
      if (states.every(({ state }) => state === "committed")) return { kind: "committed" };
      await sleep({ platform: this.platform, timeoutMs: 200, signal: closing.signal });
    }
  }

  async #carryOut(ticket: Ticket, decision: Decision, writers: readonly Branch[], plan: Plan): Promise<Verdict> {
    switch (decision.kind) {
      case "committed":
        await this.#checkpoint("decided", ticket.gid);
        return { kind: "committed", isSettled: await this.#commitAll(ticket, writers, plan.deadlineMs) };
      case "aborted":
        await this.#rollBackAll(ticket, writers);
        return {
          kind: "aborted",
          why: decision.why,
          ...(decision.cause === undefined ? {} : { cause: decision.cause }),
        };
      case "replayed":
        await this.#rollBackAll(ticket, writers);
        return { kind: "replayed", record: decision.record };
      case "doubtful":
        this.#handOver(ticket);
        return { kind: "unknown", why: "the coordinator was fenced while its decision was on the way" };
    }
  }

  async #commitAll(ticket: Ticket, writers: readonly Branch[], deadlineMs: number): Promise<boolean> {
    const { gid, epoch } = ticket;
    const replies = await Promise.all(
      writers.map(async (branch) => {
        await this.#checkpoint("committing", gid, branch.ref.resource);
        const reply = await ask(this.platform, this.#answerMs, () => branch.commit());
        if (reply === "done") await this.#checkpoint("committed", gid, branch.ref.resource);
        return reply;
      }),
    );
    if (replies.every((reply) => reply === "done")) {
      await this.#checkpoint("all-committed", gid);
      this.#settled(gid);
      if (epoch.kept.has(gid)) epoch.inFlight.delete(gid);
      else this.#forgetSoon(ticket);
      return true;
    }
    const settled = this.#waitSettled(gid, deadlineMs);
    this.#handOver(ticket);
    return settled;
  }

  /** One-phase commit, or the last agent: the database's own commit is the decision. */
  async #commitAlone(ticket: Ticket, agent: Branch, prepared: readonly Branch[], plan: Plan): Promise<Verdict> {
    const { gid } = ticket;
    const isAgent = prepared.length > 0;
    const parts = partsOf([...prepared, agent]);
    await this.#checkpoint(isAgent ? "agent" : "one-phase", gid, agent.ref.resource);
    const asked = ask(this.platform, plan.deadlineMs - this.platform.now(), () => agent.commitAlone(parts));
    await this.#checkpoint(isAgent ? "agent-sent" : "one-phase-sent", gid, agent.ref.resource);
    let answer: "done" | "rolled-back" | "unknown" | typeof silent = await asked;
    if (answer === silent || answer === "unknown") answer = await this.#fence(agent, plan.deadlineMs + this.#answerMs);
    await this.#checkpoint(isAgent ? "agent-done" : "one-phase-done", gid, agent.ref.resource);
    switch (answer) {
      case "done":
        return { kind: "committed", isSettled: await this.#commitAgents(ticket, prepared, plan.deadlineMs) };
      case "rolled-back":
        await this.#rollBackAll(ticket, prepared);
        return { kind: "aborted", why: "vote", resource: agent.ref.resource, detail: "it rolled back at its commit" };
      default:
        this.#startDoubt(gid);
        this.#handOver(ticket);
        return { kind: "unknown", why: `${agent.ref.resource} has not said whether it committed` };
    }
  }

  /** The others of a last agent: nothing stands in the store, so nothing is to be forgotten there. */
  async #commitAgents(ticket: Ticket, prepared: readonly Branch[], deadlineMs: number): Promise<boolean> {
    const { gid } = ticket;
    const replies = await Promise.all(
      prepared.map(async (branch) => {
        await this.#checkpoint("committing", gid, branch.ref.resource);
        return ask(this.platform, this.#answerMs, () => branch.commit());
      }),
    );
    if (replies.every((reply) => reply === "done")) {
      this.#done(ticket);
      return true;
    }
    const settled = this.#waitSettled(gid, deadlineMs);
    this.#handOver(ticket);
    return settled;
  }

  /** Did it commit? Where it did not, it never will. */
  async #fence(agent: Branch, untilMs: number): Promise<"done" | "rolled-back" | "unknown"> {
    const { ref } = agent;
    const participant = this.#options.participants.get(ref.resource);
    assert(participant !== undefined, "a branch belongs to a known resource");
    // Its session must not stand in the way of the question.
    await ask(this.platform, this.#answerMs, () => agent.rollback());
    const closing = linkSignal(this.#closing.signal);
    try {
      while (this.platform.now() < untilMs && !closing.signal.aborted) {
        const reply = await ask(this.platform, this.#answerMs, () => participant.fence(ref));
        if (reply === "committed") return "done";
        if (reply === "fenced") return "rolled-back";
        await sleep({ platform: this.platform, timeoutMs: 100, signal: closing.signal }).catch(ignoreClosing);
      }
    } finally {
      closing.unlink();
    }
    return "unknown";
  }

  async #rollBackAll(ticket: Ticket, branches: readonly Branch[]): Promise<void> {
    const replies = await Promise.all(
      branches.map(async (branch) => {
        const reply = await ask(this.platform, this.#answerMs, () => branch.rollback());
        if (reply === "done") await this.#checkpoint("rolled-back", ticket.gid, branch.ref.resource);
        return reply;
      }),
    );
    if (replies.every((reply) => reply === "done")) this.#done(ticket);
    else this.#handOver(ticket);
  }

  #keyOf(gid: string, { name, fingerprint, result }: NonNullable<Plan["key"]>) {
    return { name, record: { gid, fingerprint, result, atMs: this.platform.wallMs() } };
  }

  /** Nobody has anything left to do. */
  #done({ gid, epoch }: Ticket): void {
    epoch.inFlight.delete(gid);
    this.#settled(gid);
  }

  /** From here recovery minds it. */
  #handOver({ gid, epoch }: Ticket): void {
    epoch.inFlight.delete(gid);
    this.recovery.wake();
  }

  #startDoubt(gid: string): { readonly wake: Set<() => void> } {
    let doubt = this.#inDoubt.get(gid);
    if (doubt === undefined) {
      doubt = { sinceMs: this.platform.now(), wake: new Set() };
      this.#inDoubt.set(gid, doubt);
    }
    return doubt;
  }

  #settled(gid: string): void {
    const doubt = this.#inDoubt.get(gid);
    if (doubt === undefined) return;
    this.#inDoubt.delete(gid);
    for (const wake of doubt.wake) wake();
  }

  #waitSettled(gid: string, deadlineMs: number): Promise<boolean> {
    const { wake } = this.#startDoubt(gid);
    return ask(this.platform, deadlineMs - this.platform.now(), () => new Promise<void>((resolve) => wake.add(resolve))).then(
      (answer) => answer !== silent,
    );
  }

  /** The cell of a settled transaction goes with a later decision, or in a batch: losing the batch costs a look of recovery, no more. */
  #forgetSoon({ gid, epoch }: Ticket): void {
    this.#forgetting.push({ gid, epoch, sinceMs: this.platform.now() });
    if (this.#forgetting.length >= forgetMax) background(this.#flushForgetting(), "forgetting decisions");
    else if (!this.#isForgetTimed) this.#forgetLater(forgetAfterMs);
  }

  /** Of those that no later decision has taken along: a write of its own is for quiet times. */
  #forgetLater(delayMs: number): void {
    this.#isForgetTimed = true;
    this.platform.setTimer(delayMs, () => {
      this.#isForgetTimed = false;
      const [oldest] = this.#forgetting;
      if (oldest === undefined) return;
      const leftMs = oldest.sinceMs + forgetAfterMs - this.platform.now();
      if (leftMs > 1) this.#forgetLater(leftMs);
      else background(this.#flushForgetting(), "forgetting decisions");
    });
  }

  async #flushForgetting(): Promise<void> {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    try {
      while (this.#forgetting.length > 0 && !this.#closing.signal.aborted) {
        const batch = this.#forgetting.splice(0, forgetMax);
        const then: Op[] = batch.map(({ gid }) => ({ kind: "delete", range: { key: recordKeys.decision(gid) } }));
        // Where it fails, the gids leave the list of those in flight all the same: recovery finds and proves the cells.
        await this.#store.txn({ then }, { signal: this.#closing.signal }).catch(ignoreClosing);
        await this.#forgotten(batch);
      }
    } finally {
      this.#isFlushing = false;
    }
  }

  async #forgotten(batch: readonly Forgettable[]): Promise<void> {
    for (const { gid, epoch } of batch) epoch.inFlight.delete(gid);
    const [first] = batch;
    if (first !== undefined) await this.#checkpoint("forgotten", first.gid);
  }

  #openEpoch(): Promise<Epoch> {
    const { participants, host = "", pid = 0, ttlMs = coordinatorDefaults.ttlMs } = this.#options;
    const record = { host, pid, resources: [...participants.keys()] };
    const opening = openEpoch(this.#store, { domain: this.domain, ttlMs, record, signal: this.#closing.signal }).then((epoch) => {
      this.#epochs.add(epoch);
      this.#openedEpoch = epoch;
      epoch.session.lost.addEventListener("abort", () => this.#onLost(epoch), { once: true });
      return epoch;
    });
    // Whoever begins a transaction hears of a failure.
    opening.catch(ignoreClosing);
    return opening;
  }

  #onLost(epoch: Epoch): void {
    this.#options.telemetry?.emit({ kind: "transaction.fenced", coordinator: epoch.coordinator, epoch: epoch.number });
    if (this.#openedEpoch === epoch) this.#openedEpoch = undefined;
    if (this.#closing.signal.aborted) return;
    this.#epoch = this.#openEpoch();
    // It stays in the list while transactions of it run; the store tells recovery when the epoch is over.
    this.#epochs.delete(epoch);
    this.recovery.wake();
  }

  /** Idempotency keys beyond their time or their number give way, oldest first. */
  async #tidy(): Promise<void> {
    const { signal } = this.#closing;
    const { keysKeptMs = coordinatorDefaults.keysKeptMs, keysMax = coordinatorDefaults.keysMax } = this.#options;
    while (!signal.aborted) {
      try {
        await sleep({ platform: this.platform, timeoutMs: tidyEveryMs, signal, ref: false });
        const range = { prefix: recordKeys.idempotencies };
        const { results } = await this.#store.txn(
          { then: [{ kind: "range", range, order: "create", limit: tidyMax }] },
          { signal },
        );
        const [listed] = results;
        assert(listed?.kind === "range", "a range is answered with entries");
        const tooMany = Math.max(0, listed.count - keysMax);
        const old = listed.entries.filter(
          ({ text }, at) => at < tooMany || (JSON.parse(text) as IdempotencyRecord).atMs + keysKeptMs < this.platform.wallMs(),
        );
        const then: Op[] = old.map(({ key }) => ({ kind: "delete", range: { key } }));
        if (then.length > 0) await this.#store.txn({ then }, { signal });
      } catch (error) {
        if (signal.aborted) return;
        this.#options.telemetry?.emit({ kind: "transaction.recovery-failed", why: String(error) });
      }
    }
  }

  #checkpoint(step: Checkpoint, gid: string, resource = ""): void | Promise<void> {
    return this.#options.checkpoint?.(step, gid, resource);
  }
}

/** Those that must be in when the transaction is. */
function partsOf(branches: readonly Branch[]): readonly BranchRef[] {
  return branches.filter(({ isReadOnly }) => !isReadOnly).map(({ ref }) => ref);
}

/** The store's own six letters, drawn by whoever comes first. */
async function readDomain(store: Store): Promise<string> {
  const { platform } = store;
  const linked = linkSignal(undefined);
  const timer = platform.setTimer(30_000, () => linked.abort(conclaveError("TIMEOUT", "The store did not answer within 30 s.")), {
    ref: true,
  });
  try {
    return await insist(
      async () => {
        const { key } = { key: recordKeys.domain };
        const { succeeded, results } = await store.txn(
          {
            if: [{ key, target: "exists", is: "equal", to: true }],
            then: [{ kind: "get", key }],
            else: [
              { kind: "put", key, value: randomName(platform, 6) },
              { kind: "get", key },
            ],
          },
          { signal: linked.signal },
        );
        const found = results[succeeded ? 0 : 1];
        assert(found?.kind === "get" && found.entry !== null, "the domain was just read or written");
        return found.entry.text;
      },
      { platform, signal: linked.signal },
    );
  } finally {
    timer.cancel();
  }
}

function closed(): Error {
  return conclaveError("CLOSED", "This transaction manager was closed.");
}

function ignoreClosing(): void {
  // Said elsewhere: by the wait that the closing ends, or by recovery, which finds what was left.
}
