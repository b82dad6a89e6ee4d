/**
 * L2 on Redis or Valkey, through a client of the shape of `@redis/client` 5 and later.
 *
 * Reads that are asked for together (by one piece of code, or by all who were called back at once) go out as one command: GET for
 * one, MGET for more, which costs client and server a fraction of as many GETs. When a value expires is judged by the server's clock, learnt by TIME now and then: wall clocks of
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
  /** The same client, with these options for each command. */
  withCommandOptions?(options: { readonly timeout: number }): RedisClient;
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
/**
 * After those who are called back now. `process.nextTick` would wait for those as well whom they call back in turn, and costs
 * each read that is alone one more way from Node's own code into ours and back: 0.2 us, a tenth of what a hit adds to its GET.
 */
const soon = Promise.resolve();
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

/** A key as Redis knows it, and who waits for it. A class for the reason given at `Call` in guarded-l2.ts. */
class Asked {
  readonly key: string;
  readonly reader: L2Reader;

  constructor(key: string, reader: L2Reader) {
    this.key = key;
    this.reader = reader;
  }
}

class RedisL2 implements L2 {
  readonly name = "redis";
  readonly #client: RedisClient;
  /** For what is read: it has no deadline of its own, said once and not with each command. */
  readonly #reading: Pick<RedisClient, "sendCommand">;
  readonly #prefix: string;
  readonly #clock = new ServerClock();
  #askedMs = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  readonly #keysMax: number;
  /** To be read by the next command. */
  #first: Asked | undefined;
  /** And who came after it: most often nobody, and then no list is made. */
  #others: Asked[] | undefined;
  readonly #send = (): void => {
    const [first, others] = [this.#first as Asked, this.#others];
    this.#first = undefined;
    this.#others = undefined;
    if (others === undefined) {
      this.#askOne(first);
      return;
    }
    const asked = [first, ...others];
    for (let from = 0; from < asked.length; from += this.#keysMax) this.#askMany(asked.slice(from, from + this.#keysMax));
  };

  constructor(client: RedisClient, prefix: string, keysMax: number) {
    this.#client = client;
    this.#reading = client.withCommandOptions?.(ownDeadline) ?? {
      sendCommand: (command) => client.sendCommand(command, ownDeadline),
    };
    this.#prefix = prefix;
    this.#keysMax = keysMax;
    this.clockMs();
  }

  get(key: string): Promise<string | null> {
    return new Promise((resolve, reject) => this.read(key, { onAnswer: resolve, onError: reject }));
  }

  read(key: string, reader: L2Reader): void {
    this.#assertReady();
    const asked = new Asked(this.#prefix + storedKey(key), reader);
    if (this.#first !== undefined) {
      this.#others ??= [];
      this.#others.push(asked);
      return;
    }
    this.#first = asked;
    void soon.then(this.#send);
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

  #askOne({ key, reader }: Asked): void {
    try {
      this.#reading.sendCommand(["GET", key]).then(
        (answer) => reader.onAnswer(textOf(answer)),
        (error: unknown) => reader.onError(error),
      );
    } catch (error) {
      reader.onError(error);
    }
  }

  #askMany(asked: readonly Asked[]): void {
    const onAnswer = (answer: unknown): void => {
      const answers = answer as readonly unknown[] | null;
      for (let at = 0; at < asked.length; at++) asked[at]?.reader.onAnswer(textOf(answers?.[at]));
    };
    const onError = (error: unknown): void => {
      for (const { reader } of asked) reader.onError(error);
    };
    try {
      this.#reading.sendCommand(["MGET", ...asked.map(({ key }) => key)]).then(onAnswer, onError);
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

/** Of Node since 20, and of ES2024. */
type WellFormedText = string & { isWellFormed(): boolean };

/** Half a surrogate pair has no UTF-8 of its own: two such keys would be one. */
function storedKey(key: string): string {
  if (key.length <= keyLengthMax && (key as WellFormedText).isWellFormed()) return key;
  return digestOf(key);
}
