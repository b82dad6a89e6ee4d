/**
 * The way to etcd: one connection to one member at a time, and to the next one when that one is silent.
 *
 * A call is sent once. What surely was not sent is sent elsewhere while there is time; anything else is the caller's to
 * judge. A member that lets a call's time run out is left: it may sleep, and a client of gRPC would not notice for a while.
 */
import { type ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import { onAbort } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { type Grpc, type GrpcClient, type GrpcFailure, type GrpcStream, type Metadata, unchanged } from "./grpc.ts";
import { errorOfGrpc, isStaleToken } from "./grpc-errors.ts";
import { decodeToken, encodeAuthenticate, paths } from "./messages.ts";

const againMs = 25;
/** A connection that was left is closed once what is on it must have ended. */
const closeAfterMs = 15_000;

export interface LinkCall {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface EtcdLinkOptions {
  readonly grpc: Grpc;
  readonly endpoints: readonly string[];
  readonly user: { readonly name: string; readonly password: string } | undefined;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
}

export class EtcdLink {
  readonly endpoints: readonly string[];
  readonly #options: EtcdLinkOptions;
  #at = 0;
  #client: GrpcClient;
  #metadata: Metadata;
  #authenticating: Promise<void> | undefined;
  #isClosed = false;
  /** Another member is spoken to from now on. */
  onMove: (() => void) | undefined;

  constructor(options: EtcdLinkOptions) {
    this.#options = options;
    this.endpoints = options.endpoints;
    this.#client = options.grpc.client(this.endpoint);
    this.#metadata = options.grpc.metadata({ hasleader: "true" });
  }

  get endpoint(): string {
    return this.endpoints[this.#at] as string;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** @throws see `grpc-errors.ts`; TIMEOUT, CLOSED, or the signal's reason */
  async call(path: string, request: Buffer, { timeoutMs, signal }: LinkCall): Promise<Buffer> {
    const { platform, processHold } = this.#options;
    const untilMs = platform.now() + timeoutMs;
    let isTokenFresh = false;
    let refusals = 0;
    processHold.retain();
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
        if (this.#options.user !== undefined && path !== paths.authenticate) await this.#authenticated(untilMs);
        const client = this.#client;
        const sent = await unary(client, {
          path,
          request,
          metadata: this.#metadata,
          timeoutMs: untilMs - platform.now(),
          signal,
        });
        if (sent.kind === "answer") return sent.bytes;
        if (signal?.aborted) throw signal.reason;
        if (this.#options.user !== undefined && !isTokenFresh && isStaleToken(sent.failure)) {
          isTokenFresh = true;
          this.#authenticating = undefined;
          continue;
        }
        const error = errorOfGrpc(sent.failure, `etcd at ${this.endpoint}`);
        if (isMemberToLeave(error)) this.move(client);
        if (!isWorthAnother(error) || ++refusals >= this.#refusalsMax(error) || platform.now() + againMs > untilMs) throw error;
        await new Promise<void>((resolve) => void platform.setTimer(againMs, resolve, { ref: true }));
      }
    } finally {
      processHold.release();
    }
  }

  /** A call to that member alone. */
  async callMember(endpoint: string, path: string, { timeoutMs, signal }: LinkCall): Promise<Buffer> {
    const client = this.#options.grpc.client(endpoint);
    try {
      const request = Buffer.alloc(0);
      const sent = await unary(client, { path, request, metadata: this.#metadata, timeoutMs, signal });
      if (sent.kind === "answer") return sent.bytes;
      throw errorOfGrpc(sent.failure, `etcd at ${endpoint}`);
    } finally {
      client.close();
    }
  }

  /** With `client`, to see whether the link has moved on since. */
  stream(path: string): { readonly stream: GrpcStream; readonly client: GrpcClient } {
    const client = this.#client;
    const rest = this.#metadata === undefined ? [{}] : [this.#metadata, {}];
    return { client, stream: client.makeBidiStreamRequest(path, unchanged, unchanged, ...rest) };
  }

  /** Before a stream is opened: it needs a token that still serves. */
  async ready(timeoutMs: number): Promise<void> {
    if (this.#options.user !== undefined) await this.#authenticated(this.#options.platform.now() + timeoutMs);
  }

  forgetToken(): void {
    this.#authenticating = undefined;
  }

  /** Leaves the member, unless somebody has already. */
  move(client: GrpcClient): void {
    if (client !== this.#client || this.#isClosed) return;
    this.#at = (this.#at + 1) % this.endpoints.length;
    this.#client = this.#options.grpc.client(this.endpoint);
    this.#options.platform.setTimer(closeAfterMs, () => client.close());
    this.onMove?.();
  }

  close(): void {
    this.#isClosed = true;
    this.#client.close();
  }

  /** A member that refuses is asked again as long as there is time only if there may be others, or a connection to come. */
  #refusalsMax(error: ConclaveError): number {
    return hasCode(error, "NO_QUORUM") ? Number.POSITIVE_INFINITY : 2 * this.endpoints.length;
  }

  /** One request for all who ask meanwhile. */
  #authenticated(untilMs: number): Promise<void> {
    this.#authenticating ??= this.#authenticate(untilMs).catch((error: unknown) => {
      this.#authenticating = undefined;
      throw error;
    });
    return this.#authenticating;
  }

  async #authenticate(untilMs: number): Promise<void> {
    const { grpc, platform, user } = this.#options;
    if (user === undefined) return;
    const token = decodeToken(
      await this.call(paths.authenticate, encodeAuthenticate(user), { timeoutMs: Math.max(1, untilMs - platform.now()) }),
    );
    this.#metadata = grpc.metadata({ hasleader: "true", token });
  }
}

type Sent = { readonly kind: "answer"; readonly bytes: Buffer } | { readonly kind: "failure"; readonly failure: GrpcFailure };

function unary(
  client: GrpcClient,
  {
    path,
    request,
    metadata,
    timeoutMs,
    signal,
  }: { readonly path: string; readonly request: Buffer; readonly metadata: Metadata } & LinkCall,
): Promise<Sent> {
  return new Promise((resolve) => {
    const deadline = Date.now() + Math.max(1, timeoutMs);
    let forget = (): void => undefined;
    const onAnswer = (failure: GrpcFailure | null, bytes: Buffer): void => {
      forget();
      resolve(failure === null ? { kind: "answer", bytes } : { kind: "failure", failure });
    };
    const rest = metadata === undefined ? [{ deadline }, onAnswer] : [metadata, { deadline }, onAnswer];
    const call = client.makeUnaryRequest(path, unchanged, unchanged, request, ...rest);
    if (signal !== undefined) forget = onAbort(signal, () => call.cancel());
  });
}

function isMemberToLeave(error: ConclaveError): boolean {
  return ["TIMEOUT", "CONNECTION_LOST", "CONNECTION_REFUSED", "TLS_FAILED", "NO_QUORUM"].includes(error.code);
}

function isWorthAnother(error: ConclaveError): boolean {
  return error.definite && ["CONNECTION_REFUSED", "TLS_FAILED", "NO_QUORUM"].includes(error.code);
}
