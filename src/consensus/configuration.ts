/**
 * Who decides, and how many of them are enough.
 *
 * A joint configuration (Raft §6) needs a majority of the old voters *and* a majority of the new ones, for votes, for
 * commits and for reads alike; every count goes through `hasQuorum` so that no caller can forget the second half.
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Configuration, MemberId } from "./core.ts";

export function isVoter(configuration: Configuration, member: MemberId): boolean {
  return configuration.voters.includes(member) || (configuration.outgoing?.includes(member) ?? false);
}

/** Everyone who is sent the log: voters, outgoing voters and learners, each once. */
export function membersOf(configuration: Configuration): readonly MemberId[] {
  return [...new Set([...configuration.voters, ...(configuration.outgoing ?? []), ...configuration.learners])];
}

/** Whether those for whom `counts` is true form a quorum. */
export function hasQuorum(configuration: Configuration, counts: (member: MemberId) => boolean): boolean {
  return (
    hasMajority(configuration.voters, counts) &&
    (configuration.outgoing === undefined || hasMajority(configuration.outgoing, counts))
  );
}

/** The highest number that a quorum has reached. */
export function quorumReached(configuration: Configuration, reached: (member: MemberId) => number): number {
  const incoming = majorityReached(configuration.voters, reached);
  if (configuration.outgoing === undefined) return incoming;
  return Math.min(incoming, majorityReached(configuration.outgoing, reached));
}

function hasMajority(voters: readonly MemberId[], counts: (member: MemberId) => boolean): boolean {
  let count = 0;
  for (const voter of voters) if (counts(voter)) count++;
  return count > voters.length / 2;
}

function majorityReached(voters: readonly MemberId[], reached: (member: MemberId) => number): number {
  if (voters.length === 1) return reached(voters[0] as MemberId);
  // In descending order, the element at floor(n / 2) is reached by a majority: 3 members -> the second, 4 -> the third.
  const descending: number[] = [];
  for (const voter of voters) {
    const value = reached(voter);
    let at = descending.length;
    for (; at > 0 && (descending[at - 1] as number) < value; at--) descending[at] = descending[at - 1] as number;
    descending[at] = value;
  }
  return descending[Math.floor(descending.length / 2)] ?? 0;
}

/** 1: three lists of names. 2: the addresses follow. */
const formatVersion = 2;

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(formatVersion);
  for (const list of [configuration.voters, configuration.outgoing ?? [], configuration.learners]) {
    writer.varint(list.length);
    for (const member of list) writer.utf8(member);
  }
  const addresses = Object.entries(configuration.addresses ?? {});
  writer.varint(addresses.length);
  for (const [member, address] of addresses) {
    writer.utf8(member);
    writer.utf8(address);
  }
  return writer.finish();
}

export function decodeConfiguration(bytes: Uint8Array): Configuration {
  const reader = new ByteReader(bytes);
  const version = reader.u8();
  if (version < 1 || version > formatVersion)
    throw conclaveError("PROTOCOL", `A configuration of format ${version}; this version reads 1 to ${formatVersion}.`);
  const list = (): MemberId[] => {
    const members: MemberId[] = [];
    for (let left = reader.count(); left > 0; left--) members.push(reader.utf8());
    return members;
  };
  const [voters, outgoing, learners] = [list(), list(), list()];
  const addresses: Record<MemberId, string> = {};
  for (let left = version >= 2 ? reader.count() : 0; left > 0; left--) {
    const member = reader.utf8();
    addresses[member] = reader.utf8();
  }
  return {
    voters,
    ...(outgoing.length === 0 ? {} : { outgoing }),
    learners,
    ...(Object.keys(addresses).length === 0 ? {} : { addresses }),
  };
}
