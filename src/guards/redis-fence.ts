/**
 * A fence in Redis: one script that checks the token and runs the command, or refuses both.
 *
 * The fence lies in a key of its own beside the data, in the same hash slot: put the resource's name in braces in both,
 * `{invoice:42}` and `{invoice:42}:fence`. It is as durable as the server is: a failover that loses writes may lose a raise.
 */
import { conclaveError } from "../base/errors.ts";
import { checkFenced, type Fenced, staleToken } from "./fence.ts";

/** What is used of a Redis client. `@redis/client` has `sendCommand`, ioredis has `call`. */
export type RedisCaller =
  | { sendCommand(args: readonly string[]): Promise<unknown> }
  | { call(command: string, ...args: readonly string[]): Promise<unknown> };

export interface RedisFenceOptions extends Fenced {
  /** The key that keeps the highest token. Default: `{name}:fence`. */
  readonly fenceKey?: string;
  /** The keys that the command touches: Redis Cluster routes by them. */
  readonly keys: readonly string[];
  /** The command with all its arguments. */
  readonly command: readonly [string, ...string[]];
}

// Tokens are compared as numbers: below 2^53 a double is exact.
const script = `local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
local mine = tonumber(ARGV[1])
if seen > mine then return {0, tostring(seen)} end
if seen < mine then redis.call('SET', KEYS[1], ARGV[1]) end
return {1, redis.call(unpack(ARGV, 2))}`;

/**
 * Runs a command unless a higher token has been here; answers with the command's reply. One round trip.
 * @throws STALE_TOKEN (the command did not run), INVALID_OPTION, FOREIGN_CLIENT, and what the client throws (may have happened)
 */
export async function fenceRedis(client: RedisCaller, options: RedisFenceOptions): Promise<unknown> {
  checkFenced(options);
  const { name, token, fenceKey = `{${name}}:fence`, keys, command } = options;
  const words = ["EVAL", script, String(keys.length + 1), fenceKey, ...keys, String(token), ...command] as const;
  const reply = await send(client, words);
  if (!Array.isArray(reply))
    throw conclaveError("PROTOCOL", "Redis answered the fence's script with something else than a list.");
  if (Number(reply[0]) === 1) return reply[1];
  throw staleToken(options, Number(reply[1]));
}

function send(client: RedisCaller, [command, ...args]: readonly [string, ...string[]]): Promise<unknown> {
  if ("sendCommand" in client && typeof client.sendCommand === "function" && !("call" in client)) {
    return client.sendCommand([command, ...args]);
  }
  if ("call" in client && typeof client.call === "function") return client.call(command, ...args);
  throw conclaveError("FOREIGN_CLIENT", "The Redis client has neither `sendCommand` nor `call`.");
}
