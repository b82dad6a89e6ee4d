/**
 * An election on a store that can only compare and set: a `CasLock` whose holder is announced, with work inside of terms.
 *
 * The next leader is whoever asks first after the last one ended, or has watched it being silent: there is no line.
 */
import { type ConclaveError, LostError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { CallOptions, Revision } from "../store/store.ts";
import { runUnder } from "./acquirable.ts";
import { sleep } from "./bell.ts";
import type { CasHold } from "./cas-hold.ts";
import { CasLock, type CasLockOptions, type CasSource } from "./cas-lock.ts";
import type { LeadOptions } from "./election.ts";
import { checkName } from "./options.ts";

/** Who leads, as observers see it. */
export interface CasLeader {
  readonly value: unknown;
  /** Rises with each renewal of its lease and with each term. */
  readonly revision: Revision;
  readonly owner: string;
}

const observeMs = 1_000;

/** Makes the handle of an election; nothing is sent. @throws INVALID_OPTION @since 0.3.0 */
export function createCasElection(source: CasSource, name: string, options: Pick<CasLockOptions, "ttlMs"> = {}): CasElection {
  checkName(name, "election");
  const title = `Leadership of ${JSON.stringify(name)}`;
  return new CasElection(source, new CasLock(source, { name, namespace: `election/${name}`, title, ...options }), title);
}

/** @since 0.3.0 */
export class CasElection {
  readonly name: string;
  readonly #source: CasSource;
  readonly #lock: CasLock;
  readonly #title: string;

  /** Use `createCasElection`. */
  constructor(source: CasSource, lock: CasLock, title: string) {
    this.name = lock.name;
    this.#source = source;
    this.#lock = lock;
    this.#title = title;
  }

  /**
   * Campaigns, and calls back once it leads; answers with what the callback answers, having resigned. A lost term aborts
   * `term.signal`; only once the callback has settled is there another campaign.
   * @throws LOCK_LOST (with `rerun: false`), what the callback throws, or the signal's reason
   */
  async lead<T>(
    callback: (term: CasHold) => T | Promise<T>,
    { signal, value, rerun = true, onLost }: Omit<LeadOptions, "priority"> = {},
  ): Promise<T> {
    const acquire = { waitMs: Number.POSITIVE_INFINITY, meta: value, ...(signal === undefined ? {} : { signal }) };
    for (;;) {
      const term = await this.#lock.acquire(acquire);
      try {
        return await runUnder(term, this.#title, callback);
      } catch (error) {
        if (!(error instanceof LostError) || term.loss === null || !rerun) throw error;
        onLost?.(error as ConclaveError);
        signal?.throwIfAborted();
      }
    }
  }

  /** Who leads, as far as the store knows; null: nobody. */
  async leader(options: CallOptions = {}): Promise<CasLeader | null> {
    const holder = await this.#lock.holder(options);
    return holder === null ? null : { value: holder.meta, revision: holder.revision, owner: holder.owner };
  }

  /** Tells who leads, at once and on every change, by asking once a second, until the signal aborts or the loop is left. */
  async *observe({ signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<CasLeader | null, void, void> {
    const { platform } = this.#source;
    const link = linkSignal(signal);
    let told: string | null | undefined;
    try {
      while (!link.signal.aborted) {
        const leader = await this.leader({ signal: link.signal });
        const owner = leader?.owner ?? null;
        if (owner !== told) {
          told = owner;
          yield leader;
        }
        await sleep({ platform, timeoutMs: observeMs, signal: link.signal });
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.unlink();
    }
  }
}
