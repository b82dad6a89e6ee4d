/**
 * gRPC as the engine sees it: the shape of a client of `@grpc/grpc-js`, which the user installs beside Conclave.
 * Recognised by its methods, never by `instanceof`: the user's copy need not be ours.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";

/** What fails. `code`: of gRPC. */
export interface GrpcFailure {
  readonly code?: number;
  readonly details?: string;
  readonly message: string;
}

export interface GrpcStream {
  write(message: Buffer): boolean;
  end(): void;
  cancel(): void;
  on(event: "data", listener: (message: unknown) => void): unknown;
  on(event: "error", listener: (error: GrpcFailure) => void): unknown;
  on(event: "end", listener: () => void): unknown;
}

type Codec<From, To> = (from: From) => To;

/** What is needed of a `Client` of `@grpc/grpc-js`. */
export interface GrpcClient {
  makeUnaryRequest(
    path: string,
    serialize: Codec<Buffer, Buffer>,
    deserialize: Codec<Buffer, Buffer>,
    argument: Buffer,
    ...rest: readonly unknown[]
  ): { cancel(): void };
  makeBidiStreamRequest(
    path: string,
    serialize: Codec<Buffer, Buffer>,
    deserialize: Codec<Buffer, Buffer>,
    ...rest: readonly unknown[]
  ): GrpcStream;
  close(): void;
}

/** What goes with every call: the token of who calls, and that a member without a leader shall not pretend. */
export type Metadata = unknown;

export interface Grpc {
  /** A connection of its own, made on first use. */
  readonly client: (endpoint: string) => GrpcClient;
  readonly metadata: (entries: Readonly<Record<string, string>>) => Metadata;
}

export const unchanged = (bytes: Buffer): Buffer => bytes;

/** Answers of etcd are bounded by what it stores, not by gRPC's 4 MB. */
const messageBytesMax = 64 * 1024 * 1024;

/** Loads `@grpc/grpc-js`. @throws UNSUPPORTED (it is not installed), INVALID_OPTION (certificates that cannot be read) */
export async function loadGrpc(tls: TlsOptions | false): Promise<Grpc> {
  const grpc = await import("@grpc/grpc-js").catch((error: unknown) => {
    throw conclaveError("UNSUPPORTED", "The etcd engine speaks through `@grpc/grpc-js`: npm install @grpc/grpc-js.", {
      cause: error,
    });
  });
  const credentials = tls === false ? grpc.credentials.createInsecure() : grpc.credentials.createSsl(...certificatesOf(tls));
  return {
    client: (endpoint) =>
      new grpc.Client(endpoint, credentials, {
        // A new client shall be a new connection: the old one may lead to a server that sleeps.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 1_000,
        // etcd ends connections that ask more often than every five seconds.
        "grpc.keepalive_time_ms": 10_000,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.enable_retries": 0,
        "grpc.max_receive_message_length": messageBytesMax,
        "grpc.max_send_message_length": messageBytesMax,
        ...(tls !== false && tls.servername !== undefined ? { "grpc.ssl_target_name_override": tls.servername } : {}),
      }) as GrpcClient,
    metadata: (entries) => {
      const metadata = new grpc.Metadata();
      for (const [name, value] of Object.entries(entries)) metadata.set(name, value);
      return metadata;
    },
  };
}

/** @throws FOREIGN_CLIENT */
export function adoptGrpcClient(client: unknown): Grpc {
  for (const method of ["makeUnaryRequest", "makeBidiStreamRequest", "close"]) {
    if (typeof client !== "object" || client === null || typeof (client as Record<string, unknown>)[method] !== "function")
      throw conclaveError("FOREIGN_CLIENT", `The client of etcd has no method \`${method}\`: hand in a Client of @grpc/grpc-js.`);
  }
  // Closing stays the user's; credentials are the client's own.
  const borrowed = Object.create(client as object, { close: { value: () => undefined } }) as GrpcClient;
  return { client: () => borrowed, metadata: () => undefined };
}

function certificatesOf({ ca, cert, key }: TlsOptions): [Buffer | null, Buffer | null, Buffer | null] {
  const one = (value: unknown, name: string): Buffer | null => {
    if (value === undefined) return null;
    if (typeof value === "string" || Buffer.isBuffer(value)) return Buffer.from(value as string);
    if (Array.isArray(value)) return Buffer.concat(value.map((each) => Buffer.from(each as string)));
    throw conclaveError("INVALID_OPTION", `\`tls.${name}\` must be PEM text.`);
  };
  return [one(ca, "ca"), one(key, "key"), one(cert, "cert")];
}
