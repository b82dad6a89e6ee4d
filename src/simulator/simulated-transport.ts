/**
 * Connections between simulated processes: frames arrive in order or the connection closes, as TCP promises.
 *
 * Links are those of the datagram network, so one cut blocks both: a blocked stream holds its frames (TCP sends them
 * again) and lets them through later, long after the world has moved on; a killed process closes its ends.
 */
import type { Connection, ConnectionHandler, Transport } from "../base/ports.ts";
import type { Datagrams } from "./datagrams.ts";
import type { EventQueue } from "./event-queue.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

/** How long a closed connection tries to say so: that of `tcp-transport.ts`. */
const lingerMs = 200;
/** How often a blocked frame tries again. */
const retryMs = 20;

type Acceptor = (connection: Connection) => ConnectionHandler;

interface Listener {
  readonly process: SimulatedProcess;
  readonly accept: Acceptor;
}

export class SimulatedNetwork {
  readonly #queue: EventQueue;
  readonly #datagrams: Datagrams;
  readonly #listeners = new Map<string, Listener>();
  readonly #streams = new Set<Stream>();

  constructor(queue: EventQueue, datagrams: Datagrams) {
    this.#queue = queue;
    this.#datagrams = datagrams;
  }

  /** The address is the process's name. */
  listen(process: SimulatedProcess, accept: Acceptor): void {
    this.#listeners.set(process.name, { process, accept });
  }

