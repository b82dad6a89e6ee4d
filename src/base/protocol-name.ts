/**
 * The agreement protocols by name. One list for options, data directories, the hello between peers and the caps: a name
 * that stands on a disk or travels must mean the same everywhere.
 */
import { conclaveError } from "./errors.ts";

/**
 * Which protocol the members of an embedded cluster agree by. All members run the same one, for the cluster's whole life.
 *
 * - `raft`: the default; the only one whose members can be changed while it runs.
 * - `paxos`: Multi-Paxos with a stable leader. The same promises as `raft`; its members are fixed.
 * - `zab`: ZooKeeper's atomic broadcast. The same promises; its members are fixed.
 * - `pbft`: bears members that lie, at four members for one liar; keys and compare-and-set only.
 */
export type ProtocolName = "raft" | "paxos" | "zab" | "pbft";

export const protocolNames = ["raft", "paxos", "zab", "pbft"] as const satisfies readonly ProtocolName[];

/** What was before there was a choice, and what a directory or a peer runs that names none. */
export const protocolDefault: ProtocolName = "raft";

export function isProtocolName(name: unknown): name is ProtocolName {
  return (protocolNames as readonly unknown[]).includes(name);
}

/** @throws INVALID_OPTION, naming the field */
export function checkProtocolName(name: unknown, field: string): ProtocolName {
  if (isProtocolName(name)) return name;
  throw conclaveError("INVALID_OPTION", `${field}: ${JSON.stringify(name)} is none of ${protocolNames.join(", ")}.`);
}
