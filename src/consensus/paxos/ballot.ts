/**
 * Ballots: who may propose, one number for the pair (round, member).
 *
 * ```
 *   members a, b, c          round 1   round 2   round 3
 *   positions 0, 1, 2        3  4  5   6  7  8   9 10 11      ballot = round * members + position
 *                            a  b  c   a  b  c   a  b  c
 * ```
 * Two members never have a ballot in common, and no comparison needs a name. Source: Chandra, Griesemer, Redstone, "Paxos
 * Made Live", PODC 2007, §4.1 (a sequence number that is the replica's own modulo n). Lamport's proof needs them unique
 * and totally ordered ("Paxos Made Simple", §2.2); that none is used twice across a restart is the business of the disk.
 * Assumes fixed members in an order that all agree on: sorted by name.
 */
import type { MemberId, Term } from "../core.ts";

/** 0 stands before the first. */
export type Ballot = Term;

/** The owner's lowest ballot above another. */
export function nextBallot(above: Ballot, position: number, members: number): Ballot {
  const round = Math.max(1, Math.floor(above / members));
  const ballot = round * members + position;
  return ballot > above ? ballot : ballot + members;
}

/** Whose it is; undefined for 0. `members` in their agreed order. */
export function ballotOwner(ballot: Ballot, members: readonly MemberId[]): MemberId | undefined {
  return ballot === 0 ? undefined : members[ballot % members.length];
}
