/**
 * One session of ZooKeeper over as many connections as it takes.
 *
 *   connected ── the connection ends ──► looking: the next server, with the same session ──► connected
 *                                             └── "there is no such session" ──► over
 *
 * A server that answers with another session than the one asked for has ended ours, whatever it says (ClickHouse Keeper does
 * so). What was sent and not answered may have happened; what was not sent waits for the next connection, as long as its
 * caller does. A session that is over stays over: who wants another one makes another client.
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import { onAbort } from "../../base/link-signal.ts";
import { type ConnectionSettings, type ServerAddress, ZkConnection, type ZkEvent } from "./connection.ts";
import { JuteWriter } from "./jute.ts";
import { opcodes, type Reply, type Request } from "./protocol.ts";

const againMs = 50;
const againMsMax = 1_000;
const closeMs = 1_000;

export interface ZkClientOptions extends ConnectionSettings {
  readonly servers: readonly ServerAddress[];
  /** What is asked for; what is granted is `ttlMs`. */
  readonly ttlMs: number;
  /** How long one connection may take. */
  readonly connectTimeoutMs: number;
  readonly onEvent?: (event: ZkEvent) => void;
  /** A connection stands again; events may have been missed. */
  readonly onConnected?: () => void;
  /** The session is over, and what was bound to it gone. */
  readonly onOver?: (why: string) => void;
}

export interface ZkCall {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** The requests leave now. */
  readonly onSend?: () => void;
}

interface Patient {
  readonly go: (connection: ZkConnection | undefined) => void;
}

export class ZkClient {
  readonly #options: ZkClientOptions;
  #connection: ZkConnection | undefined;
  /** Who waits for a connection. */
  #patients = new Set<Patient>();
  #ticket: ZkConnection["ticket"] | null = null;
  #ttlMs = 0;
  #lastZxid = 0;
  #at: number;
  #over: string | undefined;

  private constructor(options: ZkClientOptions) {
    this.#options = options;
    this.#at = options.platform.randomUint32() % options.servers.length;
  }

  /** Tries each server, for as long as there is time. @throws what the last one failed with */
  static async open(options: ZkClientOptions): Promise<ZkClient> {
    const client = new ZkClient(options);
    await client.#connect({ untilMs: options.platform.now() + options.connectTimeoutMs });
    return client;
  }

  /** As the servers have granted it. */
  get ttlMs(): number {
    return this.#ttlMs;
  }

  get isOver(): boolean {
    return this.#over !== undefined;
  }

  /** Of the session: nodes that go with it name it as their owner. */
  get owner(): string {
    return this.#ticket?.id ?? "";
  }

  /**
   * Sends them as one and waits for all answers.
   * @throws CONNECTION_LOST (may have happened), TIMEOUT, SESSION_EXPIRED, CLOSED, or the signal's reason
   */
  async call<const T extends readonly Request<unknown>[]>(
    requests: T,
    call: ZkCall,
  ): Promise<{ [K in keyof T]: T[K] extends Request<infer V> ? Reply<V> : never }> {
    const { platform } = this.#options;
    const { signal, timeoutMs } = call;
    signal?.throwIfAborted();
    const writes = requests.some((each) => each.writes);
    const untilMs = platform.now() + timeoutMs;
    const connection = this.#connection ?? (await this.#connected(call));
    if (connection === undefined) throw this.#notSent(timeoutMs);
    call.onSend?.();
    const all = Promise.all(connection.send(requests));
    const replies = await new Promise<readonly (Reply<unknown> | undefined)[]>((resolve, reject) => {
      const timer = platform.setTimer(Math.max(1, untilMs - platform.now()), () =>
        reject(conclaveError("TIMEOUT", `ZooKeeper did not answer within ${timeoutMs} ms.`, { definite: !writes })),
      );
      const forget = signal === undefined ? () => undefined : onAbort(signal, () => reject(signal.reason));
      all.then(resolve, reject).finally(() => {
        timer.cancel();
        forget();
      });
    });
    const whole = replies.filter((reply): reply is Reply<unknown> => reply !== undefined);
    if (whole.length < replies.length)
      throw conclaveError("CONNECTION_LOST", "The connection to ZooKeeper ended before it answered.", { definite: !writes });
    for (const { zxid } of whole) if (zxid > this.#lastZxid) this.#lastZxid = zxid;
    return whole as never;
  }

  /** Ends the session, and with it what is bound to it. Idempotent. */
  async close(): Promise<void> {
    if (this.#over !== undefined) return;
    const connection = this.#connection;
    this.#end("it was closed");
    if (connection === undefined || connection.isOver) return;
    const goodbye: Request<undefined> = {
      opcode: opcodes.closeSession,
      body: new JuteWriter().finish(),
      read: () => undefined,
      writes: true,
    };
    let timer: { cancel(): void } | undefined;
    const late = new Promise<void>((resolve) => {
      timer = this.#options.platform.setTimer(closeMs, resolve, { ref: true });
    });
    await Promise.race([Promise.all(connection.send([goodbye])), late]);
    timer?.cancel();
    connection.end("the session was closed");
  }

  #notSent(timeoutMs: number): ConclaveError {
    if (this.#over === undefined)
      return conclaveError("TIMEOUT", `No server of ZooKeeper could be reached within ${timeoutMs} ms.`, { definite: true });
    return this.#over === "it was closed"
      ? conclaveError("CLOSED", "The engine was closed.")
      : conclaveError("SESSION_EXPIRED", `The session of ZooKeeper is over: ${this.#over}.`);
  }

  /** Undefined: there is none within the time, or never again. */
  #connected({ signal, timeoutMs }: ZkCall): Promise<ZkConnection | undefined> {
    if (this.#over !== undefined) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => {
      const finish = (act: () => void): void => {
        timer.cancel();
        forget();
        this.#patients.delete(patient);
        act();
      };
      const patient: Patient = { go: (connection) => finish(() => resolve(connection)) };
      let forget = (): void => undefined;
      const timer = this.#options.platform.setTimer(timeoutMs, () => finish(() => resolve(undefined)));
      this.#patients.add(patient);
      if (signal !== undefined) forget = onAbort(signal, () => finish(() => reject(signal.reason)));
    });
  }

