/**
 * The network between the members of a run: a proxy for each ordered pair, which carries bytes until it is told not to.
 *
 *   a ──► [proxy a→b] ──► b      a dials b here, and writes to it
 *   a ◄── [proxy b→a] ◄── b      b dials a here
 *
 * A cut works on bytes in one direction, whoever dialled: what a says to b is held on both proxies, as a router that drops
 * packets does it to TCP: nothing arrives, nothing breaks, and after the cut everything comes at once, long out of date. A
 * broken link is the other way in which networks fail: both ends are told at once that it is gone.
 * No rights are needed and every system has it. What it is not: packets are not lost below TCP (`namespaces.ts` loses them), and
 * the proxies live in the runner, so a busy runner is a slow network.
 */
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { monotonicMs } from "./clock.ts";
import type { Cuts } from "./namespaces.ts";

/** Bytes that one direction of one connection may hold; then its source is no longer read, as with a full window of TCP. */
const heldBytesMax = 1_048_576;

/** One direction between two members. */
class Path {
  isOpen = true;
  /** The share of chunks in which a bit is flipped. */
  garbled = 0;
  delayMs = 0;
  readonly lanes = new Set<Lane>();
  readonly waiting = new Set<() => void>();

  set(isOpen: boolean): void {
    this.isOpen = isOpen;
    if (!isOpen) return;
    for (const lane of this.lanes) lane.pump();
    for (const resume of [...this.waiting]) resume();
  }
}

