/**
 * A namespace on Cassandra as a `CasStore`: one partition, in which each key is a row that lightweight transactions set.
 *
 *     cells (namespace, key)   revision, value, claim        value null: deleted; the row stays, so that revisions never repeat
 *
 * Each set carries a claim of its own. A set whose outcome is not known is sent again: the repeat finds either the old
 * revision, and does it, or its own claim, and knows that it was done. What has been overwritten since stays unknown.
 * Every statement is at SERIAL (or LOCAL_SERIAL): a plain read or write of the same cells would see half of an agreement.
 * No TTL of Cassandra's: replicas judge it by their clocks, in whole seconds.
 */
import { binaryStringToUtf8, fromBinaryString, utf8Encode } from "../../base/bytes.ts";
import { type ConclaveError, conclaveError } from "../../base/errors.ts";
import { raceSignal } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import type { Caps } from "../../store/caps.ts";
import { namespacePrefix, stripNamespace, wholeKey, wholeRange } from "../../store/key.ts";
import type { CallOptions, CasEntry, CasStore, Key, KeyRange, Revision, Value } from "../../store/store.ts";
import { cassandraError } from "./cassandra-error.ts";
import { type CassandraClient, type CassandraRow, consistencies } from "./driver.ts";

export interface CassandraStoreOptions {
  readonly client: CassandraClient;
  readonly platform: Platform;
  readonly caps: Caps;
  readonly keyspace: string;
  readonly serial: "serial" | "local-serial";
  /** Keys that are known to be deleted, at which revision: they are set by one statement instead of two. */
  readonly deleted: Map<string, Revision>;
  readonly isClosed: () => boolean;
}

const timeoutMsDefault = 10_000;
const deletedMax = 10_000;
/** No value of ours: longer than any. Compared with, so that a refusal tells the value that is there. */
const impossible = Buffer.from("no value of a cell is ever this one, so every value differs from it");

interface Call {
  readonly untilMs: number;
  readonly signal: AbortSignal | undefined;
}

export class CassandraStore implements CasStore {
  readonly namespace: string;
  readonly caps: Caps;
  readonly #options: CassandraStoreOptions;
  readonly #prefix: string;

  constructor(namespace: string, options: CassandraStoreOptions) {
    this.namespace = namespace;
    this.caps = options.caps;
    this.#options = options;
    this.#prefix = namespacePrefix(namespace);
  }

