/**
 * Follows the Store's invalidations, and knows how long what it knows can be trusted.
 *
 * Intuition: a ship's watch below deck. News comes down the ladder by itself; now and then somebody goes up to see whether
 * the ladder still stands. The moment he set out, not the moment he came back, is how recent the news is known to be.
 *
 *   1. read every counter and the head in one transaction        proof, as of its sending
 *   2. watch the counters from the next revision                 the engine resumes; a gap is a resync
 *   3. every so often ask for the head alone: once the watch has told that revision, that is a proof, as of the sending
 *   4. no proof for `maxStaleMs`, a watch that fell silent, or another store: again from 1
 *
 * So `trustedUntilMs` needs no event to pass: a process that slept finds it behind its clock in the first line it runs.
 */
import { ConclaveError } from "../base/errors.ts";
import { type LinkedSignal, linkSignal, onAbort } from "../base/link-signal.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { OpResult, Store, WatchBatch } from "../store/store.ts";
import { counterRange, epochKey, headKey, readCounter } from "./invalidation.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";

export interface FollowerOptions {
  readonly store: Store;
  readonly platform: Platform;
  readonly history: InvalidationHistory;
  readonly maxStaleMs: number;
  /** Another store stands where the last one stood: values of it mean nothing. */
  readonly onNewEpoch: () => void;
  readonly onResync: (revision: number, why: string) => void;
}

/** Restarts of the watch wait this long, growing. */
const retryMsMin = 20;
const retryMsMax = 1_000;
/** How long the whole state may take to come. */
const stateMs = 1_000;

export class Follower {
  /** The moment up to which every invalidation is known. Monotonic. */
  proofMs = Number.NEGATIVE_INFINITY;
  /** Serve nothing from a cache after this moment: `maxStaleMs` after the proof. */
  trustedUntilMs = Number.NEGATIVE_INFINITY;
  /** The greatest revision that any answer of the store has shown: everything up to it was committed before now. */
  observed = 0;
  /** Names the store's life: what was cached under another one is void. */
  epoch: string | undefined;
  readonly #options: FollowerOptions;
  readonly #life: LinkedSignal = linkSignal(undefined);
  /** Of the last answer that told it; it may have been a store that nobody has named yet. */
  #met: { readonly epoch: string | undefined } | undefined;
  /** Heads that the watch has not told yet, with the moment of asking. */
  #asked: { readonly head: number; readonly sentMs: number }[] = [];
  /** Ends the present watch. */
  #present: LinkedSignal | undefined;
  #waiters = new Set<{ readonly token: string | undefined; readonly wake: () => void }>();
  #probeTimer: Timer | undefined;

  constructor(options: FollowerOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    this.#probeLater();
    let why = "start";
    for (let delayMs = retryMsMin; !this.#isClosed; delayMs = Math.min(delayMs * 2, retryMsMax)) {
      try {
        await this.#readState(why);
        delayMs = retryMsMin;
        why = await this.#watch();
      } catch (error) {
        why = error instanceof Error ? error.message : String(error);
        if (error instanceof ConclaveError && error.code === "CLOSED") return this.close();
      }
      if (!this.#isClosed) await this.#sleep(delayMs * (0.5 + this.#options.platform.randomUint32() / 2 ** 33));
    }
  }

  close(): void {
    this.#life.abort();
    this.#present?.abort();
    this.#probeTimer?.cancel();
    for (const { wake } of [...this.#waiters]) wake();
  }

  /** A revision that a transaction of ours answered with, sent in this life of the store. */
  note(revision: number, life: number): void {
    if (life === this.#options.history.life && revision > this.observed) this.observed = revision;
  }

  /**
   * The epoch that a transaction of ours read beside what it did. Another one: what was cached came from a store that is no
   * more, and nobody knows how its revisions compare with those of the new one. All of it is dropped at once.
   */
  meet(epoch: string | undefined, revision: number): void {
    const isSame = this.#met === undefined || this.#met.epoch === epoch;
    this.#met = { epoch };
    if (isSame) return;
    this.epoch = undefined;
    this.proofMs = Number.NEGATIVE_INFINITY;
    this.trustedUntilMs = Number.NEGATIVE_INFINITY;
    this.observed = revision;
    this.#asked = [];
    this.#options.history.startAnew(revision);
    this.#options.onNewEpoch();
    this.#present?.abort("another store stands there");
  }

  /** Whether every invalidation up to the token is known, now or within the time. Left out: whether any are. */
  async reach(token: string | undefined, timeoutMs: number): Promise<boolean> {
    const { platform } = this.#options;
    if (this.#hasReached(token)) return true;
    if (timeoutMs <= 0 || this.#isClosed) return false;
    await new Promise<void>((resolve) => {
      const waiter = { token, wake: resolve };
      const timer = platform.setTimer(timeoutMs, () => waiter.wake(), { ref: true });
      waiter.wake = () => {
        timer.cancel();
        this.#waiters.delete(waiter);
        resolve();
      };
      this.#waiters.add(waiter);
    });
    return this.#hasReached(token);
  }

  /** Revisions are compared within one life of the store: those of another one say nothing. */
  #hasReached(token: string | undefined): boolean {
    if (this.epoch === undefined) return false;
    if (token === undefined) return true;
    const at = token.lastIndexOf(":");
    return token.slice(0, at) === this.epoch && Number(token.slice(at + 1)) <= this.#options.history.revision;
  }

  get #isClosed(): boolean {
    return this.#life.signal.aborted;
  }

  async #readState(why: string): Promise<void> {
    const { store, platform, history, onResync } = this.#options;
    for (;;) {
      const sentMs = platform.now();
      const { life } = history;
      const { results, revision } = await store.txn(
        {
          then: [
            { kind: "get", key: epochKey },
            { kind: "range", range: counterRange },
          ],
        },
        { signal: this.#life.signal, timeoutMs: stateMs },
      );
      const epoch = entryOf(results[0])?.text;
      if (epoch === undefined) {
        await this.#writeEpoch();
        continue;
      }
      // Asked of the store that stood there before.
      if (life !== history.life) continue;
      this.meet(epoch, revision);
      this.epoch = epoch;
      this.#learnState(results[1]?.kind === "range" ? results[1].entries : [], revision);
      this.#asked = [];
      this.#prove(sentMs, true);
      onResync(history.revision, why);
      return;
    }
  }

  /** Whoever comes first names the store's life. */
  async #writeEpoch(): Promise<void> {
    const { store, platform } = this.#options;
    const value = `${platform.randomUint32().toString(36)}${platform.randomUint32().toString(36)}`;
    await store.txn(
      {
        if: [{ key: epochKey, target: "exists", is: "equal", to: false }],
        then: [{ kind: "put", key: epochKey, value }],
      },
      { signal: this.#life.signal, timeoutMs: stateMs },
    );
  }

  /** Why it ended. */
  async #watch(): Promise<string> {
    const { store, history } = this.#options;
    const present = linkSignal(undefined);
    this.#present = present;
    const watch = store.watch(counterRange, { from: history.revision + 1, signal: present.signal, ref: false });
    for await (const batch of watch) {
      if (present.signal.aborted) break;
      this.#learnBatch(batch);
    }
    return String(present.signal.reason ?? "the watch ended");
  }

  #learnBatch(batch: WatchBatch): void {
    const { history, onResync } = this.#options;
    if (batch.kind === "resync") {
      this.#learnState(batch.entries, batch.revision);
      onResync(batch.revision, "gap");
      return;
    }
    for (const event of batch.events) {
      if (event.kind === "put") this.#learnEntry(event.entry);
      // Nobody deletes a counter but an operator, and then what it counted is unknown.
      else history.learnUnknown(event.revision);
    }
    this.#completeTo(batch.revision);
  }

  #learnState(entries: readonly Entry[], revision: number): void {
    for (const entry of entries) this.#learnEntry(entry);
    this.#completeTo(revision);
  }

  #learnEntry(entry: Entry): void {
    const state = readCounter(entry);
    if (state === undefined) this.#options.history.learnUnknown(entry.modRevision);
    else this.#options.history.learn(state);
  }

