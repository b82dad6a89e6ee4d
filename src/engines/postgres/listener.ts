/**
 * The push channel of a process: one connection that listens on a channel of its own, and a row for each namespace that
 * somebody watches, so that writers NOTIFY only where someone waits.
 *
 * A push is a hint that may be lost with its connection. After each registration, also the first, `onSubscribed` is called,
 * and whoever watches reads once what is true. The connection is asked now and then whether the same backend still listens:
 * a half-open one, or one that a pooler has lent to somebody else, is given up.
 */
import { background } from "../../base/background.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import type { Push, PushHandler } from "../../client/feed.ts";
import { hearErrors, type PostgresClient, type PostgresNotification, type PostgresPool } from "./driver.ts";
import type { FunctionCaller } from "./function-caller.ts";
import { schemaOf } from "./tables.ts";
import { decodeNotice } from "./txn-codec.ts";

export interface ListenerOptions {
  readonly pool: PostgresPool;
  readonly caller: FunctionCaller;
  readonly platform: Platform;
  readonly handler: PushHandler;
  readonly group: string;
  readonly channel: string;
}

const heartbeatMs = 5_000;
/** Of a row of ours, unless it is renewed with a heartbeat: writers stop telling a process that has died. */
const watcherMs = 30_000;
const callMs = 5_000;
const backoffMsMin = 20;
const backoffMsMax = 1_000;

export class Listener implements Push {
  readonly #options: ListenerOptions;
  readonly #namespaces = new Set<string>();
  /**
   * Those that the present connection was registered for. What arrives before is not told: it may follow on a gap, and the
   * reading after the registration sees it anyway.
   */
  readonly #registered = new Set<string>();
  #client: PostgresClient | undefined;
  #pid = 0;
  #isOpening = false;
  #timer: Timer | undefined;
  #backoffMs = backoffMsMin;
  #isClosed = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  subscribe(namespace: string): void {
    this.#namespaces.add(namespace);
    if (this.#client === undefined) this.#connect();
    else background(this.#register(namespace), "watching a namespace");
  }

  unsubscribe(namespace: string): void {
    const { caller, channel } = this.#options;
    this.#registered.delete(namespace);
    if (!this.#namespaces.delete(namespace) || this.#isClosed) return;
    background(
      caller.unwatch(namespace, channel, { timeoutMs: callMs }).catch(() => undefined),
      "watching a namespace no more",
    );
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#drop();
  }

  #connect(): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    const opening = this.#open().then(
      () => {
        this.#isOpening = false;
      },
      () => {
        this.#isOpening = false;
        this.#connectLater();
      },
    );
    background(opening, "opening the push channel");
  }

  async #open(): Promise<void> {
    const { channel, pool } = this.#options;
    const client = await pool.connect();
    hearErrors(client);
    try {
      client.unref?.();
      const answer = await this.#inTime(client.query(`LISTEN "${channel}"; SELECT pg_backend_pid() AS pid`));
      const [row] = ((Array.isArray(answer) ? answer[1] : answer)?.rows ?? []) as { readonly pid: number }[];
      this.#pid = row?.pid ?? 0;
    } catch (error) {
      client.release(true);
      throw error;
    }
    if (this.#isClosed) {
      client.release(true);
      return;
    }
    this.#client = client;
    const lose = (): void => {
      if (this.#client !== client) return;
      this.#drop();
      this.#connectLater();
    };
    client.on("error", lose);
    client.on("end", lose);
    client.on("notification", (notice: PostgresNotification) => this.#onNotice(notice));
    for (const namespace of this.#namespaces) background(this.#register(namespace), "watching a namespace");
    this.#beatLater(client);
  }

  #connectLater(): void {
    if (this.#isClosed) return;
    this.#timer?.cancel();
    this.#timer = this.#options.platform.setTimer(this.#backoffMs, () => this.#connect());
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMsMax);
  }

  #drop(): void {
    this.#client?.release(true);
    this.#client = undefined;
    this.#registered.clear();
  }

  async #register(namespace: string): Promise<void> {
    const { caller, channel, handler, platform } = this.#options;
    const client = this.#client;
    try {
      await caller.watch(namespace, channel, watcherMs, { timeoutMs: callMs });
      this.#backoffMs = backoffMsMin;
      if (client === undefined || this.#client !== client || !this.#namespaces.has(namespace)) return;
      this.#registered.add(namespace);
      handler.onSubscribed(namespace);
    } catch {
      // Somebody's transaction holds its row, or nobody answers: asked again soon.
      platform.setTimer(backoffMsMax, () => {
        if (this.#client === client && client !== undefined && this.#namespaces.has(namespace))
          background(this.#register(namespace), "watching a namespace");
      });
    }
  }

  #beatLater(client: PostgresClient): void {
    this.#timer?.cancel();
    this.#timer = this.#options.platform.setTimer(heartbeatMs, () => {
      if (this.#client === client) background(this.#beat(client), "a heartbeat of the push channel");
    });
  }

  async #beat(client: PostgresClient): Promise<void> {
    const { channel, group } = this.#options;
    try {
      const answer = await this.#inTime(
        client.query(
          `WITH renewed AS (UPDATE ${schemaOf(group)}.watchers SET until = clock_timestamp() + $2 * interval '1 millisecond'
            WHERE channel = $1 RETURNING 1)
          SELECT pg_backend_pid() AS pid, $1 IN (SELECT pg_listening_channels()) AS listens, (SELECT count(*)::integer FROM renewed) AS rows`,
          [channel, watcherMs],
        ),
      );
      const [row] = ("rows" in answer ? answer.rows : []) as {
        readonly pid: number;
        readonly listens: boolean;
        readonly rows: number;
      }[];
      if (this.#client !== client) return;
      if (row?.pid !== this.#pid || !row.listens) throw new Error("another backend answers");
      if (row.rows < this.#namespaces.size)
        for (const namespace of this.#namespaces) background(this.#register(namespace), "watching a namespace");
      this.#beatLater(client);
    } catch {
      if (this.#client !== client) return;
      this.#drop();
      this.#connectLater();
    }
  }

  #onNotice({ channel, payload }: PostgresNotification): void {
    if (channel !== this.#options.channel || payload === undefined || !payload.startsWith("{")) return;
    const { namespace, message } = decodeNotice(payload);
    if (this.#registered.has(namespace)) this.#options.handler.onMessage(namespace, message);
  }

  #inTime<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = this.#options.platform.setTimer(callMs, () => reject(new Error("no answer")));
      work.then(resolve, reject).finally(() => timer.cancel());
    });
  }
}
