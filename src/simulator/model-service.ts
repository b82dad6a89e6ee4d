/**
 * A service as sagas and Try/Confirm/Cancel meet it: the real judge of a barrier, over lines in memory that survive a crash, and a
 * network that loses answers, and delivers requests long after their sender gave up or died.
 */
import { type BarrierLines, judge, standingOf } from "../coordinator/barrier.ts";
import type { ServiceCall, ServicePort, ServiceReply } from "../coordinator/service-port.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

export interface ModelServiceParts {
  readonly name: string;
  readonly queue: EventQueue;
  readonly random: Random;
  readonly isCalm: () => boolean;
  /** What ran, once for each run: `do` for a Try that was accepted. */
  readonly onRun: (service: string, did: "do" | "refuse" | "confirm" | "cancel", gid: string, branch: number) => void;
}

export class ModelService {
  readonly name: string;
  readonly #parts: ModelServiceParts;
  readonly #lines = new Map<string, { -readonly [Line in keyof BarrierLines]: BarrierLines[Line] }>();
  #downUntilMs = 0;

  constructor(parts: ModelServiceParts) {
    this.name = parts.name;
    this.#parts = parts;
  }

  crash(downMs: number): void {
    this.#downUntilMs = this.#parts.queue.nowMs + downMs;
  }

  heal(): void {
    this.#downUntilMs = 0;
  }

  /** What was tried and has neither been confirmed nor cancelled. */
  open(): readonly string[] {
    return [...this.#lines].flatMap(([key, lines]) => (standingOf(lines) === "tried" ? [key] : []));
  }

  standing(gid: string, branch: number): ReturnType<typeof standingOf> {
    return standingOf(this.#lines.get(`${gid}/${branch}`) ?? { forward: null, second: null });
  }

  port(client: SimulatedProcess): ServicePort {
    return { send: (call) => this.#travel(client, call) };
  }

  #travel(client: SimulatedProcess, call: ServiceCall): Promise<ServiceReply> {
    const { queue, random, isCalm } = this.#parts;
    const delayMs = (): number => {
      if (isCalm()) return random.between(0.2, 2);
      return random.chance(0.04) ? random.between(500, 8_000) : random.between(0.2, 25);
    };
    const isLost = (): boolean => !isCalm() && random.chance(0.03);
    return new Promise((resolve) => {
      if (!client.isAlive || isLost()) return;
      const arrive = (): void => {
        if (this.#downUntilMs > queue.nowMs) return;
        const reply = this.#serve(call);
        if (isLost()) return;
        queue.schedule(delayMs(), () => client.run(() => resolve(reply)));
      };
      queue.schedule(delayMs(), arrive);
      // The network sends some packets twice.
      if (!isCalm() && random.chance(0.03)) queue.schedule(random.between(1, 6_000), arrive);
    });
  }

  #serve({ phase, gid, branch, mustSucceed }: ServiceCall): ServiceReply {
    const { random, onRun, name } = this.#parts;
    const key = `${gid}/${branch}`;
    const lines = this.#lines.get(key) ?? { forward: null, second: null };
    this.#lines.set(key, lines);
    if (phase === "status") return { kind: "standing", standing: standingOf(lines) };
    if (random.chance(0.02)) return { kind: "busy", why: "a deadlock" };
    const judgement = judge(phase, lines);
    switch (judgement.kind) {
      case "skip":
        lines.forward ??= { word: "abort", result: null };
        return { kind: "skipped" };
      case "closed":
        return { kind: "closed", why: judgement.why };
      case "refused":
        return { kind: "refused", reason: "no", details: null };
      case "replay":
        return { kind: "done", result: judgement.result };
      case "run":
        break;
    }
    if (phase === "try" && random.chance(0.08)) {
      if (mustSucceed === true) return { kind: "refused", reason: "not now", details: null };
      lines.forward = { word: "refuse", result: "no" };
      onRun(name, "refuse", gid, branch);
      return { kind: "refused", reason: "no", details: null };
    }
    if (phase === "try") lines.forward = { word: "try", result: name };
    else lines.second = { word: phase, result: name };
    onRun(name, phase === "try" ? "do" : phase, gid, branch);
    return { kind: "done", result: name };
  }
}
