/**
 * Processes that each run a coordinator, over one real store machine: what the worlds of transactions and of services share.
 *
 * Processes are killed at any step and started anew, pause beyond their lease and wake as zombies, and are cut off from the store,
 * which answers late or never, or executes what was given up. A world adds what the coordinators work with, what their clients do,
 * what else fails, and what is judged.
 */
import { Coordinator } from "../coordinator/coordinator.ts";
import { volatileWords } from "../coordinator/options.ts";
import type { Participant } from "../coordinator/participant.ts";
import { recordKeys, transactionsNamespace } from "../coordinator/records.ts";
import type { Entry } from "../store/entry.ts";
import { decodeOutcome, encodeOutcome } from "../store/outcome.ts";
import { resolveTxn } from "../store/resolve.ts";
import type { Txn } from "../store/store.ts";
import { LocalServer } from "../testing/local-server.ts";
import { EventQueue } from "./event-queue.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { ProcessStore } from "./process-store.ts";
import { Random } from "./random.ts";
import { SimulatedProcess } from "./simulated-process.ts";

export interface CoordinatorWorldOptions {
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
}

/** What every such world reports. */
export interface CoordinatorWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly kills: number;
  readonly zombies: number;
}

export interface Node {
  readonly process: SimulatedProcess;
  readonly store: ProcessStore;
}

type WorldEvent = { readonly kind: string; readonly gid?: string };
export type WorldTelemetry = { readonly emit: (event: WorldEvent) => void };

export interface CoordinatorWorldPlan {
  /** How long the world has for coming to rest. */
  readonly healMs: number;
  /** The mean time between two crashes of what the coordinators work with. */
  readonly crashEveryMs: number;
}

const wallBaseMs = 1_700_000_000_000;
const faultsUntilMs = 25_000;
const processesCount = 3;
const ttlMs = 2_000;

/** A process whose coordinator is open. */
export interface Opened<P extends Participant> extends Node {
  readonly coordinator: Coordinator;
  readonly participants: ReadonlyMap<string, P>;
  readonly telemetry: WorldTelemetry;
}

export abstract class CoordinatorWorld<P extends Participant = Participant> {
  protected readonly queue = new EventQueue();
  protected readonly random: Random;
  protected readonly nodes: Node[] = [];
  protected isHealed = false;
  readonly #seed: number;
  readonly #options: CoordinatorWorldOptions;
  readonly #plan: CoordinatorWorldPlan;
  readonly #server: LocalServer;
  #failure: unknown;
  #kills = 0;
  #zombies = 0;
  #trace = 0;
  #processes = 0;

  constructor(seed: number, options: CoordinatorWorldOptions, plan: CoordinatorWorldPlan) {
    this.#seed = seed;
    this.#options = options;
    this.#plan = plan;
    this.random = new Random(seed);
    const base = new SimulatedProcess({ name: "store", queue: this.queue, random: this.random.fork(), wallBaseMs });
    this.#server = new LocalServer({ platform: base.platform, limits: ProcessStore.limits });
  }

  get steps(): number {
    return this.queue.steps;
  }

  // ----------------------------------------------------------------------------------------------- what a world fills in

  /** What the coordinator of this new process works with. */
  protected abstract participants(node: Node): ReadonlyMap<string, P>;
  /** What else runs there, and the clients' work. */
  protected abstract onOpen(opened: Opened<P>): void;
  protected abstract onStore(txn: Txn, succeeded: boolean): void;
  protected onEvent?(event: WorldEvent): void;
  protected onKilled?(process: SimulatedProcess): void;
  /** Something that the coordinators work with crashes. */
  protected abstract crashOne(random: Random): void;
  protected abstract healAll(): void;
  /** Healed, and given time: nothing may be left. */
  protected afterHealing?(): void;
  /** Before the last epochs are taken over. */
  protected afterLastKill?(): void;

  // ------------------------------------------------------------------------------------------------------------ the run

