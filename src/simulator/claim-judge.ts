/**
 * Who may be served, judged from the decided commands: a list of the living sessions, kept beside the machine's own.
 *
 * DeadClaimsRefused: a claim of a session that has ended never runs. An earlier copy of it may have run while the session
 * lived, and what would tell so went with the session.
 * ExpiredIsLost: a store ends no session by its clock before the session's own client counts it as lost by its own.
 */
import { BatchReader } from "../store/batch.ts";
import { type Command, decodeCommand } from "../store/command.ts";
import type { Outcome } from "../store/outcome.ts";
import { must } from "./invariant-violation.ts";

export class ClaimJudge {
  readonly #living = new Set<number>();
  readonly #countsAsAlive: (session: number) => boolean;

  /** `countsAsAlive`: whether the client of the session takes it for alive at this moment of true time. */
  constructor(countsAsAlive: (session: number) => boolean) {
    this.#countsAsAlive = countsAsAlive;
  }

  /** Once for each decided batch, with what the machine answered to each command. */
  onBatch(payload: Uint8Array, outcomes: readonly Outcome[]): void {
    const batch = new BatchReader(payload);
    while (batch.next()) {
      const outcome = outcomes[batch.position];
      // What cannot be read did nothing.
      if (outcome === undefined || (outcome.kind === "error" && outcome.code === "PROTOCOL")) continue;
      this.#judge(decodeCommand(batch.command()), outcome);
    }
  }

  #judge(command: Command, outcome: Outcome): void {
    switch (command.kind) {
      case "txn": {
        const session = command.claim?.session;
        if (session === undefined || this.#living.has(session)) return;
        must(outcome.kind === "error", "DeadClaimsRefused", () => `a claim of session ${session} runs, which does not live`);
        break;
      }
      case "open-session":
        if (outcome.kind === "opened") this.#living.add(Number(outcome.session));
        break;
      case "close-session":
        if (outcome.kind === "done") this.#living.delete(command.session);
        break;
      case "expire-sessions":
        if (outcome.kind === "done") for (const session of command.sessions) this.#onExpired(session);
        break;
      case "initialise":
        break;
    }
  }

  #onExpired(session: number): void {
    this.#living.delete(session);
    must(!this.#countsAsAlive(session), "ExpiredIsLost", () => `session ${session} is expired while its client counts on it`);
  }
}
