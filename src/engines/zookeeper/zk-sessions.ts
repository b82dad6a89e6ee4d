/**
 * The sessions of one client of ZooKeeper. One session of ZooKeeper's for each TTL; ours share it, and are ended by deleting
 * what is bound to each.
 *
 * A keep-alive is not a ping. A server that was cut off answers pings until it notices, up to `syncLimit` ticks, while the
 * others end the session: the holder would believe in it for longer than they do. So a keep-alive is a write, to a node that
 * goes with the session: its answer says that a majority had it, with a leader that knew the session, after it was sent.
 * All keep-alives of one TTL in one turn are one write.
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Platform, Telemetry } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { ClientSession, type SessionHost } from "../../client/session.ts";
import { SharedSessions } from "../../client/shared-sessions.ts";
import type { SessionNumber } from "../../store/command.ts";
import { namespaceOf } from "../../store/key.ts";
import type { SessionOptions } from "../../store/store.ts";
import type { ZkPaths } from "./paths.ts";
import { type Acl, codes, create, errorOfCode, getData, multi, type Reply, type Step, setData } from "./protocol.ts";
import { bump, sessionIn } from "./steps.ts";
import type { ZkClient, ZkClientOptions } from "./zk-client.ts";

const openTimeoutMs = 10_000;
const closeTimeoutMs = 2_000;
/** Before an opening that lost its connection or its session is tried again. */
const againMs = 50;
/** What a session left behind is looked for again after this long, as often as this. */
const forgetAgainMs = 1_000;
const forgetTries = 30;
const nothing = Buffer.alloc(0);

export interface ZkSessionsOptions {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly paths: ZkPaths;
  readonly acl: Acl;
  readonly openClient: (options: Pick<ZkClientOptions, "ttlMs" | "onConnected" | "onOver">) => Promise<ZkClient>;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

/** A session of ZooKeeper's, and ours on it. */
interface Class {
  readonly client: ZkClient;
  /** Of its own node, which keep-alives write. */
  readonly node: string;
  readonly sessions: Set<ClientSession>;
  due: Set<ClientSession>;
  /** The next session is opened on another one. */
  readonly retire: () => void;
}

export class ZkSessions implements SessionHost {
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly #options: ZkSessionsOptions;
  readonly #classes = new Map<number, Promise<Class>>();
  readonly #classOf = new Map<SessionNumber, Class>();
  /** Whole keys that this process has bound, or may have. */
  readonly #bound = new Map<SessionNumber, Set<string>>();
  readonly #sessionOf = new Map<string, SessionNumber>();
  readonly #shared: SharedSessions;
  #isClosed = false;

  constructor(options: ZkSessionsOptions) {
    this.#options = options;
    this.platform = options.platform;
    this.processHold = options.processHold;
    this.#shared = new SharedSessions(options.platform, (ttlMs) => this.open(ttlMs));
  }

