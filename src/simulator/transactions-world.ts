/**
 * Transactions in one process: real coordinators and real recovery, on a real store machine, over databases that are models.
 *
 * The models have the quirks that matter (`research/transactions.md` §4): a branch that is not prepared dies with its session;
 * a prepared one outlives everything; one kind of database lets any session finish it, the other only the session that
 * prepared it while that session lives; a PREPARE that is on its way lands even when its sender is dead.
 * Faults: processes killed at any step and started anew, processes that pause beyond their lease and wake as zombies, databases
 * that crash, messages lost, slow and very late, a store that answers late or never, or executes what was given up.
 * After every event of a database the history is judged; at the end, healed and given time, nothing may be left.
 */
import { Coordinator, type Ticket, type Verdict } from "../coordinator/coordinator.ts";
import { volatileWords } from "../coordinator/options.ts";
import type { Branch, BranchRef, Participant } from "../coordinator/participant.ts";
import { recordKeys, transactionsNamespace } from "../coordinator/records.ts";
import type { Entry } from "../store/entry.ts";
import { decodeOutcome, encodeOutcome } from "../store/outcome.ts";
import { resolveTxn } from "../store/resolve.ts";
import { LocalServer } from "../testing/local-server.ts";
import { EventQueue } from "./event-queue.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";
import { ModelDatabase } from "./model-database.ts";
import { ProcessStore } from "./process-store.ts";
import { Random } from "./random.ts";
import { SimulatedProcess } from "./simulated-process.ts";
import { TransactionsChecker } from "./transactions-checker.ts";

export interface TransactionsWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly committed: number;
  readonly aborted: number;
  readonly unknown: number;
  readonly kills: number;
  readonly zombies: number;
  readonly fenced: number;
  readonly crashes: number;
}

export interface TransactionsWorldOptions {
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
}

interface Node {
  readonly process: SimulatedProcess;
  readonly store: ProcessStore;
  coordinator: Coordinator | undefined;
}

const wallBaseMs = 1_700_000_000_000;
const faultsUntilMs = 25_000;
const healMs = 20_000;
const coordinatorsCount = 3;
const ttlMs = 2_000;

export class TransactionsWorld {
  readonly #seed: number;
  readonly #options: TransactionsWorldOptions;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #server: LocalServer;
  readonly #databases: readonly ModelDatabase[];
  readonly #checker = new TransactionsChecker((text) => this.#note(text));
  readonly #nodes: Node[] = [];
  #isHealed = false;
  #failure: unknown;
  #counts = { committed: 0, aborted: 0, unknown: 0, kills: 0, zombies: 0, fenced: 0, crashes: 0 };
  #trace = 0;
  #processes = 0;

