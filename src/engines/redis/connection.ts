/**
 * One connection to one server: commands go out in the order in which they were asked, replies come back in the same.
 *
 * Everything asked in one turn of the event loop leaves in one write. When the connection ends, what was sent and not
 * answered is CONNECTION_LOST: it may have happened, and is never sent again from here.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import { type Address, addressText } from "./address.ts";
import { type Argument, type CommandHead, Outbox, type Reply, ReplyParser, RespError } from "./resp.ts";

export interface ConnectionSettings {
  readonly tls: boolean | ConnectionOptions;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly database: number;
  /** Shown by CLIENT LIST. */
  readonly clientName: string;
  /** How long the handshake may take. */
  readonly timeoutMs: number;
}

/** Who waits for a reply. */
export interface Waiting {
  resolve(reply: Reply): void;
  reject(error: unknown): void;
  /** By the clock of the process; `onLate` is called then, and again later if it still stands. Left out: it sees to that itself. */
  readonly lateAtMs?: number;
  onLate?(): void;
}

/** Commands that wait for their replies. */
const waitingMax = 100_000;
/** Longer delays overflow Node's timers. */
const delayMsMax = 2_147_483_647;

export class Connection {
  readonly address: Address;
  /** Called once when it ends, however it ends. */
  onClose: ((error: ConclaveError) => void) | undefined;
  /** Replies that nobody asked for: messages of a subscription. */
  onPush: ((reply: Reply) => void) | undefined;
  /** Of the process at the other end: it stays the same as long as this connection does. Empty: it would not say. */
  runId = "";
  /** Scripts whose text this server has been told. */
  readonly knownScripts = new Set<string>();
  /** When the last byte came, by the clock of the process. */
  heardAtMs = performance.now();
  readonly #socket: Socket;
  /** Who has been answered leaves a gap: kept, they would carry all that was made since into old age. */
  readonly #waiting: (Waiting | undefined)[] = [];
  #waitingFrom = 0;
  readonly #outbox = new Outbox();
  readonly #flushSoon = (): void => this.#flush();
  /** One timer for everybody who waits: it rings for the earliest, who has nearly always been answered by then. */
  #alarm: NodeJS.Timeout | undefined;
  #alarmAtMs = Number.POSITIVE_INFINITY;
  #isSubscriber = false;
  #closed: ConclaveError | undefined;

