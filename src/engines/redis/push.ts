/**
 * The push channel of a process: one connection, on which the server tells what changed in the namespaces that somebody watches.
 *
 * Sharded channels (`SSUBSCRIBE`, Redis 7): in a Cluster they stay on the node of their slot, which is that of the data.
 * A push is a hint that may be lost with its connection, and a server that is no longer the primary of its slot or group
 * goes on listening without being told: whenever there is a new way to the primary, this one is opened anew. After each subscription that the server confirms, also the first,
 * `onSubscribed` is called, and whoever watches reads once what is true.
 */
import { background } from "../../base/background.ts";
import { toBinaryString } from "../../base/bytes.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import type { Push } from "../../client/feed.ts";
import type { Connection } from "./connection.ts";
import { type Reply, RespError } from "./resp.ts";

/** What is heard, before it is read. Channels are binary strings. */
export interface RedisPushHandler {
  onSubscribed(channel: string): void;
  onMessage(channel: string, payload: Buffer): void;
}

/** A silent connection is asked this often whether it still lives, and given up after twice the time. */
const pingMs = 5_000;
const backoffMsMin = 20;
const backoffMsMax = 1_000;

export class PushConnection implements Push {
  readonly #open: () => Promise<Connection>;
  readonly #platform: Platform;
  readonly #handler: RedisPushHandler;
  readonly #channels = new Set<string>();
  #connection: Connection | undefined;
  #isOpening = false;
  #timer: Timer | undefined;
  #backoffMs = backoffMsMin;
  #isClosed = false;

  constructor(options: {
    readonly open: () => Promise<Connection>;
    readonly platform: Platform;
    readonly handler: RedisPushHandler;
  }) {
    this.#open = options.open;
    this.#platform = options.platform;
    this.#handler = options.handler;
  }

  subscribe(channel: string): void {
    this.#channels.add(channel);
    if (this.#connection === undefined) this.#connect();
    else this.#connection.say(["SSUBSCRIBE", Buffer.from(channel, "latin1")]);
  }

  unsubscribe(channel: string): void {
    if (!this.#channels.delete(channel)) return;
    this.#connection?.say(["SUNSUBSCRIBE", Buffer.from(channel, "latin1")]);
  }

  reopen(): void {
    this.#connection?.destroy();
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#connection?.destroy();
  }

  #connect(): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    const opening = this.#open().then(
      (connection) => {
        this.#isOpening = false;
        this.#onOpen(connection);
      },
      () => {
        this.#isOpening = false;
        this.#connectLater();
      },
    );
    background(opening, "opening the push channel");
  }

  #connectLater(): void {
    if (this.#isClosed) return;
    this.#timer?.cancel();
    this.#timer = this.#platform.setTimer(this.#backoffMs, () => this.#connect());
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMsMax);
  }

  #onOpen(connection: Connection): void {
    if (this.#isClosed) {
      connection.destroy();
      return;
    }
    this.#connection = connection;
    connection.onPush = (reply) => this.#onPush(connection, reply);
    connection.onClose = () => {
      if (this.#connection !== connection) return;
      this.#connection = undefined;
      this.#connectLater();
    };
    for (const channel of this.#channels) connection.say(["SSUBSCRIBE", Buffer.from(channel, "latin1")]);
    this.#pingLater(connection);
  }

  #pingLater(connection: Connection): void {
    this.#timer?.cancel();
    this.#timer = this.#platform.setTimer(pingMs, () => {
      if (!connection.isOpen) return;
      if (performance.now() - connection.heardAtMs > 2 * pingMs) connection.destroy();
      else if (this.#channels.size > 0) connection.say(["PING"]);
      if (connection.isOpen) this.#pingLater(connection);
    });
  }

  #onPush(connection: Connection, reply: Reply): void {
    // A moved slot, or a permission that is missing: the next connection may find the right server.
    if (reply instanceof RespError) {
      connection.destroy();
      return;
    }
    if (typeof reply !== "object" || reply === null || reply instanceof Uint8Array) return;
    const [kind, channel, payload] = reply;
    if (!(kind instanceof Uint8Array) || !(channel instanceof Uint8Array)) return;
    const name = toBinaryString(channel);
    switch (kind.toString("latin1")) {
      case "smessage":
        if (payload instanceof Uint8Array && this.#channels.has(name)) this.#handler.onMessage(name, payload);
        break;
      case "ssubscribe":
        this.#backoffMs = backoffMsMin;
        if (this.#channels.has(name)) this.#handler.onSubscribed(name);
        break;
      case "sunsubscribe":
        // Not asked for: the slot has moved away.
        if (this.#channels.has(name)) connection.destroy();
        break;
    }
  }
}
