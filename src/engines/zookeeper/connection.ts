/**
 * One connection to one ZooKeeper server: the handshake of a session, then requests answered in the order of sending.
 *
 *     request  | length | xid | opcode | record          answer | length | xid | zxid | code | record
 *
 * Nothing is known here of what a session is for. A server that owes an answer for too long is taken for dead: it may be
 * asleep, and TCP would not say so for minutes.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import { JuteReader, JuteWriter } from "./jute.ts";
import { opcodes, type Reply, type Request, xids } from "./protocol.ts";

const answerBytesMax = 64 * 1024 * 1024;
const noPassword = Buffer.alloc(16);

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

/** What a session is resumed by. */
export interface SessionTicket {
  readonly id: string;
  readonly password: Buffer;
}

export interface ConnectionSettings {
  readonly tls: TlsOptions | false;
  readonly platform: Platform;
  /** `user:password` for ZooKeeper's digest scheme. */
  readonly credentials: string | undefined;
}

export interface ZkEvent {
  readonly path: string;
}

export interface ConnectionHandler {
  onEvent(event: ZkEvent): void;
  /** Nothing will be answered any more. */
  onEnd(connection: ZkConnection, why: string): void;
}

interface Waiting {
  readonly xid: number;
  readonly sentMs: number;
  readonly settle: (answer: { readonly zxid: number; readonly code: number; readonly body: JuteReader } | undefined) => void;
}

export interface Handshake {
  readonly address: ServerAddress;
  /** Null: a new session. */
  readonly ticket: SessionTicket | null;
  readonly lastZxid: number;
  readonly ttlMs: number;
  readonly timeoutMs: number;
}

export class ZkConnection {
  readonly address: ServerAddress;
  /** As negotiated. 0: the session that was to be resumed is over. */
  ttlMs = 0;
  ticket: SessionTicket = { id: "", password: noPassword };
  readonly #socket: Socket;
  readonly #platform: Platform;
  #handler: ConnectionHandler | undefined;
  #waiting: Waiting[] = [];
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #neededBytes = 4;
  #xid = 0;
  #onFirst: ((frame: Buffer) => void) | undefined;
  #pulse: Timer | undefined;
  #isOver = false;
  #failure = "";

  private constructor(socket: Socket, address: ServerAddress, platform: Platform) {
    this.#socket = socket;
    this.address = address;
    this.#platform = platform;
  }

