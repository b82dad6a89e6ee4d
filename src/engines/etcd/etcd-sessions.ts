/**
 * The sessions of one client of etcd: each a lease, kept alive over one stream, judged by the holder's own clock
 * (`ClientSession`).
 *
 * The client draws the lease's id (52 bits), so that a grant whose answer was lost can be revoked instead of lingering.
 * A keep-alive counts from its own send: answers come in the order of asking, per lease. One that is not answered before
 * the session asks again means a stream, or a member, that is no use: another one is opened.
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Platform, Telemetry } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { ClientSession, type SessionHost } from "../../client/session.ts";
import { SharedSessions } from "../../client/shared-sessions.ts";
import { adopted, keptThroughStalls, type LeaseToKeep, type StallKeeper } from "../../client/stall-keeper.ts";
import type { SessionOptions } from "../../store/store.ts";
import type { GrpcClient, GrpcStream } from "./grpc.ts";
import type { EtcdLink } from "./link.ts";
import { decodeLease, encodeLeaseGrant, encodeLeaseId, paths } from "./messages.ts";

const openTimeoutMs = 10_000;
const closeTimeoutMs = 2_000;
/** Sent and unanswered keep-alives of one lease; older ones are forgotten. */
const inFlightMax = 16;
/** A slow network is not a sleeping member. */
const patienceMsMin = 250;

export interface EtcdSessionsOptions {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly link: EtcdLink;
  /** Closed with the sessions. */
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

interface Kept {
  readonly session: ClientSession;
  /** When the keep-alives on the present stream that wait for an answer were sent, oldest first. */
  sentMs: number[];
}

export class EtcdSessions implements SessionHost {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly #options: EtcdSessionsOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #shared: SharedSessions;
  #stream: { readonly stream: GrpcStream; readonly client: GrpcClient } | undefined;
  #isClosed = false;

  constructor(options: EtcdSessionsOptions) {
    this.#options = options;
    this.platform = options.platform;
    this.processHold = options.processHold;
    this.#shared = new SharedSessions(options.platform, (ttlMs, asked) => this.open(ttlMs, asked));
  }

