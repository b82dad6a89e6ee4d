/**
 * A consensus core with a witness: every step is told to the checker before its outputs are carried out.
 */
import type { Core, CoreEnvironment, Index, Input, LogEntry, MemberId, Output, Probe, Recovered } from "../consensus/core.ts";
import type { Checker } from "./group-checker.ts";

export class ObservedCore<M> implements Core<M> {
  readonly #member: MemberId;
  readonly #core: Core<M>;
  readonly #checker: Checker<M>;
  readonly #onDelivered: (entries: readonly LogEntry[]) => void;

  constructor(
    member: MemberId,
    core: Core<M>,
    checker: Checker<M>,
    onDelivered: (entries: readonly LogEntry[]) => void = () => undefined,
  ) {
    this.#onDelivered = onDelivered;
    this.#member = member;
    this.#core = core;
    this.#checker = checker;
  }

  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<M>[] {
    this.#checker.onStart(this.#member, recovered);
    const outputs = this.#core.start(environment, recovered);
    this.#checker.onStarted(this.#member, outputs, this.#core.probe());
    return outputs;
  }

  step(input: Input<M>): readonly Output<M>[] {
    const outputs = this.#core.step(input);
    this.#checker.onStep(this.#member, input, outputs, this.#core.probe());
    for (const output of outputs) if (output.kind === "deliver") this.#onDelivered(output.entries);
    return outputs;
  }

  probe(): Probe {
    return this.#core.probe();
  }

  /** To the checker it is a read like any other. */
  leaseReadIndex(nowMs: number): Index | undefined {
    const index = this.#core.leaseReadIndex?.(nowMs);
    if (index === undefined) return undefined;
    const ticket = -1;
    const input = { kind: "read", nowMs, ticket, level: "lease" } as const;
    this.#checker.onStep(this.#member, input, [{ kind: "read-at", ticket, index }], this.#core.probe());
    return index;
  }
}
