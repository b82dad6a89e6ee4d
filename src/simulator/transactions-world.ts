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
import type { Ticket, Verdict } from "../coordinator/coordinator.ts";
import type { Branch, BranchRef, Participant } from "../coordinator/participant.ts";
import type { Txn } from "../store/store.ts";
import {
  CoordinatorWorld,
  type CoordinatorWorldOptions,
  type CoordinatorWorldReport,
  type Node,
  type Opened,
} from "./coordinator-world.ts";
import { must } from "./invariant-violation.ts";
import { ModelDatabase } from "./model-database.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";
import { TransactionsChecker } from "./transactions-checker.ts";

export interface TransactionsWorldReport extends CoordinatorWorldReport {
  readonly committed: number;
  readonly aborted: number;
  readonly unknown: number;
  readonly fenced: number;
  readonly crashes: number;
}

const healMs = 20_000;

export class TransactionsWorld extends CoordinatorWorld {
  readonly #databases: readonly ModelDatabase[];
  readonly #checker = new TransactionsChecker((text) => this.note(text));
  readonly #counts = { committed: 0, aborted: 0, unknown: 0, fenced: 0, crashes: 0 };

  constructor(seed: number, options: CoordinatorWorldOptions) {
    super(seed, options, { healMs, crashEveryMs: 5_000 });
    const kinds = ["any-session", "own-session", this.random.pick(["any-session", "own-session"] as const)] as const;
    this.#databases = kinds.map(
      (kind, at) =>
        new ModelDatabase({
          name: ["orders", "wallet", "stock"][at] as string,
          kind,
          queue: this.queue,
          random: this.random.fork(),
          checker: this.#checker,
        }),
    );
  }

  async run(): Promise<TransactionsWorldReport> {
    const report = await this.play();
    this.#checker.judge({
      keys: this.keysLeft(),
      prepared: this.#prepared(),
      committed: new Map(this.#databases.map((database) => [database.name, database.committed])),
      applied: this.#applied(),
    });
    return { ...report, ...this.#counts };
  }

  protected override participants({ process }: Node): ReadonlyMap<string, Participant> {
    return new Map(this.#databases.map((database) => [database.name, database.participant(process)]));
  }

  protected override onOpen(opened: Opened<Participant>): void {
    if (this.isHealed) return;
    for (let client = 0; client < 3; client++) this.work(opened, 400, () => this.#transaction(opened));
  }

  protected override onStore(txn: Txn, succeeded: boolean): void {
    this.#checker.onStore(txn, succeeded);
  }

  protected override onEvent({ kind }: { readonly kind: string }): void {
    if (kind === "transaction.fenced") this.#counts.fenced++;
  }

  protected override onKilled(process: SimulatedProcess): void {
    for (const database of this.#databases) database.clientDied(process);
  }

  protected override crashOne(random: Random): void {
    const database = random.pick(this.#databases);
    this.#counts.crashes++;
    this.note(`${database.name} crashes`);
    database.crash(random.between(50, 4_000));
  }

  protected override healAll(): void {
    for (const database of this.#databases) database.heal();
  }

  protected override afterHealing(): void {
    const stuck = this.#prepared();
    must(stuck.length === 0, "NothingStuck", () => `still prepared ${healMs} ms after healing: ${stuck.join(", ")}`);
  }

  protected override afterLastKill(): void {
    for (const database of this.#databases) database.endSessions();
  }

  async #transaction({ process, coordinator }: Opened<Participant>): Promise<void> {
    const random = this.random;
    const { platform } = process;
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
        const branch = await database.open(process, ref);
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
    this.note(`${process.name} answers ${gid}: ${describe(verdict)}`);
    if (verdict.kind === "committed") this.#counts.committed++;
    else if (verdict.kind === "unknown") this.#counts.unknown++;
    else this.#counts.aborted++;
    this.guarded(() => this.#checker.onAnswer(gid, verdict, keyName));
  }

  /** An `add` that runs twice is seen by its sum; a condition on a hot key makes conflicts, which may also end. */
  #storeWrites(gid: string) {
    const hot = { key: `hot-${this.random.integer(0, 3)}`, namespace: "bank" } as const;
    return {
      compares: this.random.chance(0.5)
        ? ([{ ...hot, target: "value", is: "not-equal", to: String(this.random.integer(1, 2)) }] as const)
        : [],
      writes: [
        { kind: "add", key: `applied/${gid}`, namespace: "bank", delta: 1 },
        { kind: "put", ...hot, value: String(this.random.integer(0, 3)) },
      ] as const,
    };
  }

  #prepared(): readonly string[] {
    return this.#databases.flatMap((database) => database.prepared());
  }

  #applied(): ReadonlyMap<string, number> {
    const found = this.entries("bank").filter(({ key }) => key.startsWith("applied/"));
    return new Map(found.map(({ key, text }) => [key.slice("applied/".length), Number(text)]));
  }
}

function describe(verdict: Verdict): string {
  return verdict.kind === "aborted" ? `aborted (${verdict.why})` : verdict.kind;
}
