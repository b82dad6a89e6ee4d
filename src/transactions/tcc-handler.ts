/**
 * A TCC service behind the server that you have: Express, Fastify, Hono or plain `node:http`, recognised by the shape of what
 * they hand over, so that none of them is a dependency.
 *
 *   express   app.use("/tx", tccHandler(service))                     (request, response, next)
 *   fastify   app.all("/tx/*", tccHandler(service))                   (request, reply)
 *   hono      app.all("/tx/*", tccHandler(service))                   (context, next)
 *   node      createServer(tccHandler(service))                       (request, response)
 */
import { conclaveError } from "../base/errors.ts";
import type { ServiceAnswer } from "./service-wire.ts";
import { type TccService, tccDefaults } from "./tcc-service.ts";

interface NodeRequest extends AsyncIterable<Uint8Array> {
  readonly method?: string;
  readonly url?: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** Parsed already, by `express.json()` or the like. */
  readonly body?: unknown;
}
interface NodeResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body?: string): unknown;
}
interface FastifyReply {
  code(status: number): FastifyReply;
  header(name: string, value: string): FastifyReply;
  send(body: unknown): unknown;
}
interface HonoContext {
  readonly req: {
    readonly method: string;
    readonly path: string;
    header(name: string): string | undefined;
    text(): Promise<string>;
  };
  body(text: string, status: number, headers: Readonly<Record<string, string>>): unknown;
}

/** The handler for any of the four. @since 0.2.0 */
// biome-ignore lint/suspicious/noExplicitAny: four frameworks, each with types of its own.
export function tccHandler(service: TccService<any>): (first: any, second?: any, third?: any) => any {
  return (first, second, third) => {
    if (typeof first?.req?.header === "function" && typeof first.body === "function") return serveHono(service, first, second);
    if (typeof second?.code === "function" && typeof second.send === "function") return serveFastify(service, first, second);
    if (typeof second?.setHeader === "function" && typeof second.end === "function")
      return serveNode(service, first, second, third);
    throw conclaveError(
      "FOREIGN_CLIENT",
      "What called the handler has neither `reply.code` (Fastify), `response.setHeader` (Express, node:http) nor `context.req.header` (Hono).",
    );
  };
}

type AnyService = Pick<TccService<unknown>, "handle">;

async function serveNode(
  service: AnyService,
  request: NodeRequest,
  response: NodeResponse,
  next: ((error?: unknown) => void) | undefined,
): Promise<void> {
  try {
    const body = request.body ?? (request.method === "POST" ? await readBody(request) : "");
    const answer = body === null ? tooLarge : await service.handle(callOf(request, body));
    if (answer === null && next !== undefined) return next();
    const { status, headers, body: text } = answer ?? notFound;
    response.statusCode = status;
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    response.end(JSON.stringify(text));
  } catch (error) {
    // The connection broke while the body came: nobody waits for an answer.
    if (next !== undefined) next(error);
    else response.end();
  }
}

async function serveFastify(service: AnyService, request: NodeRequest, reply: FastifyReply): Promise<unknown> {
  const { status, headers, body } = (await service.handle(callOf(request, request.body ?? ""))) ?? notFound;
  reply.code(status);
  for (const [name, value] of Object.entries(headers)) reply.header(name, value);
  return reply.send(JSON.stringify(body));
}

async function serveHono(service: AnyService, context: HonoContext, next: (() => Promise<void>) | undefined): Promise<unknown> {
  const { req } = context;
  const text = req.method === "POST" ? await req.text() : "";
  const header = (name: string): string | undefined => req.header(name);
  const answer =
    text.length > tccDefaults.bodyBytesMax
      ? tooLarge
      : await service.handle({ method: req.method, path: req.path, header, body: text });
  if (answer === null && next !== undefined) return next();
  const { status, headers, body } = answer ?? notFound;
  return context.body(JSON.stringify(body), status, headers);
}

function callOf({ method = "GET", url = "/", headers }: NodeRequest, body: unknown) {
  const header = (name: string): string | undefined => {
    const value = headers[name];
    return typeof value === "string" ? value : undefined;
  };
  return { method, path: url, header, body };
}

/** Null: it is longer than anything of ours. */
async function readBody(request: AsyncIterable<Uint8Array>): Promise<string | null> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes > tccDefaults.bodyBytesMax) return null;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

const problem = { "content-type": "application/problem+json" } as const;
const notFound: ServiceAnswer = {
  status: 404,
  headers: problem,
  body: { title: "NOT_FOUND", status: 404, detail: "The paths are /try/<action>, /confirm, /cancel and /status." },
};
const tooLarge: ServiceAnswer = {
  status: 413,
  headers: problem,
  body: { title: "TOO_LARGE", status: 413, detail: `A body may have ${tccDefaults.bodyBytesMax} bytes.` },
};
