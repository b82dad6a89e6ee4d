/**
 * All watches of one namespace in this process, and the one subscription that feeds them.
 *
 * Between the answer that a caller watches from and the moment at which the subscription stands, things may have happened
 * that nobody pushed to us. So once it stands one transaction reads, for every watch that is not sure, the state of its
 * range: at that revision the reading and the pushes meet. Later watches start from what was pushed lately and is kept.
 * The subscription lingers when the last watch ends: the next wait for the same lock then costs no command.
 */
import { background } from "../base/background.ts";
import { ConclaveError } from "../base/errors.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { ResolvedTxn } from "../store/command.ts";
import type { Revision, TxnResult } from "../store/store.ts";
import type { Change, FeedReader } from "./feed-reader.ts";

/** What the server tells of one revision of a namespace. */
export interface ChangeMessage {
  readonly revision: Revision;
  /** Null: they were too large, or are not told at all: read the state. */
  readonly changes: readonly Change[] | null;
}

/** Where changes come from. A push is a hint that may be lost; each `onSubscribed` is a reason to read once what is true. */
export interface Push {
  subscribe(channel: string): void;
  unsubscribe(channel: string): void;
  /** The data may be somewhere else now: subscribes anew, there. Left out: it finds that by itself. */
  reopen?(): void;
  close(): void;
}

export interface PushHandler {
  onSubscribed(channel: string): void;
  onMessage(channel: string, message: ChangeMessage): void;
}

export interface FeedOptions {
  readonly channel: string;
  readonly push: Push;
  readonly platform: Platform;
  readonly read: (txn: ResolvedTxn) => Promise<TxnResult>;
  /** Nobody has watched for a while. */
  readonly onIdle: () => void;
}

/** Pushed changes that are kept for watches that begin a moment later. */
const recentMax = 256;
const lingerMs = 30_000;
const readAgainMs = 250;
/** Ranges read by one transaction. */
const rangesMax = 100;

export class Feed {
  readonly #options: FeedOptions;
  readonly #watches = new Set<FeedReader>();
  readonly #recent: { readonly revision: Revision; readonly changes: readonly Change[] }[] = [];
  /** Every change from this revision on is in `#recent`, or comes. Undefined: the subscription does not stand. */
  #coveredFrom: Revision | undefined;
  /** Counts subscriptions, so that a reading of an earlier one is not mistaken. */
  #subscription = 0;
  /** Of the last change that was pushed and is no longer kept. */
  #droppedTo: Revision = 0;
  #isReading = false;
  #lingerTimer: Timer | undefined;
  #isOver = false;

  constructor(options: FeedOptions) {
    this.#options = options;
    options.push.subscribe(options.channel);
  }

  get isWatched(): boolean {
    return this.#watches.size > 0;
  }

  add(watch: FeedReader): void {
    this.#lingerTimer?.cancel();
    this.#watches.add(watch);
    const from = watch.next;
    if (this.#coveredFrom === undefined) return;
    if (from === undefined || from < this.#coveredFrom) {
      this.#readSoon();
      return;
    }
    watch.isSyncing = false;
    // Most watches begin at the end: what is older is not theirs.
    let first = this.#recent.length;
    while (first > 0 && (this.#recent[first - 1] as ChangeMessage).revision >= from) first--;
    for (const { revision, changes } of this.#recent.slice(first)) watch.onChanges(revision, changes);
  }

  remove(watch: FeedReader): void {
    this.#watches.delete(watch);
    if (this.#watches.size > 0 || this.#isOver) return;
    this.#lingerTimer?.cancel();
    this.#lingerTimer = this.#options.platform.setTimer(lingerMs, () => this.#options.onIdle());
  }

  /** Every watch ends. Idempotent. */
  end(): void {
    this.#isOver = true;
    this.#lingerTimer?.cancel();
    this.#options.push.unsubscribe(this.#options.channel);
    for (const watch of [...this.#watches]) watch.end();
  }

  onOverflow(): void {
    this.#readSoon();
  }

  onSubscribed(): void {
    this.#subscription++;
    this.#coveredFrom = undefined;
    this.#recent.length = 0;
    for (const watch of this.#watches) watch.isSyncing = true;
    this.#readSoon();
  }

  onMessage({ revision, changes }: ChangeMessage): void {
    if (changes === null) {
      this.onSubscribed();
      return;
    }
    this.#recent.push({ revision, changes });
    if (this.#recent.length > recentMax) {
      const dropped = this.#recent.shift();
      this.#droppedTo = dropped?.revision ?? this.#droppedTo;
      if (this.#coveredFrom !== undefined) this.#coveredFrom = Math.max(this.#coveredFrom, this.#droppedTo + 1);
    }
    for (const watch of [...this.#watches]) watch.onChanges(revision, changes);
  }

  #readSoon(): void {
    if (this.#isReading || this.#isOver) return;
    this.#isReading = true;
    background(
      this.#readAll().finally(() => {
        this.#isReading = false;
      }),
      "reading the state for watches",
    );
  }

  async #readAll(): Promise<void> {
    while (!this.#isOver) {
      const waiting = [...this.#watches].filter((watch) => watch.isSyncing).slice(0, rangesMax);
      if (waiting.length === 0 && this.#coveredFrom !== undefined) return;
      const subscription = this.#subscription;
      if (!(await this.#readFor(waiting, subscription))) await this.#pause(readAgainMs);
    }
  }

  async #readFor(watches: readonly FeedReader[], subscription: number): Promise<boolean> {
    let result: TxnResult;
    try {
      result = await this.#options.read(readingOf(watches));
    } catch (error) {
      if (error instanceof ConclaveError && !error.retryable) {
        for (const watch of watches) watch.fail(error);
        return true;
      }
      return false;
    }
    // Subscribed anew in the meantime: between the reading and that moment something may be missing.
    if (subscription !== this.#subscription) return true;
    // So many changes came while it was read that the first of them are no longer kept.
    if (this.#droppedTo > result.revision) return true;
    this.#coveredFrom ??= result.revision + 1;
    for (const [index, watch] of watches.entries()) {
      const range = result.results[index];
      watch.onState(result.revision, range?.kind === "range" ? range.entries : []);
      for (const { revision, changes } of this.#recent) watch.onChanges(revision, changes);
    }
    return true;
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#options.platform.setTimer(delayMs, resolve));
  }
}

function readingOf(watches: readonly FeedReader[]): ResolvedTxn {
  return {
    kind: "txn",
    claim: null,
    compares: [],
    then: watches.map(({ range }) => ({
      kind: "range",
      range,
      order: "key",
      descending: false,
      keysOnly: false,
      limit: null,
      createdBefore: null,
      atRevision: null,
    })),
    else: [],
  };
}
