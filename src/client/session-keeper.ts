/**
 * The sessions of one client: opened, shared by TTL, kept alive on whichever link leads, ended politely.
 * Keep-alives are no calls: each attempt is a request of its own with its own send time, and none waits for another.
 */
import { background } from "../base/background.ts";
import { ConclaveError, conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { raceSignal } from "../base/link-signal.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import type { Outcome } from "../store/outcome.ts";
import type { SessionOptions } from "../store/store.ts";
import { writeKeepAlive } from "../wire/client-messages.ts";
import type { Refused } from "../wire/server-messages.ts";
import type { Caller } from "./caller.ts";
import { ClaimWindow } from "./claim-window.ts";
import type { Link } from "./link.ts";
import type { Navigator } from "./navigator.ts";
import type { ClientLimits } from "./options.ts";
import type { ProcessHold } from "./process-hold.ts";
import { ClientSession, type SessionHost } from "./session.ts";
import { adopted, keptThroughStalls, type LeaseToKeep, type StallKeeper, sharedKey } from "./stall-keeper.ts";

type Opened = Extract<Outcome, { readonly kind: "opened" }> & { readonly sentMs: number };

export interface SessionKeeperOptions {
  readonly platform: Platform;
  readonly limits: ClientLimits;
  readonly claimsOpenMax: number;
  readonly processHold: ProcessHold;
  readonly navigator: Navigator;
  readonly caller: Caller;
  readonly onAsked: (link: Link, nowMs: number) => void;
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

interface Attempt {
  readonly session: ClientSession;
  readonly link: Link;
  readonly sentMs: number;
}

export class SessionKeeper implements SessionHost {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly #options: SessionKeeperOptions;
  readonly #sessions = new Set<ClientSession>();
  /** Keep-alives without an answer, by request id. */
  readonly #attempts = new Map<number, Attempt>();
  /** By `sharedKey`: the shared session, or its opening. */
  readonly #shared = new Map<string, { session: ClientSession | undefined; opening: Promise<ClientSession> | undefined }>();
  /** Claims of the shared session of the default TTL. */
  #claims: { readonly window: ClaimWindow; readonly session: ClientSession } | undefined;
  #isOpeningClaims = false;
  #claimsTimer: Timer | undefined;
  #isClosed = false;

  constructor(options: SessionKeeperOptions) {
    this.#options = options;
    this.platform = options.platform;
    this.processHold = options.processHold;
  }

  get count(): number {
    return this.#sessions.size;
  }

  /** Keep-alives without an answer. */
  get attemptCount(): number {
    return this.#attempts.size;
  }

  /** The session by which the client makes its claims, or will. */
  get claimSession(): ClientSession | undefined {
    return this.#shared.get(sharedKey(this.#options.limits.sessionTtlMs, undefined))?.session;
  }

  /** Opens a session of the caller's own. */
  async open(ttlMs: number, options: SessionOptions = {}): Promise<ClientSession> {
    for (;;) {
      const { maxStallMs, signal, timeoutMs } = options;
      const opened = await this.#options.caller.submit<Opened>({ kind: "open-session", number: ttlMs, signal, timeoutMs });
      const session = new ClientSession({ id: opened.session, ttlMs, sentMs: opened.sentMs, host: this });
      // Opened by a copy that was said long ago: too old to rely on, and it lapses by itself.
      if (!session.alive) continue;
      if (this.#isClosed) {
        session.abandon();
        throw conclaveError("CLOSED", "The client was closed while the session was opened; it ends with its TTL.");
      }
      this.#sessions.add(session);
      this.#options.telemetry?.emit({ kind: "session.opened", member: "", session: session.id, ttlMs });
      return keptThroughStalls(session, this.#options.stallKeeper, { maxStallMs, signal, timeoutMs });
    }
  }

  /** Keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    const session = adopted(lease, this);
    this.#sessions.add(session);
    this.keepAlive(session);
    return session;
  }

  /** The client's session of this TTL: one opening for all who ask meanwhile. */
  shared(ttlMs: number, options: SessionOptions = {}): Promise<ClientSession> {
    const { maxStallMs } = options;
    const key = sharedKey(ttlMs, maxStallMs);
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      shared = { session: undefined, opening: undefined };
      this.#shared.set(key, shared);
    }
    const { session } = shared;
    if (session?.alive) return Promise.resolve(session);
    const entry = shared;
    entry.opening ??= this.open(ttlMs, maxStallMs === undefined ? {} : { maxStallMs })
      .then((opened) => {
        entry.session = opened;
        return opened;
      })
      .finally(() => {
        entry.opening = undefined;
      });
    return this.#waitFor(entry.opening, options);
  }

  /** Claims for mutations; undefined while their session is being opened. */
  claims(nowMs: number): ClaimWindow | undefined {
    if (this.#claims?.session.isAliveAt(nowMs)) return this.#claims.window;
    this.#claims = undefined;
    if (!this.#isOpeningClaims && !this.#isClosed) background(this.#openClaims(), "opening the session of the client's claims");
    return undefined;
  }

  onClaimsExpired(window: ClaimWindow): void {
    if (this.#claims?.window === window) this.#claims.session.expire();
  }

  keepAlive(session: ClientSession): void {
    const { navigator, caller } = this.#options;
    const link = navigator.leaderLink;
    if (link === undefined) {
      navigator.want();
      return;
    }
    const nowMs = this.platform.now();
    const requestId = caller.nextRequestId();
    this.#attempts.set(requestId, { session, link, sentMs: nowMs });
    session.attempted(nowMs);
    writeKeepAlive(link.writer(), requestId, session.number);
    this.#options.onAsked(link, nowMs);
  }

  onLeader(): void {
    for (const session of this.#sessions) this.keepAlive(session);
  }

  onLinkClosed(link: Link): void {
    for (const [requestId, attempt] of this.#attempts) if (attempt.link === link) this.#attempts.delete(requestId);
  }

  onReady(requestId: number): void {
    const attempt = this.#takeAttempt(requestId);
    attempt?.session.confirm(attempt.sentMs);
  }

  /** Answers whether it was a keep-alive. */
  onRefused(requestId: number, refused: Refused): boolean {
    const attempt = this.#takeAttempt(requestId);
    if (attempt === undefined) return false;
    if (refused.code === "SESSION_EXPIRED") attempt.session.expire();
    return true;
  }

  async end(session: ClientSession): Promise<void> {
    const { caller, limits } = this.#options;
    const request = { kind: "close-session", number: session.number, timeoutMs: limits.closeTimeoutMs } as const;
    try {
      await (this.#isClosed ? caller.submitLast(request) : caller.submit(request));
    } catch {
      // It ends with its TTL: nobody keeps it alive any more.
    }
  }

  forget(session: ClientSession): void {
    this.#sessions.delete(session);
    for (const [requestId, attempt] of this.#attempts) if (attempt.session === session) this.#attempts.delete(requestId);
    if (this.#claims?.session === session) this.#claims = undefined;
  }

  /** Says goodbye for every session, as long as a leader is there to hear it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#claimsTimer?.cancel();
    const sessions = [...this.#sessions];
    if (this.#options.navigator.leaderLink === undefined) for (const session of sessions) session.abandon();
    else await Promise.all(sessions.map((session) => session.close()));
  }

  async #openClaims(): Promise<void> {
    const { caller, limits } = this.#options;
    this.#isOpeningClaims = true;
    try {
      const session = await this.shared(limits.sessionTtlMs);
      this.#claims = { window: new ClaimWindow(session.id, this.#options.claimsOpenMax), session };
      this.#isOpeningClaims = false;
      caller.pump();
    } catch (error) {
      // Whoever waits for claims has a deadline. A refusal for good is theirs at once; else the next attempt may fare better.
      if (error instanceof ConclaveError && !error.retryable) caller.failWrites(error);
      if (this.#isClosed) return;
      this.#claimsTimer = this.platform.setTimer(limits.backoffMsMax, () => {
        this.#isOpeningClaims = false;
        caller.pump();
      });
    }
  }

  #takeAttempt(requestId: number): Attempt | undefined {
    const attempt = this.#attempts.get(requestId);
    this.#attempts.delete(requestId);
    return attempt;
  }

  /** Waits for somebody else's opening, by the caller's own signal and time. */
  async #waitFor(opening: Promise<ClientSession>, options: SessionOptions): Promise<ClientSession> {
    const { signal, timeoutMs } = options;
    if (timeoutMs === undefined) return raceSignal(opening, signal);
    const late = new AbortController();
    const timer = this.platform.setTimer(timeoutMs, () =>
      late.abort(conclaveError("TIMEOUT", `The shared session was not open after ${timeoutMs} ms.`)),
    );
    try {
      return await raceSignal(raceSignal(opening, signal), late.signal);
    } finally {
      timer.cancel();
    }
  }
}
