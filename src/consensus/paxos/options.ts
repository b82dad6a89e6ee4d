/**
 * Multi-Paxos' knobs, all of them, with their defaults. The simulator turns them to extremes ("buggify": windows of one,
 * pages of one entry) because rare branches hide behind generous limits.
 */
export interface PaxosOptions {
  /**
   * A member that heard no leader for one to two times this long tries to take over; until then it helps nobody to.
   * Milliseconds. Default 400. Shorter recovers sooner; longer survives longer pauses. At least ten round trips and syncs.
   */
  readonly electionTimeoutMs: number;
  /** A leader is heard at least this often. Milliseconds. Default 60; at most a quarter of the election timeout. */
  readonly heartbeatMs: number;
  /** A member whose connection to the leader broke tries within this long: a killed process is noticed at once. Milliseconds. Default 60. */
  readonly linkLossDelayMs: number;
  /** Entries of one letter: accept, promise, learn. Bytes. Default 1 MiB; one entry always fits. */
  readonly messageBytesMax: number;
  /** Accepts to one member that wait for its disk. Default 256. */
  readonly inFlightMessagesMax: number;
  /** The same in bytes. Default 8 MiB. */
  readonly inFlightBytesMax: number;
  /** Slots proposed and not chosen, PMMC's WINDOW; beyond it `submit` answers `busy`. Default 8_192. */
  readonly windowSlots: number;
  /** The same in bytes. Default 64 MiB. */
  readonly windowBytes: number;
  /** What a member that lags accepts ahead of what it has learned, in bytes; it drops accepts beyond. Default 128 MiB. */
  readonly unlearnedBytesMax: number;
  /** Kept in memory below the snapshot, for members that lag a little. Bytes. Default 8 MiB. */
  readonly retainedBytesMax: number;
  /** Snapshot bytes of one letter. Default 256 KiB. */
  readonly snapshotChunkBytes: number;
}

export const paxosDefaults: PaxosOptions = {
  electionTimeoutMs: 400,
  heartbeatMs: 60,
  linkLossDelayMs: 60,
  messageBytesMax: 1_048_576,
  inFlightMessagesMax: 256,
  inFlightBytesMax: 8_388_608,
  windowSlots: 8_192,
  windowBytes: 67_108_864,
  unlearnedBytesMax: 134_217_728,
  retainedBytesMax: 8_388_608,
  snapshotChunkBytes: 262_144,
};
