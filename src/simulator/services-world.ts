/**
 * Sagas and Try/Confirm/Cancel in one process: real coordinators, sagas and recovery, on a real store machine, over services that
 * are models with the real judge of a barrier.
 *
 * Faults: processes killed at any step, processes that sleep beyond their lease and wake as zombies, services that are down,
 * requests lost, sent twice and very late, a store that answers late or never. Judged as things happen, and at the end, healed.
 */
import { Membership } from "../coordinator/membership.ts";
import type { Branch } from "../coordinator/participant.ts";
import type { StageShape } from "../coordinator/saga-core.ts";
import { type SagaDefinition, type StepWork, stepReplyOf } from "../coordinator/saga-run.ts";
import { Sagas } from "../coordinator/sagas.ts";
import { ServiceParticipant } from "../coordinator/service-participant.ts";
import type { Txn } from "../store/store.ts";
import {
  CoordinatorWorld,
  type CoordinatorWorldOptions,
  type CoordinatorWorldReport,
  type Node,
  type Opened,
} from "./coordinator-world.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { ModelService } from "./model-service.ts";
import type { Random } from "./random.ts";
import { ServicesChecker } from "./services-checker.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

export interface ServicesWorldReport extends CoordinatorWorldReport {
  readonly completed: number;
  readonly compensated: number;
  readonly committed: number;
  readonly aborted: number;
  readonly takeOvers: number;
  readonly crashes: number;
}

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

export class ServicesWorld extends CoordinatorWorld<ServiceParticipant> {
  readonly #services: readonly ModelService[];
  readonly #checker = new ServicesChecker(new Map(Object.entries(shapes)), (text) => this.note(text));
  readonly #counts = { completed: 0, compensated: 0, committed: 0, aborted: 0, takeOvers: 0, crashes: 0 };

  constructor(seed: number, options: CoordinatorWorldOptions) {
    super(seed, options, { healMs: 60_000, crashEveryMs: 4_000 });
    this.#services = serviceNames.map(
      (name) =>
        new ModelService({
          name,
          queue: this.queue,
          random: this.random.fork(),
          isCalm: () => this.isHealed,
          onRun: (...what) => this.guarded(() => this.#checker.onRun(...what)),
        }),
    );
  }

  async run(): Promise<ServicesWorldReport> {
    const report = await this.play();
    const open = this.#services.flatMap((service) => service.open());
    this.#checker.judge(this.keysLeft(), open);
    return { ...report, ...this.#counts };
  }

  protected override participants({ process, store }: Node): ReadonlyMap<string, ServiceParticipant> {
    const membership = new Membership(store, 1_000);
    const { platform } = process;
    return new Map(
      this.#services.map((service) => {
        const { name } = service;
        return [name, new ServiceParticipant({ name, port: service.port(process), membership, platform, answerMs: 1_000 })];
      }),
    );
  }

  protected override onOpen(opened: Opened<ServiceParticipant>): void {
    const { store, process, coordinator, telemetry } = opened;
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
    if (this.isHealed) return;
    this.work(opened, 700, () => this.#saga(sagas));
    this.work(opened, 700, () => this.#saga(sagas));
    this.work(opened, 700, () => this.#transaction(opened));
  }

  protected override onStore(txn: Txn, succeeded: boolean): void {
    this.#checker.onStore(txn, succeeded);
  }

  protected override onEvent({ kind, gid = "" }: { readonly kind: string; readonly gid?: string }): void {
    if (kind === "saga.taken-over") this.#counts.takeOvers++;
    if (kind === "saga.attention") this.#checker.onStuck(gid);
  }

  protected override crashOne(random: Random): void {
    this.#counts.crashes++;
    random.pick(this.#services).crash(random.between(50, 4_000));
  }

  protected override healAll(): void {
    for (const service of this.#services) service.heal();
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

  async #saga(sagas: Sagas): Promise<void> {
    const random = this.random;
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
    this.guarded(() => this.#checker.onSagaAnswer(gid, end, key));
  }

  async #transaction({ process, coordinator, participants }: Opened<ServiceParticipant>): Promise<void> {
    const random = this.random;
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
      this.guarded(() => this.#checker.onVerdict(gid, { kind: "aborted", why: "vote" }));
      return;
    }
    this.#checker.onCommitCall(gid, count);
    const verdict = await coordinator.commit(ticket, { branches, deadlineMs });
    this.note(`${process.name} answers ${gid}: ${verdict.kind}`);
    if (verdict.kind === "committed") this.#counts.committed++;
    else this.#counts.aborted++;
    this.guarded(() => this.#checker.onVerdict(gid, verdict));
  }
}