  async #connect({ untilMs }: { readonly untilMs: number }): Promise<void> {
    const { connectTimeoutMs, platform, servers } = this.#options;
    let pauseMs = againMs;
    for (let attempt = 1; this.#over === undefined; attempt++) {
      const address = servers[this.#at % servers.length] as ServerAddress;
      this.#at++;
      try {
        const timeoutMs = Math.max(100, Math.min(this.#patienceMs(), connectTimeoutMs, untilMs - platform.now()));
        const handshake = { address, ticket: this.#ticket, lastZxid: this.#lastZxid, ttlMs: this.#options.ttlMs, timeoutMs };
        this.#take(await ZkConnection.open(handshake, this.#options));
        return;
      } catch (error) {
        const isFinal = error instanceof ConclaveError && error.code === "UNAUTHORIZED";
        const isLast = attempt >= 2 * servers.length && untilMs !== Number.POSITIVE_INFINITY;
        if (isFinal || isLast || platform.now() + pauseMs > untilMs) throw error;
      }
      if (attempt % servers.length !== 0) continue;
      await new Promise<void>((resolve) => void platform.setTimer(pauseMs, resolve));
      pauseMs = Math.min(pauseMs * 2, Math.min(againMsMax, Math.max(againMs, this.#ttlMs / 10)));
    }
  }

  /**
   * While a session is to be kept no server gets more than a part of what is left of it. Before there is one, each gets its
   * part of the time: a server that sleeps takes the connection and says nothing.
   */
  #patienceMs(): number {
    const { connectTimeoutMs, servers } = this.#options;
    return this.#ticket === null ? connectTimeoutMs / servers.length : Math.max(200, this.#ttlMs / 4);
  }

  #take(connection: ZkConnection): void {
    const isResumed = this.#ticket !== null;
    connection.attach({ onEvent: (event) => this.#options.onEvent?.(event), onEnd: (ended, why) => this.#onEnd(ended, why) });
    if (this.#over !== undefined) {
      connection.end(this.#over);
      return;
    }
    if (isResumed && (connection.ttlMs === 0 || connection.ticket.id !== this.#ticket?.id)) {
      connection.end("it knows another session");
      this.#end("the servers have ended it");
      return;
    }
    this.#ticket = connection.ticket;
    this.#ttlMs = connection.ttlMs;
    this.#connection = connection;
    if (isResumed) this.#options.onConnected?.();
    for (const { go } of [...this.#patients]) go(connection);
  }

  #onEnd(connection: ZkConnection, _why: string): void {
    if (connection !== this.#connection) return;
    this.#connection = undefined;
    if (this.#over === undefined)
      background(
        this.#connect({ untilMs: Number.POSITIVE_INFINITY }).catch((error: unknown) => this.#onLost(error)),
        "connecting to ZooKeeper",
      );
  }

  /** Credentials that were good are no longer. */
  #onLost(error: unknown): void {
    this.#end(error instanceof Error ? error.message : String(error));
  }

  #end(why: string): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    const connection = this.#connection;
    this.#connection = undefined;
    for (const { go } of [...this.#patients]) go(undefined);
    if (why !== "it was closed") {
      connection?.end(why);
      this.#options.onOver?.(why);
    }
  }
}
