/**
 * A service over HTTP for `transactions({ resources })` and for sagas.
 *
 * ```ts
 * const tm = await transactions({ store, resources: { orders: postgres({ url }), payment: http({ url: "http://payment:8080/tx" }) } });
 * await tm.run({ timeoutMs: 5_000 }, async (tx) => {
 *   await tx.on("orders").query("INSERT INTO orders ...");
 *   const { hold } = await tx.on("payment").try<{ hold: string }>("authorize", { user, amount });
 * });
 * ```
 * `try` sends at once and answers with what the service's Try returned; its refusal is an `Abort`. What follows (Confirm or
 * Cancel) is the coordinator's. Tries that are sent together cost one write of the store, each after another one more.
 */
import { conclaveError } from "../base/errors.ts";
import type { Epoch } from "../coordinator/epoch.ts";
import { Membership } from "../coordinator/membership.ts";
import type { Branch, Participant } from "../coordinator/participant.ts";
import { ServiceParticipant } from "../coordinator/service-participant.ts";
import type { ServiceCall, ServicePort, ServiceReply } from "../coordinator/service-port.ts";
import type { Store } from "../store/store.ts";
import { Abort } from "./errors.ts";
import { formatContext, readReply } from "./service-wire.ts";

export interface HttpOptions {
  /** Where the service's handler is mounted: `http://payment:8080/tx`. Or a function, asked before each call: a balancer. */
  readonly url: string | (() => string | Promise<string>);
  /** Sent with each call: credentials. */
  readonly headers?: Readonly<Record<string, string>> | (() => Readonly<Record<string, string>>);
  /** How long one answer may take. Milliseconds. Default 5_000. A Try without one is sent again until the transaction's time is over. */
  readonly answerMs?: number;
  /** Default: the platform's own. */
  readonly fetch?: typeof fetch;
}

/** What user code works with. */
export interface ServiceHandle {
  /**
   * Asks the service to try an action. Each call is a branch of its own.
   * @throws Abort (the service refused, in its own words), TRANSACTION_CLOSED (too late), UNSUPPORTED (the service is not set up for it),
   * TIMEOUT (no answer: the transaction aborts, and the branch is cancelled)
   */
  // biome-ignore lint/suspicious/noExplicitAny: JSON from outside.
  try<T = any>(action: string, body?: unknown): Promise<T>;
}

/** @since 0.2.0 */
export const httpDefaults = { answerMs: 5_000, answerBytesMax: 1_048_576 } as const;

/** @throws INVALID_OPTION @since 0.2.0 */
export function http(options: HttpOptions): HttpResource {
  if (typeof options.url !== "function" && !/^https?:\/\/[^\s?#]+$/.test(options.url ?? "")) {
    throw conclaveError("INVALID_OPTION", "`url` must be http:// or https://, without ? and #, or a function that gives one.");
  }
  return new HttpResource(options);
}

export class HttpResource {
  readonly kind = "http";
  /** Never set: carries the type of the handle. */
  declare readonly handle: ServiceHandle;
  readonly port: ServicePort;
  readonly title: string;
  readonly #options: HttpOptions;
  #participant: ServiceParticipant | undefined;

  /** Use `http`, which checks the options. */
  constructor(options: HttpOptions) {
    this.#options = options;
    this.title = typeof options.url === "string" ? `service at ${options.url}` : "service";
    this.port = { send: (call, how) => this.#send(call, how) };
  }

  get answerMs(): number {
    return this.#options.answerMs ?? httpDefaults.answerMs;
  }

  /** The manager says under which name it knows the service, and where its members are written down. */
  bind(name: string, store: Store): Participant {
    const membership = new Membership(store, this.answerMs);
    this.#participant = new ServiceParticipant({
      name,
      port: this.port,
      membership,
      platform: store.platform,
      answerMs: this.answerMs,
    });
    return this.#participant;
  }

  /** For a transaction: where its branches are counted and kept. */
  handleIn(transaction: {
    readonly gid: string;
    readonly epoch: Epoch;
    /** Of the store's clock. */
    readonly deadlineMs: number;
    readonly remainingMs: () => number;
    readonly traceparent: string | undefined;
    readonly signal: AbortSignal;
    readonly nextBranch: () => number;
    readonly checkOpen: () => void;
    readonly onBranch: (branch: Branch) => void;
  }): ServiceHandle {
    return {
      try: async (action, body) => {
        transaction.checkOpen();
        const participant = this.#participant;
        if (participant === undefined) throw conclaveError("INVALID_OPTION", "This service belongs to no transaction manager.");
        const { gid, epoch, traceparent, deadlineMs, signal } = transaction;
        const call = {
          gid,
          branch: transaction.nextBranch(),
          action,
          body: body ?? null,
          deadlineAtMs: Date.now() + transaction.remainingMs(),
          ...(traceparent === undefined ? {} : { traceparent }),
        };
        const { branch, reply } = participant.begin(epoch, call, { deadlineMs, signal });
        transaction.onBranch(branch);
        return triedOr(await reply, this.title, action);
      },
    };
  }

  async #send(
    call: ServiceCall,
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<ServiceReply> {
    const { url, headers, fetch: send = fetch } = this.#options;
    const base = (typeof url === "string" ? url : await url()).replace(/\/+$/, "");
    const path = call.phase === "try" ? `/try/${call.action ?? ""}` : `/${call.phase}`;
    // Nothing is sent for nothing: `express.json()` refuses a body that is `null`.
    const body = call.phase === "try" && call.body !== undefined && call.body !== null ? JSON.stringify(call.body) : undefined;
    // A controller of its own: a child of a long-lived signal by `any` would never be freed.
    const ending = new AbortController();
    const onAbort = (): void => ending.abort(signal?.reason);
    const timer = setTimeout(
      () => ending.abort(conclaveError("TIMEOUT", `${this.title} did not answer within ${timeoutMs} ms.`)),
      timeoutMs,
    );
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      signal?.throwIfAborted();
      const response = await send(`${base}${path}`, {
        method: call.phase === "status" ? "GET" : "POST",
        headers: {
          ...(typeof headers === "function" ? headers() : headers),
          ...formatContext(call),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body }),
        // A redirect would hand the credentials to whoever is named there.
        redirect: "manual",
        signal: ending.signal,
      });
      return readReply(call, response.status, await readText(response));
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

function triedOr<T>(reply: ServiceReply, title: string, action: string): T {
  switch (reply.kind) {
    case "done":
      return reply.result as T;
    case "refused":
      throw new Abort(reply.reason, reply.details);
    case "closed":
      throw conclaveError("TRANSACTION_CLOSED", `${title} refused ${action}: the branch is ${reply.why}.`);
    case "misconfigured":
      throw conclaveError("UNSUPPORTED", `${title} cannot do ${action}: ${reply.why}.`);
    case "busy":
      throw conclaveError("TIMEOUT", `${title} did not do ${action} in time: ${reply.why}.`);
    default:
      throw conclaveError("UNSUPPORTED", `${title} answered ${action} with "${reply.kind}".`);
  }
}

/** Bounded: a service that answers without end is cut off. */
async function readText(response: Response): Promise<string> {
  if (response.body === null) return "";
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
    bytes += part.length;
    if (bytes > httpDefaults.answerBytesMax) throw conclaveError("VALUE_TOO_LARGE", "The answer of a service is too long.");
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
