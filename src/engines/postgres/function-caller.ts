/**
 * Calls the functions of one group, and makes the other calls that they ask for: the end of a session that is dead and in
 * the way, and the adoption of a server that is new to the sessions.
 */
import { type ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { LeaseServer } from "../../client/lease-sessions.ts";
import { isReadOnly, type ResolvedTxn } from "../../store/command.ts";
import type { BinaryRange } from "../../store/key.ts";
import type { TxnResult } from "../../store/store.ts";
import { type Database, type DatabaseCall, isConflict } from "./database.ts";
import { versionHash } from "./functions.ts";
import { postgresLimits } from "./postgres-caps.ts";
import { quarantined } from "./refusal.ts";
import { schemaOf } from "./tables.ts";
import { againOf, bytea, decodeAnswer, encodeTxn } from "./txn-codec.ts";

export interface FunctionCallerOptions {
  readonly platform: Platform;
  readonly database: Database;
  readonly group: string;
  readonly quarantineMs: number;
  readonly ttlMsDefault: number;
  /** What to take the server for, where its timeline cannot be asked for; null where it can. */
  readonly serverGiven: string | null;
}

const againMs = 20;

export class FunctionCaller implements LeaseServer {
  readonly #options: FunctionCallerOptions;
  #ttlMsMax: number;

  constructor(options: FunctionCallerOptions) {
    this.#options = options;
    this.#ttlMsMax = options.ttlMsDefault;
  }

  /** One round trip, but for what it is asked to do first. */
  async txn(txn: ResolvedTxn, call: DatabaseCall): Promise<TxnResult> {
    const { request, namespaces } = encodeTxn(txn);
    const reads = isReadOnly(txn);
    let ignoresDue = false;
    return this.#insist(call, reads, async (left) => {
      for (;;) {
        const values = [request, ignoresDue, lockMsOf(left()), postgresLimits.resultBytesMax, this.#options.serverGiven];
        const answer = await this.#call(reads ? "read" : "txn", values, left());
        const again = againOf(answer);
        if (again === undefined) return decodeAnswer(txn, answer);
        if (again === "adopt") await this.#adopt(left());
        else {
          await this.#expire(namespaces, left()).catch((error: unknown) => {
            // A reader need not wait for who keeps a dead session's key: it is still there.
            if (!reads || !hasCode(error, "TIMEOUT")) throw error;
          });
          ignoresDue = reads;
        }
      }
    });
  }

  async open(ttlMs: number, call: DatabaseCall): Promise<{ readonly id: string; readonly nextMs: number }> {
    // Opened twice, the first one ends with its TTL: nothing is bound to it.
    const answer = await this.#insist(call, true, (left) => this.#adopting("open", [ttlMs, this.#options.serverGiven], left()));
    const { id, next } = answer as { readonly id: string; readonly next: number };
    return { id, nextMs: next };
  }

  async keepAlive(
    sessions: readonly { readonly id: string; readonly ttlMs: number }[],
    call: DatabaseCall,
  ): Promise<{ readonly answers: readonly boolean[]; readonly nextMs: number }> {
    if (sessions.length === 0) {
      for (;;) {
        const { ended, next } = (await this.#call("expire", [null, lockMsOf(call)], call)) as {
          readonly ended: boolean;
          readonly next: number;
        };
        // Due and not ended: somebody else is at it.
        if (!ended) return { answers: [], nextMs: next === 0 ? againMs : next };
      }
    }
    const values = [sessions.map(({ id }) => id), sessions.map(({ ttlMs }) => ttlMs), this.#options.serverGiven];
    const answer = await this.#adopting("keep_alive", values, call);
    const { alive, next } = answer as { readonly alive: readonly boolean[]; readonly next: number };
    return { answers: alive, nextMs: next };
  }

  async end(id: string, call: DatabaseCall): Promise<void> {
    await this.#call("close", [id, lockMsOf(call)], call);
  }

  quarantined(leftMs: number): ConclaveError {
    return quarantined(leftMs);
  }

  noteTtl(ttlMs: number): void {
    this.#ttlMsMax = Math.max(this.#ttlMsMax, ttlMs);
  }

  /** From now on, for so long, this channel hears of the namespace. */
  async watch(namespace: string, channel: string, ttlMs: number, call: DatabaseCall): Promise<void> {
    await this.#call("watch", [bytea(namespace), channel, ttlMs, lockMsOf(call)], call);
  }

  async unwatch(namespace: string | null, channel: string, call: DatabaseCall): Promise<void> {
    const { database, group } = this.#options;
    const text = `DELETE FROM ${schemaOf(group)}.watchers WHERE channel = $1 AND ($2::bytea IS NULL OR namespace = $2)`;
    await database.ask(text, [channel, namespace === null ? null : bytea(namespace)], call);
  }

  /** The revisions of namespaces, -1 where there is none. */
  async look(namespaces: readonly string[], call: DatabaseCall): Promise<readonly number[]> {
    const answer = await this.#call("look", [namespaces.map(bytea)], call);
    return (answer as { readonly revisions: readonly number[] | null }).revisions ?? [];
  }

  /** Binary names of namespaces with an entry, in `[from, to)`, in order. */
  async namespaces(range: BinaryRange, limit: number, call: DatabaseCall): Promise<readonly string[]> {
    const { database, group } = this.#options;
    const schema = schemaOf(group);
    const text =
      `SELECT encode(name, 'base64') AS name FROM ${schema}.namespaces AS n WHERE name >= $1 AND name < $2 ` +
      `AND EXISTS (SELECT FROM ${schema}.entries AS e WHERE e.namespace = n.name) ORDER BY n.name LIMIT $3`;
    const rows = await database.ask(text, [bytea(range.from), bytea(range.to), limit], call);
    return rows.map((row) => Buffer.from((row as { readonly name: string }).name, "base64").toString("latin1"));
  }

  /** How many idle namespaces were forgotten. */
  async tidy(call: DatabaseCall): Promise<number> {
    return Number(await this.#call("tidy", [], call));
  }

  /** Asks again while there is time: what did not happen for certain, and, where it `mayRepeat`, what may have. */
  async #insist<T>(call: DatabaseCall, mayRepeat: boolean, attempt: (left: () => DatabaseCall) => Promise<T>): Promise<T> {
    const { platform } = this.#options;
    const untilMs = platform.now() + call.timeoutMs;
    const left = (): DatabaseCall => ({ ...call, timeoutMs: Math.max(1, untilMs - platform.now()) });
    for (;;) {
      try {
        return await attempt(left);
      } catch (error) {
        if (!isWorthAnother(error, mayRepeat) || platform.now() + againMs > untilMs) throw error;
        await new Promise<void>((resolve) => void platform.setTimer(againMs, resolve, { ref: true }));
      }
    }
  }

  async #adopting(name: string, values: readonly unknown[], call: DatabaseCall): Promise<unknown> {
    for (let tries = 0; ; tries++) {
      const answer = await this.#call(name, values, call);
      if (againOf(answer) === undefined) return answer;
      if (tries > 2) throw conclaveError("ENGINE_REFUSED", "The server changes with every call.");
      await this.#adopt(call);
    }
  }

  async #expire(namespaces: readonly string[], call: DatabaseCall): Promise<void> {
    await this.#call("expire", [namespaces.map(bytea), lockMsOf(call)], call);
  }

  async #adopt(call: DatabaseCall): Promise<void> {
    const { quarantineMs, serverGiven } = this.#options;
    await this.#call("adopt", [quarantineMs, this.#ttlMsMax, serverGiven], call);
  }

  #call(name: string, values: readonly unknown[], call: DatabaseCall): Promise<unknown> {
    const { database, group } = this.#options;
    return database.call(functionName(group, name), values, call);
  }
}

export function functionName(group: string, name: string): string {
  return `${schemaOf(group)}.${name}_${versionHash}`;
}

/** Waits in the server end before the caller gives up: then it is certain that nothing was done. */
function lockMsOf({ timeoutMs }: DatabaseCall): number {
  return Math.max(1, Math.floor(timeoutMs * 0.9));
}

function isWorthAnother(error: unknown, mayRepeat: boolean): error is ConclaveError {
  if (hasCode(error, "CONNECTION_REFUSED") || hasCode(error, "READ_ONLY")) return true;
  if (hasCode(error, "CONNECTION_LOST")) return mayRepeat || error.definite;
  return hasCode(error, "ENGINE_REFUSED") && isConflict(error);
}
