/**
 * Sagas and Try/Confirm/Cancel in one process: real coordinators, sagas and recovery, on a real store machine, over services that
 * are models with the real judge of a barrier.
 *
 * Faults: processes killed at any step, processes that sleep beyond their lease and wake as zombies, services that are down,
 * requests lost, sent twice and very late, a store that answers late or never. Judged as things happen, and at the end, healed.
 */
import { Coordinator } from "../coordinator/coordinator.ts";
import { Membership } from "../coordinator/membership.ts";
import { volatileWords } from "../coordinator/options.ts";
import type { Branch } from "../coordinator/participant.ts";
import { recordKeys, transactionsNamespace } from "../coordinator/records.ts";
import type { StageShape } from "../coordinator/saga-core.ts";
import { type SagaDefinition, type StepWork, stepReplyOf } from "../coordinator/saga-run.ts";
import { Sagas } from "../coordinator/sagas.ts";
import { ServiceParticipant } from "../coordinator/service-participant.ts";
import { decodeOutcome, encodeOutcome } from "../store/outcome.ts";
import { resolveTxn } from "../store/resolve.ts";
import { LocalServer } from "../testing/local-server.ts";
import { EventQueue } from "./event-queue.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { ModelService } from "./model-service.ts";
import { ProcessStore } from "./process-store.ts";
import { Random } from "./random.ts";
import { ServicesChecker } from "./services-checker.ts";
import { SimulatedProcess } from "./simulated-process.ts";

export interface ServicesWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly completed: number;
  readonly compensated: number;
  readonly committed: number;
  readonly aborted: number;
  readonly takeOvers: number;
  readonly kills: number;
  readonly zombies: number;
  readonly crashes: number;
}

export interface ServicesWorldOptions {
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
}

interface Node {
  readonly process: SimulatedProcess;
  readonly store: ProcessStore;
}

const wallBaseMs = 1_700_000_000_000;
const faultsUntilMs = 25_000;
const healMs = 60_000;
const processesCount = 3;
const ttlMs = 2_000;
const serviceNames = ["stock", "pay", "ship"] as const;

/** Each step by its service. */
const shapes: Readonly<Record<string, readonly StageShape[]>> = {
  "plain@1": [stage("step", 1), stage("step", 2), stage("step", 3)],
  "wide@1": [stage("step", 1), stage("step", 2, 3, 4), stage("pivot", 5), stage("retriable", 6), stage("retriable", 7)],
  "short@1": [stage("pivot", 1), stage("retriable", 2)],
  "twoStages@1": [stage("step", 1, 2), stage("step", 3, 4), stage("pivot", 5)],
};

function stage(kind: StageShape["kind"], ...branches: readonly number[]): StageShape {
  return { kind, steps: branches.map((branch) => ({ name: `s${branch}`, branch, canUndo: kind === "step", isFenced: true })) };
}

export class ServicesWorld {
  readonly #seed: number;
  readonly #options: ServicesWorldOptions;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #server: LocalServer;
  readonly #services: readonly ModelService[];
  readonly #checker: ServicesChecker;
  readonly #nodes: Node[] = [];
  #isHealed = false;
  #failure: unknown;
  #counts = { completed: 0, compensated: 0, committed: 0, aborted: 0, takeOvers: 0, kills: 0, zombies: 0, crashes: 0 };
  #trace = 0;
  #processes = 0;

