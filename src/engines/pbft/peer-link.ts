/**
 * The connection from this side to one replica: dials, says hello, and dials again with growing pauses when it breaks.
 * What is sent while it is down, or while the other side does not read, is dropped: the protocol says it again.
 */
import type { Connection, Timer } from "../../base/ports.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { TcpTransport } from "../embedded/tcp-transport.ts";

const pauseMsMin = 50;
const pauseMsMax = 2_000;
/** Bytes waiting for a peer that does not read. */
const bufferedBytesMax = 16_777_216;

export interface PeerLinkOptions {
  readonly address: string;
  readonly hello: Uint8Array;
  readonly onFrame: (frame: Uint8Array) => void;
  readonly onOpen?: () => void;
}

export class PeerLink {
  readonly #options: PeerLinkOptions;
  readonly #transport = new TcpTransport();
  #connection: Connection | undefined;
  #isOpen = false;
  #pauseMs = pauseMsMin;
  #timer: Timer | undefined;
  #closed = false;

  constructor(options: PeerLinkOptions) {
    this.#options = options;
    this.#dial();
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  send(frame: Uint8Array): void {
    const connection = this.#connection;
    if (connection !== undefined && this.#isOpen && connection.bufferedBytes() < bufferedBytesMax) connection.send(frame);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#connection?.close();
  }

  #dial(): void {
    this.#connection = this.#transport.dial(this.#options.address, {
      onOpen: (connection) => {
        this.#isOpen = true;
        this.#pauseMs = pauseMsMin;
        connection.send(this.#options.hello);
        this.#options.onOpen?.();
      },
      onFrame: (_, frame) => this.#options.onFrame(frame),
      onClose: () => {
        this.#isOpen = false;
        this.#connection = undefined;
        if (this.#closed) return;
        this.#timer = nodePlatform.setTimer(this.#pauseMs, () => this.#dial());
        this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMsMax);
      },
    });
  }
}
