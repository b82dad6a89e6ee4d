/**
 * The sagas of one process: begins them, carries them on, and takes over those whose process died.
 *
 * A saga belongs to an epoch, which stands in its record. When that epoch is over, whoever knows the saga's definition writes
 * itself into the record, under the condition that nobody else has, and asks every step again. No leader, no local log.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { linkSignal, onAbort, raceSignal } from "../base/link-signal.ts";
import type { Telemetry } from "../base/ports.ts";
import { Bell } from "../recipes/bell.ts";
import type { Entry } from "../store/entry.ts";
import type { KeyRange, Store } from "../store/store.ts";
import type { Coordinator } from "./coordinator.ts";
import type { Epoch } from "./epoch.ts";
import { decodeRecord, type IdempotencyRecord, recordKeys, type SagaRecord } from "./records.ts";
import { type SagaEnd, type SagaEntry, SagaLog } from "./saga-log.ts";
import { type SagaCheckpoint, type SagaDefinition, SagaRun } from "./saga-run.ts";

export interface SagasOptions {
  readonly store: Store;
  readonly coordinator: Coordinator;
  readonly definitions: ReadonlyMap<string, SagaDefinition>;
  /** Sagas that run in this process at one time; more are refused with BUSY, and not taken over. Default 1_000. */
  readonly runningMax?: number;
  /** How often it looks for sagas that nobody minds. Milliseconds. Default 5_000; a death is told at once. */
  readonly scanEveryMs?: number;
  /** The first pause before a step is asked again, and the longest. Milliseconds. Default 100 and 30_000. */
  readonly retryMsMin?: number;
  readonly retryMsMax?: number;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  readonly checkpoint?: (step: SagaCheckpoint, gid: string, name: string) => void | Promise<void>;
}

/** @since 0.2.0 */
export const sagasDefaults = { runningMax: 1_000, scanEveryMs: 5_000, retryMsMin: 100, retryMsMax: 30_000 } as const;

export interface SagaOrder {
  readonly name: string;
  /** JSON can carry it. */
  readonly input: unknown;
  readonly key?: string;
  readonly fingerprint: string;
  readonly timeoutMs: number;
  readonly traceparent?: string;
}

/** `gid` is that of the key's first saga, where there was one. */
export interface SagaStarted {
  readonly gid: string;
  readonly isReplay: boolean;
  /** Of a replay: what the first one was asked. */
  readonly fingerprint: string;
  readonly end: SagaEnd | undefined;
}

export interface SagaFigures {
  readonly running: number;
  readonly completed: number;
  readonly compensated: number;
  readonly takenOver: number;
  /** Steps that do not get through, of sagas that run here. */
  readonly needsAttention: number;
  readonly oldestRunningMs: number;
}

export interface SagaRow extends SagaEntry {
  /** Its process lives. */
  readonly isMinded: boolean;
}

const pageSize = 100;
const inputMax = 65_536;

export class Sagas {
  readonly #options: SagasOptions;
  readonly #log: SagaLog;
  readonly #closing = new AbortController();
  readonly #running = new Map<
    string,
    { readonly run: SagaRun; readonly sinceMs: number; readonly ended: Promise<SagaEnd | "lost"> }
  >();
  readonly #attention = new Map<string, string>();
  readonly #bell = new Bell<void>();
  readonly #counts = { completed: 0, compensated: 0, takenOver: 0 };

  constructor(options: SagasOptions) {
    this.#options = options;
    this.#log = new SagaLog(options.store, this.#closing.signal);
  }