  private constructor(address: Address, socket: Socket) {
    this.address = address;
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.unref();
    const parser = new ReplyParser((reply) => this.#onReply(reply));
    socket.on("data", (chunk: Buffer) => {
      this.heardAtMs = performance.now();
      try {
        parser.push(chunk);
      } catch (error) {
        this.destroy(error as ConclaveError);
      }
    });
    socket.on("error", (cause) => this.destroy(this.#lost(`: ${cause.message}`, cause)));
    socket.on("close", () => this.destroy(this.#lost("")));
  }

  /** @throws CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, TIMEOUT, ENGINE_REFUSED */
  static async open(address: Address, settings: ConnectionSettings): Promise<Connection> {
    const connection = new Connection(address, await dial(address, settings));
    try {
      await connection.#greet(settings);
      return connection;
    } catch (error) {
      connection.destroy(connection.#lost(" in its handshake", error));
      throw error;
    }
  }

  get isOpen(): boolean {
    return this.#closed === undefined;
  }

  /** Commands without a reply. */
  get waitingCount(): number {
    return this.#waiting.length - this.#waitingFrom;
  }

  /** An error of the server is a reply, too. @throws CONNECTION_LOST */
  call(args: readonly Argument[], head?: CommandHead): Promise<Reply> {
    return new Promise((resolve, reject) => this.callFor({ resolve, reject }, args, head));
  }

  /** The same for who needs no promise of it. */
  callFor(waiting: Waiting, args: readonly Argument[], head?: CommandHead): void {
    if (this.#closed !== undefined) {
      // Nothing was sent.
      waiting.reject(conclaveError("CONNECTION_LOST", this.#closed.message, { definite: true, cause: this.#closed }));
      return;
    }
    if (this.waitingCount >= waitingMax) {
      waiting.reject(conclaveError("BUSY", `${waitingMax} commands wait for the replies of ${addressText(this.address)}.`));
      return;
    }
    this.#send(args, head);
    this.#waiting.push(waiting);
    if (waiting.lateAtMs !== undefined && waiting.lateAtMs < this.#alarmAtMs) this.#setAlarm(waiting.lateAtMs);
  }

  /** Sends what is answered by pushes; from now on every reply is one. */
  say(args: readonly Argument[]): void {
    this.#isSubscriber = true;
    if (this.#closed === undefined) this.#send(args);
  }

  /** Idempotent. */
  destroy(error: ConclaveError = this.#lost(" by this side")): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    clearTimeout(this.#alarm);
    this.#socket.destroy();
    const waiting = this.#waiting.splice(0).slice(this.#waitingFrom);
    for (const each of waiting) each?.reject(error);
    this.onClose?.(error);
  }

  #send(args: readonly Argument[], head?: CommandHead): void {
    if (this.#outbox.isEmpty) process.nextTick(this.#flushSoon);
    this.#outbox.add(args, head);
  }

  #flush(): void {
    const [bytes, encoding] = this.#outbox.take();
    if (this.#closed === undefined) this.#socket.write(bytes, encoding);
  }

  #setAlarm(atMs: number): void {
    clearTimeout(this.#alarm);
    this.#alarmAtMs = atMs;
    const delayMs = Math.min(Math.max(1, Math.ceil(atMs - performance.now())), delayMsMax);
    this.#alarm = setTimeout(() => this.#onAlarm(), delayMs);
    this.#alarm.unref();
  }

  #onAlarm(): void {
    this.#alarmAtMs = Number.POSITIVE_INFINITY;
    const nowMs = performance.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const waiting of this.#waiting.slice(this.#waitingFrom)) {
      const lateAtMs = waiting?.lateAtMs ?? Number.POSITIVE_INFINITY;
      if (lateAtMs <= nowMs) waiting?.onLate?.();
      else nextMs = Math.min(nextMs, lateAtMs);
    }
    if (nextMs < this.#alarmAtMs && this.#closed === undefined) this.#setAlarm(nextMs);
  }

  #onReply(reply: Reply): void {
    if (this.#isSubscriber) {
      this.onPush?.(reply);
      return;
    }
    const waiting = this.#waiting[this.#waitingFrom];
    if (waiting === undefined) throw conclaveError("PROTOCOL", "The server answered what nobody asked.");
    this.#waiting[this.#waitingFrom++] = undefined;
    if (this.#waitingFrom > 1_024 && this.#waitingFrom * 2 > this.#waiting.length) {
      this.#waiting.splice(0, this.#waitingFrom);
      this.#waitingFrom = 0;
    }
    waiting.resolve(reply);
  }

  async #greet({ username, password, database, clientName, timeoutMs }: ConnectionSettings): Promise<void> {
    const timer = setTimeout(() => {
      this.destroy(
        conclaveError("TIMEOUT", `${addressText(this.address)} did not finish the handshake in ${timeoutMs} ms.`, {
          definite: true,
        }),
      );
    }, timeoutMs);
    timer.unref();
    try {
      const replies: Promise<Reply>[] = [];
      if (password !== undefined)
        replies.push(this.call(username === undefined ? ["AUTH", password] : ["AUTH", username, password]));
      if (database !== 0) replies.push(this.call(["SELECT", database]));
      // Not everybody may name connections; it is only for people.
      this.call(["CLIENT", "SETNAME", clientName]).catch(() => undefined);
      replies.push(this.call(["PING"]));
      const info = this.call(["INFO", "server"]);
      info.catch(() => undefined);
      for (const reply of await Promise.all(replies)) if (reply instanceof RespError) throw errorOfReply(reply, this.address);
      this.runId = /run_id:([0-9a-f]{40})/.exec(String(await info))?.[1] ?? "";
    } catch (error) {
      throw isProtocol(error) ? notRedis(this.address, error) : error;
    } finally {
      clearTimeout(timer);
    }
  }

  #lost(how: string, cause?: unknown): ConclaveError {
    return conclaveError("CONNECTION_LOST", `The connection to ${addressText(this.address)} ended${how}.`, { cause });
  }
}

/** What a refusal of the server means to a caller. */
export function errorOfReply(reply: RespError, address: Address): ConclaveError {
  const said = `${addressText(address)} said: ${reply.message}.`;
  switch (reply.word) {
    case "NOAUTH":
    case "WRONGPASS":
    case "NOPERM":
      return conclaveError("UNAUTHORIZED", said);
    case "READONLY":
      return conclaveError("READ_ONLY", said);
    case "NOREPLICAS":
    case "OOM":
    case "MISCONF":
    case "LOADING":
    case "BUSY":
    case "CLUSTERDOWN":
    case "MASTERDOWN":
    case "TRYAGAIN":
    case "MOVED":
    case "ASK":
      return conclaveError("ENGINE_REFUSED", said);
    default:
      if (/AUTH|invalid (?:username|password)/i.test(reply.message)) return conclaveError("UNAUTHORIZED", said);
      if (/unknown command/i.test(reply.message)) return conclaveError("UNSUPPORTED", said);
      // A script that failed in the middle has done its first half: keys of another kind stand in its way, or a defect.
      if (/user_script|WRONGTYPE/.test(reply.message)) return conclaveError("INVARIANT", said, { definite: false });
      return conclaveError("ENGINE_REFUSED", said, { definite: false });
  }
}

function dial(address: Address, { tls, timeoutMs }: ConnectionSettings): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const target = { host: address.host, port: address.port };
    const own = typeof tls === "object" ? tls : {};
    const socket =
      tls === false
        ? connectTcp(target)
        : connectTls({ ...target, ...(isName(address.host) ? { servername: address.host } : {}), ...own });
    const fail = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    };
    let isConnected = false;
    socket.once("connect", () => {
      isConnected = true;
    });
    const timer = setTimeout(() => {
      // A server of plain text waits for the rest of what it takes for a command.
      if (isConnected && tls !== false) fail(dialError(new Error("it never answered the TLS handshake"), address, true));
      else fail(conclaveError("TIMEOUT", `${addressText(address)} did not answer within ${timeoutMs} ms.`, { definite: true }));
    }, timeoutMs);
    socket.once("error", (cause) => fail(dialError(cause, address, tls !== false)));
    socket.once("close", () => fail(dialError(new Error("closed at once"), address, tls !== false)));
    socket.once(tls === false ? "connect" : "secureConnect", () => {
      clearTimeout(timer);
      socket.removeAllListeners();
      resolve(socket);
    });
  });
}

function isName(host: string): boolean {
  return !/^[\d.]+$|:/.test(host);
}

function dialError(cause: Error & { readonly code?: string }, address: Address, tls: boolean): ConclaveError {
  const said = `${addressText(address)}: ${cause.message}.`;
  const isNetwork = /^E(?:CONNREFUSED|HOSTUNREACH|NETUNREACH|TIMEDOUT|AI_AGAIN|NOTFOUND)/.test(cause.code ?? "");
  return conclaveError(tls && !isNetwork ? "TLS_FAILED" : "CONNECTION_REFUSED", said, { cause });
}

function isProtocol(error: unknown): boolean {
  return (
    error instanceof ConclaveError &&
    (error.code === "PROTOCOL" || (error.code === "CONNECTION_LOST" && error.cause === undefined))
  );
}

/** A server that wants TLS answers plain text with an alert, or hangs up. */
function notRedis(address: Address, cause: unknown): ConclaveError {
  return conclaveError(
    "TLS_FAILED",
    `${addressText(address)} does not answer plain RESP: it speaks TLS (write rediss:), or it is no Redis.`,
    {
      cause,
    },
  );
}