  async get(key: Key, options: CallOptions = {}): Promise<CasEntry | null> {
    const whole = wholeKey(this.#prefix, key, this.caps.limits);
    const text = `SELECT key, revision, value FROM ${this.#table} WHERE namespace = ? AND key = ?`;
    const [row] = await this.#read(text, [...this.#place(whole)], this.#call(options));
    return row === undefined ? null : this.#entry(whole, row);
  }

  async compareAndSet(
    change: { readonly key: Key; readonly expected: Revision | null; readonly value: Value | null },
    options: CallOptions = {},
  ): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }> {
    const whole = wholeKey(this.#prefix, change.key, this.caps.limits);
    const value = change.value === null ? null : typeof change.value === "string" ? utf8Encode(change.value) : change.value;
    if (value !== null && value.length > this.caps.limits.valueBytesMax)
      throw conclaveError("VALUE_TOO_LARGE", `The value has ${value.length} bytes; ${this.caps.limits.valueBytesMax} are taken.`);
    const set = { whole, value, claim: this.#newClaim(), call: this.#call(options), isInDoubt: false };
    const deletedAt = this.#options.deleted.get(whole);
    if (change.expected !== null) return this.#update(set, change.expected);
    if (value === null) return { applied: true, current: await this.get(change.key, options) };
    return deletedAt === undefined ? this.#insert(set) : this.#revive(set, deletedAt);
  }

  async range(range: KeyRange, options: CallOptions & { readonly limit?: number } = {}): Promise<readonly CasEntry[]> {
    const { from, to } = wholeRange(this.#prefix, range, this.caps.limits);
    const isOpen = !to.startsWith(this.#prefix);
    const text = `SELECT key, revision, value FROM ${this.#table} WHERE namespace = ? AND key >= ?${isOpen ? "" : " AND key < ?"}`;
    const [namespace, low] = this.#place(from);
    const values = isOpen ? [namespace, low] : [namespace, low, bytesOf(stripNamespace(to))];
    const rows = await this.#read(text, values, this.#call(options));
    const entries = rows.flatMap((row) => {
      const entry = this.#entry(this.#prefix + (row["key"] as Buffer).toString("latin1"), row);
      return entry === null ? [] : [entry];
    });
    return options.limit === undefined ? entries : entries.slice(0, options.limit);
  }

  /** Where there is no row at all, for all that is known. */
  async #insert(set: PendingSet): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }> {
    const revision = this.#clockRevision();
    const text = `INSERT INTO ${this.#table} (namespace, key, revision, value, claim) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS`;
    const row = await this.#set(set, text, [...this.#place(set.whole), String(revision), bufferOf(set.value), set.claim]);
    if (row === "applied") return { applied: true, current: this.#made(set, revision) };
    // It was there once: its row goes on.
    if (isNothing(row["value"]) && row["claim"] !== set.claim) return this.#revive(set, numberOf(row["revision"]));
    return this.#judge(set, row);
  }

  /** A deleted key, whose row is at this revision. */
  async #revive(set: PendingSet, deletedAt: Revision): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }> {
    const { applied, current } = await this.#update(set, deletedAt);
    if (applied || current !== null) return { applied, current };
    const again = this.#options.deleted.get(set.whole);
    // Deleted anew by others, at another revision; or its row is gone, which nobody of us does.
    return again === undefined || again === deletedAt ? this.#insert(set) : this.#revive(set, again);
  }

  async #update(set: PendingSet, expected: Revision): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }> {
    const revision = Math.max(expected + 1, this.#clockRevision());
    const text = `UPDATE ${this.#table} SET revision = ?, value = ?, claim = ? WHERE namespace = ? AND key = ? IF revision = ? AND value != ? AND claim != ?`;
    const values = [
      String(revision),
      bufferOf(set.value),
      set.claim,
      ...this.#place(set.whole),
      String(expected),
      impossible,
      set.claim,
    ];
    const row = await this.#set(set, text, values);
    if (row === "applied") return { applied: true, current: this.#made(set, revision) };
    return this.#judge(set, row);
  }

  /** A set was refused: by one of its own attempts, or by another's set. */
  #judge(set: PendingSet, row: CassandraRow): { readonly applied: boolean; readonly current: CasEntry | null } {
    const current = isNothing(row["revision"]) ? null : this.#entry(set.whole, row);
    if (!isNothing(row["claim"]) && row["claim"] === set.claim) return { applied: true, current };
    if (set.isInDoubt)
      throw conclaveError(
        "TIMEOUT",
        "A set was not answered, and others have set the key since: it may have happened in between.",
      );
    return { applied: false, current };
  }

  #made({ value, whole }: PendingSet, revision: Revision): CasEntry | null {
    if (value === null) {
      this.#noteDeleted(whole, revision);
      return null;
    }
    this.#options.deleted.delete(whole);
    return { key: binaryStringToUtf8(stripNamespace(whole)), value, revision };
  }

  /** Sets until it is answered. A repeat carries the same claim: it happens once. */
  async #set(set: PendingSet, text: string, values: readonly unknown[]): Promise<"applied" | CassandraRow> {
    const { platform } = this.#options;
    for (;;) {
      try {
        const [row] = await this.#execute(text, values, set.call, this.#writeOptions);
        return row?.["[applied]"] === true ? "applied" : (row ?? {});
      } catch (error) {
        const failure = error as ConclaveError;
        if (set.call.signal?.aborted || !isWorthAnother(failure)) throw withDoubt(failure, set.isInDoubt);
        set.isInDoubt ||= !failure.definite;
        if (platform.now() + againMs > set.call.untilMs) throw withDoubt(failure, set.isInDoubt);
        await this.#pause();
      }
    }
  }

  async #read(text: string, values: readonly unknown[], call: Call): Promise<readonly CassandraRow[]> {
    const consistency = this.#options.serial === "serial" ? consistencies.serial : consistencies.localSerial;
    for (;;) {
      try {
        return await this.#execute(text, values, call, { consistency, isIdempotent: true });
      } catch (error) {
        const failure = error as ConclaveError;
        if (call.signal?.aborted || !isWorthAnother(failure) || this.#options.platform.now() + againMs > call.untilMs)
          throw failure;
        await this.#pause();
      }
    }
  }

  async #execute(
    text: string,
    values: readonly unknown[],
    { signal, untilMs }: Call,
    options: object,
  ): Promise<readonly CassandraRow[]> {
    signal?.throwIfAborted();
    const { client, isClosed, platform } = this.#options;
    if (isClosed()) throw conclaveError("CLOSED", "The connection was closed.");
    const leftMs = Math.max(1, untilMs - platform.now());
    const late = new AbortController();
    const timer = platform.setTimer(
      leftMs,
      () => late.abort(conclaveError("TIMEOUT", `Cassandra did not answer within ${Math.round(leftMs)} ms.`)),
      { ref: true },
    );
    try {
      const asked = client.execute(text, values, { prepare: true, readTimeout: Math.ceil(leftMs), ...options });
      const { rows } = await raceSignal(raceSignal(asked, late.signal), signal);
      return rows ?? [];
    } catch (error) {
      throw signal?.aborted ? error : cassandraError(error);
    } finally {
      timer.cancel();
    }
  }

