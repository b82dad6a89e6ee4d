/**
 * A bench for one Raft core: fed by hand, one input at a time. The paper tests beside it stand on it; it is no part of the package.
 */
import { assert } from "../../base/assert.ts";
import type { Input, LogEntry, Output, Recovered } from "../core.ts";
import type { RaftMessage } from "./messages.ts";
import { Raft } from "./raft.ts";

export function entriesOf(terms: readonly number[]): LogEntry[] {
  return terms.map((term, at) => ({ index: at + 1, term, kind: "batch", stampMs: at, payload: Uint8Array.of(term, at) }));
}

/**
 * One member "a" of [a, b, c] with a log of these terms, in term and vote as given; the disk confirms when told to. It was
 * started so long ago that no promise of an earlier incarnation binds it.
 */
export class Bench {
  readonly core = new Raft({ electionTimeoutMs: 100, heartbeatMs: 20 });
  nowMs = 0;
  sequence = 0;
  #round = 0;
  outputs: Output<RaftMessage>[] = [];

  constructor(
    log: readonly number[] = [],
    meta: Readonly<Record<string, string>> = {},
    members = ["a", "b", "c"],
    { startedMs = -100, snapshot }: { readonly startedMs?: number; readonly snapshot?: Recovered["snapshot"] } = {},
  ) {
    const environment = { self: "a", configuration: { voters: members, learners: [] }, nowMs: startedMs, randomUint32: () => 0 };
    const term = meta["term"] ?? String(log.at(-1) ?? 0);
    const recovered = { meta: new Map(Object.entries({ ...meta, term })), entries: entriesOf(log) };
    this.#take(this.core.start(environment, { ...recovered, ...(snapshot === undefined ? {} : { snapshot }) }));
  }

  step(input: Input<RaftMessage>): void {
    this.#take(this.core.step(input));
  }

  hear(from: string, message: RaftMessage): void {
    this.step({ kind: "message", nowMs: this.nowMs, from, message });
  }

  wait(durationMs: number): void {
    this.nowMs += durationMs;
    this.step({ kind: "tick", nowMs: this.nowMs });
  }

  sync(): void {
    this.step({ kind: "persisted", nowMs: this.nowMs, sequence: this.sequence });
  }

  /** What was sent since the last call, without heartbeats. */
  sent(): { readonly to: string; readonly after: number; readonly message: RaftMessage }[] {
    const sent = this.outputs.flatMap((output) =>
      output.kind === "send" && output.message.kind !== "heartbeat" ? [output] : [],
    );
    this.outputs = [];
    return sent;
  }

  /** Leads in the next term: both dry run and election are won with b's vote. */
  elect(): void {
    this.wait(250);
    const term = this.core.probe().term + 1;
    this.hear("b", { kind: "vote-reply", term, preVote: true, granted: true });
    this.sync();
    this.hear("b", { kind: "vote-reply", term, preVote: false, granted: true });
    assert(this.core.probe().role === "leader", "the votes make it leader");
  }

  /** Leads, with the entry of its own term committed by b. */
  lead(): void {
    this.elect();
    this.sync();
    this.hear("b", accepted(this.core.probe().term, this.core.probe().lastIndex));
    assert(this.core.probe().committedIndex === this.core.probe().lastIndex, "the confirmations commit");
    this.outputs = [];
  }

  /** The disk of this member and those of the others confirm everything. */
  confirm(...members: readonly string[]): void {
    this.sync();
    for (const member of members) this.hear(member, accepted(this.core.probe().term, this.core.probe().lastIndex));
  }

  /** How a ticket was answered since the last call of `sent`. */
  answers(): (readonly [number, string])[] {
    return this.outputs.flatMap<readonly [number, string]>((output) => {
      if (output.kind === "rejected") return [[output.ticket, output.why]];
      return output.kind === "done" || output.kind === "read-at" ? [[output.ticket, output.kind]] : [];
    });
  }

  /** The round of the last heartbeat. */
  round(): number {
    return this.#round;
  }

  #take(outputs: readonly Output<RaftMessage>[]): void {
    for (const output of outputs) {
      if (output.kind === "send" && output.message.kind === "heartbeat") this.#round = output.message.round;
    }
    for (const output of outputs) if (output.kind === "persist") this.sequence = output.sequence;
    this.outputs.push(...outputs);
  }
}

export const accepted = (term: number, index: number): RaftMessage => ({
  kind: "append-reply",
  term,
  accepted: true,
  index,
  hintIndex: 0,
  hintTerm: 0,
});
export const voteRequest = (term: number, lastIndex: number, lastTerm: number): RaftMessage => ({
  kind: "vote-request",
  term,
  preVote: false,
  transfer: false,
  lastIndex,
  lastTerm,
});
