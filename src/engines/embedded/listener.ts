/**
 * One port for everybody: members and clients speak frames, a browser or a probe speaks HTTP, and the first bytes tell.
 *
 * A frame begins with its length, which for a hello is far below 2^24, so its fourth byte is 0; the first four bytes of an
 * HTTP request are letters. Stray bytes that are neither are a frame of absurd length, refused by the splitter.
 */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { conclaveError } from "../../base/errors.ts";
import type { Connection, ConnectionHandler } from "../../base/ports.ts";
import type { MemberStatus } from "../../wire/member-status.ts";
import { parseAddress, TcpConnection } from "./tcp-transport.ts";

export interface ListenerOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  readonly accept: (connection: Connection) => ConnectionHandler;
  readonly status: () => MemberStatus;
}

export interface Listener {
  readonly host: string;
  readonly port: number;
  /** Closes the port and every connection. */
  close(): Promise<void>;
}

/** @throws ADDRESS_IN_USE (the port cannot be had) */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const { host, port } = parseAddress(options.address);
  const sockets = new Set<Socket>();
  const http = createHttpServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (request, response) =>
    answer(options.status, request, response),
  );
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    // A connection that breaks before its first bytes has nobody to tell.
    socket.on("error", () => socket.destroy());
    socket.once("data", (first: Buffer) => {
      socket.pause();
      if (isHttp(first)) {
        socket.unshift(first);
        http.emit("connection", socket);
        socket.resume();
        return;
      }
      const remote = `${socket.remoteAddress}:${socket.remotePort}`;
      let handler: ConnectionHandler | undefined;
      const connection = new TcpConnection(socket, remote, {
        onFrame: (own, frame) => handler?.onFrame(own, frame),
        onClose: (own, error) => handler?.onClose(own, error),
      });
      handler = options.accept(connection);
      connection.push(first);
      socket.resume();
    });
  });
  await bind(server, { host, port });
  const bound = server.address();
  const boundPort = typeof bound === "object" && bound !== null ? bound.port : port;
  return {
    host,
    port: boundPort,
    close: async () => {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        http.close();
        for (const socket of sockets) socket.destroy();
      });
    },
  };
}

function bind(server: Server, address: { readonly host: string; readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException): void => {
      const why = error.code === "EADDRINUSE" ? "another process listens there" : error.message;
      reject(conclaveError("ADDRESS_IN_USE", `Listening on ${address.host}:${address.port} failed: ${why}.`, { cause: error }));
    };
    server.once("error", onError);
    server.listen(address.port, address.host, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

function isHttp(first: Buffer): boolean {
  return /^(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) /.test(first.toString("latin1", 0, 8));
}

/** `/healthz`: the process lives and its log can be written. `/readyz`: it follows a leader or leads. `/status`: everything. */
function answer(status: () => MemberStatus, request: IncomingMessage, response: ServerResponse): void {
  const now = status();
  const path = (request.url ?? "/").split("?", 1)[0];
  const isReady = now.halted === undefined && now.leader !== undefined;
  const reply = (code: number, body: unknown): void => {
    response.writeHead(code, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(request.method === "HEAD" ? undefined : `${JSON.stringify(body)}\n`);
  };
  if (request.method !== "GET" && request.method !== "HEAD")
    reply(405, { error: "This port answers GET /healthz, /readyz and /status." });
  else if (path === "/healthz") reply(now.halted === undefined ? 200 : 503, { ok: now.halted === undefined, halted: now.halted });
  else if (path === "/readyz") reply(isReady ? 200 : 503, { ready: isReady, role: now.role, leader: now.leader });
  else if (path === "/status") reply(200, now);
  else reply(404, { error: "This port answers /healthz, /readyz and /status." });
}
