/**
 * Redis as the keeper of leases: a deadline for each session in a sorted set, moved and judged by scripts.
 */
import type { LeaseServer } from "../../client/lease-sessions.ts";
import type { ScriptCaller } from "./script-caller.ts";
import { scripts } from "./scripts.ts";
import { checkedReply, listOf, numberOf, quarantined, textOf } from "./txn-codec.ts";

export function leaseServer(caller: ScriptCaller): LeaseServer {
  return {
    async open(ttlMs, call) {
      const [, , id, nextMs] = checkedReply(await caller.run(scripts.open, [ttlMs], call));
      return { id: textOf(id), nextMs: numberOf(nextMs) };
    },
    async keepAlive(sessions, call) {
      const args = sessions.flatMap(({ id, ttlMs }) => [id, ttlMs]);
      const [, , nextMs, answers] = checkedReply(await caller.run(scripts.keepAlive, args, call));
      return { nextMs: numberOf(nextMs), answers: listOf(answers).map((answer) => answer === 1) };
    },
    async end(id, call) {
      await caller.run(scripts.close, [id], call);
    },
    quarantined,
    noteTtl: (ttlMs) => caller.noteTtl(ttlMs),
  };
}
