/**
 * Raft's knobs, all of them, with their defaults. The simulator turns them to extremes ("buggify": windows of one,
 * batches of one entry) because rare branches hide behind generous limits.
 */
export interface RaftOptions {
  /**
   * A follower that heard nothing for one to two times this long campaigns. Milliseconds. Default 400.
   * Shorter recovers sooner; longer survives longer pauses of the leader. At least ten round trips and syncs.
   */
  readonly electionTimeoutMs: number;
  /** A leader is heard at least this often. Milliseconds. Default 60; at most a quarter of the election timeout. */
  readonly heartbeatMs: number;
  /** A follower whose connection to the leader broke campaigns within this long: a killed process is noticed at once. Milliseconds. Default 60. */
  readonly linkLossDelayMs: number;
  /**
   * For reads by lease: no member's clock runs faster or slower than true time by more than this share. Default 0.05.
   * Larger tolerates worse clocks and shortens the lease; a clock beyond it can make a read by lease stale.
   */
  readonly clockDriftMax: number;
  /** A learner that lags by more entries than this is not promoted yet. Default 1_000. */
  readonly promoteLagMax: number;
  /** Entries of one append. Bytes. Default 1 MiB; one entry always fits. */
  readonly appendBytesMax: number;
  /** Appends to one follower that wait for its disk. Default 256. */
  readonly inFlightMessagesMax: number;
  /** The same in bytes. Default 8 MiB. */
  readonly inFlightBytesMax: number;
  /** Appended and not committed; beyond it `submit` answers `busy`. Bytes. Default 64 MiB. */
  readonly uncommittedBytesMax: number;
  /** Kept in memory below the snapshot, for followers that lag a little. Bytes. Default 8 MiB. */
  readonly retainedBytesMax: number;
  /** Snapshot bytes of one message. Default 256 KiB. */
  readonly snapshotChunkBytes: number;
}

export const raftDefaults: RaftOptions = {
  electionTimeoutMs: 400,
  heartbeatMs: 60,
  linkLossDelayMs: 60,
  clockDriftMax: 0.05,
  promoteLagMax: 1_000,
  appendBytesMax: 1_048_576,
  inFlightMessagesMax: 256,
  inFlightBytesMax: 8_388_608,
  uncommittedBytesMax: 67_108_864,
  retainedBytesMax: 8_388_608,
  snapshotChunkBytes: 262_144,
};
