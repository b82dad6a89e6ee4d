/**
 * A client of Redis that the user already has, recognised by its methods: `createClient` of `@redis/client` (and `redis`), or
 * ioredis. It does what our own link does, with two differences: its connections come and go unseen, so every script asks
 * the server who it is (4 us); and how it finds its server is its own affair. It stays the user's to close.
 *
 * ioredis sends again what was not answered, unless it is told not to; an `add` would then happen twice, so it must be told.
 */
import { binaryStringToUtf8 } from "../../base/bytes.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import { onAbort } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import type { Push } from "../../client/feed.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { errorOfReply } from "./connection.ts";
import type { LinkCall, RedisLink, ScriptRequest } from "./link.ts";
import type { RedisPushHandler } from "./push.ts";
import { type Argument, type Reply, RespError } from "./resp.ts";
import type { Script } from "./scripts.ts";

/** What is needed of `@redis/client`. */
interface NodeRedisShape {
  sendCommand(args: readonly (string | Buffer)[], options?: unknown): Promise<unknown>;
  duplicate(): NodeRedisShape;
  connect(): Promise<unknown>;
  sSubscribe(channel: string, listener: (message: Buffer, channel: Buffer) => void, bufferMode: true): Promise<unknown>;
  sUnsubscribe(channel: string): Promise<unknown>;
  on(event: string, listener: (...args: readonly unknown[]) => void): unknown;
  destroy(): void;
}

/** What is needed of ioredis. */
interface IoredisShape {
  readonly options: { readonly autoResendUnfulfilledCommands?: boolean };
  callBuffer(command: string, ...args: readonly (string | Buffer)[]): Promise<unknown>;
  duplicate(): IoredisShape;
  ssubscribe(channel: string): Promise<unknown>;
  sunsubscribe(channel: string): Promise<unknown>;
  on(event: string, listener: (...args: readonly never[]) => void): unknown;
  disconnect(): void;
}

type Send = (args: readonly (string | Buffer)[]) => Promise<unknown>;

/** `$`, by which `@redis/client` names bulk strings in a type mapping. */
const bulkStringType = 36;

export interface HandedClient {
  readonly link: RedisLink;
  readonly openPush: (handler: RedisPushHandler) => Push;
}

/** @throws FOREIGN_CLIENT */
export function adoptClient(
  client: unknown,
  { platform, processHold }: { readonly platform: Platform; readonly processHold: ProcessHold },
): HandedClient {
  if (isNodeRedis(client)) {
    const send: Send = (args) => client.sendCommand(args, { typeMapping: { [bulkStringType]: Buffer } });
    return { link: new HandedLink(send, platform, processHold), openPush: (handler) => nodeRedisPush(client, handler) };
  }
  if (isIoredis(client)) {
    if (client.options.autoResendUnfulfilledCommands !== false)
      throw conclaveError(
        "FOREIGN_CLIENT",
        "ioredis sends unanswered commands twice: make it with `autoResendUnfulfilledCommands: false`.",
      );
    const send: Send = ([command = "", ...args]) => client.callBuffer(String(command), ...args);
    return { link: new HandedLink(send, platform, processHold), openPush: (handler) => ioredisPush(client, handler) };
  }
  const wanted = ["sendCommand", "duplicate", "sSubscribe"].find((name) => !hasMethod(client, name));
  throw conclaveError("FOREIGN_CLIENT", `The client of Redis has no method \`${wanted}\` (nor ioredis' \`callBuffer\`).`);
}

class HandedLink implements RedisLink {
  onUp: (() => void) | undefined;
  readonly #send: Send;
  readonly #platform: Platform;
  readonly #processHold: ProcessHold;
  readonly #known = new Set<string>();
  #isClosed = false;

  constructor(send: Send, platform: Platform, processHold: ProcessHold) {
    this.#send = send;
    this.#platform = platform;
    this.#processHold = processHold;
  }

  async run(script: Script, { keys, client, args, replicas }: ScriptRequest, call: LinkCall): Promise<Reply> {
    const rest = [keys.length, ...keys, ...client, "", ...args];
    let reply = this.#known.has(script.sha) ? await this.#call(["EVALSHA", script.sha, ...rest], call) : undefined;
    if (reply === undefined || (reply instanceof RespError && reply.word === "NOSCRIPT")) {
      this.#known.add(script.sha);
      reply = await this.#call(["EVAL", script.text, ...rest], call);
    }
    if (reply instanceof RespError) throw errorOfReply(reply, handedAddress);
    if (replicas === 0) return reply;
    const confirmed = await this.#call(["WAIT", replicas, Math.max(1, Math.floor(call.timeoutMs * 0.8))], call);
    if (typeof confirmed === "number" && confirmed < replicas)
      throw conclaveError("REPLICAS_MISSING", `Only ${confirmed} of ${replicas} replicas confirmed.`);
    return reply;
  }

