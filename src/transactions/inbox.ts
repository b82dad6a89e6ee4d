/**
 * The inbox: an event that is delivered twice is worked on once, because its id is a line in the same local transaction.
 *
 * ```ts
 * const seen = inbox(postgresBarrier(postgres({ url })));
 * await seen.once(event, (client) => client.query("UPDATE ..."));
 * ```
 * Bounded by time: ids are kept as long as the barrier keeps its lines (seven days by default), and an event that is older than that,
 * less a day for clocks and late relays, is refused instead of taken for new.
 */
import { conclaveError } from "../base/errors.ts";
import type { Barrier } from "./barrier.ts";
import { Abort } from "./errors.ts";
import type { OutboxEvent } from "./outbox.ts";

export interface Inbox<Handle> {
  /**
   * Runs the work unless this event's has been done; answers whether it ran. What the work throws undoes it, and the event may come again.
   * @throws INVALID_OPTION (no event of an outbox), TRANSACTION_CLOSED (older than anybody remembers)
   */
  once(event: Pick<OutboxEvent, "id" | "atMs">, work: (handle: Handle) => unknown): Promise<boolean>;
}

const dayMs = 86_400_000;

/** @since 0.2.0 */
export function inbox<Handle>(barrier: Barrier<Handle>): Inbox<Handle> {
  // At least half of the time, where that is short.
  const takenMs = Math.max(barrier.keptMs - dayMs, barrier.keptMs / 2);
  return {
    once: async ({ id, atMs }, work) => {
      if (typeof id !== "string" || !/^[a-z][a-z0-9-]{0,19}\.[a-z0-9.]{1,36}$/.test(id) || typeof atMs !== "number") {
        throw conclaveError("INVALID_OPTION", "This is no event of an outbox: `id` or `atMs` is missing or wrong.");
      }
      if (Date.now() - atMs > takenMs) {
        throw conclaveError(
          "TRANSACTION_CLOSED",
          `Event ${id} is older than this inbox remembers; whether it was worked on is not known.`,
        );
      }
      const call = { gid: `ob.${id}`, branch: 0, phase: "try", mustSucceed: true } as const;
      const answer = await barrier.run(call, async (handle) => {
        await work(handle);
        return null;
      });
      switch (answer.kind) {
        case "done":
          return !answer.isReplay;
        case "refused":
          throw new Abort(answer.reason, answer.details);
        default:
          throw conclaveError("TRANSACTION_CLOSED", `Event ${id} was closed in this inbox.`);
      }
    },
  };
}
