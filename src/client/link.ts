/**
 * One connection to one member: the hello, the frame of this turn, and when it was last heard of.
 *
 * Everything that is said in a turn goes into one frame, sent at `platform.defer`. The frames of calls are kept by the calls
 * themselves (a view each, no copy) until they are answered, so that they can be said again to another leader.
 */
import { type ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Connection, ConnectionHandler, Platform, Timer, Transport } from "../base/ports.ts";
import { type Hello, type LeaderNews, type Refuse, type Welcome, writeHello } from "../wire/hello.ts";
import { type Refused, readServerMessages, type ServerMessageHandler } from "../wire/server-messages.ts";

/** A frame is sent early once it holds this much, so that its buffer stays small. */
const frameBytesGoal = 262_144;

/** A message within a frame that was sent. */
export interface FramedMessage {
  readonly frame: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/** Who wants to keep what was said for it. */
export interface Framed {
  message: FramedMessage | undefined;
}

export interface LinkOwner {
  onLinkReady(link: Link, welcome: Welcome): void;
  /** Once, also when it never became ready. */
  onLinkClosed(link: Link, error: Error): void;
  onOutcome(link: Link, requestId: number, outcome: ByteReader): void;
  onRefused(link: Link, requestId: number, refused: Refused): void;
  onReady(link: Link, requestId: number): void;
  onWatchBatch(link: Link, watchId: number, part: ByteReader): void;
  onWatchEnd(link: Link, watchId: number, refuse: Refuse): void;
  onLeader(link: Link, news: LeaderNews): void;
  onStatusReply(link: Link, requestId: number, status: string): void;
}

export interface LinkOptions {
  readonly platform: Platform;
  readonly transport: Transport;
  readonly address: string;
  readonly hello: Hello;
  readonly dialTimeoutMs: number;
  readonly owner: LinkOwner;
}

export class Link implements ConnectionHandler, ServerMessageHandler {
  readonly address: string;
  state: "dialing" | "ready" | "closed" = "dialing";
  /** The member's id; empty until it is ready. */
  member = "";
  /** The member serves no more until it is started anew, and why. */
  stopped: Refuse | undefined;
  /** By its address, so it stays even where another link reaches the same member. */
  isAskedFor = false;
  /** When a frame last arrived. */
  lastHeardMs: number;
  /** When the first of the answers that it owes was asked for. */
  askedMs: number;
  readonly #platform: Platform;
  readonly #owner: LinkOwner;
  readonly #connection: Connection;
  readonly #dialTimer: Timer;
  readonly #writer = new ByteWriter({ initialBytes: 4_096 });
  /** Who wants to keep its message of this turn, and where that lies: [from, to] of each. */
  #framed: Framed[] = [];
  #bounds: number[] = [];
  #isFlushDue = false;

  constructor(options: LinkOptions) {
    this.address = options.address;
    this.#platform = options.platform;
    this.#owner = options.owner;
    this.lastHeardMs = this.askedMs = options.platform.now();
    this.#dialTimer = options.platform.setTimer(options.dialTimeoutMs, () =>
      this.close(
        conclaveError("CONNECTION_REFUSED", `${this.address} did not answer the hello within ${options.dialTimeoutMs} ms.`),
      ),
    );
    this.#connection = options.transport.dial(options.address, this);
    writeHello(this.#writer, options.hello);
    this.#connection.send(this.#writer.finish());
  }

  /** The frame of this turn: append whole messages. Not after close. */
  writer(): ByteWriter {
    if (!this.#isFlushDue) {
      this.#isFlushDue = true;
      this.#platform.defer(() => this.#flush());
    } else if (this.#writer.length > frameBytesGoal) {
      this.#sendFrame();
    }
    return this.#writer;
  }

  /** Sets `message` to what was written from there on, once the frame is complete. */
  keepFrame(framed: Framed, from: number): void {
    this.#framed.push(framed);
    this.#bounds.push(from, this.#writer.length);
  }

  /** Idempotent. The owner hears of it in the same turn. */
  close(error: Error): void {
    if (this.state === "closed") return;
    if (this.state === "ready") this.#sendFrame();
    this.#end(error);
    this.#connection.close();
  }

  onFrame(_connection: Connection, frame: Uint8Array): void {
    if (this.state === "closed") return;
    this.lastHeardMs = this.#platform.now();
    try {
      readServerMessages(frame, this);
    } catch (error) {
      this.close(conclaveError("PROTOCOL", `${this.address} sent what cannot be read.`, { cause: error }));
    }
  }

  onClose(_connection: Connection, error?: Error): void {
    this.#end(error ?? conclaveError("CONNECTION_REFUSED", `${this.address} closed the connection.`));
  }

  onWelcome(welcome: Welcome): void {
    if (this.state !== "dialing") return;
    this.state = "ready";
    this.member = welcome.member;
    this.stopped = welcome.stopped;
    this.#dialTimer.cancel();
    this.#owner.onLinkReady(this, welcome);
  }

  onRefuse(refuse: Refuse): void {
    this.close(conclaveError(refuse.code, refuse.message));
  }

  onOutcome(requestId: number, outcome: ByteReader): void {
    this.#owner.onOutcome(this, requestId, outcome);
  }

  onRefused(requestId: number, refused: Refused): void {
    this.#owner.onRefused(this, requestId, refused);
  }

  onReady(requestId: number): void {
    this.#owner.onReady(this, requestId);
  }

  onWatchBatch(watchId: number, part: ByteReader): void {
    this.#owner.onWatchBatch(this, watchId, part);
  }

  onWatchEnd(watchId: number, refuse: Refuse): void {
    this.#owner.onWatchEnd(this, watchId, refuse);
  }

  onLeader(news: LeaderNews): void {
    this.stopped = news.stopped;
    this.#owner.onLeader(this, news);
  }

  onPong(_token: number, news: LeaderNews): void {
    this.onLeader(news);
  }

  onStatusReply(requestId: number, status: string): void {
    this.#owner.onStatusReply(this, requestId, status);
  }

  #flush(): void {
    this.#isFlushDue = false;
    if (this.state !== "closed") this.#sendFrame();
  }

  #sendFrame(): void {
    if (this.#writer.length === 0) return;
    const frame = this.#writer.finish();
    this.#handOut(frame);
    this.#connection.send(frame);
  }

  #handOut(frame: Uint8Array): void {
    const bounds = this.#bounds;
    this.#framed.forEach((framed, at) => {
      framed.message = { frame, from: bounds[at * 2] as number, to: bounds[at * 2 + 1] as number };
    });
    this.#framed = [];
    this.#bounds = [];
  }

  #end(error: Error): void {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#dialTimer.cancel();
    // What was written and never left is said again elsewhere.
    this.#handOut(this.#writer.finish());
    this.#owner.onLinkClosed(this, error);
  }
}