  /** @throws TIMEOUT, CONNECTION_LOST, CLOSED and others, or the signal's reason */
  async open(ttlMs: number, { maxStallMs, signal, timeoutMs = openTimeoutMs }: SessionOptions = {}): Promise<ClientSession> {
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const id = drawLeaseId(this.platform);
    const ttlSeconds = Math.ceil(ttlMs / 1_000);
    const sentMs = this.platform.now();
    let granted: ReturnType<typeof decodeLease>;
    try {
      const { link } = this.#options;
      granted = decodeLease(await link.call(paths.leaseGrant, encodeLeaseGrant({ id, ttlSeconds }), { timeoutMs, signal }));
    } catch (error) {
      if (!(error instanceof ConclaveError) || !error.definite) background(this.#revoke(id), "revoking a lease in doubt");
      throw error;
    }
    // The server may grant less, or more, than was asked for: what it grants is what counts.
    const isAsAsked = granted.ttlSeconds === ttlSeconds;
    const session = new ClientSession({
      id: String(id),
      ttlMs: isAsAsked ? ttlMs : granted.ttlSeconds * 1_000,
      sentMs,
      host: this,
    });
    this.#kept.set(session.id, { session, sentMs: [] });
    if (this.#isClosed) session.abandon();
    this.#options.telemetry?.emit({ kind: "session.opened", member: "", session: session.id, ttlMs: session.ttlMs });
    return keptThroughStalls(session, this.#options.stallKeeper, { maxStallMs, signal, timeoutMs });
  }

  /** Keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    const session = adopted(lease, this);
    this.#kept.set(session.id, { session, sentMs: [] });
    this.keepAlive(session);
    return session;
  }

  shared(ttlMs: number, options: SessionOptions): Promise<ClientSession> {
    return this.#shared.of(ttlMs, options);
  }

  keepAlive(session: ClientSession): void {
    const kept = this.#kept.get(session.id);
    if (this.#isClosed || kept === undefined) return;
    const nowMs = this.platform.now();
    // Asked a while ago and not answered: whoever should answer is asleep, or gone.
    const [oldestMs] = kept.sentMs;
    const isAsleep = oldestMs !== undefined && nowMs - oldestMs > this.#patienceMs(session);
    if (isAsleep && this.#stream !== undefined) this.#drop(this.#stream, true);
    session.attempted(nowMs);
    background(this.#say(kept), "keeping a session alive");
  }

  /** Another member is spoken to: what was not answered is said again. */
  onMove(): void {
    if (this.#stream !== undefined) this.#drop(this.#stream, false);
    for (const { session } of this.#kept.values()) session.onLeader();
  }

  /** etcd knows no such lease. Of several it does not say which one: their next keep-alives will. */
  onGone(sessions: readonly number[]): void {
    const [only] = sessions;
    if (sessions.length === 1) this.#kept.get(String(only))?.session.expire();
    else for (const session of sessions) this.#kept.get(String(session))?.session.onLeader();
  }

  async end(session: ClientSession): Promise<void> {
    await this.#revoke(session.number);
  }

  forget(session: ClientSession): void {
    this.#kept.delete(session.id);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#kept.values()].map(({ session }) => session.close()));
    await this.#options.stallKeeper?.close();
    this.#isClosed = true;
    if (this.#stream !== undefined) this.#drop(this.#stream, false);
  }

  /**
   * How long an answer is waited for before another member is asked: every member, once, between the first question (at a
   * third of the TTL) and the end of the hold (at two thirds). A follower is silent as long as its leader sleeps, so the
   * first two of three can be.
   */
  #patienceMs({ ttlMs }: ClientSession): number {
    return Math.max(patienceMsMin, ttlMs / 3 / (this.#options.link.endpoints.length + 1));
  }

  async #revoke(id: number): Promise<void> {
    try {
      await this.#options.link.call(paths.leaseRevoke, encodeLeaseId(id), { timeoutMs: closeTimeoutMs });
    } catch {
      // It ends with its TTL: nobody keeps it alive any more.
    }
  }

  async #say(kept: Kept): Promise<void> {
    const { link } = this.#options;
    try {
      await link.ready(kept.session.ttlMs / 3);
    } catch {
      // Without a token nothing can be said: the session's clock goes on.
      return;
    }
    if (this.#isClosed || !this.#kept.has(kept.session.id)) return;
    this.#stream ??= this.#open();
    if (kept.sentMs.length >= inFlightMax) kept.sentMs.shift();
    kept.sentMs.push(this.platform.now());
    this.#stream.stream.write(encodeLeaseId(kept.session.number));
  }

  #open(): { readonly stream: GrpcStream; readonly client: GrpcClient } {
    const opened = this.#options.link.stream(paths.leaseKeepAlive);
    opened.stream.on("data", (message) => {
      if (this.#stream === opened) this.#onAnswer(decodeLease(message as Buffer));
    });
    opened.stream.on("error", (failure) => {
      if (this.#stream !== opened) return;
      if (failure.code === 16) this.#options.link.forgetToken();
      this.#drop(opened, true);
    });
    opened.stream.on("end", () => {
      if (this.#stream === opened) this.#drop(opened, false);
    });
    return opened;
  }

  #onAnswer({ id, ttlSeconds }: ReturnType<typeof decodeLease>): void {
    const kept = this.#kept.get(id);
    const sentMs = kept?.sentMs.shift();
    if (kept === undefined || sentMs === undefined) return;
    if (ttlSeconds <= 0) kept.session.expire();
    // Less than before: the server's word counts, and the session was made for more.
    else if (ttlSeconds * 1_000 >= kept.session.ttlMs) kept.session.confirm(sentMs);
  }

  /** `leaves`: and the member with it. */
  #drop(opened: { readonly stream: GrpcStream; readonly client: GrpcClient }, leaves: boolean): void {
    this.#stream = undefined;
    for (const kept of this.#kept.values()) kept.sentMs = [];
    opened.stream.cancel();
    if (leaves) this.#options.link.move(opened.client);
  }
}

/** From 1 to 2^52: a lease's id as a number, which its text must be. */
function drawLeaseId(platform: Platform): number {
  return (platform.randomUint32() % 2 ** 20) * 2 ** 32 + platform.randomUint32() + 1;
}
