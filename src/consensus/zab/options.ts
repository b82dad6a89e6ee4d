/**
 * Zab's knobs, all of them, with their defaults. The simulator turns them to extremes.
 */
export interface ZabOptions {
  /**
   * A follower that heard nothing for one to two times this long looks for a leader. Milliseconds. Default 400.
   * Shorter recovers sooner; longer survives longer pauses of the leader. At least ten round trips and syncs.
   */
  readonly electionTimeoutMs: number;
  /** A leader is heard at least this often. Milliseconds. Default 60; at most a quarter of the election timeout. */
  readonly pingMs: number;
  /** How long a majority for one leader is left open for a better one. Milliseconds. Default 20; nothing where all agree. */
  readonly finalizeMs: number;
  /** Entries of one proposal. Bytes. Default 1 MiB; one entry always fits. */
  readonly proposalBytesMax: number;
  /** Proposals to one follower that wait for its disk. Default 256. */
  readonly inFlightMessagesMax: number;
  /** The same in bytes. Default 8 MiB. */
  readonly inFlightBytesMax: number;
  /** Proposed and not committed; beyond it `submit` answers `busy`. Bytes. Default 64 MiB. */
  readonly uncommittedBytesMax: number;
  /** Kept in memory below the snapshot, for followers that lag a little. Bytes. Default 8 MiB. */
  readonly retainedBytesMax: number;
  /** Snapshot bytes of one message. Default 256 KiB. */
  readonly snapshotChunkBytes: number;
}

export const zabDefaults: ZabOptions = {
  electionTimeoutMs: 400,
  pingMs: 60,
  finalizeMs: 20,
  proposalBytesMax: 1_048_576,
  inFlightMessagesMax: 256,
  inFlightBytesMax: 8_388_608,
  uncommittedBytesMax: 67_108_864,
  retainedBytesMax: 8_388_608,
  snapshotChunkBytes: 262_144,
};
