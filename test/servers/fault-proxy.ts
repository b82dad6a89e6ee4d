/**
 * A TCP proxy between a client and a real server, with a switch for everything that a network may do to them.
 *
 * Knows nothing of the protocol, except what a test hands it: `onAnswer` sees each chunk from the server and may drop it,
 * repeat it or hold it back. Chunks of small messages on loopback are whole messages, which the tests that use it check.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

export type AnswerFault =
  | { readonly kind: "drop" }
  | { readonly kind: "twice" }
  /** Held back and sent as one with the next; alone after this long. */
  | { readonly kind: "coalesce"; readonly delayMs: number }
  /** Dropped, and the connection ends: done, and nobody knows. */
  | { readonly kind: "cut" };

export class FaultProxy {
  readonly port: number;
  /** The port that new connections go to. */
  target: number;
  /** Asked for each chunk that the server sends; undefined: it passes. */
  onAnswer: ((chunk: Buffer) => AnswerFault | undefined) | undefined;
  /** Asked for each chunk that a client sends; true: it never arrives, and the connection ends. */
  onRequest: ((chunk: Buffer) => boolean) | undefined;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #isSilent = false;
  #refuses = false;

  private constructor(server: Server, port: number, target: number) {
    this.#server = server;
    this.port = port;
    this.target = target;
    server.on("connection", (client) => {
      if (this.#refuses) {
        client.destroy();
        return;
      }
      const pair = new Pair(this, client, connect({ host: "127.0.0.1", port: this.target }));
      this.#pairs.add(pair);
      pair.onEnd = () => this.#pairs.delete(pair);
    });
  }

  static start(target: number): Promise<FaultProxy> {
    const server = createServer();
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => {
        resolve(new FaultProxy(server, (server.address() as { readonly port: number }).port, target));
      });
    });
  }

  get isSilent(): boolean {
    return this.#isSilent;
  }

  get connectionCount(): number {
    return this.#pairs.size;
  }

  /** From now on nothing passes, and nobody is told: a network that has split. */
  silence(): void {
    this.#isSilent = true;
  }

  /** Bytes that were held back by the silence are gone, with their connections. */
  heal(): void {
    this.#isSilent = false;
    this.#refuses = false;
    this.cut();
  }

  /** Every connection ends. */
  cut(): void {
    for (const pair of [...this.#pairs]) pair.end();
  }

  /** Every connection ends and none is accepted. */
  refuse(): void {
    this.#refuses = true;
    this.cut();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

class Pair {
  onEnd: (() => void) | undefined;
  readonly #client: Socket;
  readonly #upstream: Socket;
  #held: Buffer | undefined;

  constructor(proxy: FaultProxy, client: Socket, upstream: Socket) {
    this.#client = client;
    this.#upstream = upstream;
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on("error", () => this.end());
      socket.on("close", () => this.end());
    }
    client.on("data", (chunk: Buffer) => {
      if (proxy.isSilent) return;
      if (proxy.onRequest?.(chunk)) this.end();
      else upstream.write(chunk);
    });
    upstream.on("data", (chunk: Buffer) => {
      if (!proxy.isSilent) this.#answer(chunk, proxy.onAnswer?.(chunk));
    });
  }

  end(): void {
    this.#client.destroy();
    this.#upstream.destroy();
    this.onEnd?.();
  }

  #answer(chunk: Buffer, fault: AnswerFault | undefined): void {
    switch (fault?.kind) {
      case "drop":
        return;
      case "cut":
        this.end();
        return;
      case "coalesce":
        this.#held = Buffer.concat([this.#held ?? Buffer.alloc(0), chunk]);
        setTimeout(() => this.#release(), fault.delayMs);
        return;
      default:
        this.#release();
        this.#client.write(chunk);
        if (fault?.kind === "twice") this.#client.write(chunk);
    }
  }

  #release(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.#client.write(held);
  }
}