  /** What the process of this name dials through. */
  transportOf(process: SimulatedProcess): Transport {
    return { dial: (address, handler) => this.#dial(process, address, handler) };
  }

  /** The kernel closes what a killed process had open; the other side hears of it when the link lets it. */
  closeAllOf(process: SimulatedProcess): void {
    if (this.#listeners.get(process.name)?.process === process) this.#listeners.delete(process.name);
    for (const stream of this.#streams) if (stream.involves(process)) stream.break();
  }

  /** Breaks every connection between the two names. */
  breakBetween(one: string, other: string): void {
    for (const stream of this.#streams) if (stream.isBetween(one, other)) stream.break();
  }

  #dial(from: SimulatedProcess, address: string, handler: ConnectionHandler): Connection {
    const stream = new Stream(this.#queue, this.#datagrams, from, address, () => this.#streams.delete(stream));
    this.#streams.add(stream);
    const dialler = stream.end("dialler", handler);
    // One trip there; the refusal or the open comes back.
    stream.travel(from.name, address, () => {
      const listener = this.#listeners.get(address);
      if (listener === undefined || !listener.process.isAlive) {
        stream.break(new Error(`Connecting to ${address} was refused.`));
        return;
      }
      listener.process.run(() => {
        stream.accepted(listener.process, listener.accept);
        stream.travel(address, from.name, () => from.run(() => stream.opened()));
      });
    });
    return dialler;
  }
}

interface End {
  readonly connection: Connection;
  readonly handler: ConnectionHandler;
}

interface Lane {
  readonly waiting: { arriveMs: number; readonly arrive: () => void }[];
  lastMs: number;
}

class Stream {
  readonly #queue: EventQueue;
  readonly #datagrams: Datagrams;
  readonly #from: SimulatedProcess;
  readonly #address: string;
  readonly #onEnd: () => void;
  #to: SimulatedProcess | undefined;
  #dialler: End | undefined;
  #acceptor: End | undefined;
  #broken = false;
  /** Names of the ends that said goodbye; what they sent before is still on its way. */
  readonly #closed = new Set<string>();
  /** By the sender's name. Frames of one direction never overtake. */
  readonly #lanes = new Map<string, Lane>();
  readonly #flying = new Map<string, number>();

  constructor(queue: EventQueue, datagrams: Datagrams, from: SimulatedProcess, address: string, onEnd: () => void) {
    this.#queue = queue;
    this.#datagrams = datagrams;
    this.#from = from;
    this.#address = address;
    this.#onEnd = onEnd;
  }

  involves(process: SimulatedProcess): boolean {
    return this.#from === process || this.#to === process;
  }

  isBetween(one: string, other: string): boolean {
    const names = [this.#from.name, this.#address];
    return names.includes(one) && names.includes(other);
  }

  end(side: "dialler" | "acceptor", handler: ConnectionHandler): Connection {
    const [own, other] = side === "dialler" ? [this.#from.name, this.#address] : [this.#address, this.#from.name];
    const connection: Connection = {
      remote: other,
      send: (frame) => {
        if (this.#broken || this.#closed.has(own)) return;
        const copy = frame.slice();
        this.#flying.set(own, (this.#flying.get(own) ?? 0) + copy.length);
        this.travel(own, other, () => {
          this.#flying.set(own, (this.#flying.get(own) ?? 0) - copy.length);
          const receiver = side === "dialler" ? this.#acceptor : this.#dialler;
          const process = side === "dialler" ? this.#to : this.#from;
          process?.run(() => {
            if (!this.#broken && !this.#closed.has(other) && receiver !== undefined)
              receiver.handler.onFrame(receiver.connection, copy);
          });
        });
      },
      bufferedBytes: () => this.#flying.get(own) ?? 0,
      close: () => this.#close(own, other),
    };
    if (side === "dialler") this.#dialler = { connection, handler };
    else this.#acceptor = { connection, handler };
    return connection;
  }

  accepted(process: SimulatedProcess, accept: Acceptor): void {
    if (this.#broken) return;
    this.#to = process;
    const late: { handler?: ConnectionHandler } = {};
    const connection = this.end("acceptor", {
      onFrame: (own, frame) => late.handler?.onFrame(own, frame),
      onClose: (own, error) => late.handler?.onClose(own, error),
    });
    late.handler = accept(connection);
  }

  opened(): void {
    if (this.#broken || this.#dialler === undefined) return;
    this.#dialler.handler.onOpen?.(this.#dialler.connection);
  }

  /** What was sent before arrives first, a refusal for one; where the way is blocked the closing end does not wait for long. */
  #close(own: string, other: string): void {
    if (this.#broken || this.#closed.has(own)) return;
    this.#closed.add(own);
    this.travel(own, other, () => this.break());
    this.#queue.schedule(lingerMs, () => this.break());
  }

  /** Both ends hear of it, each in its own time. */
  break(error?: Error): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#onEnd();
    const tell = (process: SimulatedProcess | undefined, end: End | undefined): void => {
      if (process === undefined || end === undefined) return;
      this.#queue.schedule(0.1, () => process.run(() => end.handler.onClose(end.connection, error)));
    };
    tell(this.#from, this.#dialler);
    tell(this.#to, this.#acceptor);
  }

  /** Carries something in order along the direction, waiting while the link is blocked. */
  travel(from: string, to: string, arrive: () => void): void {
    let lane = this.#lanes.get(from);
    if (lane === undefined) {
      lane = { waiting: [], lastMs: 0 };
      this.#lanes.set(from, lane);
    }
    lane.lastMs = Math.max(lane.lastMs, this.#queue.nowMs + this.#datagrams.streamDelayMs(from, to));
    lane.waiting.push({ arriveMs: lane.lastMs, arrive });
    if (lane.waiting.length === 1) this.#pump(lane, from, to);
  }

  #pump(lane: Lane, from: string, to: string): void {
    const next = lane.waiting[0];
    if (next === undefined || this.#broken) return;
    this.#queue.schedule(next.arriveMs - this.#queue.nowMs, () => {
      if (this.#broken) return;
      if (!this.#datagrams.isOpen(from, to)) {
        next.arriveMs = this.#queue.nowMs + retryMs;
        this.#pump(lane, from, to);
        return;
      }
      lane.waiting.shift();
      this.#pump(lane, from, to);
      next.arrive();
    });
  }
}