  #completeTo(revision: number): void {
    const { history } = this.#options;
    history.completeTo(revision);
    this.note(revision, history.life);
    for (const { head, sentMs } of this.#asked) if (head <= history.revision) this.#prove(sentMs);
    this.#asked = this.#asked.filter(({ head }) => head > history.revision);
    for (const waiter of [...this.#waiters]) if (this.#hasReached(waiter.token)) waiter.wake();
  }

  /**
   * A proof by the stream continues an unbroken line of proofs. Where the line was broken, what was told meanwhile may be lost
   * as well, and only the whole state is a proof.
   */
  #prove(sentMs: number, isWhole = false): void {
    if (sentMs <= this.proofMs) return;
    if (!isWhole && this.#options.platform.now() > this.trustedUntilMs) {
      this.#present?.abort("the line of proofs was broken");
      return;
    }
    this.proofMs = sentMs;
    this.trustedUntilMs = sentMs + this.#options.maxStaleMs;
    for (const waiter of [...this.#waiters]) if (this.#hasReached(waiter.token)) waiter.wake();
  }

  // ------------------------------------------------------------------------------------------------ is it current?

  get #probeEveryMs(): number {
    return Math.min(Math.max(this.#options.maxStaleMs / 4, 5), 1_000);
  }

  #probeLater(): void {
    if (this.#isClosed) return;
    this.#probeTimer = this.#options.platform.setTimer(this.#probeEveryMs, () => {
      this.#probe().then(
        () => this.#probeLater(),
        // No answer is no proof; `trustedUntilMs` passes by itself, and the reason shows in the next call that fails.
        () => this.#probeLater(),
      );
    });
  }

  async #probe(): Promise<void> {
    const { store, platform, history } = this.#options;
    const [oldest] = this.#asked;
    if (oldest !== undefined && platform.now() - oldest.sentMs > Math.max(2 * this.#probeEveryMs, 100)) {
      this.#asked = [];
      this.#present?.abort("the watch fell silent");
      return;
    }
    const sentMs = platform.now();
    const timeoutMs = Math.max(2 * this.#probeEveryMs, 50);
    const { results, revision } = await store.txn(
      {
        then: [
          { kind: "get", key: headKey },
          { kind: "get", key: epochKey },
        ],
      },
      { timeoutMs, signal: this.#life.signal },
    );
    this.meet(entryOf(results[1])?.text, revision);
    if (this.epoch === undefined) return;
    this.note(revision, history.life);
    const head = entryOf(results[0])?.modRevision ?? 0;
    if (head <= history.revision) this.#prove(sentMs);
    else if (this.#asked.length < 8) this.#asked.push({ head, sentMs });
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#options.platform.setTimer(delayMs, () => {
        forget();
        resolve();
      });
      const forget = onAbort(this.#life.signal, () => {
        timer.cancel();
        resolve();
      });
    });
  }
}

function entryOf(result: OpResult | undefined): Entry | undefined {
  return result?.kind === "get" ? (result.entry ?? undefined) : undefined;
}
