/**
 * Watches of one member: one subscription to the machine, however many connections and watches there are.
 *
 * Each watch is a cursor, not a queue. While it is *live* the events of a turn go to it directly; when its client is slow
 * (no credit, a full connection) it only remembers the next revision, and catches up from the machine's history later, or
 * by a resync where that no longer reaches back. So a slow watcher costs a number, not memory that grows.
 *
 *   live --events of a turn--> sending --part by part--> live
 *     ^                          |  no credit, full line: wait here
 *     '--- caught up --- behind <'  (what happened meanwhile: from history, or resync)
 */
import { assert } from "../base/assert.ts";
import type { ByteWriter } from "../base/byte-codec.ts";
import type { Platform } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { BinaryRange } from "../store/key.ts";
import type { Machine } from "../store/machine.ts";
import type { MachineEvent } from "../store/outcome.ts";
import type { Revision } from "../store/store.ts";
import { WatchIndex } from "../store/watch-index.ts";
import { endMessage } from "../wire/envelope.ts";
import { beginWatchBatch } from "../wire/server-messages.ts";
import { beginPart, endPart, watchPartBytes, writeEntryItem, writeEventItem } from "../wire/watch-batch.ts";
import type { ReplicaService } from "./service.ts";

/** Events that one step of catching up takes from history. */
const catchUpEventsMax = 256;

/** What a watch needs of the connection that it belongs to. */
export interface WatchLine {
  /** The frame of this turn. */
  writer(): ByteWriter;
  /** Whether more may be queued for a client that may be slow. */
  hasRoom(): boolean;
  /** The watch was left waiting for room: call its `advance` when there is some. */
  onBlocked(watch: HubWatch): void;
}

/** A batch on its way, in parts. */
type Job =
  | { readonly kind: "changes"; readonly revision: Revision; readonly items: readonly MachineEvent[]; at: number }
  | { readonly kind: "resync"; readonly revision: Revision; readonly items: readonly Entry[]; at: number };

export class WatchHub {
  readonly #service: Pick<ReplicaService, "machine">;
  readonly #platform: Platform;
  #machine: Machine;
  #unsubscribe: () => void;
  readonly #index = new WatchIndex<HubWatch>();
  readonly #watches = new Set<HubWatch>();
  /** Live watches with events of this turn. */
  #touched: HubWatch[] = [];
  #isFlushDue = false;
  #isClosed = false;

  constructor(options: { readonly service: Pick<ReplicaService, "machine">; readonly platform: Platform }) {
    this.#service = options.service;
    this.#platform = options.platform;
    this.#machine = options.service.machine;
    this.#unsubscribe = this.#subscribe();
  }

  get machine(): Machine {
    return this.#machine;
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  /** Opens a watch. An empty batch says from where it tells, so that the client can resume before anything happened. */
  open(options: {
    readonly line: WatchLine;
    readonly watchId: number;
    readonly range: BinaryRange;
    readonly from: Revision | undefined;
    readonly creditBytes: number;
  }): HubWatch {
    if (this.#service.machine !== this.#machine) this.onMachineReplaced();
    const watch = new HubWatch(this, options);
    this.#watches.add(watch);
    this.#index.add(watch.range, watch);
    watch.start(options.from);
    return watch;
  }

  remove(watch: HubWatch): void {
    if (!this.#watches.delete(watch)) return;
    this.#index.remove(watch.range, watch);
    watch.isClosed = true;
  }

  /** The member installed a snapshot: every watch goes on from where it is, on the new machine. */
  onMachineReplaced(): void {
    if (this.#isClosed || this.#service.machine === this.#machine) return;
    this.#unsubscribe();
    this.#machine = this.#service.machine;
    this.#unsubscribe = this.#subscribe();
    for (const watch of this.#watches) watch.onGap();
  }

  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
  }

  #subscribe(): () => void {
    return this.#machine.subscribe((_revision, events) => {
      if (this.#watches.size === 0) return;
      for (const event of events) {
        this.#index.match(event.key, (watch) => {
          if (watch.take(event)) this.#touch(watch);
        });
      }
    });
  }

  #touch(watch: HubWatch): void {
    this.#touched.push(watch);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    this.#platform.defer(() => {
      this.#isFlushDue = false;
      const touched = this.#touched;
      this.#touched = [];
      for (const each of touched) each.flush();
    });
  }
}

