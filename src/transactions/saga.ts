/**
 * A saga, written down: steps that are done one after another or together, each with what undoes it; a pivot, after which there is
 * no way back; and steps behind it that are tried until they are done.
 *
 * ```ts
 * const checkout = saga<{ order: string; user: string; amount: number }>("checkout@1")
 *   .step("reserve", serviceStep(inventory, "reserve", ({ input }) => ({ order: input.order })))
 *   .together({
 *     address: { do: ({ input }) => lookUp(input.user) },
 *     credit: serviceStep(risk, "hold", ({ input }) => ({ amount: input.amount })),
 *   })
 *   .pivot("capture", serviceStep(payment, "capture", ({ input }) => ({ user: input.user, amount: input.amount })))
 *   .retriable("ship", serviceStep(shipping, "create", ({ results }) => ({ hold: results.reserve.hold })));
 * ```
 * The name carries a version: sagas that run under "checkout@1" go on with the steps of "checkout@1", wherever a process knows them.
 * Each step is typed by those before it. A step says no by throwing `Abort`; anything else it throws means "nobody knows", and it is
 * asked again with the same `idempotencyKey`. Steps behind a barrier (`serviceStep`, `barrierStep`) answer the second time as the
 * first; a plain function must be idempotent by the key itself, and its `undo` may come while a copy of its `do` is on its way.
 */
import { conclaveError } from "../base/errors.ts";
import type { StageShape, StepShape } from "../coordinator/saga-core.ts";
import { type SagaDefinition, type StepCall, type StepReply, type StepWork, stepReplyOf } from "../coordinator/saga-run.ts";
import type { ServiceReply } from "../coordinator/service-port.ts";
import { type Barrier, refusalOf } from "./barrier.ts";
import type { HttpResource } from "./http.ts";
import { formatContext } from "./service-wire.ts";

export interface StepContext<Input, Results> {
  readonly gid: string;
  readonly branch: number;
  /** The same for every attempt, in any process. */
  readonly idempotencyKey: string;
  readonly input: Input;
  /** What the steps before have returned, by name. */
  readonly results: Results;
  readonly traceparent: string | undefined;
  /** For calls to services that know nothing of sagas. */
  readonly headers: Readonly<Record<string, string>>;
  /** Aborts when the attempt's time is over. */
  readonly signal: AbortSignal;
}

export interface SagaStep<Input, Results, Result> {
  /** What it returns is kept under the step's name; JSON must carry it. `Abort` refuses. */
  readonly do: (context: StepContext<Input, Results>) => Result | Promise<Result>;
  /** Also called where nobody knows whether `do` ran. Left out: there is nothing to undo. */
  readonly undo?: (context: StepContext<Input, Partial<Results>>) => unknown;
  /** Of one attempt. Milliseconds. Default 10_000. */
  readonly timeoutMs?: number;
  /** Attempts without an answer before the saga turns back, where it may. Default 10. */
  readonly attemptsMax?: number;
  /** Made by `serviceStep` and `barrierStep`. */
  readonly isFenced?: boolean;
}

/** @since 0.2.0 */
export const sagaDefaults = { timeoutMs: 60_000, stepTimeoutMs: 10_000, attemptsMax: 10 } as const;

// biome-ignore lint/suspicious/noExplicitAny: a builder's stages are typed by its methods.
type AnyStep = SagaStep<any, any, any>;

/** Begins to write one down. @param name With a version: "checkout@1". @throws INVALID_OPTION @since 0.2.0 */
export function saga<Input>(name: string): SagaBuilder<Input, Record<never, never>> {
  if (!/^[a-z][a-z0-9-]{0,40}@\d{1,6}$/.test(name)) {
    throw conclaveError("INVALID_OPTION", `A saga's name is small letters, "@" and a version, not ${JSON.stringify(name)}.`);
  }
  return new SagaBuilder(name, []);
}

interface Stage {
  readonly kind: StageShape["kind"];
  readonly steps: Readonly<Record<string, AnyStep>>;
}

