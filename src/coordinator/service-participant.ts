/**
 * A service as a participant: Try, Confirm and Cancel instead of prepare, commit and roll back (TCC).
 *
 *   member written ─► Try ─ yes ─► the vote ─► decision ─► Confirm ─► member deleted
 *                       └── no, silence, deadline ───────► Cancel  ─► member deleted
 *
 * A service holds no locks for us: what a Try does is visible, as a reservation, and another business rule of the service. Its
 * barrier (`barrier.ts`) makes each answer the same however often, late or out of order it is asked for; so nothing here
 * remembers more than who takes part.
 * Source: Helland, "Life beyond distributed transactions", CIDR 2007, on tentative operations; dtm and Seata for the name.
 */
import type { Platform } from "../base/ports.ts";
import { sleep } from "../recipes/bell.ts";
import { ask, silent } from "./ask.ts";
import type { Epoch } from "./epoch.ts";
import type { Membership } from "./membership.ts";
import type { Branch, BranchRef, Evidence, FenceReply, FinishReply, Outcome, Participant, Vote } from "./participant.ts";
import type { ServiceCall, ServicePort, ServiceReply } from "./service-port.ts";

export interface ServiceParticipantParts {
  readonly name: string;
  readonly port: ServicePort;
  readonly membership: Membership;
  readonly platform: Platform;
  /** How long one answer may take in the second phase. */
  readonly answerMs: number;
}

/** After an outcome that contradicts, time for whoever found it to write it down before the trace goes. */
const contradictionKeptMs = 5_000;
const firstPauseMs = 30;
const pauseMsMax = 1_000;

export class ServiceParticipant implements Participant {
  readonly #parts: ServiceParticipantParts;

  constructor(parts: ServiceParticipantParts) {
    this.#parts = parts;
  }

  async finish(ref: BranchRef, outcome: Outcome): Promise<FinishReply> {
    const reply = await this.#send(outcome === "commit" ? "confirm" : "cancel", ref);
    switch (reply.kind) {
      case "done":
      case "skipped":
        // The member goes first, the decision later: a member without a decision would be cancelled.
        return this.#remove(ref);
      case "closed":
        if (reply.why === "confirmed") this.#removeLater(ref);
        return outcome === "commit" && reply.why === "cancelled" ? "rolled-back" : "not-found";
      case "misconfigured":
        return "misconfigured";
      default:
        return "unreachable";
    }
  }

  async evidence(ref: BranchRef): Promise<Evidence> {
    const reply = await this.#send("status", ref);
    if (reply.kind !== "standing") return { state: "unreachable" };
    switch (reply.standing) {
      case "confirmed":
        return { state: "committed" };
      case "tried":
        return { state: "prepared" };
      default:
        return { state: "absent" };
    }
  }

  async fence(ref: BranchRef): Promise<FenceReply> {
    const reply = await this.#send("cancel", ref);
    if (reply.kind === "done" || reply.kind === "skipped") {
      await this.#remove(ref);
      return "fenced";
    }
    return reply.kind === "closed" && reply.why === "confirmed" ? "committed" : "unreachable";
  }

  /** Nobody's session holds a branch here. */
  evict(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async scan(domain: string): Promise<readonly BranchRef[] | "unreachable"> {
    try {
      return await this.#parts.membership.list(domain, this.#parts.name);
    } catch {
      return "unreachable";
    }
  }

  /**
   * Writes down that the service takes part, and tries until there is an answer or the time is over. The branch is there at
   * once: a transaction that does not wait for the answer waits for it in the vote.
   */
  begin(
    epoch: Epoch,
    call: Omit<ServiceCall, "phase"> & { readonly action: string },
    options: { readonly deadlineMs: number; readonly signal: AbortSignal },
  ): { readonly branch: ServiceBranch; readonly reply: Promise<ServiceReply> } {
    const ref = { gid: call.gid, branch: call.branch, resource: this.#parts.name };
    const added = this.#parts.membership.add(epoch, ref, call.action);
    const reply = added.then(() => this.#insist({ ...call, phase: "try" }, options));
    return { branch: new ServiceBranch(this, ref, reply), reply };
  }

  /** Asks again while nobody knows: the barrier answers a second Try with the first one's result. */
  async #insist(
    call: ServiceCall,
    { deadlineMs, signal }: { readonly deadlineMs: number; readonly signal: AbortSignal },
  ): Promise<ServiceReply> {
    const { platform, port, answerMs } = this.#parts;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
      signal.throwIfAborted();
      const leftMs = deadlineMs - platform.now();
      if (leftMs <= 0) return { kind: "busy", why: "no answer in time" };
      const timeoutMs = Math.min(leftMs, answerMs);
      const reply = await ask(platform, timeoutMs, () => port.send(call, { timeoutMs, signal }));
      if (reply !== silent && reply.kind !== "busy") return reply;
      await sleep({ platform, timeoutMs: Math.min(pauseMs, Math.max(0, deadlineMs - platform.now())), signal });
    }
  }

  async #send(phase: ServiceCall["phase"], { gid, branch }: BranchRef): Promise<ServiceReply> {
    const { platform, port, answerMs } = this.#parts;
    const reply = await ask(platform, answerMs, () => port.send({ phase, gid, branch }, { timeoutMs: answerMs }));
    return reply === silent ? { kind: "busy", why: "no answer" } : reply;
  }

  async #remove(ref: BranchRef): Promise<FinishReply> {
    try {
      await this.#parts.membership.remove(ref);
      return "done";
    } catch {
      // It will be told again, and answer the same.
      return "unreachable";
    }
  }

  #removeLater(ref: BranchRef): void {
    this.#parts.platform.setTimer(contradictionKeptMs, () => void this.#remove(ref));
  }
}

/** One Try and what follows it. */
export class ServiceBranch implements Branch {
  readonly ref: BranchRef;
  readonly isReadOnly = false;
  readonly #participant: ServiceParticipant;
  readonly #tried: Promise<ServiceReply>;

  /** Made by `ServiceParticipant.begin`. */
  constructor(participant: ServiceParticipant, ref: BranchRef, tried: Promise<ServiceReply>) {
    this.#participant = participant;
    this.ref = ref;
    this.#tried = tried;
    // Whoever waits for the vote hears of it.
    tried.catch(ignoreHeard);
  }

  async prepare(): Promise<{ readonly vote: Vote; readonly why?: string }> {
    const reply = await this.#tried;
    switch (reply.kind) {
      case "done":
        return { vote: "yes" };
      case "refused":
        return { vote: "no", why: reply.reason };
      case "closed":
        return { vote: "no", why: `its Try came too late: ${reply.why}` };
      case "misconfigured":
      case "busy":
        return { vote: "no", why: reply.why };
      default:
        return { vote: "no", why: `a Try was answered with "${reply.kind}"` };
    }
  }

  commit(): Promise<FinishReply> {
    return this.#participant.finish(this.ref, "commit");
  }

  /** Also where the Try has not been answered: the Cancel takes its place, and it is refused when it comes. */
  rollback(): Promise<FinishReply> {
    return this.#participant.finish(this.ref, "rollback");
  }

  async commitAlone(): Promise<"done" | "rolled-back" | "unknown"> {
    const { vote } = await this.prepare().catch(() => ({ vote: "no" as const }));
    if (vote !== "yes") return (await this.rollback()) === "done" ? "rolled-back" : "unknown";
    const reply = await this.commit();
    return reply === "done" ? "done" : reply === "rolled-back" ? "rolled-back" : "unknown";
  }
}

function ignoreHeard(): void {
  // The vote tells it.
}