  /** Faults, healing, and then the end of the last epochs: what they kept back must be cleared by somebody else. */
  protected async play(): Promise<CoordinatorWorldReport> {
    const { healMs } = this.#plan;
    for (let at = 0; at < processesCount; at++) this.#boot(at);
    this.#planFaults();
    await this.#runUntil(faultsUntilMs);
    this.note("healed");
    this.isHealed = true;
    for (const { process, store } of this.nodes) {
      process.resume();
      store.heal();
    }
    this.healAll();
    await this.#runUntil(faultsUntilMs + healMs);
    this.afterHealing?.();
    for (const { process } of this.nodes) process.kill();
    this.afterLastKill?.();
    this.#boot(0);
    await this.#runUntil(faultsUntilMs + 2 * healMs);
    const { steps, nowMs } = this.queue;
    const [kills, zombies] = [this.#kills, this.#zombies];
    return { seed: this.#seed, steps, virtualMs: nowMs, traceHash: this.#trace >>> 0, kills, zombies };
  }

  async #runUntil(untilMs: number): Promise<void> {
    while (this.queue.step(untilMs)) {
      await this.#options.drain();
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  #boot(at: number): void {
    this.#processes++;
    const name = `p${this.#processes}`;
    const process = new SimulatedProcess({ name, queue: this.queue, random: this.random.fork(), wallBaseMs });
    const store = new ProcessStore({
      server: this.#server,
      namespace: transactionsNamespace,
      process,
      queue: this.queue,
      random: this.random.fork(),
      isCalm: () => this.isHealed,
      onApplied: (txn, succeeded) => this.guarded(() => this.onStore(txn, succeeded)),
    });
    const node: Node = { process, store };
    this.nodes[at] = node;
    this.note(`${name} starts`);
    const telemetry: WorldTelemetry = {
      emit: (event) => {
        this.note(`${name} ${JSON.stringify(event)}`);
        if (event.kind === "transaction.heuristic") this.fail(new InvariantViolation("NoHeuristic", JSON.stringify(event)));
        this.onEvent?.(event);
      },
    };
    const participants = this.participants(node);
    Coordinator.open({
      store,
      participants,
      ttlMs,
      scanEveryMs: 4_000,
      answerMs: 1_000,
      acceptVolatileDecisions: volatileWords,
      telemetry,
    }).then(
      (coordinator) => this.onOpen({ ...node, coordinator, participants, telemetry }),
      (error: unknown) => {
        // Without a store nobody starts: as a supervisor would, try again.
        this.note(`${name} did not start: ${String(error)}`);
        this.queue.schedule(500, () => {
          if (process.isAlive && this.nodes[at] === node) this.#boot(at);
        });
      },
    );
  }

  /** One client of this process: one thing after another, until the faults end. */
  protected work({ process }: Node, pauseMsMax: number, act: () => Promise<void>): void {
    const next = (): void => {
      process.platform.setTimer(this.random.between(5, pauseMsMax), () => {
        if (this.isHealed) return;
        act().then(next, (error: unknown) => {
          this.note(`a client hears ${String(error)}`);
          if (error instanceof InvariantViolation || (error as Error).name === "AssertionError") this.fail(error);
          else next();
        });
      });
    };
    next();
  }

  // --------------------------------------------------------------------------------------------------------- the faults

  #planFaults(): void {
    const random = this.random.fork();
    const storms = random.pick([0.4, 1, 2.5]);
    const plan = (meanMs: number, act: () => void): void => {
      const again = (): void => {
        this.queue.schedule(random.between(0.2, 1.8) * (meanMs / storms), () => {
          if (this.isHealed) return;
          act();
          again();
        });
      };
      again();
    };
    const any = (): number => random.integer(0, processesCount - 1);
    plan(3_000, () => this.#kill(any(), random.between(10, 3_000)));
    plan(3_500, () => {
      const { process } = this.nodes[any()] as Node;
      const durationMs = random.pick([300, 1_500, 3_000, 6_000]);
      if (durationMs > ttlMs) this.#zombies++;
      this.note(`${process.name} pauses ${durationMs} ms`);
      process.pause(durationMs);
    });
    plan(this.#plan.crashEveryMs, () => this.crashOne(random));
    plan(4_000, () => {
      const { store, process } = this.nodes[any()] as Node;
      this.note(`${process.name} is cut off from the store`);
      store.cutOff(random.between(200, 5_000));
    });
  }

  #kill(at: number, downMs: number): void {
    const { process } = this.nodes[at] as Node;
    if (!process.isAlive) return;
    this.#kills++;
    this.note(`${process.name} is killed`);
    process.kill();
    this.onKilled?.(process);
    this.queue.schedule(downMs, () => {
      if (!this.isHealed || this.nodes[at]?.process === process) this.#boot(at);
    });
  }

  // ------------------------------------------------------------------------------------------------------- what is seen

  protected note(text: string): void {
    for (let at = 0; at < text.length; at++) this.#trace = (Math.imul(this.#trace, 31) + text.charCodeAt(at)) | 0;
    this.#trace = (Math.imul(this.#trace, 31) + Math.floor(this.queue.nowMs * 1_000)) | 0;
    this.#options.onTrace?.(this.queue.nowMs, text);
  }

  /** What the coordinators have left in the store, beside what they keep on purpose. */
  protected keysLeft(): readonly string[] {
    const { coordinators, idempotencies, domain } = recordKeys;
    return this.entries(transactionsNamespace)
      .map(({ key }) => key)
      .filter((key) => !key.startsWith(coordinators) && !key.startsWith(idempotencies) && key !== domain);
  }

  protected entries(namespace: string): readonly Entry[] {
    const txn = resolveTxn(namespace, { then: [{ kind: "range", range: { prefix: "" } }] }, ProcessStore.limits);
    const outcome = decodeOutcome(encodeOutcome(this.#server.txn(txn)));
    const [listed] = outcome.kind === "txn" ? outcome.result.results : [];
    if (listed?.kind !== "range") throw new Error("The store could not be listed.");
    return listed.entries;
  }

  protected guarded(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.fail(error);
    }
  }

  protected fail(error: unknown): void {
    this.#failure ??= error;
  }
}
