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
  #ttlMsMax: number;

  constructor(options: ScriptCallerOptions) {
    this.#options = options;
    this.#keys = ["m", "e", "k", "s"].map((letter) => `${tagOf(options.group)}:${letter}`);
    this.#ttlMsMax = options.ttlMsDefault;
  }

  /** The longest TTL of this client decides how long a failover is waited out where the data do not tell. */
  noteTtl(ttlMs: number): void {
    this.#ttlMsMax = Math.max(this.#ttlMsMax, ttlMs);
  }

  run(script: Script, args: readonly Argument[], call: LinkCall & { readonly writes?: boolean }): Promise<Reply> {
    const { link, quarantineMs, replicas } = this.#options;
    const confirming = call.writes === true ? replicas : 0;
    // All keys are named, also to scripts that make the others of the first: while a slot moves, a Cluster then refuses before
    // the first line (TRYAGAIN, ASK) what it would break off in the middle.
    const client = script.isShort ? none : [quarantineMs, this.#ttlMsMax];
    return link.run(script, { keys: this.#keys, client, args, replicas: confirming }, call);
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
