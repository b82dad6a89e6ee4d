/**
 * The sessions that all of a process share, one for each TTL and `maxStallMs`: opened on first use, and anew once lost.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal, raceSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { SessionOptions } from "../store/store.ts";
import type { ClientSession } from "./session.ts";
import { sharedKey } from "./stall-keeper.ts";

interface Shared {
  session: ClientSession | undefined;
  opening: Promise<ClientSession> | undefined;
}

type Open = (ttlMs: number, options: Pick<SessionOptions, "maxStallMs">) => Promise<ClientSession>;

export class SharedSessions {
  readonly #platform: Platform;
  readonly #open: Open;
  readonly #shared = new Map<string, Shared>();

  constructor(platform: Platform, open: Open) {
    this.#platform = platform;
    this.#open = open;
  }

  /** One opening for all who ask meanwhile; a caller's signal and time end that caller's wait alone. @throws TIMEOUT */
  of(ttlMs: number, options: SessionOptions): Promise<ClientSession> {
    const { maxStallMs } = options;
    const key = sharedKey(ttlMs, maxStallMs);
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      shared = { session: undefined, opening: undefined };
      this.#shared.set(key, shared);
    }
    const entry = shared;
    if (entry.session?.alive) return Promise.resolve(entry.session);
    entry.opening ??= this.#open(ttlMs, maxStallMs === undefined ? {} : { maxStallMs })
      .then((opened) => {
        entry.session = opened;
        return opened;
      })
      .finally(() => {
        entry.opening = undefined;
      });
    return this.#within(entry.opening, options);
  }

  /** The one that is open; undefined: ask `of`. */
  ifOpen(ttlMs: number, maxStallMs?: number): ClientSession | undefined {
    const session = this.#shared.get(sharedKey(ttlMs, maxStallMs))?.session;
    return session?.alive ? session : undefined;
  }

  async #within(opening: Promise<ClientSession>, { signal, timeoutMs }: SessionOptions): Promise<ClientSession> {
    if (timeoutMs === undefined) return raceSignal(opening, signal);
    const link = linkSignal(signal);
    const late = conclaveError("TIMEOUT", `The shared session was not open after ${timeoutMs} ms.`);
    const timer = this.#platform.setTimer(timeoutMs, () => link.abort(late));
    try {
      return await raceSignal(opening, link.signal);
    } finally {
      timer.cancel();
      link.unlink();
    }
  }
}
