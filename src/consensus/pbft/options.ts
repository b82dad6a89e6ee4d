/** The knobs of a PBFT replica. All replicas of a cluster need the same `checkpointEvery`, `windowLength`, `replyParts` and limits. */

export interface PbftOptions {
  /** A checkpoint after so many sequences. 1-10_000. Default 64. Fewer costs digests, more costs memory. */
  readonly checkpointEvery: number;
  /** How far the high watermark is above the last stable checkpoint. At least 2 * checkpointEvery. Default 256. */
  readonly windowLength: number;
  /** How long the oldest known request may wait before the primary is suspected. Milliseconds. Default 1_000. */
  readonly viewChangeTimeoutMs: number;
  /** The same wait doubles with every view change that brought nothing, up to this. Default 60_000. */
  readonly viewChangeTimeoutMsMax: number;
  /** How often a replica with something open tells the others where it is. Default 100. */
  readonly statusMs: number;
  /** The same with nothing open. Default 1_000. */
  readonly statusIdleMs: number;
  /**
   * Batches in agreement at a time. Default 1: what comes meanwhile shares the next batch and its signatures, which cost more than all
   * else. More shortens the wait where the way between replicas is long and their processors are idle.
   */
  readonly pipelineMax: number;
  /** Frames of one batch. Default 64. */
  readonly batchFramesMax: number;
  /** Bytes of one batch. Default 1_048_576. */
  readonly batchBytesMax: number;
  /** Requests waiting at a replica; more are dropped, and their clients send again. Default 4_096. */
  readonly pendingMax: number;
  /** Lanes of one client. Default 16. */
  readonly lanesMax: number;
  /** Different batches kept for one sequence across views. Default 4. */
  readonly batchesKeptMax: number;
  /** Sequences sent again in answer to one status. Default 16. */
  readonly resendMax: number;
  /** Parts that hold the last replies; each is fetched as one message. The same on all replicas. Default 64. */
  readonly replyParts: number;
  /** Parts of a checkpoint asked for at a time. Default 8. */
  readonly partsInFlightMax: number;
}

export const pbftDefaults: PbftOptions = {
  checkpointEvery: 64,
  windowLength: 256,
  viewChangeTimeoutMs: 1_000,
  viewChangeTimeoutMsMax: 60_000,
  statusMs: 100,
  statusIdleMs: 1_000,
  pipelineMax: 1,
  batchFramesMax: 64,
  batchBytesMax: 1_048_576,
  pendingMax: 4_096,
  lanesMax: 16,
  batchesKeptMax: 4,
  resendMax: 16,
  replyParts: 64,
  partsInFlightMax: 8,
};
