/**
 * The server's side of a participant over HTTP: actions with a Try, a Confirm and a Cancel, behind a barrier.
 *
 * ```ts
 * const service = tccService({
 *   barrier: postgresBarrier(postgres({ url })),
 *   actions: {
 *     reserve: {
 *       try: async ({ handle, body }) => {
 *         const { rowCount } = await handle.query("UPDATE stock SET free = free - $1 WHERE sku = $2 AND free >= $1", [body.count, body.sku]);
 *         if (rowCount !== 1) throw new Abort("sold out");
 *         return body;
 *       },
 *       confirm: async ({ handle, tried }) => { await handle.query("UPDATE stock SET sold = sold + $1 WHERE sku = $2", [tried.count, tried.sku]); },
 *       cancel: async ({ handle, tried }) => { await handle.query("UPDATE stock SET free = free + $1 WHERE sku = $2", [tried.count, tried.sku]); },
 *     },
 *   },
 * });
 * app.use("/tx", tccHandler(service));
 * ```
 * The handlers run once each, whatever is sent twice, late or in the wrong order; `try` alone may refuse, by throwing `Abort`.
 * The name of the action is kept with the Try's result, so a Confirm or Cancel by whoever recovers needs nothing but the branch.
 * For a saga's step leave `confirm` out: its Try is final, and `cancel` undoes it.
 */
import { ConclaveError, conclaveError } from "../base/errors.ts";
import type { Barrier, BarrierAnswer } from "./barrier.ts";
import { answerDone, answerProblem, parseContext, type ServiceAnswer, type TxContext } from "./service-wire.ts";

// biome-ignore lint/suspicious/noExplicitAny: JSON from outside; the handler parses it.
type Json = any;

/** What a handler is given. */
export interface TccCall<Handle> {
  /** Of the local transaction. Undefined in an action with effects outside. */
  readonly handle: Handle;
  readonly gid: string;
  readonly branch: number;
  /** The same for every run of this branch's Try: for whoever is called from it. */
  readonly idempotencyKey: string;
  readonly traceparent: string | undefined;
}

export interface TccAction<Handle> {
  /** Reserves, or refuses by throwing `Abort`. What it returns is kept, and given to the other two as `tried`. */
  readonly try: (call: TccCall<Handle> & { readonly body: Json }) => unknown;
  /** Makes the reservation final. Must not refuse: what it throws is asked again. Default: nothing. */
  readonly confirm?: (call: TccCall<Handle> & { readonly tried: Json }) => unknown;
  /** Undoes the Try. As `confirm`. Default: nothing. */
  readonly cancel?: (call: TccCall<Handle> & { readonly tried: Json }) => unknown;
  /**
   * The Try has effects outside of the barrier's database: it is run without a handle, may run again with the same
   * `idempotencyKey`, and is cancelled even when it failed (`tried` is null then). Default false.
   */
  readonly isOutside?: boolean;
}

export interface TccServiceOptions<Handle> {
  readonly barrier: Barrier<Handle>;
  /** By name: small letters, digits and `-`. */
  readonly actions: Readonly<Record<string, TccAction<Handle>>>;
  /** How much clocks may differ before a Try counts as too late, or is taken though it is. Milliseconds. Default 60_000. */
  readonly clockSkewMs?: number;
  /** Whether this caller may speak. Default: everybody who reaches the port. */
  readonly authorize?: (header: (name: string) => string | undefined) => boolean | Promise<boolean>;
  /** Told of what a handler threw; the caller is told "try again". */
  readonly onError?: (error: unknown, context: TxContext) => void;
}

/** A request as every framework can give it. */
export interface ServiceRequest {
  readonly method: string;
  /** With or without what stands before `/try/...`. */
  readonly path: string;
  readonly header: (name: string) => string | undefined;
  /** Parsed, or as text. */
  readonly body: unknown;
}

/** @since 0.2.0 */
export const tccDefaults = { clockSkewMs: 60_000, bodyBytesMax: 1_048_576, dropEveryMs: 600_000 } as const;

const route = /\/(?:(try)\/([a-z0-9-]{1,64})|(confirm|cancel|status))\/?$/;

/** @throws INVALID_OPTION @since 0.2.0 */
export function tccService<Handle>(options: TccServiceOptions<Handle>): TccService<Handle> {
  for (const [name, action] of Object.entries(options.actions)) {
    if (!/^[a-z0-9-]{1,64}$/.test(name))
      throw conclaveError("INVALID_OPTION", `Action ${JSON.stringify(name)} is no plain name.`);
    if (typeof action.try !== "function") throw conclaveError("INVALID_OPTION", `Action ${name} has no \`try\`.`);
  }
  return new TccService(options);
}

export class TccService<Handle> {
  readonly #options: TccServiceOptions<Handle>;
  #lastDropMs: number = performance.now();

  /** Use `tccService`, which checks the options. */
  constructor(options: TccServiceOptions<Handle>) {
    this.#options = options;
  }

  /** Makes what the barrier needs. Call it once before the first request. */
  install(): Promise<void> {
    return this.#options.barrier.install();
  }

