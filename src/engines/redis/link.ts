/**
 * The way to the primary that stays while connections come and go: one connection at a time, found anew when it ends.
 *
 * What was refused before it was run (a moved slot, a server that is loading) is asked again until the caller's time is up.
 * What was sent and not answered is never asked again here: only the caller knows whether it may happen twice.
 * A connection that has been silent for as long as somebody waits for it is dead, whatever TCP says: it is given up, so
 * that the next call does not wait for the same silence.
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import { type LinkedSignal, linkSignal, onAbort, raceSignal } from "../../base/link-signal.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { type Address, parseAddress } from "./address.ts";
import { type Connection, type ConnectionSettings, errorOfReply, type Waiting } from "./connection.ts";
import type { PrimaryFinder } from "./primary-finder.ts";
import { type Argument, type CommandHead, encodeHead, type Reply, RespError } from "./resp.ts";
import type { Script } from "./scripts.ts";

export interface LinkCall {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs: number;
  /** At the moment of sending. Called again if it is sent again. */
  readonly onSend?: () => void;
}

/** What an engine needs of a client of Redis, ours or the user's. */
export interface RedisLink {
  /**
   * Runs the script. @throws TIMEOUT, CONNECTION_LOST (`definite` says whether it was sent), UNAUTHORIZED, READ_ONLY,
   * ENGINE_REFUSED, REPLICAS_MISSING, CLOSED
   */
  run(script: Script, request: ScriptRequest, call: LinkCall): Promise<Reply>;
  /** A plain command, for questions about the server. */
  ask(args: readonly Argument[], call: LinkCall): Promise<Reply>;
  /** Called whenever there is a new way to a primary. */
  onUp: (() => void) | undefined;
  close(): void;
}

export interface ScriptRequest {
  readonly keys: readonly string[];
  /** Of the client: they come first, and after them the server's run id as its connection knows it. */
  readonly client: readonly (string | number)[];
  readonly args: readonly Argument[];
  /** Replicas that must confirm what was written. 0: none. */
  readonly replicas: number;
}

/** A call under way. */
interface Course {
  readonly call: LinkCall;
  readonly untilMs: number;
  /** Ends what it waits for before it is sent. */
  readonly end: LinkedSignal;
  isOver: boolean;
  sentOn: Connection | undefined;
  sentAtMs: number;
}

const backoffMsMin = 20;
const backoffMsMax = 1_000;
/** No silence shorter than this counts against a connection. */
const silenceMsMin = 500;
const pauseMs = 50;
const waitsForSlotMs = 20;

export class PrimaryLink implements RedisLink {
  onUp: (() => void) | undefined;
  readonly #finder: PrimaryFinder;
  readonly #settings: ConnectionSettings;
  readonly #platform: Platform;
  readonly #processHold: ProcessHold;
  /** How a call of each script begins, for the keys and the connection of the last call. */
  readonly #heads = new Map<Script, Head>();
  #connection: Connection | undefined;
  #opening: Promise<Connection> | undefined;
  #backoffMs = backoffMsMin;
  #retryTimer: Timer | undefined;
  #wasUp = false;
  #isClosed = false;

  constructor(options: {
    readonly finder: PrimaryFinder;
    readonly settings: ConnectionSettings;
    readonly platform: Platform;
    readonly processHold: ProcessHold;
  }) {
    this.#finder = options.finder;
    this.#settings = options.settings;
    this.#platform = options.platform;
    this.#processHold = options.processHold;
  }

