/**
 * A fence over HTTP: the client names its token in a header, the service refuses a lower one than it has seen.
 *
 *   Fence-Token: "invoice%3A42"=1732180000000000        ──►  412 Precondition Failed, code STALE_TOKEN
 *
 * The service remembers the highest token of each resource in a `FenceMemory`: of this process by default, which forgets at
 * a restart; give one on your database where that matters. Requests of one resource are served one after another while the
 * gate is asked to `run` them, so a stale one that was let in earlier has finished before the next holder's begins.
 */
import { ConclaveError, conclaveError } from "../base/errors.ts";
import { checkFenced, type Fenced, staleToken } from "./fence.ts";

/** The header's name, in lower case as servers tell it. */
export const fenceHeaderName = "fence-token";

/** For `fetch`: `{ headers: { ...fenceHeader(hold) } }`. */
export function fenceHeader(fenced: Fenced): { readonly "fence-token": string } {
  checkFenced(fenced);
  return { "fence-token": `"${encodeURIComponent(fenced.name)}"=${fenced.token}` };
}

/** The opposite; undefined where there is none. @throws INVALID_OPTION (it cannot be read) */
export function readFenceHeader(value: string | readonly string[] | null | undefined): Fenced | undefined {
  if (value === null || value === undefined || value.length === 0) return undefined;
  const match = typeof value === "string" ? /^"([^"]+)"=(\d{1,16})$/.exec(value.trim()) : null;
  const unreadable = conclaveError("INVALID_OPTION", 'The header Fence-Token is not of the form "name"=token.');
  if (match === null) throw unreadable;
  try {
    const fenced = { name: decodeURIComponent(match[1] as string), token: Number(match[2]) };
    checkFenced(fenced);
    return fenced;
  } catch {
    throw unreadable;
  }
}

/** Where the highest token of each resource is kept. */
export interface FenceMemory {
  /** Raises the resource's token to this one if it is not lower; answers with the highest there was before. Atomic. */
  raise(fenced: Fenced): Promise<number>;
}

/** In this process, and gone with it. Bounded: beyond `namesMax` the resource that was quiet longest is forgotten. */
export function processFenceMemory({ namesMax = 100_000 }: { readonly namesMax?: number } = {}): FenceMemory {
  const highest = new Map<string, number>();
  return {
    raise: ({ name, token }) => {
      const before = highest.get(name) ?? 0;
      highest.delete(name);
      highest.set(name, Math.max(before, token));
      if (highest.size > namesMax) highest.delete(highest.keys().next().value as string);
      return Promise.resolve(before);
    },
  };
}

export interface FenceGateOptions {
  /** Default: of this process. */
  readonly memory?: FenceMemory;
  /** Whether a request without a token is let through. Default false: refused with 428 and TOKEN_REQUIRED. */
  readonly optional?: boolean;
  /** How many requests of one resource may wait for each other. Default 1_000; beyond it BUSY. */
  readonly waitingMax?: number;
}

/** @since 0.2.0 */
export class FenceGate {
  readonly #memory: FenceMemory;
  readonly #optional: boolean;
  readonly #waitingMax: number;
  readonly #lines = new Map<string, { tail: Promise<unknown>; waiting: number }>();

  constructor({ memory = processFenceMemory(), optional = false, waitingMax = 1_000 }: FenceGateOptions = {}) {
    this.#memory = memory;
    this.#optional = optional;
    this.#waitingMax = waitingMax;
  }

