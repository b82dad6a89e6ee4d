/**
 * How many of n replicas are enough, when f of them may lie.
 *
 * Two quorums must meet in a correct replica, and a quorum must exist without the liars. For n = 3f + 1 that gives the
 * paper's 2f + 1; for other n it does not, so every count comes from here.
 * Source: Castro & Liskov, OSDI 1999 §3; for any n: `ceil((n + f + 1) / 2)`, as in Hyperledger SmartBFT.
 */

/** The most replicas that may be arbitrarily faulty. */
export function faultsTolerated(replicas: number): number {
  return Math.floor((replicas - 1) / 3);
}

/** Any two sets of this size share at least one correct replica. */
export function quorumOf(replicas: number): number {
  return Math.ceil((replicas + faultsTolerated(replicas) + 1) / 2);
}

/** Among so many there is at least one correct replica. */
export function weakQuorumOf(replicas: number): number {
  return faultsTolerated(replicas) + 1;
}
