/**
 * Whether a letter could have been written by a member that follows the protocol. What could not is dropped: it must neither
 * stop this member nor move a number to where the next step overflows. Members that lie are PBFT's business.
 */
import type { ZabMessage } from "./messages.ts";

/** Epochs, rounds and indexes stay far below 2^53, so that the next one is always a safe integer. */
const numberMax = 2 ** 52;

export function isLawful(message: ZabMessage): boolean {
  switch (message.kind) {
    case "looking": {
      const { epoch, lastIndex, lastTerm } = message.vote;
      return [message.round, epoch, lastIndex, lastTerm].every(isSmall);
    }
    case "settled":
    case "leader-info":
      return isSmall(message.epoch);
    case "follower-info":
      return isSmall(message.acceptedEpoch);
    case "ack-epoch":
      return [message.epoch, message.currentEpoch, message.lastIndex, message.lastTerm, message.committed].every(isSmall);
    case "proposal":
      return isLawfulProposal(message);
    case "ping":
      return [message.epoch, message.round, message.committed, message.sent, message.acked].every(isSmall);
    case "snapshot":
      return message.index > 0 && [message.epoch, message.index, message.term, message.offset].every(isSmall);
    default:
      return isSmall(message.epoch);
  }
}

/** Entries of one history: epochs never fall along it, and none is later than the leader's. */
function isLawfulProposal({
  epoch,
  previousIndex,
  previousTerm,
  committed,
  entries,
}: Extract<ZabMessage, { kind: "proposal" }>): boolean {
  if (![epoch, previousIndex, previousTerm, committed].every(isSmall)) return false;
  let term = previousTerm;
  let stampMs = 0;
  for (const entry of entries) {
    if (entry.term < term || entry.term > epoch || entry.stampMs < stampMs) return false;
    term = entry.term;
    stampMs = entry.stampMs;
  }
  return true;
}

function isSmall(number: number): boolean {
  return number <= numberMax;
}
