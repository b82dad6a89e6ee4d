/**
 * Where an outbox's events go: over HTTP, into a Redis stream, into the store's own queue, or wherever you implement `Sink`.
 *
 * A sink gets events in order and answers for all of them: those that it took must be durable where it put them. It may get them
 * again. `token` rises with each relay that takes over: whoever can compare it refuses a relay that slept and came back.
 */
import { conclaveError } from "../base/errors.ts";
import type { StoreSource } from "../recipes/options.ts";
import { createQueue, type QueueOptions } from "../recipes/queue.ts";
import type { OutboxEvent } from "./outbox.ts";

export interface Sink {
  /** Rejects when it did not take all of them; they are offered again, from the first. */
  publish(
    events: readonly OutboxEvent[],
    options: { readonly outbox: string; readonly token: number; readonly signal: AbortSignal },
  ): Promise<void>;
}

/**
 * One POST for each batch: `{ "events": [{ id, topic, key, payload, atMs }] }`, with the header Fence-Token that
 * `conclave/guards` reads. Any answer but a 2xx counts as not taken.
 * @throws INVALID_OPTION @since 0.2.0
 */
export function httpSink({
  url,
  headers = {},
  timeoutMs = 10_000,
}: {
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds. Default 10_000. */
  readonly timeoutMs?: number;
}): Sink {
  if (!/^https?:\/\/\S+$/.test(url)) throw conclaveError("INVALID_OPTION", "`url` must be http:// or https://.");
  return {
    publish: async (events, { outbox, token, signal }) => {
      const ending = new AbortController();
      const onAbort = (): void => ending.abort(signal.reason);
      const late = (): void => ending.abort(conclaveError("TIMEOUT", `${url} did not take the events within ${timeoutMs} ms.`));
      const timer = setTimeout(late, timeoutMs);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        signal.throwIfAborted();
        const response = await fetch(url, {
          method: "POST",
          headers: {
            ...headers,
            "content-type": "application/json",
            "fence-token": `"${encodeURIComponent(`outbox/${outbox}`)}"=${token}`,
          },
          body: JSON.stringify({ events }),
          redirect: "manual",
          signal: ending.signal,
        });
        await response.body?.cancel();
        if (!response.ok) {
          // 412: another relay has been there with a higher token.
          const code = response.status === 412 ? "STALE_TOKEN" : "PROTOCOL";
          throw conclaveError(code, `${url} answered the events of outbox ${outbox} with ${response.status}.`);
        }
      } finally {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}

/** What is used of a Redis client. `@redis/client` has `sendCommand`, ioredis has `call`. */
export type RedisSender =
  | { sendCommand(args: readonly string[]): Promise<unknown> }
  | { call(command: string, ...args: readonly string[]): Promise<unknown> };

// One script for the batch: compares the token, then adds all. Tokens are compared as numbers: below 2^53 a double is exact.
const script = `local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
local mine = tonumber(ARGV[1])
if seen > mine then return seen end
if seen < mine then redis.call('SET', KEYS[1], ARGV[1]) end
for at = 4, #ARGV, 5 do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'id', ARGV[at], 'topic', ARGV[at+1], 'key', ARGV[at+2], 'payload', ARGV[at+3], 'atMs', ARGV[at+4])
end
return 0`;

/**
 * One entry of a Redis stream for each event, with the fields `id`, `topic`, `key`, `payload` and `atMs`. As durable as that
 * server is. The token lies beside the stream, in its hash slot: name the stream with braces, `{events}`, on a Cluster.
 * @throws FOREIGN_CLIENT @since 0.2.0
 */
export function redisStreamSink({
  client,
  stream,
  lengthMax = 1_000_000,
}: {
  readonly client: RedisSender;
  readonly stream: string;
  /** About so many entries are kept. Default 1_000_000. */
  readonly lengthMax?: number;
}): Sink {
  const isCall = "call" in client && typeof client.call === "function";
  if (!isCall && !("sendCommand" in client && typeof client.sendCommand === "function")) {
    throw conclaveError("FOREIGN_CLIENT", "The Redis client has neither `sendCommand` nor `call`.");
  }
  const fence = stream.includes("{") ? `${stream}:fence` : `{${stream}}:fence`;
  return {
    publish: async (events, { outbox, token }) => {
      const fields = events.flatMap(({ id, topic, key, payload, atMs }) => [
        id,
        topic,
        key,
        JSON.stringify(payload),
        String(atMs),
      ]);
      const words = ["2", fence, stream, String(token), String(lengthMax), outbox, ...fields];
      const seen = Number(
        "call" in client && isCall
          ? await client.call("EVAL", script, ...words)
          : await (client as { sendCommand(args: readonly string[]): Promise<unknown> }).sendCommand(["EVAL", script, ...words]),
      );
      if (seen > 0) throw conclaveError("STALE_TOKEN", `Stream ${stream} has seen token ${seen}; this relay has ${token}.`);
    },
  };
}

/** Items of the store's own queue, one for each event, under the event's id: one that still waits there is not put twice. @since 0.2.0 */
export function queueSink(engine: StoreSource, name: string, options?: QueueOptions): Sink {
  const queue = createQueue(engine, name, options);
  return {
    publish: async (events, { signal }) => {
      for (const event of events) await queue.push(event, { id: event.id, signal });
    },
  };
}
