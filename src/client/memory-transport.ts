/**
 * A transport inside one thread: `memory:` reaches its door through it, and tests reach theirs.
 *
 * It keeps the order of a real one: nothing arrives in the turn in which it was sent, frames arrive in order, and what is
 * sent is copied, so that neither side can write into the other's bytes. `delayMs` adds distance. Faults for tests:
 * `freeze` holds everything back that goes to or from an address, `cut` closes its connections.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { Connection, ConnectionHandler, Platform, Transport } from "../base/ports.ts";

/** Called for each connection that arrives; answers who handles it. */
export type Accept = (connection: Connection) => ConnectionHandler;

export interface MemoryTransportOptions {
  readonly platform: Platform;
  /** Milliseconds from send to arrival. Default 0: the next turn. */
  readonly delayMs?: number;
}

/** Addresses and who listens there. Both ends of a connection dial and listen on the same instance. */
export class MemoryTransport implements Transport {
  readonly #platform: Platform;
  readonly #delayMs: number;
  readonly #listeners = new Map<string, Accept>();
  readonly #frozen = new Set<string>();
  /** Both ends of every open connection, by the address that was dialled. */
  readonly #ends = new Map<string, Set<MemoryConnection>>();
  #dialled = 0;

  constructor(options: MemoryTransportOptions) {
    this.#platform = options.platform;
    this.#delayMs = options.delayMs ?? 0;
  }

  /** Accepts connections at the address until the returned function is called; that closes none. */
  listen(address: string, accept: Accept): () => void {
    assert(!this.#listeners.has(address), "one listener per address");
    this.#listeners.set(address, accept);
    return () => {
      if (this.#listeners.get(address) === accept) this.#listeners.delete(address);
    };
  }

  dial(address: string, handler: ConnectionHandler): Connection {
    const network: MemoryNetwork = {
      later: (callback) => this.#later(callback),
      isFrozen: () => this.#frozen.has(address),
      forget: (end) => this.#ends.get(address)?.delete(end),
    };
    const near = new MemoryConnection(network, address);
    const far = new MemoryConnection(network, `memory-client-${++this.#dialled}`);
    near.pair(far);
    far.pair(near);
    near.serve(handler);
    this.#later(() => {
      if (near.isClosed) return;
      const accept = this.#listeners.get(address);
      if (accept === undefined) return near.end(conclaveError("CONNECTION_REFUSED", `Nobody listens at ${address}.`));
      const ends = this.#ends.get(address) ?? new Set();
      this.#ends.set(address, ends.add(near).add(far));
      far.serve(accept(far));
      far.open();
      near.open();
    });
    return near;
  }

  /** Holds back everything to and from the address, unseen by both sides, until `thaw`. */
  freeze(address: string): void {
    this.#frozen.add(address);
  }

  thaw(address: string): void {
    this.#frozen.delete(address);
    for (const end of this.#ends.get(address) ?? []) end.deliver();
  }

  /** Closes every connection to the address, from both sides at once. */
  cut(address: string): void {
    for (const end of [...(this.#ends.get(address) ?? [])])
      end.end(conclaveError("CONNECTION_REFUSED", `The line to ${address} was cut.`));
  }

  #later(callback: () => void): void {
    if (this.#delayMs === 0) this.#platform.defer(callback);
    else this.#platform.setTimer(this.#delayMs, callback, { ref: true });
  }
}

interface MemoryNetwork {
  later(callback: () => void): void;
  isFrozen(): boolean;
  forget(end: MemoryConnection): void;
}

class MemoryConnection implements Connection {
  readonly remote: string;
  readonly #network: MemoryNetwork;
  #other: MemoryConnection | undefined;
  #handler: ConnectionHandler | undefined;
  /** What the other side has sent and this side has not been given. */
  #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  /** How many of them have travelled long enough. */
  #due = 0;
  #isOpen = false;
  #isClosed = false;
  /** The other side closed, after the last frame of the inbox. */
  #isEnding = false;

  constructor(network: MemoryNetwork, remote: string) {
    this.#network = network;
    this.remote = remote;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  pair(other: MemoryConnection): void {
    this.#other = other;
  }

  serve(handler: ConnectionHandler): void {
    this.#handler = handler;
  }

  open(): void {
    this.#isOpen = true;
    this.#handler?.onOpen?.(this);
    this.deliver();
  }

  send(frame: Uint8Array): void {
    if (this.#isClosed || this.#other === undefined) return;
    this.#other.#take(frame.slice());
  }

  bufferedBytes(): number {
    return this.#other === undefined ? 0 : this.#other.#inboxBytes;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#inbox = [];
    this.#network.forget(this);
    const other = this.#other;
    this.#network.later(() => {
      this.#handler?.onClose(this);
      if (other === undefined) return;
      other.#isEnding = true;
      other.deliver();
    });
  }

  /** Gives the handler what has arrived, unless the address is frozen. */
  deliver(): void {
    if (!this.#isOpen || this.#network.isFrozen()) return;
    const frames = this.#inbox.splice(0, this.#due);
    this.#due = 0;
    for (const frame of frames) this.#inboxBytes -= frame.length;
    for (const frame of frames) {
      if (this.#isClosed) return;
      this.#handler?.onFrame(this, frame);
    }
    if (this.#isEnding && this.#inbox.length === 0) this.end();
  }

  /** Closes this side alone. */
  end(error?: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#inbox = [];
    this.#network.forget(this);
    this.#handler?.onClose(this, error);
  }

  #take(frame: Uint8Array): void {
    if (this.#isClosed) return;
    this.#inbox.push(frame);
    this.#inboxBytes += frame.length;
    this.#network.later(() => {
      this.#due++;
      this.deliver();
    });
  }
}