  /** One request. Never rejects. Null: the path is none of ours. */
  async handle(request: ServiceRequest): Promise<ServiceAnswer | null> {
    const match = route.exec(request.path.split("?")[0] as string);
    if (match === null) return null;
    const phase = (match[1] ?? match[3]) as "try" | "confirm" | "cancel" | "status";
    if (request.method !== (phase === "status" ? "GET" : "POST")) {
      return answerProblem(405, "METHOD", `${phase} is asked with ${phase === "status" ? "GET" : "POST"}.`);
    }
    const { authorize } = this.#options;
    if (authorize !== undefined && !(await authorize(request.header))) {
      return answerProblem(403, "FORBIDDEN", "This caller may not speak for transactions here.");
    }
    const context = parseContext(request.header);
    if (context === null) {
      return answerProblem(
        400,
        "INVALID_OPTION",
        "The headers conclave-tx, conclave-tx-branch or conclave-tx-deadline are missing or wrong.",
      );
    }
    try {
      return await this.#answer(phase, match[2] ?? "", context, request.body);
    } catch (error) {
      this.#options.onError?.(error, context);
      return refusalOfCall(error);
    } finally {
      this.#dropNowAndThen();
    }
  }

  async #answer(
    phase: "try" | "confirm" | "cancel" | "status",
    name: string,
    context: TxContext,
    body: unknown,
  ): Promise<ServiceAnswer> {
    const { barrier, actions } = this.#options;
    const { gid, branch } = context;
    if (phase === "status") return answerDone({ standing: await barrier.standing(gid, branch) });
    if (phase === "try") {
      const action = actions[name];
      if (action === undefined) return answerProblem(404, "UNKNOWN_ACTION", `There is no action ${name}.`);
      if (this.#isExpired(context)) {
        return answerProblem(409, "TRANSACTION_CLOSED", `The time of ${gid} was over before its Try came.`, { why: "expired" });
      }
      return toAnswer(await this.#try(name, action, context, parseBody(body)));
    }
    return toAnswer(
      await barrier.run({ gid, branch, phase }, async (handle, kept) => {
        const tried = kept as { readonly action: string; readonly result: unknown } | null;
        // Of an intent nothing is kept but that it was there: every action with effects outside is asked to undo it.
        const names = tried === null ? Object.keys(actions).filter((each) => actions[each]?.isOutside === true) : [tried.action];
        for (const each of names) {
          await actions[each]?.[phase]?.({ ...callOf(handle, context), tried: tried?.result ?? null });
        }
        return null;
      }),
    );
  }

  async #try(name: string, action: TccAction<Handle>, context: TxContext, body: unknown): Promise<BarrierAnswer> {
    const { barrier } = this.#options;
    const call = { gid: context.gid, branch: context.branch, phase: "try", mustSucceed: context.mustSucceed } as const;
    const run = async (handle: Handle): Promise<unknown> => {
      return { action: name, result: (await action.try({ ...callOf(handle, context), body })) ?? null };
    };
    const answer =
      action.isOutside === true
        ? await barrier.runOutside(call, () => run(undefined as Handle))
        : await barrier.run(call, (handle) => run(handle));
    if (answer.kind !== "done") return answer;
    return { ...answer, result: (answer.result as { readonly result: unknown }).result };
  }

  #isExpired({ deadlineAtMs }: TxContext): boolean {
    return deadlineAtMs !== undefined && Date.now() > deadlineAtMs + (this.#options.clockSkewMs ?? tccDefaults.clockSkewMs);
  }

  /** Lines that are old go, a few at a time, without anybody waiting. */
  #dropNowAndThen(): void {
    if (performance.now() - this.#lastDropMs < tccDefaults.dropEveryMs) return;
    this.#lastDropMs = performance.now();
    this.#options.barrier.drop().catch((error: unknown) => {
      this.#options.onError?.(error, { gid: "", branch: 0, deadlineAtMs: undefined, mustSucceed: false, traceparent: undefined });
    });
  }
}

function callOf<Handle>(handle: Handle, { gid, branch, traceparent }: TxContext): TccCall<Handle> {
  return { handle, gid, branch, idempotencyKey: `${gid}.${branch}`, traceparent };
}

function toAnswer(answer: BarrierAnswer): ServiceAnswer {
  switch (answer.kind) {
    case "done":
      return answerDone({ result: answer.result });
    case "skipped":
      return answerDone({ skipped: true });
    case "refused":
      return answerProblem(409, "REFUSED", answer.reason, { reason: answer.reason, details: answer.details });
    case "closed":
      return answerProblem(409, "TRANSACTION_CLOSED", closedWords[answer.why], { why: answer.why });
  }
}

const closedWords = {
  cancelled: "This branch was cancelled; a Try or Confirm that comes later is refused.",
  confirmed: "This branch was confirmed; it cannot be cancelled any more.",
  "not-tried": "This branch was never tried; there is nothing to confirm.",
} as const;

/** What a handler threw is nobody's answer: the caller asks again. The caller's own mistakes are said. */
function refusalOfCall(error: unknown): ServiceAnswer {
  if (error instanceof ConclaveError && (error.code === "VALUE_TOO_LARGE" || error.code === "INVALID_OPTION")) {
    return answerProblem(422, error.code, error.message);
  }
  return answerProblem(503, "TRY_AGAIN", "The service could not do it this time; nothing of it has happened.");
}

function parseBody(body: unknown): unknown {
  if (typeof body !== "string") return body;
  if (body === "") return null;
  try {
    return JSON.parse(body);
  } catch {
    throw conclaveError("INVALID_OPTION", "The body of a Try must be JSON.");
  }
}