/** What every saga is in the end, whatever its types. */
export interface Saga<Input, Results> {
  readonly name: string;
  readonly definition: SagaDefinition;
  /** Never set: carry the types. */
  readonly input?: Input;
  readonly results?: Results;
}

type With<Results, Name extends string, Result> = Results & { readonly [Key in Name]: Result };

class Written<Input, Results> implements Saga<Input, Results> {
  readonly name: string;
  readonly definition: SagaDefinition;
  protected readonly stages: readonly Stage[];

  /** Use `saga`. */
  constructor(name: string, stages: readonly Stage[]) {
    this.name = name;
    this.stages = stages;
    this.definition = definitionOf(name, stages);
  }
}

/** Behind the pivot: forward only. */
export class SagaTail<Input, Results> extends Written<Input, Results> {
  /** Tried until it is done: by then nothing can be undone any more. What it refuses, it is asked again. */
  retriable<Name extends string, Result>(
    name: Name,
    step: SagaStep<Input, Results, Result>,
  ): SagaTail<Input, With<Results, Name, Result>> {
    return new SagaTail(this.name, [...this.stages, { kind: "retriable", steps: { [name]: step } }]);
  }
}

/** Before the pivot: each step may be undone. */
export class SagaBuilder<Input, Results> extends Written<Input, Results> {
  /** After all before it. */
  step<Name extends string, Result>(
    name: Name,
    step: SagaStep<Input, Results, Result>,
  ): SagaBuilder<Input, With<Results, Name, Result>> {
    return new SagaBuilder(this.name, [...this.stages, { kind: "step", steps: { [name]: step } }]);
  }

  /** All at one time, after all before; what comes next waits for all of them. */
  together<Steps extends Readonly<Record<string, SagaStep<Input, Results, unknown>>>>(
    steps: Steps,
  ): SagaBuilder<Input, Results & { readonly [Name in keyof Steps]: Awaited<ReturnType<Steps[Name]["do"]>> }> {
    return new SagaBuilder(this.name, [...this.stages, { kind: "step", steps }]);
  }

  /** Go or no-go: once it is asked, its answer alone decides, and no clock does. It is never undone. */
  pivot<Name extends string, Result>(
    name: Name,
    step: SagaStep<Input, Results, Result>,
  ): SagaTail<Input, With<Results, Name, Result>> {
    return new SagaTail(this.name, [...this.stages, { kind: "pivot", steps: { [name]: step } }]);
  }
}

/** A step that is an action of a service behind a barrier: its Try, and its Cancel where the saga turns back. @since 0.2.0 */
export function serviceStep<Input, Results, Result = unknown>(
  service: HttpResource,
  action: string,
  body: (context: StepContext<Input, Results>) => unknown = () => null,
  options: { readonly timeoutMs?: number; readonly attemptsMax?: number } = {},
): SagaStep<Input, Results, Result> {
  const send = async (context: StepContext<Input, Results>, phase: "try" | "cancel"): Promise<ServiceReply> => {
    const { gid, branch, traceparent, signal } = context;
    const call = {
      phase,
      gid,
      branch,
      ...(traceparent === undefined ? {} : { traceparent }),
      // No deadline: whoever takes over asks again after it, and must be answered as the first was.
      ...(phase === "try"
        ? { action, body: body(context) ?? null, mustSucceed: context.headers["conclave-tx-forward"] === "1" }
        : {}),
    } as const;
    return service.port.send(call, { timeoutMs: options.timeoutMs ?? sagaDefaults.stepTimeoutMs, signal });
  };
  return fenced(options, {
    do: async (context) => stepReplyOf(await send(context, "try")),
    undo: async (context) => stepReplyOf(await send(context, "cancel")),
  });
}

