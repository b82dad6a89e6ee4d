/**
 * Letters that no member sends which follows the protocol, whatever its state: torn entries, terms out of order, numbers out
 * of bounds. The codec refuses them like bytes that are no letter, so that the core may take the shape of a letter for given.
 */
import type { LogEntry, Term } from "../core.ts";
import type { RaftMessage } from "./messages.ts";

/** A term a microsecond would take 140 years to come here; what is above was made up. */
const termMax = 2 ** 52;

export function isLawful(message: RaftMessage): boolean {
  if (message.term > termMax) return false;
  switch (message.kind) {
    case "vote-request":
      return message.lastTerm <= message.term;
    case "append":
      return message.previousTerm <= message.term && follow(message, message.entries);
    case "snapshot":
      return message.index > 0 && message.snapshotTerm <= message.term;
    default:
      return true;
  }
}

/** Without a gap behind the previous one, in terms that never fall and are not ahead of the leader's. */
function follow(
  append: { readonly previousIndex: number; readonly previousTerm: Term; readonly term: Term },
  entries: readonly LogEntry[],
): boolean {
  let { previousIndex: index, previousTerm: term } = append;
  for (const entry of entries) {
    if (entry.index !== index + 1 || entry.term < term || entry.term > append.term || !Number.isFinite(entry.stampMs))
      return false;
    index = entry.index;
    term = entry.term;
  }
  return true;
}
