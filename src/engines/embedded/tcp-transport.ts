/**
 * Frames over TCP: `[u32 length][payload]`, written together once a turn, read without copies where a chunk allows.
 *
 * Small frames of a turn are gathered into one buffer and leave in one system call; that is most of what makes many small
 * requests cheap. A connection that is not read by the other side shows in `bufferedBytes`, and the sender bounds itself.
 */
import { createConnection, type Socket } from "node:net";
import { conclaveError } from "../../base/errors.ts";
import type { Connection, ConnectionHandler, Transport } from "../../base/ports.ts";
import { FrameSplitter, frameHeaderBytes, writeFrameHeader } from "../../wire/frame-splitter.ts";

/** Frames up to this are copied into the turn's buffer; longer ones are written as they are. */
const copiedBytesMax = 16_384;
const turnBytes = 65_536;
const connectTimeoutMs = 3_000;

export class TcpTransport implements Transport {
  dial(address: string, handler: ConnectionHandler): Connection {
    const { host, port } = parseAddress(address);
    const socket = createConnection({ host, port, noDelay: true });
    const connection = new TcpConnection(socket, address, handler);
    const timer = setTimeout(() => socket.destroy(refusal(address, `no answer within ${connectTimeoutMs} ms`)), connectTimeoutMs);
    timer.unref();
    // Whoever waits for the connection holds the process with a timer of its own; an idle one must not.
    socket.unref();
    socket.once("connect", () => {
      clearTimeout(timer);
      handler.onOpen?.(connection);
    });
    socket.once("close", () => clearTimeout(timer));
    return connection;
  }
}

/** One socket as a Connection. */
export class TcpConnection implements Connection {
  readonly remote: string;
  readonly #socket: Socket;
  readonly #splitter = new FrameSplitter();
  readonly #handler: ConnectionHandler;
  #turn: Buffer | undefined;
  #turnLength = 0;
  #planned = false;
  #closed = false;
  #error: Error | undefined;

  constructor(socket: Socket, remote: string, handler: ConnectionHandler) {
    this.remote = remote;
    this.#socket = socket;
    this.#handler = handler;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => this.push(chunk));
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.on("close", () => this.#finish());
  }

  send(frame: Uint8Array): void {
    if (this.#closed) return;
    const length = frameHeaderBytes + frame.length;
    if (length > copiedBytesMax) {
      this.#flush();
      const header = Buffer.allocUnsafe(frameHeaderBytes);
      writeFrameHeader(header, 0, frame.length);
      this.#socket.cork();
      this.#socket.write(header);
      this.#socket.write(frame);
      this.#socket.uncork();
      return;
    }
    if (this.#turn !== undefined && this.#turnLength + length > this.#turn.length) this.#flush();
    this.#turn ??= Buffer.allocUnsafeSlow(turnBytes);
    writeFrameHeader(this.#turn, this.#turnLength, frame.length);
    this.#turn.set(frame, this.#turnLength + frameHeaderBytes);
    this.#turnLength += length;
    if (this.#planned) return;
    this.#planned = true;
    // A microtask: after everything that this input causes synchronously, before the loop turns.
    queueMicrotask(() => {
      this.#planned = false;
      this.#flush();
    });
  }

  bufferedBytes(): number {
    return this.#socket.writableLength + this.#turnLength;
  }

  close(): void {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    this.#splitter.stop();
    this.#socket.end();
    // The other side may never answer the end; nothing waits for it.
    setTimeout(() => this.#socket.destroy(), 200).unref();
  }

  #flush(): void {
    if (this.#turn === undefined || this.#turnLength === 0) return;
    const used = this.#turnLength;
    this.#turnLength = 0;
    const turn = this.#turn;
    if (used * 4 < turn.length) {
      // Little was gathered: a copy of it is cheaper than a new buffer each turn.
      this.#socket.write(Buffer.from(turn.subarray(0, used)));
      return;
    }
    this.#turn = undefined;
    this.#socket.write(turn.subarray(0, used));
  }

  /** Takes bytes that came on the socket, also those that were read before this object was made. */
  push(chunk: Buffer): void {
    if (this.#closed) return;
    try {
      this.#splitter.push(chunk, (frame) => this.#handler.onFrame(this, frame));
    } catch (error) {
      // The stream cannot be trusted any more; the member or client goes on without it.
      this.#error ??= error instanceof Error ? error : new Error(String(error));
      this.#socket.destroy();
    }
  }

  #finish(): void {
    this.#closed = true;
    this.#handler.onClose(this, this.#error);
  }
}

/** `host:port`, `:port`, `[v6]:port`. @throws INVALID_OPTION */
export function parseAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw conclaveError("INVALID_OPTION", `The address "${address}" is not of the form host:port.`);
  }
  return { host: match[1] ?? (match[2] || "127.0.0.1"), port };
}

function refusal(address: string, why: string): Error {
  return conclaveError("CONNECTION_REFUSED", `Connecting to ${address} failed: ${why}.`);
}