  get #table(): string {
    return `${this.#options.keyspace}.cells`;
  }

  get #writeOptions(): object {
    const isLocal = this.#options.serial === "local-serial";
    return {
      consistency: isLocal ? consistencies.localQuorum : consistencies.quorum,
      serialConsistency: isLocal ? consistencies.localSerial : consistencies.serial,
      isIdempotent: false,
    };
  }

  #place(whole: string): readonly [Buffer, Buffer] {
    return [bytesOf(this.#prefix.slice(0, -1)), bytesOf(stripNamespace(whole))];
  }

  #entry(whole: string, row: CassandraRow): CasEntry | null {
    const revision = numberOf(row["revision"]);
    if (isNothing(row["value"])) {
      this.#noteDeleted(whole, revision);
      return null;
    }
    this.#options.deleted.delete(whole);
    return { key: binaryStringToUtf8(stripNamespace(whole)), value: new Uint8Array(row["value"] as Buffer), revision };
  }

  #noteDeleted(whole: string, revision: Revision): void {
    const { deleted } = this.#options;
    deleted.delete(whole);
    deleted.set(whole, revision);
    if (deleted.size > deletedMax) deleted.delete(deleted.keys().next().value as string);
  }

  /** Revisions follow the clock where it is ahead, so that they rise also across a restored backup. */
  #clockRevision(): Revision {
    return Math.floor(this.#options.platform.wallMs() * 1_000);
  }

  #newClaim(): string {
    return [0, 0, 0, 0].map(() => this.#options.platform.randomUint32().toString(36)).join("-");
  }

  #call({ signal, timeoutMs = timeoutMsDefault }: CallOptions): Call {
    return { untilMs: this.#options.platform.now() + timeoutMs, signal };
  }

  /** Drawn, so that those whose ballots fought do not fight again. */
  #pause(): Promise<void> {
    const { platform } = this.#options;
    const delayMs = againMs * (0.5 + platform.randomUint32() / 2 ** 32);
    return new Promise((resolve) => void platform.setTimer(delayMs, resolve, { ref: true }));
  }
}

interface PendingSet {
  readonly whole: string;
  readonly value: Uint8Array | null;
  readonly claim: string;
  readonly call: Call;
  /** An attempt was sent and not answered. */
  isInDoubt: boolean;
}

const againMs = 30;

function isWorthAnother({ code }: ConclaveError): boolean {
  return ["NO_QUORUM", "BUSY", "CONNECTION_LOST", "CONNECTION_REFUSED", "TIMEOUT"].includes(code);
}

/** An error that is certain of itself says nothing of the attempt before it. */
function withDoubt(error: ConclaveError, isInDoubt: boolean): ConclaveError {
  if (!isInDoubt || !error.definite) return error;
  return conclaveError("TIMEOUT", `An earlier attempt was not answered; the last one: ${error.message}`, { cause: error });
}

function isNothing(value: unknown): boolean {
  return value === null || value === undefined;
}

/** A `Long` of the driver's, a bigint or a number. */
function numberOf(value: unknown): number {
  const number = Number(String(value));
  if (!Number.isSafeInteger(number)) throw conclaveError("PROTOCOL", `A revision in Cassandra is ${String(value)}.`);
  return number;
}

function bytesOf(binary: string): Buffer {
  return Buffer.from(fromBinaryString(binary));
}

function bufferOf(value: Uint8Array | null): Buffer | null {
  return value === null ? null : Buffer.from(value);
}