  /** @throws CONNECTION_REFUSED, TLS_FAILED, TIMEOUT, UNAUTHORIZED, PROTOCOL (all: nothing happened) */
  static async open(handshake: Handshake, settings: ConnectionSettings): Promise<ZkConnection> {
    const { address, timeoutMs } = handshake;
    const { host, port } = address;
    const socket =
      settings.tls === false
        ? connectTcp({ host, port })
        : connectTls({ host, port, servername: /^[\d.:]+$/.test(host) ? "" : host, ...settings.tls });
    socket.setNoDelay(true);
    const connection = new ZkConnection(socket, address, settings.platform);
    let timer: Timer | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const refuse = (code: "CONNECTION_REFUSED" | "TLS_FAILED" | "TIMEOUT", why: string): void =>
          reject(conclaveError(code, `ZooKeeper at ${host}:${port}: ${why}.`, { definite: true }));
        timer = settings.platform.setTimer(timeoutMs, () => refuse("TIMEOUT", `no answer within ${timeoutMs} ms`), { ref: true });
        socket.once("error", (error: NodeJS.ErrnoException) =>
          refuse(isTlsError(error, settings.tls !== false) ? "TLS_FAILED" : "CONNECTION_REFUSED", error.message),
        );
        socket.once("close", () =>
          refuse(
            settings.tls === false ? "CONNECTION_REFUSED" : "TLS_FAILED",
            "it closed the connection (does it speak TLS, or wait for others to elect a leader?)",
          ),
        );
        connection.#onFirst = (frame) => {
          connection.#onHandshake(frame);
          resolve();
        };
        socket.on("data", (chunk: Buffer) => {
          try {
            connection.#onData(chunk);
          } catch (error) {
            reject(error);
            connection.end("it sent what cannot be read");
          }
        });
        socket.once(settings.tls === false ? "connect" : "secureConnect", () => socket.write(handshakeFrame(handshake)));
      });
      if (settings.credentials !== undefined) await connection.#authenticate(settings.credentials, timeoutMs);
    } catch (error) {
      socket.on("error", () => undefined);
      socket.destroy();
      throw error;
    } finally {
      timer?.cancel();
    }
    socket.unref();
    return connection;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** From now on, to the end. */
  attach(handler: ConnectionHandler): void {
    this.#handler = handler;
    this.#socket.removeAllListeners("error");
    this.#socket.removeAllListeners("close");
    this.#socket.on("error", (error) => this.end(error.message));
    this.#socket.on("close", () => this.end("the connection was closed"));
    // Asked often enough to keep the session alive and to notice a server that sleeps while there is time to go elsewhere.
    if (this.ttlMs > 0) this.#beat(Math.max(50, this.ttlMs / 5));
    if (this.#failure !== "" || this.#socket.destroyed) this.#platform.defer(() => this.end(this.#failure || "it ended early"));
  }

  /**
   * Writes the requests as one; the answers come in order. Undefined: the connection ended first, and it may have happened.
   */
  send<T>(requests: readonly Request<T>[]): Promise<Reply<T> | undefined>[] {
    const writer = new JuteWriter();
    const sentMs = this.#platform.now();
    const answers = requests.map(({ opcode, body, read }) => {
      const xid = this.#nextXid();
      writer
        .int(8 + body.length)
        .int(xid)
        .int(opcode)
        .raw(body);
      return new Promise<Reply<T> | undefined>((resolve, reject) => {
        this.#waiting.push({
          xid,
          sentMs,
          settle: (answer) => {
            if (answer === undefined) return resolve(undefined);
            const { body: record, code, zxid } = answer;
            try {
              const hasRecord = code === 0 || (opcode === opcodes.multi && record.remaining > 0);
              resolve({ code, zxid, value: hasRecord ? read(record) : undefined });
            } catch (error) {
              reject(error);
            }
          },
        });
      });
    });
    if (this.#isOver) this.#abandon();
    else this.#write(writer.finish());
    return answers;
  }

  /** Idempotent. */
  end(why: string): void {
    if (this.#handler === undefined) this.#failure = why;
    if (this.#isOver || this.#handler === undefined) return;
    this.#isOver = true;
    this.#pulse?.cancel();
    this.#socket.destroy();
    this.#abandon();
    this.#handler.onEnd(this, why);
  }

  /** What is sent in one turn goes as one. */
  #write(bytes: Buffer): void {
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      process.nextTick(() => this.#socket.uncork());
    }
    this.#socket.write(bytes);
  }

  #abandon(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { settle } of waiting) settle(undefined);
  }

  #nextXid(): number {
    this.#xid = this.#xid >= 0x7fff_ffff ? 1 : this.#xid + 1;
    return this.#xid;
  }

  #beat(everyMs: number): void {
    this.#pulse = this.#platform.setTimer(everyMs, () => {
      if (this.#isOver) return;
      const oldestMs = this.#waiting[0]?.sentMs;
      if (oldestMs !== undefined && this.#platform.now() - oldestMs > Math.max(500, 2 * everyMs)) {
        this.end(`${this.address.host}:${this.address.port} does not answer`);
        return;
      }
      this.#waiting.push({ xid: xids.ping, sentMs: this.#platform.now(), settle: () => undefined });
      this.#socket.write(new JuteWriter().int(8).int(xids.ping).int(opcodes.ping).finish());
      this.#beat(everyMs);
    });
  }

  #onHandshake(frame: Buffer): void {
    const reader = new JuteReader(frame);
    reader.int();
    this.ttlMs = Math.max(0, reader.int());
    this.ticket = { id: reader.bits(), password: Buffer.from(reader.buffer()) };
  }

  async #authenticate(credentials: string, timeoutMs: number): Promise<void> {
    const body = new JuteWriter().int(0).text("digest").buffer(Buffer.from(credentials)).finish();
    const code = await new Promise<number | undefined>((resolve) => {
      const timer = this.#platform.setTimer(timeoutMs, () => resolve(undefined), { ref: true });
      this.#waiting.push({
        xid: xids.auth,
        sentMs: this.#platform.now(),
        settle: (answer) => {
          timer.cancel();
          resolve(answer?.code);
        },
      });
      const { length } = body;
      this.#socket.write(
        new JuteWriter()
          .int(8 + length)
          .int(xids.auth)
          .int(opcodes.auth)
          .raw(body)
          .finish(),
      );
    });
    if (code !== 0) throw conclaveError("UNAUTHORIZED", `ZooKeeper does not take these credentials (${code ?? "no answer"}).`);
  }

  #onData(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    if (this.#receivedBytes < this.#neededBytes) return;
    let bytes = this.#received.length === 1 ? (this.#received[0] as Buffer) : Buffer.concat(this.#received);
    this.#neededBytes = 4;
    while (bytes.length >= 4) {
      const length = bytes.readInt32BE(0);
      if (length < 0 || length > answerBytesMax) {
        // The first bytes of a TLS alert read as a length of half a gigabyte.
        const code = bytes[0] === 0x15 ? "TLS_FAILED" : "PROTOCOL";
        throw conclaveError(code, `What answers at ${this.address.host}:${this.address.port} is no ZooKeeper.`);
      }
      if (bytes.length < 4 + length) {
        this.#neededBytes = 4 + length;
        break;
      }
      const frame = bytes.subarray(4, 4 + length);
      bytes = bytes.subarray(4 + length);
      if (this.#onFirst === undefined) this.#onFrame(frame);
      else {
        const onFirst = this.#onFirst;
        this.#onFirst = undefined;
        onFirst(frame);
      }
    }
    this.#received = bytes.length === 0 ? [] : [bytes];
    this.#receivedBytes = bytes.length;
  }

  #onFrame(frame: Buffer): void {
    const body = new JuteReader(frame);
    const xid = body.int();
    if (xid === xids.event) {
      body.bits();
      body.int();
      body.int();
      body.int();
      this.#handler?.onEvent({ path: body.text() });
      return;
    }
    const zxid = body.long();
    const code = body.int();
    const waiting = this.#waiting.shift();
    if (waiting === undefined || waiting.xid !== xid) {
      this.end("it answered out of turn");
      return;
    }
    waiting.settle({ zxid, code, body });
  }
}

function handshakeFrame({ lastZxid, ticket, ttlMs }: Handshake): Buffer {
  const record = new JuteWriter().int(0).long(lastZxid).int(ttlMs);
  record
    .raw(Buffer.from(ticket?.id ?? "0000000000000000", "hex"))
    .buffer(ticket?.password ?? noPassword)
    .flag(false);
  return new JuteWriter().buffer(record.finish()).finish();
}

function isTlsError({ code = "", message }: NodeJS.ErrnoException, isTls: boolean): boolean {
  return (
    /^(?:ERR_(?:SSL|TLS)|EPROTO|CERT_|DEPTH_|UNABLE_|SELF_)/.test(code) ||
    (isTls && /certificate|ssl|tls|ECONNRESET/i.test(code + message))
  );
}
