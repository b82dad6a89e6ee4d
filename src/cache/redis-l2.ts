/**
 * L2 on Redis or Valkey, through a client of the shape of `@redis/client` 5 and later.
 *
 * A hit is one plain GET. When a value expires is judged by the server's clock, learnt by TIME now and then: wall clocks of
 * processes play no part, and one that is ten minutes off changes nothing.
 * A client that is not connected is not asked: its queue would grow while nobody waits for it any more.
 */
import { createHash } from "node:crypto";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { L2 } from "../cache-core/l2.ts";

/** What is used of `@redis/client`'s `createClient()`. */
export interface RedisClient {
  get(key: string): Promise<unknown>;
  sendCommand(command: readonly string[]): Promise<unknown>;
  readonly isReady?: boolean;
}

export interface RedisL2Options {
  readonly client: RedisClient;
  /** Before each key. Default "conclave:cache:". A cache adds its name. */
  readonly prefix?: string;
}

/** Longer keys are stored under their digest: the checksum of the value vouches for the whole key. */
const keyLengthMax = 512;
const clockEveryMs = 10_000;
/** PX beyond this is "for ever". */
const ttlMsMax = 2 ** 46;

/** @throws FOREIGN_CLIENT @since 0.1.0 */
export function redisL2({ client, prefix = "conclave:cache:" }: RedisL2Options): (cacheName: string) => L2 {
  for (const method of ["get", "sendCommand"] as const) {
    if (typeof client?.[method] !== "function") {
      throw conclaveError(
        "FOREIGN_CLIENT",
        `The client for L2 has no method \`${method}\`: a client of @redis/client 5 or later does.`,
      );
    }
  }
  return (cacheName) => new RedisL2(client, `${prefix}${cacheName}:`);
}

class RedisL2 implements L2 {
  readonly name = "redis";
  readonly #client: RedisClient;
  readonly #prefix: string;
  /** Server's clock minus ours. */
  #aheadMs: number | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(client: RedisClient, prefix: string) {
    this.#client = client;
    this.#prefix = prefix;
    this.clockMs();
  }

  async get(key: string): Promise<string | null> {
    this.#assertReady();
    const answer = await this.#client.get(this.#prefix + storedKey(key));
    if (answer === null || typeof answer === "string") return answer;
    return String(answer);
  }

  async set(key: string, text: string, ttlMs: number): Promise<void> {
    this.#assertReady();
    const expiry = ttlMs < ttlMsMax ? ["PX", String(Math.ceil(ttlMs))] : [];
    await this.#client.sendCommand(["SET", this.#prefix + storedKey(key), text, ...expiry]);
  }

  async delete(key: string): Promise<void> {
    this.#assertReady();
    await this.#client.sendCommand(["DEL", this.#prefix + storedKey(key)]);
  }

  clockMs(): number | undefined {
    const nowMs = performance.now();
    if (nowMs - this.#askedMs > clockEveryMs && this.#client.isReady !== false) {
      this.#askedMs = nowMs;
      background(
        this.#learnClock().catch(() => {
          // Asked again at the next use; what is known goes on being used.
          this.#askedMs = Number.NEGATIVE_INFINITY;
        }),
        "learn the clock of Redis",
      );
    }
    return this.#aheadMs === undefined ? undefined : nowMs + this.#aheadMs;
  }

  async #learnClock(): Promise<void> {
    const sentMs = performance.now();
    const [seconds, micros] = (await this.#client.sendCommand(["TIME"])) as readonly [string, string];
    const serverMs = Number(seconds) * 1_000 + Number(micros) / 1_000;
    // Half of the way there and back: half a round trip wrong at most.
    this.#aheadMs = serverMs - (sentMs + performance.now()) / 2;
  }

  #assertReady(): void {
    if (this.#client.isReady === false) throw conclaveError("CONNECTION_REFUSED", "The Redis client is not connected.");
  }
}

/** Half a surrogate pair has no UTF-8 of its own: two such keys would be one. */
function storedKey(key: string): string {
  if (key.length <= keyLengthMax && !/\p{Surrogate}/u.test(key)) return key;
  return `#${createHash("sha256").update(Buffer.from(key, "utf16le")).digest("base64url")}`;
}
