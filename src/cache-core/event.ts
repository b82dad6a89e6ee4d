/**
 * What a cache tells of itself, beyond its counters: rare things that somebody should see.
 */
export type CacheEvent =
  /** The proof that the invalidations are current is too old: reads go to the origin until there is a new one. */
  | { readonly kind: "cache.distrusted"; readonly cache: string; readonly sinceProofMs: number }
  | { readonly kind: "cache.trusted"; readonly cache: string; readonly afterMs: number }
  /** The stream of invalidations was read anew from the store's state. */
  | { readonly kind: "cache.resynced"; readonly cache: string; readonly revision: number; readonly why: string }
  | { readonly kind: "cache.l2-open"; readonly cache: string; readonly failures: number; readonly why: string }
  | { readonly kind: "cache.l2-closed"; readonly cache: string }
  | { readonly kind: "cache.load-failed"; readonly cache: string; readonly key: string; readonly why: string }
  | { readonly kind: "cache.not-serializable"; readonly cache: string; readonly key: string; readonly why: string }
  | { readonly kind: "cache.poisoned"; readonly cache: string; readonly key: string; readonly why: string };