/** A step in a database of this process, behind its barrier: `do` and `undo` run inside its local transaction. @since 0.2.0 */
export function barrierStep<Handle, Input, Results, Result>(
  barrier: Barrier<Handle>,
  work: {
    readonly do: (handle: Handle, context: StepContext<Input, Results>) => Result | Promise<Result>;
    readonly undo?: (handle: Handle, done: Result, context: StepContext<Input, Partial<Results>>) => unknown;
    readonly timeoutMs?: number;
    readonly attemptsMax?: number;
  },
): SagaStep<Input, Results, Result> {
  return fenced(work, {
    do: async (context: StepContext<Input, Results>) => {
      const mustSucceed = context.headers["conclave-tx-forward"] === "1";
      const call = { gid: context.gid, branch: context.branch, phase: "try", mustSucceed } as const;
      return stepReplyOf(await barrier.run(call, (handle) => work.do(handle, context)));
    },
    undo: async (context: StepContext<Input, Results>) => {
      const call = { gid: context.gid, branch: context.branch, phase: "cancel" } as const;
      return stepReplyOf(await barrier.run(call, (handle, done) => work.undo?.(handle, done as Result, context)));
    },
  });
}

/** A reply instead of a result: what the two makers above return, and `definitionOf` unwraps. */
class Replied {
  readonly reply: StepReply;

  constructor(reply: StepReply) {
    this.reply = reply;
  }
}

function fenced<Input, Results, Result>(
  { timeoutMs, attemptsMax }: { readonly timeoutMs?: number; readonly attemptsMax?: number },
  ways: {
    readonly do: (context: StepContext<Input, Results>) => Promise<StepReply>;
    readonly undo: (context: StepContext<Input, Results>) => Promise<StepReply>;
  },
): SagaStep<Input, Results, Result> {
  return {
    do: async (context) => new Replied(await ways.do(context)) as Result,
    undo: async (context) => new Replied(await ways.undo(context as StepContext<Input, Results>)),
    isFenced: true,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(attemptsMax === undefined ? {} : { attemptsMax }),
  };
}

function definitionOf(name: string, stages: readonly Stage[]): SagaDefinition {
  const work = new Map<number, StepWork>();
  const names = new Set<string>();
  const shapes = stages.map(({ kind, steps }): StageShape => {
    const shaped = Object.entries(steps).map(([stepName, step]): StepShape => {
      if (names.has(stepName)) throw conclaveError("INVALID_OPTION", `Saga ${name} has two steps ${JSON.stringify(stepName)}.`);
      if (typeof step.do !== "function") throw conclaveError("INVALID_OPTION", `Step ${stepName} of saga ${name} has no \`do\`.`);
      names.add(stepName);
      const branch = names.size;
      work.set(branch, workOf(step));
      return { name: stepName, branch, canUndo: kind === "step" && step.undo !== undefined, isFenced: step.isFenced === true };
    });
    if (shaped.length === 0) throw conclaveError("INVALID_OPTION", `Saga ${name} has a stage without steps.`);
    return { kind, steps: shaped };
  });
  return { name, stages: shapes, work };
}

function workOf({ do: doIt, undo, timeoutMs, attemptsMax }: AnyStep): StepWork {
  return {
    do: (call) => replied(async () => doIt(contextOf(call))),
    ...(undo === undefined ? {} : { undo: (call) => replied(async () => undo(contextOf(call))) }),
    timeoutMs: timeoutMs ?? sagaDefaults.stepTimeoutMs,
    attemptsMax: attemptsMax ?? sagaDefaults.attemptsMax,
  };
}

/** Rejects where nobody knows. */
async function replied(work: () => Promise<unknown>): Promise<StepReply> {
  try {
    const result = await work();
    return result instanceof Replied ? result.reply : { kind: "done", result: result ?? null };
  } catch (error) {
    const refusal = refusalOf(error);
    if (refusal === null) throw error;
    return { kind: "refused", ...refusal };
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the builder's types say what is in it.
function contextOf({ gid, branch, input, results, mustSucceed, traceparent, signal }: StepCall): StepContext<any, any> {
  const headers = formatContext({
    phase: "try",
    gid,
    branch,
    mustSucceed,
    ...(traceparent === undefined ? {} : { traceparent }),
  });
  return { gid, branch, idempotencyKey: `${gid}.${branch}`, input, results, traceparent, headers, signal };
}