  /** Begins to take over what others left. */
  open(): void {
    background(this.#mind(), "sagas");
    background(this.#watchDeaths(), "watch of saga owners");
  }

  get figures(): SagaFigures {
    const oldest = this.#running.values().next().value;
    return {
      ...this.#counts,
      running: this.#running.size,
      needsAttention: this.#attention.size,
      oldestRunningMs: oldest === undefined ? 0 : this.#platform.now() - oldest.sinceMs,
    };
  }

  /** Durable once resolved. @throws INVALID_OPTION, BUSY, CLOSED, TRANSACTION_CLOSED (the session was lost: begin again), TIMEOUT */
  async start(order: SagaOrder): Promise<SagaStarted> {
    const { coordinator, definitions, runningMax = sagasDefaults.runningMax } = this.#options;
    const definition = definitions.get(order.name);
    if (definition === undefined) throw conclaveError("INVALID_OPTION", `There is no saga ${JSON.stringify(order.name)} here.`);
    if (this.#running.size >= runningMax) throw conclaveError("BUSY", `${runningMax} sagas run here; this one was not begun.`);
    const input = JSON.stringify(order.input ?? null) ?? "null";
    if (input.length > inputMax) {
      throw conclaveError("VALUE_TOO_LARGE", `A saga's input has ${input.length} characters; up to ${inputMax} are kept.`);
    }
    const { gid, epoch } = await coordinator.begin();
    try {
      const record: SagaRecord = {
        name: order.name,
        input,
        owner: { coordinator: epoch.coordinator, epoch: epoch.number },
        turn: "none",
        takeOvers: 0,
        ...(order.key === undefined ? {} : { key: order.key }),
        fingerprint: order.fingerprint,
        atMs: this.#platform.wallMs(),
        deadlineAtMs: this.#platform.wallMs() + order.timeoutMs,
        ...(order.traceparent === undefined ? {} : { traceparent: order.traceparent }),
      };
      await this.#options.checkpoint?.("saga-beginning", gid, "");
      const begun = await this.#log.begin(epoch, gid, record);
      switch (begun.kind) {
        case "begun":
          await this.#options.checkpoint?.("saga-begun", gid, "");
          this.#run(definition, begun.entry, { epoch, isTakenOver: false });
          return { gid, isReplay: false, fingerprint: order.fingerprint, end: undefined };
        case "running": {
          const other = await this.#read(begun.gid);
          return { gid: begun.gid, isReplay: true, fingerprint: other?.record.fingerprint ?? order.fingerprint, end: undefined };
        }
        case "ended":
          return replayOf(begun.record);
        case "fenced":
          throw conclaveError("TRANSACTION_CLOSED", "The coordinator was taken for dead before the saga began.");
      }
    } finally {
      // Recovery of transactions has nothing to do with it.
      epoch.inFlight.delete(gid);
    }
  }

  /** How it ended; waits until it has. Null: nothing is known of it. Rejects with the signal's reason. */
  async wait(gid: string, signal?: AbortSignal): Promise<SagaEnd | null> {
    const linked = linkSignal(signal);
    const closing = (): void => linked.abort(conclaveError("CLOSED", "The sagas of this process were closed."));
    const forget = onAbort(this.#closing.signal, closing);
    try {
      for (;;) {
        const here = this.#running.get(gid);
        if (here !== undefined) {
          const end = await raceSignal(here.ended, linked.signal);
          if (end !== "lost") return end;
        }
        linked.signal.throwIfAborted();
        const { end, isRunning } = await this.#log.ended(gid);
        if (end !== null || !isRunning) return end;
        await new Bell<never>().wait({ platform: this.#platform, timeoutMs: 200, signal: linked.signal });
      }
    } finally {
      forget();
      linked.unlink();
    }
  }

  /** Every saga that runs anywhere. */
  async list(): Promise<readonly SagaRow[]> {
    const living = new Set((await this.#page(recordKeys.coordinators)).entries.map(({ createRevision }) => createRevision));
    const { entries } = await this.#page(recordKeys.sagas);
    return entries.map((entry) => {
      const row = sagaOf(entry);
      return { ...row, isMinded: living.has(row.record.owner.epoch) };
    });
  }

  /** One look, now. Answers how many were taken over. */
  async pass(): Promise<number> {
    const { coordinator, definitions, runningMax = sagasDefaults.runningMax } = this.#options;
    const epoch = await coordinator.currentEpoch();
    // Owners first: a saga of a newer epoch than the list of the living is alive, as far as we know.
    const { entries: owners, revision } = await this.#page(recordKeys.coordinators);
    const living = new Set(owners.map(({ createRevision }) => createRevision));
    const { entries } = await this.#page(recordKeys.sagas);
    let taken = 0;
    for (const entry of entries) {
      const { gid, record, revision: read } = sagaOf(entry);
      const definition = definitions.get(record.name);
      const { epoch: owner } = record.owner;
      if (definition === undefined || this.#running.has(gid) || this.#running.size >= runningMax) continue;
      if (owner > revision || (living.has(owner) && owner !== epoch.number)) continue;
      // Just begun, and its answer is on the way to us.
      if (owner === epoch.number && epoch.inFlight.has(gid)) continue;
      const mine = { ...record, owner: { coordinator: epoch.coordinator, epoch: epoch.number }, takeOvers: record.takeOvers + 1 };
      const written = await this.#log.rewrite(epoch, { gid, record, revision: read }, mine);
      if (written === null || this.#running.has(gid)) continue;
      taken++;
      this.#counts.takenOver++;
      this.#options.telemetry?.emit({ kind: "saga.taken-over", gid, name: record.name, turn: written.record.turn });
      this.#run(definition, written, { epoch, isTakenOver: true });
    }
    return taken;
  }

  /** Sagas that run here are left to others, who see it at once. Idempotent. Closes before its coordinator. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    await this.#log.flush();
    this.#closing.abort(conclaveError("CLOSED", "The sagas of this process were closed."));
  }

  #run(
    definition: SagaDefinition,
    entry: SagaEntry,
    { epoch, isTakenOver }: { readonly epoch: Epoch; readonly isTakenOver: boolean },
  ): void {
    const { telemetry, checkpoint, retryMsMin = sagasDefaults.retryMsMin, retryMsMax = sagasDefaults.retryMsMax } = this.#options;
    const { gid } = entry;
    const { name } = definition;
    const run = new SagaRun({
      definition,
      entry,
      isTakenOver,
      epoch,
      log: this.#log,
      platform: this.#platform,
      retryMsMin,
      retryMsMax,
      signal: this.#closing.signal,
      onTurn: (turn, why) => telemetry?.emit({ kind: "saga.turned", gid, name, turn, why }),
      onAttention: (step, why) => {
        this.#attention.set(`${gid}/${step}`, why);
        telemetry?.emit({ kind: "saga.attention", gid, name, step, why });
      },
      checkpoint: async (at, id, step) => checkpoint?.(at, id, step),
    });
    this.#running.set(gid, { run, sinceMs: this.#platform.now(), ended: run.ended });
    background(
      run.ended.then(async (end) => {
        for (const key of this.#attention.keys()) if (key.startsWith(`${gid}/`)) this.#attention.delete(key);
        if (end !== "lost") {
          this.#counts[end.kind]++;
          telemetry?.emit({ kind: "saga.ended", gid, name, outcome: end.kind });
          await this.#log.end(run.entry, end);
          await checkpoint?.("saga-ended", gid, "");
        }
        this.#running.delete(gid);
        if (end === "lost") this.#bell.ring();
      }),
      "end of a saga",
    );
    run.start();
  }

  async #mind(): Promise<void> {
    const { signal } = this.#closing;
    const scanEveryMs = this.#options.scanEveryMs ?? sagasDefaults.scanEveryMs;
    while (!signal.aborted) {
      try {
        await this.pass();
        await this.#bell.wait({ platform: this.#platform, timeoutMs: scanEveryMs, signal, ref: false });
      } catch (error) {
        if (signal.aborted) return;
        this.#options.telemetry?.emit({ kind: "transaction.recovery-failed", why: String(error) });
        await this.#pause(500);
      }
    }
  }

  async #watchDeaths(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        for await (const batch of this.#options.store.watch({ prefix: recordKeys.coordinators }, { signal })) {
          if (batch.kind === "resync" || batch.events.some(({ kind }) => kind === "delete")) this.#bell.ring();
        }
        return;
      } catch {
        // The look by the clock finds what an interrupted watch misses.
        if (signal.aborted) return;
        await this.#pause(1_000);
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#closing;
    await new Bell<never>().wait({ platform: this.#platform, timeoutMs: ms, signal, ref: false }).catch(ignoreClosing);
  }

  async #read(gid: string): Promise<SagaEntry | null> {
    const { results } = await this.#options.store.txn({ then: [{ kind: "get", key: recordKeys.saga(gid) }] });
    const [found] = results;
    return found?.kind === "get" && found.entry !== null ? sagaOf(found.entry) : null;
  }

  /** All of a range, in pages. The revision is that of the first page. */
  async #page(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: number }> {
    const entries: Entry[] = [];
    let revision: number | undefined;
    // The character after "/" ends a prefix of ours.
    const to = `${prefix.slice(0, -1)}0`;
    for (let range: KeyRange = { from: prefix, to }; ; ) {
      const answer = await this.#options.store.txn(
        { then: [{ kind: "range", range, limit: pageSize }] },
        { signal: this.#closing.signal },
      );
      const [listed] = answer.results;
      assert(listed?.kind === "range", "a range is answered with entries");
      revision ??= answer.revision;
      entries.push(...listed.entries);
      const last = listed.entries.at(-1);
      if (!listed.more || last === undefined) return { entries, revision };
      range = { from: `${last.key}\u0000`, to };
    }
  }

  get #platform() {
    return this.#options.store.platform;
  }
}

function sagaOf(entry: Entry): SagaEntry {
  return {
    gid: entry.key.slice(recordKeys.sagas.length),
    record: decodeRecord<SagaRecord>(entry.text),
    revision: entry.modRevision,
  };
}

function replayOf({ gid, fingerprint, result }: IdempotencyRecord): SagaStarted {
  return { gid, isReplay: true, fingerprint, end: JSON.parse(result) as SagaEnd };
}

function ignoreClosing(): void {
  // Whoever waits looks at the signal.
}
