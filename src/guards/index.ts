/** The door `conclave/guards`: what refuses a stale token at the resource. */
export { fenceIfMatch, type TaggedResource, type TaggedState } from "./etag-fence.ts";
export type { Fenced } from "./fence.ts";
export { FencedFile } from "./file-fence.ts";
export {
  expressFence,
  FenceGate,
  type FenceGateOptions,
  type FenceMemory,
  fastifyFence,
  fenceHeader,
  fenceRefusal,
  honoFence,
  processFenceMemory,
  readFenceHeader,
} from "./http-fence.ts";
export { fenceRedis, type RedisCaller, type RedisFenceOptions } from "./redis-fence.ts";
export { fenceMysql, fencePostgres, fenceTable, type MysqlClient, type PostgresClient } from "./sql-fence.ts";