  constructor(seed: number, options: TransactionsWorldOptions) {
    this.#seed = seed;
    this.#options = options;
    this.#random = new Random(seed);
    const base = new SimulatedProcess({ name: "store", queue: this.#queue, random: this.#random.fork(), wallBaseMs });
    this.#server = new LocalServer({ platform: base.platform, limits: ProcessStore.limits });
    const kinds = ["any-session", "own-session", this.#random.pick(["any-session", "own-session"] as const)] as const;
    this.#databases = kinds.map(
      (kind, at) =>
        new ModelDatabase({
          name: ["orders", "wallet", "stock"][at] as string,
          kind,
          queue: this.#queue,
          random: this.#random.fork(),
          checker: this.#checker,
        }),
    );
  }

  get steps(): number {
    return this.#queue.steps;
  }

  async run(): Promise<TransactionsWorldReport> {
    for (let at = 0; at < coordinatorsCount; at++) this.#boot(at);
    this.#planFaults();
    await this.#runUntil(faultsUntilMs);
    this.#heal();
    await this.#runUntil(faultsUntilMs + healMs);
    const stuck = this.#databases.flatMap((database) => database.prepared());
    must(stuck.length === 0, "NothingStuck", () => `still prepared ${healMs} ms after healing: ${stuck.join(", ")}`);
    // The last epochs end as well: what they kept back must be cleared by somebody else.
    for (const { process } of this.#nodes) process.kill();
    for (const database of this.#databases) database.endSessions();
    this.#boot(0);
    await this.#runUntil(faultsUntilMs + 2 * healMs);
    this.#checker.judge({
      keys: this.#keysLeft(),
      prepared: this.#databases.flatMap((database) => database.prepared()),
      committed: new Map(this.#databases.map((database) => [database.name, database.committed])),
      applied: this.#applied(),
    });
    const { steps, nowMs } = this.#queue;
    return { seed: this.#seed, steps, virtualMs: nowMs, traceHash: this.#trace >>> 0, ...this.#counts };
  }

  async #runUntil(untilMs: number): Promise<void> {
    while (this.#queue.step(untilMs)) {
      await this.#options.drain();
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  #note(text: string): void {
    for (let at = 0; at < text.length; at++) this.#trace = (Math.imul(this.#trace, 31) + text.charCodeAt(at)) | 0;
    this.#trace = (Math.imul(this.#trace, 31) + Math.floor(this.#queue.nowMs * 1_000)) | 0;
    this.#options.onTrace?.(this.#queue.nowMs, text);
  }

  #boot(at: number): void {
    this.#processes++;
    const name = `p${this.#processes}`;
    const process = new SimulatedProcess({ name, queue: this.#queue, random: this.#random.fork(), wallBaseMs });
    const store = new ProcessStore({
      server: this.#server,
      namespace: transactionsNamespace,
      process,
      queue: this.#queue,
      random: this.#random.fork(),
      isCalm: () => this.#isHealed,
      onApplied: (txn, succeeded) => this.#guarded(() => this.#checker.onStore(txn, succeeded)),
    });
    const node: Node = { process, store, coordinator: undefined };
    this.#nodes[at] = node;
    this.#note(`${name} starts`);
    const participants = new Map<string, Participant>(
      this.#databases.map((database) => [database.name, database.participant(process)]),
    );
    Coordinator.open({
      store,
      participants,
      ttlMs,
      scanEveryMs: 4_000,
      answerMs: 1_000,
      acceptVolatileDecisions: volatileWords,
      telemetry: {
        emit: (event) => {
          this.#note(`${name} ${JSON.stringify(event)}`);
          if (event.kind === "transaction.fenced") this.#counts.fenced++;
          if (event.kind === "transaction.heuristic")
            this.#fail(new InvariantViolation("NoHeuristic", `${event.gid}: ${event.outcome}`));
        },
      },
    }).then(
      (coordinator) => {
        node.coordinator = coordinator;
        if (!this.#isHealed) for (let worker = 0; worker < 3; worker++) this.#work(node, coordinator);
      },
      (error: unknown) => {
        // Without a store nobody starts: as a supervisor would, try again.
        this.#note(`${name} did not start: ${String(error)}`);
        this.#queue.schedule(500, () => {
          if (process.isAlive && this.#nodes[at] === node) this.#boot(at);
        });
      },
    );
  }

  /** One client of this process: transaction after transaction, until the faults end. */
  #work(node: Node, coordinator: Coordinator): void {
    const next = (): void => {
      node.process.platform.setTimer(this.#random.between(5, 400), () => {
        if (this.#isHealed) return;
        this.#transaction(node, coordinator).then(next, (error: unknown) => {
          this.#note(`a client hears ${String(error)}`);
          if (error instanceof InvariantViolation || (error as Error).name === "AssertionError") this.#fail(error);
          else next();
        });
      });
    };
    next();
  }

  async #transaction(node: Node, coordinator: Coordinator): Promise<void> {
    const random = this.#random;
    const { platform } = node.process;
    const chosen = this.#databases.filter(() => random.chance(0.6));
    const writesStore = random.chance(0.3) || chosen.length === 0;
    const keyName = random.chance(0.2) ? `key-${random.integer(0, 12)}` : undefined;
    const agentOf = !writesStore && keyName === undefined && chosen.length > 1 && random.chance(0.3) ? chosen[0] : undefined;
    const deadlineMs = platform.now() + random.between(300, 3_000);
    const ticket: Ticket = await coordinator.begin(agentOf === undefined ? {} : { agent: agentOf.name });
    const { gid } = ticket;
    const branches: Branch[] = [];
    let agent: Branch | undefined;
    try {
      for (const [at, database] of chosen.entries()) {
        const ref: BranchRef = { gid, branch: database === agentOf ? 0 : at + 1, resource: database.name };
        const branch = await database.open(node.process, ref);
        if (database === agentOf) agent = branch;
        else branches.push(branch);
      }
    } catch {
      await coordinator.rollback(ticket, agent === undefined ? branches : [...branches, agent]);
      this.#checker.onAnswer(gid, { kind: "aborted", why: "vote" }, keyName);
      return;
    }
    if (random.chance(0.1)) {
      await coordinator.rollback(ticket, agent === undefined ? branches : [...branches, agent]);
      this.#checker.onAnswer(gid, { kind: "aborted", why: "vote" }, keyName);
      return;
    }
    this.#checker.onCommitCall(
      gid,
      [...branches, ...(agent === undefined ? [] : [agent])].map(({ ref }) => ref),
      {
        agent: agent?.ref.resource,
        writesStore,
      },
    );
    const verdict = await coordinator.commit(ticket, {
      branches,
      ...(agent === undefined ? {} : { agent }),
      ...(writesStore ? this.#storeWrites(gid) : {}),
      ...(keyName === undefined ? {} : { key: { name: keyName, fingerprint: "", result: "null" } }),
      deadlineMs,
    });
    this.#note(`${node.process.name} answers ${gid}: ${describe(verdict)}`);
    if (verdict.kind === "committed") this.#counts.committed++;
    else if (verdict.kind === "unknown") this.#counts.unknown++;
    else this.#counts.aborted++;
    this.#guarded(() => this.#checker.onAnswer(gid, verdict, keyName));
  }

  /** An `add` that runs twice is seen by its sum; a condition on a hot key makes conflicts, which may also end. */
  #storeWrites(gid: string) {
    const hot = { key: `hot-${this.#random.integer(0, 3)}`, namespace: "bank" } as const;
    return {
      compares: this.#random.chance(0.5)
        ? ([{ ...hot, target: "value", is: "not-equal", to: String(this.#random.integer(1, 2)) }] as const)
        : [],
      writes: [
        { kind: "add", key: `applied/${gid}`, namespace: "bank", delta: 1 },
        { kind: "put", ...hot, value: String(this.#random.integer(0, 3)) },
      ] as const,
    };
  }

  #planFaults(): void {
    const random = this.#random.fork();
    const storms = random.pick([0.4, 1, 2.5]);
    const plan = (meanMs: number, act: () => void): void => {
      const again = (): void => {
        this.#queue.schedule(random.between(0.2, 1.8) * (meanMs / storms), () => {
          if (this.#isHealed) return;
          act();
          again();
        });
      };
      again();
    };
    plan(3_000, () => this.#kill(random.integer(0, coordinatorsCount - 1), random.between(10, 3_000)));
    plan(3_500, () => {
      const { process } = this.#nodes[random.integer(0, coordinatorsCount - 1)] as Node;
      const durationMs = random.pick([300, 1_500, 3_000, 6_000]);
      if (durationMs > ttlMs) this.#counts.zombies++;
      this.#note(`${process.name} pauses ${durationMs} ms`);
      process.pause(durationMs);
    });
    plan(5_000, () => {
      const database = random.pick(this.#databases);
      this.#counts.crashes++;
      this.#note(`${database.name} crashes`);
      database.crash(random.between(50, 4_000));
    });
    plan(4_000, () => {
      const { store, process } = this.#nodes[random.integer(0, coordinatorsCount - 1)] as Node;
      this.#note(`${process.name} is cut off from the store`);
      store.cutOff(random.between(200, 5_000));
    });
  }

  #kill(at: number, downMs: number): void {
    const { process } = this.#nodes[at] as Node;
    if (!process.isAlive) return;
    this.#counts.kills++;
    this.#note(`${process.name} is killed`);
    process.kill();
    for (const database of this.#databases) database.clientDied(process);
    this.#queue.schedule(downMs, () => {
      if (!this.#isHealed || this.#nodes[at]?.process === process) this.#boot(at);
    });
  }

  #heal(): void {
    this.#note("healed");
    this.#isHealed = true;
    for (const { process, store } of this.#nodes) {
      process.resume();
      store.heal();
    }
    for (const database of this.#databases) database.heal();
  }

  #keysLeft(): readonly string[] {
    const { coordinators, idempotencies, domain } = recordKeys;
    return this.#entries(transactionsNamespace)
      .map(({ key }) => key)
      .filter((key) => !key.startsWith(coordinators) && !key.startsWith(idempotencies) && key !== domain);
  }

  #applied(): ReadonlyMap<string, number> {
    const found = this.#entries("bank").filter(({ key }) => key.startsWith("applied/"));
    return new Map(found.map(({ key, text }) => [key.slice("applied/".length), Number(text)]));
  }

  #entries(namespace: string): readonly Entry[] {
    const txn = resolveTxn(namespace, { then: [{ kind: "range", range: { prefix: "" } }] }, ProcessStore.limits);
    const outcome = decodeOutcome(encodeOutcome(this.#server.txn(txn)));
    const [listed] = outcome.kind === "txn" ? outcome.result.results : [];
    if (listed?.kind !== "range") throw new Error("The store could not be listed.");
    return listed.entries;
  }

  #guarded(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
  }
}

function describe(verdict: Verdict): string {
  return verdict.kind === "aborted" ? `aborted (${verdict.why})` : verdict.kind;
}