/** What is on its way in one direction of one connection. In order, whatever the delay. */
class Lane {
  readonly #path: Path;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #held: { readonly chunk: Buffer | undefined; readonly dueMs: number }[] = [];
  #heldBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(path: Path, from: Socket, to: Socket) {
    this.#path = path;
    this.#from = from;
    this.#to = to;
    path.lanes.add(this);
    from.on("data", (chunk: Buffer) => this.#push(chunk));
    // The end travels like everything else: behind a cut nobody hears that the other process died.
    from.on("close", () => this.#push(undefined));
    to.on("close", () => this.#end());
    to.on("drain", () => this.#maybeResume());
  }

  pump(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (;;) {
      const next = this.#held[0];
      if (next === undefined || !this.#path.isOpen) break;
      const waitMs = next.dueMs - monotonicMs();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.pump(), waitMs);
        break;
      }
      this.#held.shift();
      if (next.chunk === undefined) {
        this.#to.destroy();
        return;
      }
      this.#heldBytes -= next.chunk.length;
      this.#to.write(Math.random() < this.#path.garbled ? garble(next.chunk) : next.chunk);
    }
    this.#maybeResume();
  }

  #push(chunk: Buffer | undefined): void {
    this.#held.push({ chunk, dueMs: monotonicMs() + this.#path.delayMs });
    this.#heldBytes += chunk?.length ?? 0;
    this.pump();
    if (this.#heldBytes > heldBytesMax || this.#to.writableNeedDrain) this.#from.pause();
  }

  #maybeResume(): void {
    if (this.#heldBytes <= heldBytesMax && !this.#to.writableNeedDrain) this.#from.resume();
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#path.lanes.delete(this);
    this.#held.length = 0;
    this.#heldBytes = 0;
    // A source that is paused would never tell its own end.
    this.#from.resume();
  }
}

export interface Endpoint {
  readonly name: string;
  /** `host:port` */
  readonly address: string;
}

export class Network implements Cuts {
  readonly #paths = new Map<string, Path>();
  readonly #proxies = new Map<string, { readonly address: string; readonly server: Server; readonly sockets: Set<Socket> }>();

  private constructor() {}

  /** A proxy for each ordered pair of the endpoints, on free ports of this machine. */
  static async open(endpoints: readonly Endpoint[]): Promise<Network> {
    const network = new Network();
    for (const from of endpoints) {
      for (const to of endpoints) if (from !== to) await network.#openProxy(from.name, to);
    }
    return network;
  }

  /** The address at which `from` reaches `to`. */
  addressFor(from: string, to: string): string {
    const proxy = this.#proxies.get(pairOf(from, to));
    if (proxy === undefined) throw new Error(`There is no link from ${from} to ${to}.`);
    return proxy.address;
  }

  cut(from: string, to: string): void {
    this.#path(from, to).set(false);
  }

  mend(from: string, to: string): void {
    this.#path(from, to).set(true);
  }

  isCut(from: string, to: string): boolean {
    return !this.#path(from, to).isOpen;
  }

  /** From now on what `from` says to `to` takes so much longer. */
  delay(from: string, to: string, delayMs: number): void {
    this.#path(from, to).delayMs = delayMs;
  }

  /** From now on this share of what `from` says to `to` arrives with a bit flipped: as good as a lie. */
  garble(from: string, to: string, share: number): void {
    this.#path(from, to).garbled = share;
  }

  /** Every connection between the two breaks, at both ends and at once; they may dial anew. */
  break(one: string, other: string): void {
    for (const pair of [pairOf(one, other), pairOf(other, one)]) {
      for (const socket of this.#proxies.get(pair)?.sockets ?? []) socket.destroy();
    }
  }

  /** No cut, no delay, no lie. */
  mendAll(): void {
    for (const path of this.#paths.values()) {
      path.delayMs = 0;
      path.garbled = 0;
      path.set(true);
    }
  }

  async close(): Promise<void> {
    for (const { server, sockets } of this.#proxies.values()) {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  #path(from: string, to: string): Path {
    const pair = pairOf(from, to);
    let path = this.#paths.get(pair);
    if (path === undefined) {
      path = new Path();
      this.#paths.set(pair, path);
    }
    return path;
  }

  async #openProxy(from: string, to: Endpoint): Promise<void> {
    const sockets = new Set<Socket>();
    const server = createServer((dialler) => this.#carry(dialler, { from, to, sockets }));
    const port = await new Promise<number>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { readonly port: number }).port));
    });
    this.#proxies.set(pairOf(from, to.name), { address: `127.0.0.1:${port}`, server, sockets });
  }

  #carry(
    dialler: Socket,
    { from, to, sockets }: { readonly from: string; readonly to: Endpoint; readonly sockets: Set<Socket> },
  ): void {
    const there = this.#path(from, to.name);
    const back = this.#path(to.name, from);
    adopt(dialler, sockets);
    dialler.pause();
    // A handshake needs both ways; while one is cut it is neither refused nor done.
    const begin = (): void => {
      if (dialler.destroyed || !there.isOpen || !back.isOpen) return;
      there.waiting.delete(begin);
      back.waiting.delete(begin);
      const at = to.address.lastIndexOf(":");
      const acceptor = createConnection({ host: to.address.slice(0, at), port: Number(to.address.slice(at + 1)), noDelay: true });
      adopt(acceptor, sockets);
      new Lane(there, dialler, acceptor);
      new Lane(back, acceptor, dialler);
      acceptor.once("connect", () => dialler.resume());
    };
    there.waiting.add(begin);
    back.waiting.add(begin);
    dialler.once("close", () => {
      there.waiting.delete(begin);
      back.waiting.delete(begin);
    });
    begin();
  }
}

function adopt(socket: Socket, sockets: Set<Socket>): void {
  socket.setNoDelay(true);
  sockets.add(socket);
  // Its end is told by `close`, which is all that matters here.
  socket.on("error", () => undefined);
  socket.on("close", () => sockets.delete(socket));
  socket.on("end", () => socket.destroy());
}

function garble(chunk: Buffer): Buffer {
  const garbled = Buffer.from(chunk);
  const at = Math.floor(Math.random() * garbled.length);
  garbled[at] = (garbled[at] as number) ^ (1 << Math.floor(Math.random() * 8));
  return garbled;
}

function pairOf(from: string, to: string): string {
  return `${from}>${to}`;
}