  /**
   * The first connection. Where somebody else decides who is the primary, it waits while they do.
   * @throws CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, READ_ONLY, TIMEOUT
   */
  async open(): Promise<void> {
    const untilMs = this.#platform.now() + this.#settings.timeoutMs;
    for (;;) {
      try {
        await this.#connected();
        return;
      } catch (error) {
        const delayMs = this.#nextBackoffMs();
        if (!this.#finder.follows || !this.#isPassing(error) || this.#platform.now() + delayMs > untilMs) throw error;
        await this.#pause(delayMs);
      }
    }
  }

  run(script: Script, request: ScriptRequest, call: LinkCall): Promise<Reply> {
    const open = this.#connection;
    if (request.replicas === 0 && open?.isOpen && open.knownScripts.has(script.sha) && call.signal?.aborted !== true) {
      const again = (timeoutMs: number): Promise<Reply> => this.#runSlowly(script, request, { ...call, timeoutMs });
      const course = new QuickCall({ call, connection: open, hold: this.#processHold, again });
      return course.start(request.args, this.#headOf(script, request, open));
    }
    return this.#runSlowly(script, request, call);
  }

  #runSlowly(script: Script, request: ScriptRequest, call: LinkCall): Promise<Reply> {
    const { keys, client, args, replicas } = request;
    // The server gives up before the caller does, so that the answer says how many there were.
    const waitMs = Math.max(1, Math.floor(call.timeoutMs * 0.8));
    const send = async (connection: Connection, command: readonly Argument[], head?: CommandHead): Promise<Reply> => {
      const sent = connection.call(command, head);
      if (replicas === 0) return sent;
      // In the same write: it waits for the replicas of everything that this connection has written.
      const [reply, confirmed] = await Promise.all([sent, connection.call(["WAIT", replicas, waitMs])]);
      if (typeof confirmed === "number" && confirmed < replicas && !(reply instanceof RespError))
        throw conclaveError("REPLICAS_MISSING", `Only ${confirmed} of ${replicas} replicas confirmed.`);
      return reply;
    };
    return this.#perform(call, async (connection) => {
      if (connection.knownScripts.has(script.sha)) {
        const reply = await send(connection, args, this.#headOf(script, request, connection));
        if (!(reply instanceof RespError) || reply.word !== "NOSCRIPT") return reply;
      }
      // The text makes the server know it; then its name is enough.
      connection.knownScripts.add(script.sha);
      return send(connection, ["EVAL", script.text, keys.length, ...keys, ...client, connection.runId, ...args]);
    });
  }

  #headOf(script: Script, { keys, client }: ScriptRequest, connection: Connection): CommandHead {
    const known = this.#heads.get(script);
    if (known?.keys === keys && known.client === client && known.connection === connection) return known.head;
    const head = encodeHead(["EVALSHA", script.sha, String(keys.length), ...keys, ...client.map(String), connection.runId]);
    this.#heads.set(script, { keys, client, connection, head });
    return head;
  }

  ask(args: readonly Argument[], call: LinkCall): Promise<Reply> {
    return this.#perform(call, (connection) => connection.call(args));
  }

  /** A connection of its own to the present primary, for pushes. */
  async openAnother(): Promise<Connection> {
    return this.#finder.open();
  }

  close(): void {
    this.#isClosed = true;
    this.#retryTimer?.cancel();
    this.#connection?.destroy(conclaveError("CLOSED", "The client of Redis was closed.", { definite: false }));
  }

  /**
   * One question and what ends the wait for its answer. Written for the common case: the connection is open, so it is sent
   * in this very turn, and neither a controller nor a race is made.
   */
  #perform(call: LinkCall, send: (connection: Connection) => Promise<Reply>): Promise<Reply> {
    const { signal } = call;
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.#processHold.retain();
    return new Promise((resolve, reject) => {
      const untilMs = this.#platform.now() + call.timeoutMs;
      const course: Course = { call, untilMs, end: linkSignal(undefined), isOver: false, sentOn: undefined, sentAtMs: 0 };
      const finish = (): void => {
        course.isOver = true;
        timer.cancel();
        unfollow();
        this.#processHold.release();
      };
      const fail = (error: unknown): void => {
        if (course.isOver) return;
        finish();
        course.end.abort(error);
        reject(error);
      };
      const timer = this.#platform.setTimer(call.timeoutMs, () => fail(lateError(course)));
      const unfollow = signal === undefined ? doNothing : onAbort(signal, () => fail(signal.reason));
      this.#attempts(course, send).then((reply) => {
        if (course.isOver) return;
        finish();
        resolve(reply);
      }, fail);
    });
  }

  async #attempts(course: Course, send: (connection: Connection) => Promise<Reply>): Promise<Reply> {
    for (;;) {
      const connection = this.#connection?.isOpen ? this.#connection : await this.#connected(course.end.signal);
      // It is answered already, by whatever ended it.
      if (course.isOver) return null;
      course.sentOn = connection;
      course.sentAtMs = performance.now();
      course.call.onSend?.();
      const reply = await send(connection);
      if (!(reply instanceof RespError)) return reply;
      // An error of the server at the first line: it was not run.
      if (!this.#isWorthAnother(reply, connection)) throw errorOfReply(reply, connection.address);
      if (this.#platform.now() + pauseMs > course.untilMs) throw errorOfReply(reply, connection.address);
      course.sentOn = undefined;
      await this.#pause(reply.word === "MOVED" ? 0 : reply.word === "ASK" ? waitsForSlotMs : pauseMs);
    }
  }

  /** Sees to what the refusal says about where the primary is. */
  #isWorthAnother(reply: RespError, connection: Connection): boolean {
    switch (reply.word) {
      case "MOVED":
        this.#finder.onMoved(movedTo(reply, connection.address));
        this.#leave(connection);
        return true;
      case "ASK":
      case "TRYAGAIN":
      case "CLUSTERDOWN":
      case "LOADING":
      case "MASTERDOWN":
      case "BUSY":
        return true;
      case "READONLY":
        this.#leave(connection);
        return this.#finder.follows;
      default:
        return false;
    }
  }

  /** What was sent on it may still be answered; nothing new is sent. */
  #leave(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    const timer = this.#platform.setTimer(this.#settings.timeoutMs, () => connection.destroy());
    connection.onClose = () => timer.cancel();
  }

  #connected(signal?: AbortSignal): Promise<Connection> {
    if (this.#isClosed) return Promise.reject(conclaveError("CLOSED", "The client of Redis was closed."));
    if (this.#connection?.isOpen) return Promise.resolve(this.#connection);
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    const opening = this.#opening;
    if (signal === undefined) return opening;
    return opening.catch(async (error: unknown) => {
      // Who waits for an answer waits for a server, too, unless this one will never do.
      if (this.#isClosed || !this.#isPassing(error)) throw error;
      await raceSignal(this.#pause(this.#nextBackoffMs()), signal);
      return this.#connected(signal);
    });
  }

  async #open(): Promise<Connection> {
    const connection = await this.#finder.open();
    if (this.#isClosed) {
      connection.destroy();
      throw conclaveError("CLOSED", "The client of Redis was closed.");
    }
    this.#backoffMs = backoffMsMin;
    this.#wasUp = true;
    this.#connection = connection;
    connection.onClose = () => this.#onLost(connection);
    this.onUp?.();
    return connection;
  }

  #onLost(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    if (!this.#isClosed) this.#reconnect();
  }

  /** Sessions need a server even while nobody asks anything. */
  #reconnect(): void {
    background(
      this.#connected().then(
        () => undefined,
        () => {
          if (this.#isClosed) return;
          this.#retryTimer = this.#platform.setTimer(this.#nextBackoffMs(), () => this.#reconnect());
        },
      ),
      "finding the primary again",
    );
  }

  /** Whether the same question may have another answer soon. */
  #isPassing(error: unknown): boolean {
    if (!(error instanceof ConclaveError)) return false;
    // Whoever spoke our language before will again: a connection that ended in its handshake looks like a foreign one.
    if (error.code === "TLS_FAILED") return this.#wasUp;
    return error.retryable || (error.code === "READ_ONLY" && this.#finder.follows);
  }

  #nextBackoffMs(): number {
    const backoffMs = this.#backoffMs * (0.5 + this.#platform.randomUint32() / 2 ** 33);
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMsMax);
    return backoffMs;
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#platform.setTimer(delayMs, resolve));
  }
}

