/**
 * L2 on Redis or Valkey, through a client of the shape of `@redis/client` 5 and later.
 *
 * Reads of one turn of the event loop go out as one command: GET for one, MGET for more, which costs client and server a
 * fraction of as many GETs. When a value expires is judged by the server's clock, learnt by TIME now and then: wall clocks of
 * processes play no part, and one that is ten minutes off changes nothing.
 * A client that is not connected is not asked: its queue would grow while nobody waits for it any more.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { L2, L2Reader } from "../cache-core/l2.ts";
import { digestOf } from "./key-digest.ts";
import { ServerClock } from "./server-clock.ts";

/** What is used of `@redis/client`'s `createClient()`. */
export interface RedisClient {
  /** `timeout`: the client's own, of which the cache needs none: it has its deadline. */
  sendCommand(command: readonly string[], options?: { readonly timeout?: number }): Promise<unknown>;
  readonly isReady?: boolean;
}

export interface RedisL2Options {
  readonly client: RedisClient;
  /** Before each key. Default "conclave:cache:". A cache adds its name. */
  readonly prefix?: string;
  /** Keys read by one MGET, 1-1_000. Default 50. More wait less for each other's commands and longer for each other's bytes. */
  readonly keysMax?: number;
}

/** Longer keys are stored under their digest: the checksum of the value vouches for the whole key. */
const keyLengthMax = 512;
const clockEveryMs = 10_000;
/**
 * While the interval is wider it is asked again and again, whether a read comes or not: a value's TTL is shorter or longer by as
 * much in another process, and the first answers of a process come while it starts, often hundreds of milliseconds late.
 */
const sureMs = 10;
const unsurePauseMs = 20;
const unsureAsksMax = 10;
const ownDeadline = { timeout: 0 };
/** PX beyond this is "for ever". */
const ttlMsMax = 2 ** 46;

/** @throws FOREIGN_CLIENT @since 0.1.0 */
export function redisL2({ client, prefix = "conclave:cache:", keysMax = 50 }: RedisL2Options): (cacheName: string) => L2 {
  if (typeof client?.sendCommand !== "function") {
    throw conclaveError(
      "FOREIGN_CLIENT",
      "The client for L2 has no method `sendCommand`: a client of @redis/client 5 or later does.",
    );
  }
  if (!Number.isSafeInteger(keysMax) || keysMax < 1 || keysMax > 1_000) {
    throw conclaveError("INVALID_OPTION", `\`keysMax\` is ${keysMax}; it must be a whole number from 1 to 1,000.`);
  }
  return (cacheName) => new RedisL2(client, `${prefix}${cacheName}:`, keysMax);
}

class RedisL2 implements L2 {
  readonly name = "redis";
  readonly #client: RedisClient;
  readonly #prefix: string;
  readonly #clock = new ServerClock();
  #askedMs = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  readonly #keysMax: number;
  /** To be read by the next commands; they go out once this turn's promises have run. */
  #keys: string[] = [];
  /** Of each key, who waits for it. */
  #readers: L2Reader[] = [];
  readonly #send = (): void => {
    const [keys, readers] = [this.#keys, this.#readers];
    [this.#keys, this.#readers] = [[], []];
    for (let from = 0; from < keys.length; from += this.#keysMax) {
      const to = from + this.#keysMax;
      this.#ask(keys.slice(from, to), readers.slice(from, to));
    }
  };

  constructor(client: RedisClient, prefix: string, keysMax: number) {
    this.#client = client;
    this.#prefix = prefix;
    this.#keysMax = keysMax;
    this.clockMs();
  }

  get(key: string): Promise<string | null> {
    return new Promise((resolve, reject) => this.read(key, { onAnswer: resolve, onError: reject }));
  }

  read(key: string, reader: L2Reader): void {
    this.#assertReady();
    this.#readers.push(reader);
    if (this.#keys.push(this.#prefix + storedKey(key)) === 1) process.nextTick(this.#send);
  }

  async set(key: string, text: string, ttlMs: number): Promise<void> {
    this.#assertReady();
    const expiry = ttlMs < ttlMsMax ? ["PX", String(Math.ceil(ttlMs))] : [];
    await this.#client.sendCommand(["SET", this.#prefix + storedKey(key), text, ...expiry], ownDeadline);
  }

  async delete(key: string): Promise<void> {
    this.#assertReady();
    await this.#client.sendCommand(["DEL", this.#prefix + storedKey(key)], ownDeadline);
  }

  clockMs(_key?: string, nowMs = performance.now()): number | undefined {
    if (nowMs - this.#askedMs > clockEveryMs && !this.#isAsking && this.#client.isReady !== false) {
      this.#isAsking = true;
      this.#askedMs = nowMs;
      background(this.#learnClock(), "learn the clock of Redis");
    }
    const { aheadMs } = this.#clock;
    return aheadMs === undefined ? undefined : nowMs + aheadMs;
  }

  /** GET answers with one text, MGET with a list of them. */
  #ask(keys: readonly string[], readers: readonly L2Reader[]): void {
    const isOne = keys.length === 1;
    const onAnswer = (answer: unknown): void => {
      const answers = (isOne ? [answer] : answer) as readonly unknown[] | null;
      for (let at = 0; at < readers.length; at++) readers[at]?.onAnswer(textOf(answers?.[at]));
    };
    const onError = (error: unknown): void => {
      for (const reader of readers) reader.onError(error);
    };
    try {
      this.#client.sendCommand([isOne ? "GET" : "MGET", ...keys], ownDeadline).then(onAnswer, onError);
    } catch (error) {
      onError(error);
    }
  }

  /** Never rejects: where nobody answers it is asked again at the next use, and what is known goes on being used. */
  async #learnClock(): Promise<void> {
    try {
      for (let ask = 1, pauseMs = unsurePauseMs; ; ask++, pauseMs *= 2) {
        const sentMs = performance.now();
        const [seconds, micros] = (await this.#client.sendCommand(["TIME"])) as readonly [string, string];
        const nowMs = performance.now();
        this.#clock.learn({ readMs: Number(seconds) * 1_000 + Number(micros) / 1_000, stepMs: 0.001, sentMs, nowMs });
        if (this.#clock.widthMs(nowMs) <= sureMs || ask === unsureAsksMax) return;
        await new Promise((resolve) => setTimeout(resolve, pauseMs).unref());
      }
    } catch {
      this.#askedMs = Number.NEGATIVE_INFINITY;
    } finally {
      this.#isAsking = false;
    }
  }

  #assertReady(): void {
    if (this.#client.isReady === false) throw conclaveError("CONNECTION_REFUSED", "The Redis client is not connected.");
  }
}

function textOf(answer: unknown): string | null {
  if (typeof answer === "string") return answer;
  return answer === null || answer === undefined ? null : String(answer);
}

/** Half a surrogate pair has no UTF-8 of its own: two such keys would be one. */
function storedKey(key: string): string {
  if (key.length <= keyLengthMax && !/\p{Surrogate}/u.test(key)) return key;
  return digestOf(key);
}
