/**
 * The sessions of one client whose server keeps the leases: opened, shared by TTL, kept alive together, ended politely, and ended for others
 * once their time is up.
 *
 * The server's clock judges a lease (a deadline that it keeps), the holder's own clock judges when to stop (`ClientSession`).
 * Nobody on the server looks at deadlines by itself: every call ends what is due before it does its own work, and each
 * client that waits for something looks once more when the nearest deadline that it was told of has passed (a poke).
 * All keep-alives of one turn go as one command.
 */
import { background } from "../base/background.ts";
import { type ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { raceSignal } from "../base/link-signal.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import type { SessionOptions } from "../store/store.ts";
import type { ProcessHold } from "./process-hold.ts";
import { ClientSession, type SessionHost } from "./session.ts";
import { adopted, keptThroughStalls, type LeaseToKeep, type StallKeeper, sharedKey } from "./stall-keeper.ts";

/** One call of the server. */
export interface LeaseCall {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** The call leaves now: deadlines count from here. */
  readonly onSend?: () => void;
}

/** The server's half. `nextMs`: until the nearest deadline of any session; negative: there is none. */
export interface LeaseServer {
  /** @throws QUARANTINED (with `leftMs`: see `quarantined`) */
  open(ttlMs: number, call: LeaseCall): Promise<{ readonly id: string; readonly nextMs: number }>;
  /** Which of them live on. None asked for: only ends what is due. */
  keepAlive(
    sessions: readonly { readonly id: string; readonly ttlMs: number }[],
    call: LeaseCall,
  ): Promise<{ readonly answers: readonly boolean[]; readonly nextMs: number }>;
  end(id: string, call: LeaseCall): Promise<void>;
  /** The error of a quarantine with so much left. */
  quarantined(leftMs: number): ConclaveError;
  /** Somebody will ask for this TTL. */
  noteTtl(ttlMs: number): void;
}

const openTimeoutMs = 10_000;
const closeTimeoutMs = 2_000;
/** Pokes of many clients at one deadline are spread over this time. */
const pokeSpreadMs = 20;
/** A server that does not answer a poke is asked again after this long. */
const pokeAgainMs = 1_000;

export interface LeaseSessionsOptions {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly server: LeaseServer;
  /** Closed with the sessions. */
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
  /** Whether anybody waits for what the end of a session would tell. */
  readonly isAnyoneWatching: () => boolean;
}

interface Shared {
  session: ClientSession | undefined;
  /** The refusal that its opening waits out, and when that was said. */
  refusal: { readonly leftMs: number; readonly atMs: number } | undefined;
  opening: Promise<ClientSession> | undefined;
}

export class LeaseSessions implements SessionHost {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly #options: LeaseSessionsOptions;
  readonly #sessions = new Set<ClientSession>();
  readonly #shared = new Map<string, Shared>();
  /** Asked for in this turn. */
  #due = new Set<ClientSession>();
  #pokeTimer: Timer | undefined;
  #isClosed = false;

  constructor(options: LeaseSessionsOptions) {
    this.#options = options;
    this.platform = options.platform;
    this.processHold = options.processHold;
  }

  /**
   * A session of the caller's own. While the store is in quarantine it waits, for `timeoutMs` where that is given.
   * @throws QUARANTINED, TIMEOUT, CONNECTION_LOST, CLOSED, or the signal's reason
   */
  async open(
    ttlMs: number,
    { maxStallMs, signal, timeoutMs }: SessionOptions = {},
    onQuarantine: (leftMs: number) => void = () => undefined,
  ): Promise<ClientSession> {
    const untilMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : this.platform.now() + timeoutMs;
    this.#options.server.noteTtl(ttlMs);
    for (;;) {
      if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
      try {
        const opened = await this.#openOnce(ttlMs, { signal, timeoutMs: timeoutMs ?? openTimeoutMs });
        return await keptThroughStalls(opened, this.#options.stallKeeper, { maxStallMs, signal, timeoutMs });
      } catch (error) {
        if (!hasCode(error, "QUARANTINED")) throw error;
        const leftMs = (error as { leftMs?: number }).leftMs ?? pokeAgainMs;
        onQuarantine(leftMs);
        if (this.platform.now() + leftMs > untilMs) throw error;
        this.#options.telemetry?.emit({ kind: "client.retry", request: 0, why: error.message });
        await raceSignal(this.#pause(leftMs + 1), signal);
      }
    }
  }

  /** Keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    const session = adopted(lease, this);
    this.#sessions.add(session);
    this.keepAlive(session);
    return session;
  }

  /** See `Store.sharedSessionIfOpen`. */
  sharedIfOpen(ttlMs: number, { maxStallMs }: SessionOptions): ClientSession | undefined {
    const session = this.#shared.get(sharedKey(ttlMs, maxStallMs))?.session;
    return session?.alive ? session : undefined;
  }

  /** The client's session of this TTL: one opening for all who ask meanwhile. */
  shared(ttlMs: number, { maxStallMs, signal, timeoutMs }: SessionOptions = {}): Promise<ClientSession> {
    const key = sharedKey(ttlMs, maxStallMs);
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      shared = { session: undefined, refusal: undefined, opening: undefined };
      this.#shared.set(key, shared);
    }
    const entry = shared;
    if (entry.session?.alive) return Promise.resolve(entry.session);
    const onQuarantine = (leftMs: number): void => {
      entry.refusal = { leftMs, atMs: this.platform.now() };
    };
    entry.opening ??= this.open(ttlMs, maxStallMs === undefined ? {} : { maxStallMs }, onQuarantine)
      .then((opened) => {
        entry.session = opened;
        return opened;
      })
      .finally(() => {
        entry.opening = undefined;
        entry.refusal = undefined;
      });
    const { opening } = entry;
    if (timeoutMs === undefined) return raceSignal(opening, signal);
    const late = new AbortController();
    const timer = this.platform.setTimer(timeoutMs, () => late.abort(this.#lateShared(entry, timeoutMs)));
    return raceSignal(raceSignal(opening, signal), late.signal).finally(() => timer.cancel());
  }

  /** Why the shared session was not open in time. */
  #lateShared({ refusal }: Shared, timeoutMs: number): ConclaveError {
    if (refusal === undefined) return conclaveError("TIMEOUT", `The shared session was not open after ${timeoutMs} ms.`);
    return this.#options.server.quarantined(Math.max(0, Math.ceil(refusal.leftMs - (this.platform.now() - refusal.atMs))));
  }

  keepAlive(session: ClientSession): void {
    if (this.#isClosed) return;
    if (this.#due.size === 0) this.platform.defer(() => background(this.#keepAliveDue(), "keeping sessions alive"));
    this.#due.add(session);
  }

  /** A way to a primary is there again: what nobody answered is said again. */
  onUp(): void {
    for (const session of this.#sessions) session.onLeader();
  }

  /** Somebody begins to wait: the nearest deadline matters from now on. */
  onWatch(): void {
    if (this.#pokeTimer === undefined && this.#sessions.size === 0) this.#pokeIn(pokeAgainMs);
  }

  async end(session: ClientSession): Promise<void> {
    try {
      await this.#options.server.end(session.id, { timeoutMs: closeTimeoutMs });
    } catch {
      // It ends with its TTL: nobody keeps it alive any more.
    }
  }

  forget(session: ClientSession): void {
    this.#sessions.delete(session);
    this.#due.delete(session);
  }

  /** Says goodbye for every session. */
  async close(): Promise<void> {
    const sessions = [...this.#sessions];
    this.#pokeTimer?.cancel();
    await Promise.all(sessions.map((session) => session.close()));
    await this.#options.stallKeeper?.close();
    this.#isClosed = true;
    this.#pokeTimer?.cancel();
  }

  async #openOnce(ttlMs: number, options: LeaseCall): Promise<ClientSession> {
    let sentMs = this.platform.now();
    const onSend = (): void => {
      sentMs = this.platform.now();
    };
    const { id, nextMs } = await this.#options.server.open(ttlMs, { ...options, onSend });
    const session = new ClientSession({ id, ttlMs, sentMs, host: this });
    this.#sessions.add(session);
    if (this.#isClosed) session.abandon();
    this.#options.telemetry?.emit({ kind: "session.opened", member: "", session: session.id, ttlMs });
    this.#onNextDeadline(nextMs);
    return session;
  }

  async #keepAliveDue(): Promise<void> {
    const sessions = [...this.#due];
    this.#due = new Set();
    const ttlMsMin = Math.min(...sessions.map((session) => session.ttlMs));
    let sentMs = this.platform.now();
    for (const session of sessions) session.attempted(sentMs);
    const onSend = (): void => {
      sentMs = this.platform.now();
    };
    try {
      const { answers, nextMs } = await this.#options.server.keepAlive(sessions, { timeoutMs: ttlMsMin / 3, onSend });
      for (const [index, answer] of answers.entries()) {
        if (answer) sessions[index]?.confirm(sentMs);
        else sessions[index]?.expire();
      }
      this.#onNextDeadline(nextMs);
    } catch {
      // Unanswered: the session says it again, and judges by its own clock when it is too late.
    }
  }

  /** Of any session of the group. Only the nearest one matters: each poke tells the next. */
  #onNextDeadline(nextMs: number): void {
    if (nextMs < 0 || this.#isClosed) return;
    this.#pokeIn(nextMs);
  }

  #pokeIn(delayMs: number): void {
    this.#pokeTimer?.cancel();
    const spreadMs = 1 + (this.platform.randomUint32() / 2 ** 32) * pokeSpreadMs;
    this.#pokeTimer = this.platform.setTimer(delayMs + spreadMs, () => {
      this.#pokeTimer = undefined;
      if (!this.#isClosed && this.#options.isAnyoneWatching()) background(this.#poke(), "ending what is due");
    });
  }

  async #poke(): Promise<void> {
    let nextMs = pokeAgainMs;
    try {
      ({ nextMs } = await this.#options.server.keepAlive([], { timeoutMs: pokeAgainMs }));
    } catch {
      // Asked again soon.
    }
    this.#onNextDeadline(nextMs);
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.platform.setTimer(delayMs, resolve, { ref: true }));
  }
}
