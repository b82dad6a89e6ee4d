/**
 * The protocols that a host can run, by name.
 */
import { conclaveError } from "../base/errors.ts";
import type { ProtocolName } from "../base/protocol-name.ts";
import type { PaxosOptions } from "../consensus/paxos/options.ts";
import type { RaftOptions } from "../consensus/raft/options.ts";
import type { ZabOptions } from "../consensus/zab/options.ts";
import { paxosProtocol } from "./paxos-protocol.ts";
import type { Protocol } from "./protocol.ts";
import { raftProtocol } from "./raft-protocol.ts";
import { zabProtocol } from "./zab-protocol.ts";

/** The knobs of each; those of a protocol that is not chosen do nothing. */
export interface ProtocolOptions {
  readonly raft?: Partial<RaftOptions>;
  readonly paxos?: Partial<PaxosOptions>;
  readonly zab?: Partial<ZabOptions>;
}

const makers: { readonly [N in ProtocolName]?: (options: ProtocolOptions) => Protocol } = {
  raft: ({ raft }) => raftProtocol(raft),
  paxos: ({ paxos }) => paxosProtocol(paxos),
  zab: ({ zab }) => zabProtocol(zab),
};

/** @throws UNSUPPORTED (this version does not have it) */
export function protocolNamed(name: ProtocolName, options: ProtocolOptions = {}): Protocol {
  const make = makers[name];
  if (name === "pbft") {
    throw conclaveError(
      "UNSUPPORTED",
      "PBFT has no sessions, locks and watches: their time is not yet agreed by 2f + 1 members. " +
        "It has keys and compare-and-set, by `connectPbft` and `conclave serve --protocol pbft` with keys.",
    );
  }
  if (make === undefined) throw conclaveError("UNSUPPORTED", `This version of Conclave does not run the protocol "${name}".`);
  return make(options);
}
