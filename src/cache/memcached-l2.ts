/**
 * L2 on memcached, through a client of the shape of `memjs` 1.
 *
 * memcached tells its time in whole seconds (`stats`). The moment at which a second begins is bounded by asking now and then:
 * each answer says that the server's clock was within [s, s + 1) somewhere between question and answer, and what all answers
 * leave is an interval; its middle is taken. So two processes judge a value's end up to a second apart, less with each answer.
 * memcached gives up values when it pleases and knows no clusters: both cost loads. For many servers: `shardedL2`, one each.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { L2 } from "../cache-core/l2.ts";
import { digestOf } from "./key-digest.ts";
import { ServerClock } from "./server-clock.ts";

/** What is used of `memjs`' `Client.create(...)`. */
export interface MemcachedClient {
  get(key: string): Promise<{ readonly value: Uint8Array | null }>;
  set(key: string, value: string, options: { readonly expires: number }): Promise<unknown>;
  delete(key: string): Promise<unknown>;
  /** Calls back once per server. */
  stats(callback: (error: Error | null, server: unknown, stats: Readonly<Record<string, string>> | null) => void): void;
}

export interface MemcachedL2Options {
  /** Of one server. */
  readonly client: MemcachedClient;
  /** Before each key. Default "conclave:cache:". A cache adds its name. */
  readonly prefix?: string;
  /** Longer values are not written: the server would refuse them. Bytes, default 1_000_000 (the server's own is 1 MiB). */
  readonly valueBytesMax?: number;
}

/** The protocol's bound is 250; longer keys, and those of anything but printable ASCII, are stored under their digest. */
const keyLengthMax = 200;
const askEveryMs = 10_000;
/** Until the interval is this narrow it is asked more often. */
const sureMs = 300;
const unsureEveryMs = 170;
/** Longer expiries would be read as moments: such values are kept until they are given up for others. */
const expiresMax = 30 * 24 * 3_600;

/** @throws FOREIGN_CLIENT, INVALID_OPTION @since 0.2.0 */
export function memcachedL2(options: MemcachedL2Options): (cacheName: string) => L2 {
  const { client, prefix = "conclave:cache:", valueBytesMax = 1_000_000 } = options;
  for (const method of ["get", "set", "delete", "stats"] as const) {
    if (typeof client?.[method] === "function") continue;
    throw conclaveError("FOREIGN_CLIENT", `The client for L2 has no method \`${method}\`: a client of memjs does.`);
  }
  if (!Number.isSafeInteger(valueBytesMax) || valueBytesMax < 1) {
    throw conclaveError("INVALID_OPTION", `\`valueBytesMax\` is ${valueBytesMax}; it must be a whole number from 1.`);
  }
  return (cacheName) => new MemcachedL2(client, { prefix: `${prefix}${cacheName}:`, valueBytesMax });
}

class MemcachedL2 implements L2 {
  readonly name = "memcached";
  readonly #client: MemcachedClient;
  readonly #prefix: string;
  readonly #valueBytesMax: number;
  readonly #clock = new ServerClock();
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(client: MemcachedClient, { prefix, valueBytesMax }: { readonly prefix: string; readonly valueBytesMax: number }) {
    this.#client = client;
    this.#prefix = prefix;
    this.#valueBytesMax = valueBytesMax;
    this.clockMs();
  }

  async get(key: string): Promise<string | null> {
    const { value } = await this.#client.get(this.#storedKey(key));
    return value === null || value === undefined ? null : Buffer.from(value).toString("utf8");
  }

  async set(key: string, text: string, ttlMs: number): Promise<void> {
    // What stands there is older: who cannot be written over must not stay, or every miss would read it in vain.
    if (Buffer.byteLength(text) > this.#valueBytesMax) return this.delete(key);
    // A second more: the server counts whole ones, and the value's own times say exactly when it is over.
    const expires = Math.ceil(ttlMs / 1_000) + 1;
    await this.#client.set(this.#storedKey(key), text, { expires: expires <= expiresMax ? expires : 0 });
  }

  async delete(key: string): Promise<void> {
    await this.#client.delete(this.#storedKey(key));
  }

  clockMs(): number | undefined {
    const nowMs = performance.now();
    const everyMs = this.#clock.widthMs(nowMs) <= sureMs ? askEveryMs : unsureEveryMs;
    if (nowMs - this.#askedMs > everyMs) {
      this.#askedMs = nowMs;
      background(
        this.#ask().catch(() => undefined),
        "learn the clock of memcached",
      );
    }
    return this.#clock.aheadMs === undefined ? undefined : nowMs + this.#clock.aheadMs;
  }

  async #ask(): Promise<void> {
    const sentMs = performance.now();
    const stats = await new Promise<Readonly<Record<string, string>> | null>((resolve, reject) => {
      this.#client.stats((error, _, answer) => (error === null ? resolve(answer) : reject(error)));
    });
    const seconds = Number(stats?.["time"]);
    if (Number.isSafeInteger(seconds)) {
      this.#clock.learn({ readMs: seconds * 1_000, stepMs: 1_000, sentMs, nowMs: performance.now() });
    }
  }

  #storedKey(key: string): string {
    const whole = this.#prefix + key;
    if (whole.length <= keyLengthMax && /^[!-~]*$/.test(whole)) return whole;
    return digestOf(whole);
  }
}
