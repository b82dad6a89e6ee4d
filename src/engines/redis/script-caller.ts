/**
 * Runs the scripts of one group: adds the keys and what every script wants to know of its client.
 */

import type { LinkCall, RedisLink } from "./link.ts";
import type { Argument, Reply } from "./resp.ts";
import { keyLetters, type Script } from "./scripts.ts";

export interface ScriptCallerOptions {
  readonly link: RedisLink;
  /** The hash tag. */
  readonly group: string;
  /** How much longer than the longest TTL a failover is waited out; -1: not at all. */
  readonly quarantineMs: number;
  readonly replicas: number;
  readonly ttlMsDefault: number;
}

export class ScriptCaller {
  readonly #options: ScriptCallerOptions;
  readonly #keys: readonly string[];
  /** What every script is told of this client. */
  #client: readonly (string | number)[];
  #ttlMsMax: number;

  constructor(options: ScriptCallerOptions) {
    this.#options = options;
    this.#keys = keyLetters.map((letter) => `${tagOf(options.group)}:${letter}`);
    this.#ttlMsMax = options.ttlMsDefault;
    this.#client = [options.quarantineMs, this.#ttlMsMax];
  }

  /** Of the hash with the cells. */
  get metaKey(): string {
    return this.#keys[0] as string;
  }

  /** The longest TTL of this client decides how long a failover is waited out where the data do not tell. */
  noteTtl(ttlMs: number): void {
    if (ttlMs <= this.#ttlMsMax) return;
    this.#ttlMsMax = ttlMs;
    this.#client = [this.#options.quarantineMs, ttlMs];
  }

  run(script: Script, args: readonly Argument[], call: LinkCall & { readonly writes?: boolean }): Promise<Reply> {
    const { link, replicas } = this.#options;
    const client = script.isShort ? none : this.#client;
    return link.run(script, { keys: this.#keys, client, args, replicas: call.writes === true ? replicas : 0 }, call);
  }
}

const none: readonly string[] = [];

/** In braces, so that a Cluster keeps all of it in one slot. */
export function tagOf(group: string): string {
  return `{${group}}`;
}

export function channelOf(group: string, binaryNamespace: string): string {
  return `${tagOf(group)}:w:${binaryNamespace}`;
}
