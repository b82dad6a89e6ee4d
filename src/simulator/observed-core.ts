/**
 * A consensus core with a witness: every step is told to the checker before its outputs are carried out.
 */
import type { Core, CoreEnvironment, Input, MemberId, Output, Probe, Recovered } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import type { RaftChecker } from "./raft-checker.ts";

export class ObservedCore implements Core<RaftMessage> {
  readonly #member: MemberId;
  readonly #core: Core<RaftMessage>;
  readonly #checker: RaftChecker;

  constructor(member: MemberId, core: Core<RaftMessage>, checker: RaftChecker) {
    this.#member = member;
    this.#core = core;
    this.#checker = checker;
  }

  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<RaftMessage>[] {
    this.#checker.onStart(this.#member, recovered);
    return this.#core.start(environment, recovered);
  }

  step(input: Input<RaftMessage>): readonly Output<RaftMessage>[] {
    const outputs = this.#core.step(input);
    this.#checker.onStep(this.#member, input, outputs, this.#core.probe());
    return outputs;
  }

  probe(): Probe {
    return this.#core.probe();
  }
}
