/**
 * The protocols that the worlds can run, one row each: how the host runs it, which limits a run may draw, and who checks its
 * promises. A new crash-fault protocol joins by a row here; PBFT has a world of its own, because it has liars.
 */
import type { Configuration, MemberId } from "../consensus/core.ts";
import type { PaxosMessage } from "../consensus/paxos/messages.ts";
import type { PaxosOptions } from "../consensus/paxos/options.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import type { RaftOptions } from "../consensus/raft/options.ts";
import type { ZabMessage } from "../consensus/zab/messages.ts";
import type { ZabOptions } from "../consensus/zab/options.ts";
import { paxosProtocol } from "../replica/paxos-protocol.ts";
import type { Protocol } from "../replica/protocol.ts";
import { raftProtocol } from "../replica/raft-protocol.ts";
import { zabProtocol } from "../replica/zab-protocol.ts";
import type { Checker } from "./group-checker.ts";
import { PaxosChecker } from "./paxos-checker.ts";
import { RaftChecker } from "./raft-checker.ts";
import type { Random } from "./random.ts";
import { ZabChecker } from "./zab-checker.ts";

/** Plain data: it is written into schedules. */
export type CoreLimits = Readonly<Record<string, unknown>>;

/** `M` is the protocol's union of letters; a world holds it as `unknown`, because it only carries them. */
export interface SimulatedProtocol<M> {
  /** This run's limits, as often tiny as generous. `world`: sizes differ by payload. */
  drawLimits(random: Random, world: "core" | "stack"): CoreLimits;
  /** As the host runs it: makes cores, speaks letters, keeps slots. */
  withLimits(limits: CoreLimits): Protocol<M>;
  makeChecker(configuration: Configuration): Checker<M>;
  /** Whether the letter bids for a new term, ballot or epoch: a moment to strike at. */
  isClaim(message: M): boolean;
  /** The voters of the core world. */
  membersOf(random: Random): readonly MemberId[];
  /** Whether members come and go, leadership is handed over and reads go by lease. */
  readonly hasMembership: boolean;
  /** Clocks run faster or slower than true time by up to this share: what the leases of the protocol allow for. */
  readonly clockDriftMax: number;
  /** Whether the whole stack runs on it. */
  readonly hasStack: boolean;
}

export const protocols: Readonly<Record<string, SimulatedProtocol<unknown>>> = {
  raft: {
    drawLimits: drawRaftLimits,
    withLimits: (limits) => raftProtocol(limits as Partial<RaftOptions>),
    makeChecker: (configuration) => new RaftChecker(configuration),
    isClaim: (message) => message.kind === "vote-request" && !message.preVote,
    membersOf: threeOrFive,
    hasMembership: true,
    clockDriftMax: 0.05,
    hasStack: true,
  } satisfies SimulatedProtocol<RaftMessage> as SimulatedProtocol<unknown>,
  paxos: {
    drawLimits: drawPaxosLimits,
    withLimits: (limits) => paxosProtocol(limits as Partial<PaxosOptions>),
    makeChecker: (configuration) => new PaxosChecker(configuration),
    isClaim: (message) => message.kind === "prepare" && !message.dryRun,
    membersOf: threeOrFive,
    hasMembership: false,
    clockDriftMax: 0.05,
    hasStack: true,
  } satisfies SimulatedProtocol<PaxosMessage> as SimulatedProtocol<unknown>,
  zab: {
    drawLimits: drawZabLimits,
    withLimits: (limits) => zabProtocol(limits as Partial<ZabOptions>),
    makeChecker: (configuration) => new ZabChecker(configuration),
    isClaim: (message) => message.kind === "leader-info" && !message.established,
    membersOf: threeOrFive,
    hasMembership: false,
    clockDriftMax: 0.05,
    hasStack: true,
  } satisfies SimulatedProtocol<ZabMessage> as SimulatedProtocol<unknown>,
};

export function threeOrFive(random: Random): readonly MemberId[] {
  return random.chance(0.7) ? ["a", "b", "c"] : ["a", "b", "c", "d", "e"];
}

function drawRaftLimits(random: Random, world: "core" | "stack"): CoreLimits {
  const isCore = world === "core";
  return {
    ...(random.chance(isCore ? 0.5 : 0.4) ? { appendBytesMax: 1, inFlightMessagesMax: random.integer(1, 3) } : {}),
    retainedBytesMax: random.pick(isCore ? [0, 300, 100_000] : [0, 2_000, 1_000_000]),
    snapshotChunkBytes: random.pick(isCore ? [3, 64] : [200, 4_096]),
  } satisfies Partial<RaftOptions>;
}

function drawPaxosLimits(random: Random, world: "core" | "stack"): CoreLimits {
  const isCore = world === "core";
  return {
    ...(random.chance(isCore ? 0.5 : 0.4) ? { messageBytesMax: 1, inFlightMessagesMax: random.integer(1, 3) } : {}),
    ...(isCore && random.chance(0.3) ? { windowSlots: random.integer(2, 20) } : {}),
    ...(random.chance(0.2) ? { unlearnedBytesMax: isCore ? 300 : 3_000 } : {}),
    retainedBytesMax: random.pick(isCore ? [0, 300, 100_000] : [0, 2_000, 1_000_000]),
    snapshotChunkBytes: random.pick(isCore ? [3, 64] : [200, 4_096]),
  } satisfies Partial<PaxosOptions>;
}

function drawZabLimits(random: Random, world: "core" | "stack"): CoreLimits {
  const isCore = world === "core";
  return {
    ...(random.chance(isCore ? 0.5 : 0.4) ? { proposalBytesMax: 1, inFlightMessagesMax: random.integer(1, 3) } : {}),
    retainedBytesMax: random.pick(isCore ? [0, 300, 100_000] : [0, 2_000, 1_000_000]),
    snapshotChunkBytes: random.pick(isCore ? [3, 64] : [200, 4_096]),
  } satisfies Partial<ZabOptions>;
}
