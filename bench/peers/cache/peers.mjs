// The peers behind one shape, for `npm run bench -- races` and `npm run bench -- cache`. Plain JavaScript, because it is
// resolved from the folder beside it, where the bench installs them.
//
//   { name, hasTags, single(), pair?(redisPort) }
//   single() -> { get(key, load, options?), getSync?(key), delete(key), deleteTag?(tag), close() }
//   pair()   -> [one, two], on one Redis with their message bus; `slowL2(ms)` on the second delays its reads of L2
import { createRequire } from "node:module";
import { createCache as createDedupe } from "async-cache-dedupe";
import { BentoCache, bentostore } from "bentocache";
import { memoryDriver } from "bentocache/drivers/memory";
import { redisBusDriver, redisDriver } from "bentocache/drivers/redis";
import { createCache as createManager } from "cache-manager";
import { Cacheable } from "cacheable";
import { Redis } from "ioredis";
import { Loader } from "layered-loader";

const versions = JSON.parse(
  createRequire(import.meta.url)("node:fs").readFileSync(new URL("package.json", import.meta.url), "utf8"),
).dependencies;
const ttlMs = 60_000;
const noClose = () => Promise.resolve();

function bento(store) {
  const cache = new BentoCache({ default: "it", stores: { it: store } });
  return {
    get: (key, load, { tags } = {}) => cache.getOrSet({ key, factory: load, ttl: ttlMs, ...(tags ? { tags } : {}) }),
    delete: (key) => cache.delete({ key }),
    deleteTag: (tag) => cache.deleteByTag({ tags: [tag] }),
    close: () => cache.disconnectAll(),
  };
}

export const peers = [
  {
    name: "bentocache",
    version: versions.bentocache,
    hasTags: true,
    single: async () => bento(bentostore().useL1Layer(memoryDriver({ maxItems: 200_000 }))),
    pair: async (port) =>
      [1, 2].map(() => {
        const connection = new Redis({ host: "127.0.0.1", port });
        let delayMs = 0;
        const get = connection.get.bind(connection);
        connection.get = async (...args) => {
          const value = await get(...args);
          if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
          return value;
        };
        const node = bento(
          bentostore()
            .useL1Layer(memoryDriver({ maxItems: 200_000 }))
            .useL2Layer(redisDriver({ connection }))
            .useBus(redisBusDriver({ connection: { host: "127.0.0.1", port } })),
        );
        return {
          ...node,
          slowL2: (ms) => {
            delayMs = ms;
          },
        };
      }),
  },
  {
    name: "cache-manager",
    version: versions["cache-manager"],
    hasTags: false,
    single: async () => {
      const cache = createManager({ ttl: ttlMs });
      return { get: (key, load) => cache.wrap(key, load, ttlMs), delete: (key) => cache.del(key), close: noClose };
    },
  },
  {
    name: "cacheable",
    version: versions.cacheable,
    hasTags: true,
    single: async ({ tags = false } = {}) => {
      const cache = new Cacheable({ ttl: ttlMs, tags });
      return {
        get: (key, load, options = {}) =>
          cache.getOrSet(key, load, { ttl: ttlMs, ...(options.tags ? { tags: options.tags } : {}) }),
        delete: (key) => cache.delete(key),
        deleteTag: (tag) => cache.tags.invalidateTag(tag),
        close: noClose,
      };
    },
  },
  {
    name: "async-cache-dedupe",
    version: versions["async-cache-dedupe"],
    hasTags: false,
    single: async () => {
      const loads = new Map();
      const cache = createDedupe({ ttl: 60, storage: { type: "memory", options: { size: 200_000 } } });
      cache.define("it", (key) => loads.get(key)());
      return {
        get: (key, load) => {
          loads.set(key, load);
          return cache.it(key);
        },
        delete: (key) => cache.clear("it", key),
        close: noClose,
      };
    },
  },
  {
    name: "layered-loader",
    version: versions["layered-loader"],
    hasTags: false,
    single: async () => {
      const loads = new Map();
      const loader = new Loader({
        inMemoryCache: { cacheType: "lru-object", ttlInMsecs: ttlMs, maxItems: 200_000 },
        dataSources: [{ name: "it", get: (key) => loads.get(key)() }],
      });
      return {
        get: (key, load) => {
          loads.set(key, load);
          return loader.get(key);
        },
        getSync: (key) => loader.getInMemoryOnly(key),
        delete: (key) => loader.invalidateCacheFor(key),
        close: noClose,
      };
    },
  },
];