  async ask(args: readonly Argument[], call: LinkCall): Promise<Reply> {
    const reply = await this.#call(args, call);
    if (reply instanceof RespError) throw errorOfReply(reply, handedAddress);
    return reply;
  }

  close(): void {
    this.#isClosed = true;
  }

  /** The client's own patience may have no end: whatever it does with the command, the caller is answered. */
  #call(args: readonly Argument[], { signal, timeoutMs, onSend }: LinkCall): Promise<Reply> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#isClosed) return Promise.reject(conclaveError("CLOSED", "The engine was closed."));
    this.#processHold.retain();
    return new Promise((resolve, reject) => {
      let isOver = false;
      const finish = (settle: () => void): void => {
        if (isOver) return;
        isOver = true;
        timer.cancel();
        forget?.();
        this.#processHold.release();
        settle();
      };
      const timer = this.#platform.setTimer(timeoutMs, () =>
        finish(() => reject(conclaveError("TIMEOUT", `Redis did not answer within ${timeoutMs} ms.`))),
      );
      const forget = signal === undefined ? undefined : onAbort(signal, () => finish(() => reject(signal.reason)));
      onSend?.();
      const refuse = (error: unknown): void => finish(() => settleRefusal(error, { resolve, reject }));
      try {
        this.#send(args.map(plainArgument)).then((reply) => finish(() => resolve(reply as Reply)), refuse);
      } catch (error) {
        refuse(error);
      }
    });
  }
}

/** No copy: what is sent is not written to any more. */
function plainArgument(arg: Argument): string | Buffer {
  if (!(arg instanceof Uint8Array)) return String(arg);
  return Buffer.isBuffer(arg) ? arg : Buffer.from(arg.buffer, arg.byteOffset, arg.byteLength);
}

/** The server's own words begin with one in capitals, and are a reply; everything else is the connection's. */
function settleRefusal(
  error: unknown,
  { resolve, reject }: { readonly resolve: (reply: Reply) => void; readonly reject: (error: unknown) => void },
): void {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ConclaveError) reject(error);
  else if (/^[A-Z]{2,}\b/.test(message)) resolve(new RespError(message));
  else reject(conclaveError("CONNECTION_LOST", `The client of Redis that was handed in failed: ${message}.`, { cause: error }));
}

const handedAddress = { host: "the client that was handed in", port: 0 };

function nodeRedisPush(client: NodeRedisShape, handler: RedisPushHandler): Push {
  const own = client.duplicate();
  const channels = new Set<string>();
  const listener = (message: Buffer, channel: Buffer): void => handler.onMessage(channel.toString("latin1"), message);
  own.on("error", () => undefined);
  // It subscribes again by itself before it is ready; what was missed meanwhile must be read.
  own.on("ready", () => {
    for (const channel of channels) handler.onSubscribed(channel);
  });
  const connected = own.connect();
  connected.catch(() => undefined);
  return {
    subscribe(channel) {
      channels.add(channel);
      connected
        .then(() => own.sSubscribe(binaryStringToUtf8(channel), listener, true))
        .then(() => channels.has(channel) && handler.onSubscribed(channel))
        .catch(() => undefined);
    },
    unsubscribe(channel) {
      channels.delete(channel);
      own.sUnsubscribe(binaryStringToUtf8(channel)).catch(() => undefined);
    },
    close() {
      connected.then(() => own.destroy()).catch(() => undefined);
    },
  };
}

function ioredisPush(client: IoredisShape, handler: RedisPushHandler): Push {
  const own = client.duplicate();
  const channels = new Set<string>();
  const subscribe = (channel: string): void => {
    own
      .ssubscribe(binaryStringToUtf8(channel))
      .then(() => channels.has(channel) && handler.onSubscribed(channel))
      .catch(() => undefined);
  };
  own.on("error", () => undefined);
  own.on("smessageBuffer", (channel: Buffer, message: Buffer) => handler.onMessage(channel.toString("latin1"), message));
  own.on("ready", () => {
    for (const channel of channels) subscribe(channel);
  });
  return {
    subscribe(channel) {
      channels.add(channel);
      subscribe(channel);
    },
    unsubscribe(channel) {
      channels.delete(channel);
      own.sunsubscribe(binaryStringToUtf8(channel)).catch(() => undefined);
    },
    close: () => own.disconnect(),
  };
}

function isNodeRedis(client: unknown): client is NodeRedisShape {
  return (
    ["sendCommand", "duplicate", "sSubscribe", "sUnsubscribe", "connect"].every((name) => hasMethod(client, name)) &&
    !hasMethod(client, "callBuffer")
  );
}

function isIoredis(client: unknown): client is IoredisShape {
  return ["callBuffer", "duplicate", "ssubscribe"].every((name) => hasMethod(client, name)) && "options" in (client as object);
}

function hasMethod(value: unknown, name: string): boolean {
  return typeof value === "object" && value !== null && typeof (value as Record<string, unknown>)[name] === "function";
}
