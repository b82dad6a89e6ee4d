/**
 * Raft as the host sees it.
 */
import type { RaftMessage } from "../consensus/raft/messages.ts";
import type { RaftOptions } from "../consensus/raft/options.ts";
import { Raft } from "../consensus/raft/raft.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../wire/raft-messages.ts";
import type { Protocol } from "./protocol.ts";

export function raftProtocol(options: Partial<RaftOptions> = {}): Protocol<RaftMessage> {
  return {
    name: "raft",
    makeCore: () => new Raft(options),
    encode: encodeRaftMessage,
    decode: decodeRaftMessage,
    slots: "contiguous",
    abilities: { membership: "joint" },
  };
}