  /**
   * Runs the work of a request unless a higher token has been here, after all earlier work of the same resource.
   * @throws STALE_TOKEN, TOKEN_REQUIRED, INVALID_OPTION (a token that cannot be read), BUSY (the work did not run)
   */
  async run<T>(header: string | readonly string[] | null | undefined, work: () => T | Promise<T>): Promise<T> {
    const fenced = readFenceHeader(header);
    if (fenced === undefined) {
      if (this.#optional) return work();
      throw conclaveError("TOKEN_REQUIRED", "This resource is fenced; the request has no Fence-Token header.");
    }
    return this.#inLine(fenced.name, async () => {
      const highest = await this.#memory.raise(fenced);
      if (highest > fenced.token) throw staleToken(fenced, highest);
      return work();
    });
  }

  async #inLine<T>(name: string, work: () => Promise<T>): Promise<T> {
    const line = this.#lines.get(name) ?? { tail: Promise.resolve(), waiting: 0 };
    if (line.waiting >= this.#waitingMax) throw conclaveError("BUSY", `${line.waiting} requests wait for "${name}".`);
    this.#lines.set(name, line);
    line.waiting++;
    const mine = line.tail.then(work);
    line.tail = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      line.waiting--;
      if (line.waiting === 0) this.#lines.delete(name);
    }
  }
}

/** What a refusal looks like to the client: 412 stale, 428 missing, 400 unreadable, 503 busy; a problem document (RFC 9457). */
export function fenceRefusal(
  error: unknown,
): { readonly status: number; readonly body: Readonly<Record<string, unknown>> } | undefined {
  if (!(error instanceof ConclaveError)) return undefined;
  if (!(error.code in statusOfCode)) return undefined;
  const status = statusOfCode[error.code as keyof typeof statusOfCode];
  return { status, body: { title: error.code, status, detail: error.message } };
}

const statusOfCode = { STALE_TOKEN: 412, TOKEN_REQUIRED: 428, INVALID_OPTION: 400, BUSY: 503 } as const;

/** What is used of a request and an answer of Express (and of `node:http`). */
interface ExpressRequest {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}
interface ExpressResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body?: string): unknown;
  once(event: "close", listener: () => void): unknown;
}

/** Express: `app.put("/invoices/:id", expressFence(gate), handler)`. The next request of the resource waits for this answer. */
export function expressFence(
  gate: FenceGate,
): (request: ExpressRequest, response: ExpressResponse, next: (error?: unknown) => void) => void {
  return (request, response, next) => {
    const served = (): Promise<void> =>
      new Promise((resolve) => {
        response.once("close", resolve);
        next();
      });
    gate.run(request.headers[fenceHeaderName], served).catch((error: unknown) => {
      const refusal = fenceRefusal(error);
      if (refusal === undefined) {
        next(error);
        return;
      }
      response.statusCode = refusal.status;
      response.setHeader("content-type", "application/problem+json");
      response.end(JSON.stringify(refusal.body));
    });
  };
}

interface FastifyReply {
  code(status: number): FastifyReply;
  type(contentType: string): FastifyReply;
  send(body: unknown): unknown;
  readonly raw: { once(event: "close", listener: () => void): unknown };
}

/** Fastify: `app.put("/invoices/:id", { preHandler: fastifyFence(gate) }, handler)`. */
export function fastifyFence(gate: FenceGate): (request: ExpressRequest, reply: FastifyReply) => Promise<unknown> {
  return (request, reply) =>
    new Promise((resolve, reject) => {
      const served = (): Promise<void> =>
        new Promise((finish) => {
          reply.raw.once("close", finish);
          resolve(undefined);
        });
      gate.run(request.headers[fenceHeaderName], served).catch((error: unknown) => {
        const refusal = fenceRefusal(error);
        if (refusal === undefined) reject(error);
        else resolve(reply.code(refusal.status).type("application/problem+json").send(refusal.body));
      });
    });
}

interface HonoContext {
  readonly req: { header(name: string): string | undefined };
  json(body: unknown, status: number): unknown;
}

/** Hono: `app.use("/invoices/*", honoFence(gate))`. */
export function honoFence(gate: FenceGate): (context: HonoContext, next: () => Promise<void>) => Promise<unknown> {
  return async (context, next) => {
    try {
      await gate.run(context.req.header(fenceHeaderName), next);
      return undefined;
    } catch (error) {
      const refusal = fenceRefusal(error);
      if (refusal === undefined) throw error;
      return context.json(refusal.body, refusal.status);
    }
  };
}
