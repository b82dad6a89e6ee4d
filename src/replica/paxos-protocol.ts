/**
 * Multi-Paxos as the host sees it.
 */
import type { PaxosMessage } from "../consensus/paxos/messages.ts";
import type { PaxosOptions } from "../consensus/paxos/options.ts";
import { Paxos } from "../consensus/paxos/paxos.ts";
import { decodePaxosMessage, encodePaxosMessage } from "../wire/paxos-messages.ts";
import type { Protocol } from "./protocol.ts";

export function paxosProtocol(options: Partial<PaxosOptions> = {}): Protocol<PaxosMessage> {
  return {
    name: "paxos",
    makeCore: () => new Paxos(options),
    encode: encodePaxosMessage,
    decode: decodePaxosMessage,
    slots: "sparse",
    abilities: { membership: "fixed" },
  };
}
