/**
 * The door `conclave/cache`: coherent caches on any store that Conclave speaks to.
 */
export type { ManyValues } from "../cache-core/batch-load.ts";
export { Cache, type Explanation, type Load, type LoadMany } from "../cache-core/cache.ts";
export type { CacheEvent } from "../cache-core/event.ts";
export type { Target } from "../cache-core/invalidation.ts";
export type { L1Policy } from "../cache-core/l1/l1.ts";
export type { Codec, L2 } from "../cache-core/l2.ts";
export { LoadContext } from "../cache-core/load-context.ts";
export type { CacheMetrics } from "../cache-core/metrics.ts";
export {
  type CacheOptions,
  cacheDefaults,
  type ReadManyOptions,
  type ReadOptions,
  type WriteOptions,
} from "../cache-core/options.ts";
export { type CreateCacheOptions, createCache } from "./create-cache.ts";
export { type MemcachedClient, type MemcachedL2Options, memcachedL2 } from "./memcached-l2.ts";
export { type RedisClient, type RedisL2Options, redisL2 } from "./redis-l2.ts";
export { type L2Node, type ShardedL2Options, shardedL2 } from "./sharded-l2.ts";
export { type Invalidatable, SqlOutbox, type SqlOutboxOptions } from "./sql-outbox.ts";
export type { MysqlConnection, MysqlPool, SqlClient, SqlPool } from "./sql-outbox-database.ts";
export { textCodec } from "./text-codec.ts";
