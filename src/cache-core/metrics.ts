/**
 * Counters of one cache since it was made. Read them as often as you like; only ever growing, but for the last group.
 */
export interface CacheMetrics {
  /** Answered from this process. */
  hits: number;
  /** Answered from L2. */
  l2Hits: number;
  /** Found in neither, or not fit to be served. */
  misses: number;
  /** Loads begun, and those of them that failed or took too long. */
  loads: number;
  loadFailures: number;
  loadTimeouts: number;
  /** Reads that waited for a load begun for another one. */
  joined: number;
  /** Reads answered with an expired value in its grace. */
  staleServed: number;
  /** Loads begun before the value expired. */
  earlyRefreshes: number;
  /** Values thrown away, or never kept, because they were invalidated. */
  invalidated: number;
  /** Reads sent to the origin because the invalidations were not known to be current. */
  distrusted: number;
  /** Loads that another process did for us. */
  leasesAwaited: number;
  /** Loads without a lease, because the Store did not answer in time: another process may have loaded the same. */
  leasesUnknown: number;
  /** Loads without a lease, because another process held it for longer than `leaseWaitMs`. */
  leasesGivenUp: number;
  /** L2: answers that did not come, and bytes that were not stored so. */
  l2Failures: number;
  l2Poisoned: number;
  notSerializable: number;
  /** How old the proof was, at most, when a read looked for a hit and was allowed one: never above `maxStaleMs`. */
  proofAgeMsMax: number;
}

export function noMetrics(): CacheMetrics {
  return {
    hits: 0,
    l2Hits: 0,
    misses: 0,
    loads: 0,
    loadFailures: 0,
    loadTimeouts: 0,
    joined: 0,
    staleServed: 0,
    earlyRefreshes: 0,
    invalidated: 0,
    distrusted: 0,
    leasesAwaited: 0,
    leasesUnknown: 0,
    leasesGivenUp: 0,
    l2Failures: 0,
    l2Poisoned: 0,
    notSerializable: 0,
    proofAgeMsMax: 0,
  };
}
