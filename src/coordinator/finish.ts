/**
 * Brings one branch of a decided transaction to its end, by evidence and never by an error code alone.
 *
 *   told to commit:  done ─► settled         not found / rolled back ─► is the marker there?  yes ─► settled
 *                    held ─► end that session, say it again                                   no  ─► gone: a heuristic outcome
 *   told to roll back: done, or not found ─► settled     the marker is there ─► committed: a heuristic outcome
 *
 * "Unknown transaction" is what a database says of a branch that was committed, of one that was rolled back, of one that a
 * living session holds (MariaDB) and of one that is still being prepared. Others take it for success; it is not evidence.
 */
import type { Platform } from "../base/ports.ts";
import { ask, silent } from "./ask.ts";
import type { BranchRef, Evidence, FinishReply, Outcome, Participant } from "./participant.ts";

/** `later`: could not be asked, or is in motion. `gone`: it should have committed and did not. `in`: the reverse. */
export type Ending =
  | { readonly kind: "settled" }
  | { readonly kind: "later"; readonly why: string }
  | { readonly kind: "gone" }
  | { readonly kind: "in"; readonly parts: readonly BranchRef[] };

export interface FinishContext {
  readonly platform: Platform;
  readonly participant: Participant;
  readonly answerMs: number;
  readonly onEvicted?: (ref: BranchRef) => void | Promise<void>;
}

export async function finishBranch(context: FinishContext, ref: BranchRef, outcome: Outcome): Promise<Ending> {
  let reply = await tell(context, ref, outcome);
  if (reply === "held") {
    const { platform, participant, answerMs } = context;
    await ask(platform, answerMs, () => participant.evict(ref));
    await context.onEvicted?.(ref);
    reply = await tell(context, ref, outcome);
  }
  switch (reply) {
    case "done":
      return { kind: "settled" };
    case "held":
      return { kind: "later", why: "another session holds it" };
    case "unreachable":
      return { kind: "later", why: "no answer" };
    case "misconfigured":
      return { kind: "later", why: "this user may not finish it" };
    case "not-found":
    case "rolled-back":
      return outcome === "commit" ? proveCommit(context, ref) : proveRollback(context, ref);
  }
}

async function proveCommit(context: FinishContext, ref: BranchRef): Promise<Ending> {
  const { state } = await evidenceOf(context, ref);
  switch (state) {
    case "committed":
      return { kind: "settled" };
    case "absent":
      return { kind: "gone" };
    case "prepared":
      return { kind: "later", why: "it is still being prepared or finished" };
    case "unreachable":
      return { kind: "later", why: "no answer" };
  }
}

async function proveRollback(context: FinishContext, ref: BranchRef): Promise<Ending> {
  const { state, parts } = await evidenceOf(context, ref);
  switch (state) {
    case "committed":
      return { kind: "in", parts: parts ?? [ref] };
    case "absent":
      return { kind: "settled" };
    case "prepared":
      return { kind: "later", why: "it is still being prepared or finished" };
    case "unreachable":
      return { kind: "later", why: "no answer" };
  }
}

export async function evidenceOf({ platform, participant, answerMs }: FinishContext, ref: BranchRef): Promise<Evidence> {
  const answer = await ask(platform, answerMs, () => participant.evidence(ref));
  return answer === silent ? { state: "unreachable" } : answer;
}

async function tell({ platform, participant, answerMs }: FinishContext, ref: BranchRef, outcome: Outcome): Promise<FinishReply> {
  const answer = await ask(platform, answerMs, () => participant.finish(ref, outcome));
  return answer === silent ? "unreachable" : answer;
}