  async open(ttlMs: number, { signal, timeoutMs = openTimeoutMs }: SessionOptions = {}): Promise<ClientSession> {
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    this.processHold.retain();
    const untilMs = this.platform.now() + timeoutMs;
    try {
      for (;;) {
        const kept = await this.#class(ttlMs);
        signal?.throwIfAborted();
        try {
          return await this.#openOn(kept, { signal, timeoutMs: Math.max(1, untilMs - this.platform.now()) });
        } catch (error) {
          // Nothing of this caller's is bound yet, and saying a keep-alive twice does no harm: the next connection is as good, and,
          // where the servers have ended ZooKeeper's session (as after a sleep), the next session.
          const isLost = kept.client.isOver || hasCode(error, "CONNECTION_LOST");
          if (!isLost || this.#isClosed || signal?.aborted || this.platform.now() + againMs > untilMs) throw error;
        }
        await new Promise<void>((resolve) => void this.platform.setTimer(againMs, resolve));
      }
    } finally {
      this.processHold.release();
    }
  }

  /** One of ours on ZooKeeper's. */
  async #openOn(
    kept: Class,
    options: { readonly signal: AbortSignal | undefined; readonly timeoutMs: number },
  ): Promise<ClientSession> {
    const { client, node, sessions } = kept;
    if (client.isOver) {
      kept.retire();
      throw conclaveError("CONNECTION_LOST", "ZooKeeper has ended the session.", { definite: true });
    }
    // What was confirmed for the others counts for this one from its own word on.
    let sentMs = this.platform.now();
    const onSend = (): void => {
      sentMs = this.platform.now();
    };
    const [reply] = await client.call([setData(node, { data: nothing, version: -1 })], { ...options, onSend });
    if (reply.code === codes.noNode || reply.code === codes.sessionExpired) {
      // Somebody has deleted its node, or the session is over: nothing can be confirmed on it any more.
      kept.retire();
      for (const session of [...sessions]) session.expire();
      await client.close();
      throw conclaveError("CONNECTION_LOST", "The session of ZooKeeper, or its node, is gone.", { definite: true });
    }
    if (reply.code !== codes.ok) throw errorOfCode(reply.code, "Opening a session");
    const number = drawNumber(this.platform);
    const session = new ClientSession({ id: String(number), ttlMs: client.ttlMs, sentMs, host: this });
    sessions.add(session);
    this.#classOf.set(number, kept);
    if (this.#isClosed) session.abandon();
    this.#options.telemetry?.emit({ kind: "session.opened", member: "", session: session.id, ttlMs: session.ttlMs });
    return session;
  }

  shared(ttlMs: number, options: SessionOptions): Promise<ClientSession> {
    return this.#shared.of(ttlMs, options);
  }

  sharedIfOpen(ttlMs: number): ClientSession | undefined {
    return this.#shared.ifOpen(ttlMs);
  }

  /** Who sends what is bound to it; undefined: it is not one of this process, or is over. */
  clientOf(session: SessionNumber): ZkClient | undefined {
    const kept = this.#classOf.get(session);
    return kept === undefined || kept.client.isOver ? undefined : kept.client;
  }

  /** Said before the key is bound: whether that happened may stay unknown. */
  noteBound(session: SessionNumber, whole: string): void {
    this.noteGone(whole);
    const keys = this.#bound.get(session) ?? new Set();
    this.#bound.set(session, keys.add(whole));
    this.#sessionOf.set(whole, session);
  }

  /** Whose the key is, as far as this process has bound it. */
  bindingOf(whole: string): SessionNumber | undefined {
    return this.#sessionOf.get(whole);
  }

  noteGone(whole: string): void {
    const session = this.#sessionOf.get(whole);
    if (session === undefined) return;
    this.#sessionOf.delete(whole);
    this.#bound.get(session)?.delete(whole);
  }

  keepAlive(session: ClientSession): void {
    const kept = this.#classOf.get(session.number);
    if (kept === undefined || this.#isClosed) return;
    if (kept.due.size === 0) this.platform.defer(() => background(this.#keepAliveDue(kept), "keeping sessions alive"));
    kept.due.add(session);
  }

  /** Deletes what is bound to it; what cannot be deleted now is, in the background, or goes with ZooKeeper's session. */
  async end(session: ClientSession): Promise<void> {
    const kept = this.#classOf.get(session.number);
    const keys = this.#bound.get(session.number);
    this.#classOf.delete(session.number);
    if (kept === undefined || keys === undefined || keys.size === 0 || kept.client.isOver) {
      this.#forgetBound(session.number);
      return;
    }
    try {
      await this.#deleteBound(kept.client, session.id, keys);
      this.#forgetBound(session.number);
    } catch {
      background(this.#deleteLater(kept.client, session, keys), "ending a session");
    }
  }

  forget(session: ClientSession): void {
    const kept = this.#classOf.get(session.number);
    kept?.sessions.delete(session);
    kept?.due.delete(session);
    // Lost, not closed: ZooKeeper's own session may live on for others, so what was bound has to be deleted by us.
    this.platform.defer(() => {
      if (this.#classOf.has(session.number) && !this.#isClosed) background(this.end(session), "ending a lost session");
    });
  }

  async close(): Promise<void> {
    const classes = await Promise.all([...this.#classes.values()].map((opening) => opening.catch(() => undefined)));
    this.#isClosed = true;
    for (const kept of classes) for (const session of [...(kept?.sessions ?? [])]) session.abandon();
    await Promise.all(classes.map((kept) => kept?.client.close()));
  }

  #class(ttlMs: number): Promise<Class> {
    const standing = this.#classes.get(ttlMs);
    if (standing !== undefined) return standing;
    const retire = (): void => {
      // By then another may stand in its place.
      if (this.#classes.get(ttlMs) === opening) this.#classes.delete(ttlMs);
    };
    const opening = this.#openClass(ttlMs, retire);
    this.#classes.set(ttlMs, opening);
    opening.catch(retire);
    return opening;
  }

  async #openClass(ttlMs: number, retire: () => void): Promise<Class> {
    const { acl, openClient, paths } = this.#options;
    let kept: Class | undefined;
    const client = await openClient({
      ttlMs,
      onConnected: () => {
        for (const session of kept?.sessions ?? []) session.onLeader();
      },
      onOver: () => {
        retire();
        for (const session of [...(kept?.sessions ?? [])]) session.expire();
      },
    });
    const node = paths.session(drawNumber(this.platform));
    const fields = { data: nothing, kind: "ephemeral", acl } as const;
    try {
      const [reply] = await client.call([create(node, fields)], { timeoutMs: openTimeoutMs });
      if (reply.code !== codes.ok) throw errorOfCode(reply.code, "Opening a session");
    } catch (error) {
      await client.close();
      throw error;
    }
    kept = { client, node, sessions: new Set(), due: new Set(), retire };
    return kept;
  }

  async #keepAliveDue(kept: Class): Promise<void> {
    const sessions = [...kept.due];
    kept.due = new Set();
    if (sessions.length === 0 || kept.client.isOver) return;
    let sentMs = this.platform.now();
    for (const session of sessions) session.attempted(sentMs);
    const onSend = (): void => {
      sentMs = this.platform.now();
    };
    let reply: Reply<unknown>;
    try {
      const timeoutMs = kept.client.ttlMs / 3;
      [reply] = await kept.client.call([setData(kept.node, { data: nothing, version: -1 })], { timeoutMs, onSend });
    } catch {
      // Unanswered: the session says it again, and judges by its own clock when it is too late.
      return;
    }
    // One for all: whoever lives is confirmed by it, asked or not.
    if (reply.code === codes.ok) for (const session of kept.sessions) session.confirm(sentMs);
    else if (reply.code === codes.noNode || reply.code === codes.sessionExpired)
      for (const session of [...kept.sessions]) session.expire();
  }

  async #deleteBound(client: ZkClient, session: string, keys: ReadonlySet<string>): Promise<void> {
    const { paths } = this.#options;
    const listed = [...keys];
    const replies = (await client.call(
      listed.map((key) => getData(paths.key(key))),
      { timeoutMs: closeTimeoutMs },
    )) as readonly Reply<{ readonly data: Buffer; readonly stat: { readonly version: number } }>[];
    for (const [index, reply] of replies.entries()) {
      const key = listed[index] as string;
      if (reply.code !== codes.ok || reply.value === undefined || sessionIn(reply.value.data) !== session) continue;
      const steps: Step[] = [
        { kind: "delete", path: paths.key(key), version: reply.value.stat.version },
        bump(namespaceOf(key), paths),
      ];
      const [deleted] = await client.call([multi(steps)], { timeoutMs: closeTimeoutMs });
      const isDone = deleted.value?.every(({ code }) => code === codes.ok) ?? false;
      // Somebody changed it in the meantime: looked at again.
      if (!isDone) throw conclaveError("BUSY", `Key ${key} was not deleted with its session.`);
    }
  }

  async #deleteLater(client: ZkClient, session: ClientSession, keys: ReadonlySet<string>): Promise<void> {
    for (let tries = 0; tries < forgetTries && !client.isOver; tries++) {
      await new Promise<void>((resolve) => void this.platform.setTimer(forgetAgainMs, resolve));
      try {
        await this.#deleteBound(client, session.id, keys);
        break;
      } catch (error) {
        if (!(error instanceof ConclaveError)) throw error;
      }
    }
    this.#forgetBound(session.number);
  }

  #forgetBound(session: SessionNumber): void {
    for (const key of this.#bound.get(session) ?? []) this.#sessionOf.delete(key);
    this.#bound.delete(session);
  }
}

/** From 1 to 2^52: drawn, so that nobody ever draws it again. */
function drawNumber(platform: Platform): number {
  return (platform.randomUint32() % 2 ** 20) * 2 ** 32 + platform.randomUint32() + 1;
}
