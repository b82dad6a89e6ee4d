/**
 * One load per cluster: a lease on a key's fill, kept in the Store and bound to a session, so that it ends with its holder.
 *
 * Only economy hangs on it: what makes a value safe to keep is its revision, never the lease. So every doubt (no answer,
 * a session that ended, a wait that took too long) is answered by loading.
 * Source: leases against thundering herds, Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, §3.2.1.
 */
import { background } from "../base/background.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { Compare, Store } from "../store/store.ts";

export type LeaseAnswer =
  /** `revision`: of the grant. A load that begins now sees everything that was written before it. */
  | { readonly kind: "won"; readonly revision: number; readonly release: () => void }
  /** Somebody has been loading since `since`; `revision`: of what was read. */
  | { readonly kind: "lost"; readonly since: number; readonly revision: number }
  | { readonly kind: "unknown" };

export interface FillLeasesOptions {
  readonly store: Store;
  readonly platform: Platform;
  /** How long a silent holder keeps its leases. */
  readonly ttlMs: number;
}

/** So many times as long as anybody waits for it, an answer is still of use: to give back what it grants. */
const lateFactor = 10;

export class FillLeases {
  readonly #options: FillLeasesOptions;

  constructor(options: FillLeasesOptions) {
    this.#options = options;
  }

  /** Opens the session that leases are bound to, so that the first miss need not. Whether it is there. */
  async warm(timeoutMs: number): Promise<boolean> {
    const { store, platform, ttlMs } = this.#options;
    try {
      return (await within(store.sharedSession({ ttlMs, timeoutMs }), platform, timeoutMs)) !== undefined;
    } catch {
      // The first lease tries again.
      return false;
    }
  }

  /** `over`: take it from a holder whose load began too early to be of use. */
  async acquire(hash: number, { timeoutMs, over }: { readonly timeoutMs: number; readonly over?: number }): Promise<LeaseAnswer> {
    const { store, platform, ttlMs } = this.#options;
    const key = leaseKey(hash);
    const token = `${platform.randomUint32().toString(36)}-${platform.randomUint32().toString(36)}`;
    const isFree: Compare =
      over === undefined
        ? { key, target: "exists", is: "equal", to: false }
        : { key, target: "modRevision", is: "equal", to: over };
    const untilMs = platform.now() + timeoutMs;
    try {
      const session = await within(store.sharedSession({ ttlMs, timeoutMs }), platform, timeoutMs);
      const leftMs = untilMs - platform.now();
      if (session === undefined || leftMs <= 0) return { kind: "unknown" };
      // The store's own deadline would not look whether the answer lies there unread: `within` does.
      const sent = store.txn(
        { if: [isFree], then: [{ kind: "put", key, value: token, session: session.id }], else: [{ kind: "get", key }] },
        { timeoutMs: leftMs * lateFactor },
      );
      const answer = await within(sent, platform, leftMs);
      if (answer === undefined) {
        const giveBack = (): void => this.#release(key, token);
        sent.then(({ succeeded }) => {
          if (succeeded) giveBack();
        }, giveBack);
        return { kind: "unknown" };
      }
      const { succeeded, revision, results } = answer;
      if (succeeded) return { kind: "won", revision, release: () => this.#release(key, token) };
      const holder = results[0]?.kind === "get" ? results[0].entry : null;
      return { kind: "lost", since: holder?.modRevision ?? revision, revision };
    } catch {
      // It may have been granted after all; then it is given back, and else nobody is the wiser.
      this.#release(key, token);
      return { kind: "unknown" };
    }
  }

  /** Until the lease that was seen at `revision` is gone, or the time is up. */
  async whenFreed(
    hash: number,
    { revision, timeoutMs }: { readonly revision: number; readonly timeoutMs: number },
  ): Promise<void> {
    const { store, platform } = this.#options;
    const end = linkSignal(undefined);
    const timer = platform.setTimer(timeoutMs, () => end.abort(), { ref: true });
    try {
      for await (const batch of store.watch({ key: leaseKey(hash) }, { from: revision + 1, signal: end.signal })) {
        if (batch.kind === "resync" || batch.events.some((event) => event.kind === "delete" || event.revision > revision)) return;
      }
    } catch {
      // A watch that fails is a wait that is over: the caller looks for itself.
    } finally {
      timer.cancel();
      end.abort();
    }
  }

  #release(key: string, token: string): void {
    const gone = this.#options.store
      .txn({
        if: [{ key, target: "value", is: "equal", to: token }],
        then: [{ kind: "delete", range: { key } }],
      })
      // What is not given back ends with the session.
      .catch(() => undefined);
    background(gone, "give back a fill lease");
  }
}

export function leaseKey(hash: number): string {
  return `l/${hash}`;
}

/**
 * The value, or undefined when the time is up first. When it seems to be, this process may have slept, and the answer lie
 * there unread: what has come is read first, which takes a turn of the event loop.
 */
async function within<T>(promise: Promise<T>, platform: Platform, timeoutMs: number): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const timer = platform.setTimer(timeoutMs, () => platform.defer(() => resolve(undefined)), { ref: true });
    promise.then(resolve, reject).finally(() => timer.cancel());
  });
}
