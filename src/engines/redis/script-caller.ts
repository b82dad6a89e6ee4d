/**
 * Runs the scripts of one group: adds the keys and what every script wants to know of its client.
 */

import type { LinkCall, RedisLink } from "./link.ts";
import type { Argument, Reply } from "./resp.ts";
import type { Script } from "./scripts.ts";

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
  readonly #firstKey: readonly string[];
  #ttlMsMax: number;

  constructor(options: ScriptCallerOptions) {
    this.#options = options;
    this.#keys = ["m", "e", "k", "s"].map((letter) => `${tagOf(options.group)}:${letter}`);
    this.#firstKey = this.#keys.slice(0, 1);
    this.#ttlMsMax = options.ttlMsDefault;
  }

  /** The longest TTL of this client decides how long a failover is waited out where the data do not tell. */
  noteTtl(ttlMs: number): void {
    this.#ttlMsMax = Math.max(this.#ttlMsMax, ttlMs);
  }

  run(script: Script, args: readonly Argument[], call: LinkCall & { readonly writes?: boolean }): Promise<Reply> {
    const { link, quarantineMs, replicas } = this.#options;
    const confirming = call.writes === true ? replicas : 0;
    const request = script.isShort
      ? { keys: this.#firstKey, client: none, args, replicas: confirming }
      : { keys: this.#keys, client: [quarantineMs, this.#ttlMsMax], args, replicas: confirming };
    return link.run(script, request, call);
  }
}

const none: readonly Argument[] = [];

/** In braces, so that a Cluster keeps all of it in one slot. */
export function tagOf(group: string): string {
  return `{${group}}`;
}

export function channelOf(group: string, binaryNamespace: string): string {
  return `${tagOf(group)}:w:${binaryNamespace}`;
}