export class HubWatch {
  readonly watchId: number;
  readonly range: BinaryRange;
  isClosed = false;
  readonly #hub: WatchHub;
  readonly #line: WatchLine;
  /** Bytes of batches that may still be sent. */
  #creditBytes: number;
  /** Everything below was told, or is in `#job` or `#events`. */
  #next: Revision = 0;
  /** Live: events arrive by `take`, and nothing below `machine.revision` is missing but what is in `#events`. */
  #isLive = false;
  /** Of this turn. */
  #events: MachineEvent[] = [];
  #job: Job | undefined;

  constructor(
    hub: WatchHub,
    options: { readonly line: WatchLine; readonly watchId: number; readonly range: BinaryRange; readonly creditBytes: number },
  ) {
    this.#hub = hub;
    this.#line = options.line;
    this.watchId = options.watchId;
    this.range = options.range;
    this.#creditBytes = options.creditBytes;
  }

  start(from: Revision | undefined): void {
    const present = this.#hub.machine.revision;
    this.#next = from ?? present + 1;
    if (this.#next > present) this.#job = { kind: "changes", revision: present, items: [], at: 0 };
    this.advance();
  }

  /** Answers whether it is the first of this turn. */
  take(event: MachineEvent): boolean {
    // Before `from`, when the client has seen more than this member has applied.
    if (!this.#isLive || event.revision < this.#next) return false;
    this.#events.push(event);
    return this.#events.length === 1;
  }

  /** The turn has ended: what it brought becomes one batch. */
  flush(): void {
    if (this.isClosed || this.#events.length === 0) return;
    const last = this.#events[this.#events.length - 1] as MachineEvent;
    this.#job = { kind: "changes", revision: Math.max(last.revision, this.#hub.machine.revision), items: this.#events, at: 0 };
    this.#events = [];
    this.advance();
  }

  addCredit(bytes: number): void {
    this.#creditBytes = Math.min(this.#creditBytes + bytes, Number.MAX_SAFE_INTEGER);
    if (!this.#isLive) this.advance();
  }

  /** The machine is another one: what was told stays told, the rest comes from history or as a resync. */
  onGap(): void {
    this.#isLive = false;
    this.#events = [];
    this.#job = undefined;
    this.advance();
  }

  /** Sends what there is and room for. */
  advance(): void {
    while (!this.isClosed) {
      this.#job ??= this.#catchUp();
      if (this.#job === undefined) return;
      if (this.#creditBytes <= 0 || !this.#line.hasRoom()) {
        this.#isLive = false;
        if (this.#creditBytes > 0) this.#line.onBlocked(this);
        return;
      }
      this.#sendPart(this.#job);
    }
  }

  /** The next batch from history; undefined and live when there is none. */
  #catchUp(): Job | undefined {
    const machine = this.#hub.machine;
    if (this.#isLive) return undefined;
    while (this.#next <= machine.revision) {
      const changes = machine.changesSince(this.range, this.#next, catchUpEventsMax);
      if (changes.kind === "resync") {
        const { revision, entries } = machine.entriesIn(this.range);
        return { kind: "resync", revision, items: entries, at: 0 };
      }
      if (changes.events.length > 0) return { kind: "changes", revision: changes.revision, items: changes.events, at: 0 };
      this.#next = changes.revision + 1;
    }
    this.#isLive = true;
    return undefined;
  }

  #sendPart(job: Job): void {
    const writer = this.#line.writer();
    const at = beginWatchBatch(writer, this.watchId);
    beginPart(writer, job.kind, job.revision);
    while (job.at < job.items.length && writer.length - at < watchPartBytes) {
      if (job.kind === "changes") writeEventItem(writer, job.items[job.at] as MachineEvent);
      else writeEntryItem(writer, job.items[job.at] as Entry);
      job.at++;
    }
    const isLast = job.at === job.items.length;
    endPart(writer, isLast);
    this.#creditBytes -= writer.length - at;
    endMessage(writer, at);
    if (!isLast) return;
    assert(job.revision + 1 >= this.#next || job.items.length === 0, "a watch does not go back");
    this.#next = Math.max(this.#next, job.revision + 1);
    this.#job = undefined;
  }
}