interface Head extends Pick<ScriptRequest, "keys" | "client"> {
  readonly connection: Connection;
  readonly head: CommandHead;
}

interface QuickOptions {
  readonly call: LinkCall;
  readonly connection: Connection;
  readonly hold: ProcessHold;
  /** The long way, with the time that is left. */
  readonly again: (timeoutMs: number) => Promise<Reply>;
}

/** Refusals at the first line. */
const wasNotRun = new Set(["NOSCRIPT", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY", "READONLY"]);

/**
 * The call of every day: the connection is open and the script known. One answer, no timer of its own, no retries; what the
 * server refuses goes the long way, which knows what may be asked again.
 */
class QuickCall implements Waiting {
  readonly lateAtMs: number;
  readonly #options: QuickOptions;
  readonly #sentAtMs = performance.now();
  #unfollow: (() => void) | undefined;
  /** Whom to answer, once. */
  #resolve: ((reply: Reply | Promise<Reply>) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;

  constructor(options: QuickOptions) {
    this.#options = options;
    this.lateAtMs = this.#sentAtMs + options.call.timeoutMs;
  }

  start(args: readonly Argument[], head: CommandHead): Promise<Reply> {
    const { call, connection, hold } = this.#options;
    hold.retain();
    if (call.signal !== undefined) this.#unfollow = onAbort(call.signal, () => this.reject(call.signal?.reason));
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      call.onSend?.();
      connection.callFor(this, args, head);
    });
  }

  resolve(reply: Reply): void {
    const [resolve, reject] = [this.#resolve, this.#reject];
    if (!this.#finish()) return;
    if (!(reply instanceof RespError)) resolve?.(reply);
    else if (wasNotRun.has(reply.word)) resolve?.(this.#options.again(Math.max(1, this.lateAtMs - performance.now())));
    else reject?.(errorOfReply(reply, this.#options.connection.address));
  }

  reject(error: unknown): void {
    const reject = this.#reject;
    if (this.#finish()) reject?.(error);
  }

  onLate(): void {
    const { call, connection } = this.#options;
    if (this.#reject !== undefined) this.reject(lateError({ call, sentOn: connection, sentAtMs: this.#sentAtMs }));
  }

  #finish(): boolean {
    if (this.#resolve === undefined) return false;
    this.#resolve = this.#reject = undefined;
    this.#unfollow?.();
    this.#options.hold.release();
    return true;
  }
}

/** Its time is up. A connection that was silent for as long is dead. */
function lateError({ call, sentOn, sentAtMs }: Pick<Course, "call" | "sentOn" | "sentAtMs">): ConclaveError {
  if (sentOn !== undefined && sentOn.heardAtMs < sentAtMs && call.timeoutMs >= silenceMsMin) sentOn.destroy();
  return conclaveError("TIMEOUT", `Redis did not answer within ${call.timeoutMs} ms.`, { definite: sentOn === undefined });
}

function doNothing(): void {
  // There was no signal to follow.
}

/** `MOVED 3999 127.0.0.1:6381`. An empty host means the one that said it. */
function movedTo(reply: RespError, from: Address): Address {
  const where = reply.message.split(" ")[2] ?? "";
  return where.startsWith(":") ? { host: from.host, port: Number(where.slice(1)) } : parseAddress(where, from.port);
}
