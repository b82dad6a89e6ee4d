/**
 * The protocols that the worlds can run, one row each: how to make a core, how its letters look on the wire, and who checks
 * its promises. A new crash-fault protocol joins by a row here; PBFT has a world of its own, because it has liars.
 */
import type { ByteWriter } from "../base/byte-codec.ts";
import type { ProtocolName } from "../base/protocol-name.ts";
import type { Configuration, Core, MemberId } from "../consensus/core.ts";
import type { PaxosMessage } from "../consensus/paxos/messages.ts";
import type { PaxosOptions } from "../consensus/paxos/options.ts";
import { Paxos } from "../consensus/paxos/paxos.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import type { RaftOptions } from "../consensus/raft/options.ts";
import { Raft } from "../consensus/raft/raft.ts";
import { decodePaxosMessage, encodePaxosMessage } from "../wire/paxos-messages.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../wire/raft-messages.ts";
import type { Checker } from "./group-checker.ts";
import { PaxosChecker } from "./paxos-checker.ts";
import { RaftChecker } from "./raft-checker.ts";
import type { Random } from "./random.ts";

export type CoreMaker<M> = () => Core<M>;

/** `M` is the protocol's union of letters; a world holds it as `unknown`, because it only carries them. */
export interface SimulatedProtocol<M> {
  readonly name: ProtocolName;
  /** Draws this run's limits, as often tiny as generous, and returns what makes its cores. `world`: sizes differ by payload. */
  drawCores(random: Random, world: "core" | "stack"): CoreMaker<M>;
  encode(writer: ByteWriter, message: M): void;
  decode(frame: Uint8Array): M;
  makeChecker(configuration: Configuration): Checker<M>;
  /** The group of the core world. */
  membersOf(random: Random): readonly MemberId[];
  /** Slots are filled in any order: a put neither follows the one before nor drops what stands behind it. */
  readonly sparseSlots: boolean;
  /** Whether members come and go, leadership is handed over and reads go by lease. */
  readonly hasMembership: boolean;
  /** Whether the whole stack runs on it. */
  readonly hasStack: boolean;
}

export const protocols: Readonly<Record<string, SimulatedProtocol<unknown>>> = {
  raft: {
    name: "raft",
    drawCores: drawRaft,
    encode: encodeRaftMessage,
    decode: decodeRaftMessage,
    makeChecker: (configuration) => new RaftChecker(configuration),
    membersOf: threeOrFive,
    sparseSlots: false,
    hasMembership: true,
    hasStack: true,
  } satisfies SimulatedProtocol<RaftMessage> as SimulatedProtocol<unknown>,
  paxos: {
    name: "paxos",
    drawCores: drawPaxos,
    encode: encodePaxosMessage,
    decode: decodePaxosMessage,
    makeChecker: (configuration) => new PaxosChecker(configuration),
    membersOf: threeOrFive,
    sparseSlots: true,
    hasMembership: false,
    hasStack: true,
  } satisfies SimulatedProtocol<PaxosMessage> as SimulatedProtocol<unknown>,
};

export function threeOrFive(random: Random): readonly MemberId[] {
  return random.chance(0.7) ? ["a", "b", "c"] : ["a", "b", "c", "d", "e"];
}

function drawRaft(random: Random, world: "core" | "stack"): CoreMaker<RaftMessage> {
  const isCore = world === "core";
  const options: Partial<RaftOptions> = {
    ...(random.chance(isCore ? 0.5 : 0.4) ? { appendBytesMax: 1, inFlightMessagesMax: random.integer(1, 3) } : {}),
    retainedBytesMax: random.pick(isCore ? [0, 300, 100_000] : [0, 2_000, 1_000_000]),
    snapshotChunkBytes: random.pick(isCore ? [3, 64] : [200, 4_096]),
  };
  return () => new Raft(options);
}

function drawPaxos(random: Random, world: "core" | "stack"): CoreMaker<PaxosMessage> {
  const isCore = world === "core";
  const options: Partial<PaxosOptions> = {
    ...(random.chance(isCore ? 0.5 : 0.4) ? { messageBytesMax: 1, inFlightMessagesMax: random.integer(1, 3) } : {}),
    ...(isCore && random.chance(0.3) ? { windowSlots: random.integer(2, 20) } : {}),
    retainedBytesMax: random.pick(isCore ? [0, 300, 100_000] : [0, 2_000, 1_000_000]),
    snapshotChunkBytes: random.pick(isCore ? [3, 64] : [200, 4_096]),
  };
  return () => new Paxos(options);
}