  constructor(seed: number, options: ServicesWorldOptions) {
    this.#seed = seed;
    this.#options = options;
    this.#random = new Random(seed);
    const base = new SimulatedProcess({ name: "store", queue: this.#queue, random: this.#random.fork(), wallBaseMs });
    this.#server = new LocalServer({ platform: base.platform, limits: ProcessStore.limits });
    this.#checker = new ServicesChecker(new Map(Object.entries(shapes)), (text) => this.#note(text));
    this.#services = serviceNames.map(
      (name) =>
        new ModelService({
          name,
          queue: this.#queue,
          random: this.#random.fork(),
          isCalm: () => this.#isHealed,
          onRun: (...what) => this.#guarded(() => this.#checker.onRun(...what)),
        }),
    );
  }

  get steps(): number {
    return this.#queue.steps;
  }

  async run(): Promise<ServicesWorldReport> {
    for (let at = 0; at < processesCount; at++) this.#boot(at);
    this.#planFaults();
    await this.#runUntil(faultsUntilMs);
    this.#note("healed");
    this.#isHealed = true;
    for (const { process, store } of this.#nodes) {
      process.resume();
      store.heal();
    }
    for (const service of this.#services) service.heal();
    await this.#runUntil(faultsUntilMs + healMs);
    // The last epochs end as well: what they kept back must be cleared by somebody else.
    for (const { process } of this.#nodes) process.kill();
    this.#boot(0);
    await this.#runUntil(faultsUntilMs + 2 * healMs);
    this.#checker.judge(
      this.#keysLeft(),
      this.#services.flatMap((service) => service.open()),
    );
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
    const node: Node = { process, store };
    this.#nodes[at] = node;
    this.#note(`${name} starts`);
    const membership = new Membership(store, 1_000);
    const participants = new Map(
      this.#services.map((service) => [
        service.name,
        new ServiceParticipant({
          name: service.name,
          port: service.port(process),
          membership,
          platform: process.platform,
          answerMs: 1_000,
        }),
      ]),
    );
    const telemetry = { emit: (event: { readonly kind: string; readonly gid?: string }) => this.#onEvent(name, event) };
    Coordinator.open({
      store,
      participants,
      ttlMs,
      scanEveryMs: 4_000,
      answerMs: 1_000,
      acceptVolatileDecisions: volatileWords,
      telemetry,
    }).then(
      (coordinator) => {
        const sagas = new Sagas({
          store,
          coordinator,
          definitions: new Map(Object.keys(shapes).map((each) => [each, this.#definition(each, process)])),
          scanEveryMs: 3_000,
          retryMsMin: 50,
          retryMsMax: 1_000,
          telemetry,
        });
        sagas.open();
        if (this.#isHealed) return;
        this.#work(process, () => this.#saga(sagas));
        this.#work(process, () => this.#saga(sagas));
        this.#work(process, () => this.#transaction(process, coordinator, participants));
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

  #definition(name: string, process: SimulatedProcess): SagaDefinition {
    const stages = shapes[name] as readonly StageShape[];
    const work = new Map<number, StepWork>();
    for (const { branch } of stages.flatMap(({ steps }) => steps)) {
      const service = this.#services[branch % this.#services.length] as ModelService;
      const port = service.port(process);
      work.set(branch, {
        do: async ({ gid, mustSucceed, timeoutMs }) =>
          stepReplyOf(await port.send({ phase: "try", gid, branch, mustSucceed }, { timeoutMs })),
        undo: async ({ gid, timeoutMs }) => stepReplyOf(await port.send({ phase: "cancel", gid, branch }, { timeoutMs })),
        timeoutMs: 800,
        attemptsMax: 6,
      });
    }
    return { name, stages, work };
  }

  #onEvent(name: string, event: { readonly kind: string; readonly gid?: string }): void {
    this.#note(`${name} ${JSON.stringify(event)}`);
    if (event.kind === "saga.taken-over") this.#counts.takeOvers++;
    if (event.kind === "saga.attention") this.#checker.onStuck(event.gid ?? "");
    if (event.kind === "transaction.heuristic") this.#fail(new InvariantViolation("NoHeuristic", JSON.stringify(event)));
  }

  /** One client of this process: one thing after another, until the faults end. */
  #work(process: SimulatedProcess, act: () => Promise<void>): void {
    const next = (): void => {
      process.platform.setTimer(this.#random.between(5, 700), () => {
        if (this.#isHealed) return;
        act().then(next, (error: unknown) => {
          this.#note(`a client hears ${String(error)}`);
          if (error instanceof InvariantViolation || (error as Error).name === "AssertionError") this.#fail(error);
          else next();
        });
      });
    };
    next();
  }

  async #saga(sagas: Sagas): Promise<void> {
    const random = this.#random;
    const key = random.chance(0.3) ? `key-${random.integer(0, 15)}` : undefined;
    // A key is one saga's: the name is drawn from it.
    const names = Object.keys(shapes);
    const name = key === undefined ? random.pick(names) : (names[key.length % names.length] as string);
    const { gid } = await sagas.start({
      name,
      input: null,
      fingerprint: "",
      timeoutMs: random.between(300, 12_000),
      ...(key === undefined ? {} : { key }),
    });
    const end = await sagas.wait(gid);
    if (end === null) throw new InvariantViolation("Known", `${gid} was begun and nothing is known of it`);
    this.#counts[end.kind]++;
    this.#guarded(() => this.#checker.onSagaAnswer(gid, end, key));
  }

  async #transaction(
    process: SimulatedProcess,
    coordinator: Coordinator,
    participants: ReadonlyMap<string, ServiceParticipant>,
  ): Promise<void> {
    const random = this.#random;
    const deadlineMs = process.platform.now() + random.between(300, 3_000);
    const ticket = await coordinator.begin();
    const { gid, epoch } = ticket;
    this.#checker.onTransaction(gid);
    const count = random.integer(1, 3);
    const giveUp = new AbortController();
    const branches: Branch[] = [];
    const replies = Array.from({ length: count }, (_, at) => {
      const participant = participants.get(serviceNames[at % serviceNames.length] as string) as ServiceParticipant;
      const call = { gid, branch: at + 1, action: "take" };
      const { branch, reply } = participant.begin(epoch, call, { deadlineMs, signal: giveUp.signal });
      branches.push(branch);
      return reply;
    });
    const isPatient = random.chance(0.9);
    const heard = isPatient ? await Promise.allSettled(replies) : [];
    if (random.chance(0.08) || heard.some(({ status }) => status === "rejected")) {
      giveUp.abort();
      await coordinator.rollback(ticket, branches);
      this.#guarded(() => this.#checker.onVerdict(gid, { kind: "aborted", why: "vote" }));
      return;
    }
    this.#checker.onCommitCall(gid, count);
    const verdict = await coordinator.commit(ticket, { branches, deadlineMs });
    this.#note(`${process.name} answers ${gid}: ${verdict.kind}`);
    if (verdict.kind === "committed") this.#counts.committed++;
    else this.#counts.aborted++;
    this.#guarded(() => this.#checker.onVerdict(gid, verdict));
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
    const any = (): number => random.integer(0, processesCount - 1);
    plan(3_000, () => this.#kill(any(), random.between(10, 3_000)));
    plan(3_500, () => {
      const { process } = this.#nodes[any()] as Node;
      const durationMs = random.pick([300, 1_500, 3_000, 6_000]);
      if (durationMs > ttlMs) this.#counts.zombies++;
      this.#note(`${process.name} pauses ${durationMs} ms`);
      process.pause(durationMs);
    });
    plan(4_000, () => {
      this.#counts.crashes++;
      random.pick(this.#services).crash(random.between(50, 4_000));
    });
    plan(4_000, () => (this.#nodes[any()] as Node).store.cutOff(random.between(200, 5_000)));
  }

  #kill(at: number, downMs: number): void {
    const { process } = this.#nodes[at] as Node;
    if (!process.isAlive) return;
    this.#counts.kills++;
    this.#note(`${process.name} is killed`);
    process.kill();
    this.#queue.schedule(downMs, () => {
      if (!this.#isHealed || this.#nodes[at]?.process === process) this.#boot(at);
    });
  }

  #keysLeft(): readonly string[] {
    const { coordinators, idempotencies, domain } = recordKeys;
    const all = { then: [{ kind: "range", range: { prefix: "" } } as const] };
    const outcome = decodeOutcome(encodeOutcome(this.#server.txn(resolveTxn(transactionsNamespace, all, ProcessStore.limits))));
    const [listed] = outcome.kind === "txn" ? outcome.result.results : [];
    if (listed?.kind !== "range") throw new Error("The store could not be listed.");
    return listed.entries
      .map(({ key }) => key)
      .filter((key) => !key.startsWith(coordinators) && !key.startsWith(idempotencies) && key !== domain);
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
