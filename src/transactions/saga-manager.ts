/**
 * Runs sagas beside transactions: on the same store, under the same epoch, with the same recovery by whoever is alive.
 *
 * ```ts
 * const runner = sagas({ transactions: tm, definitions: [checkout] });
 * const end = await runner.run(checkout, { order, user, amount }, { key: request.id });
 * if (end.kind === "completed") return end.results.ship;
 * ```
 * Every process that should carry them on needs the definitions: one without the name of a saga leaves it to others.
 */
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { transactionsNamespace } from "../coordinator/records.ts";
import { type SagaFigures, type SagaRow, Sagas, type SagasOptions } from "../coordinator/sagas.ts";
import type { Engine } from "../store/store.ts";
import { TransactionUnknown } from "./errors.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { TransactionManager } from "./manager.ts";
import { type Saga, sagaDefaults } from "./saga.ts";

export interface SagaRunnerOptions
  extends Pick<SagasOptions, "runningMax" | "scanEveryMs" | "retryMsMin" | "retryMsMax" | "checkpoint"> {
  /** Gives the epoch and the names. Closed after this one. */
  // biome-ignore lint/suspicious/noExplicitAny: its resources do not matter here.
  readonly transactions: TransactionManager<any>;
  /** The same as that of `transactions`. */
  readonly store: Engine;
  // biome-ignore lint/suspicious/noExplicitAny: sagas of any input.
  readonly definitions: readonly Saga<any, any>[];
  /** Told of what happens. */
  readonly onEvent?: (event: ConclaveEvent) => void;
}

export interface SagaRunOptions {
  /** A saga of this key runs once; later calls are answered with the first one's end. Kept as those of transactions. */
  readonly key?: string;
  /** For the way to the pivot; beyond it the saga turns back. Milliseconds. Default 60_000. */
  readonly timeoutMs?: number;
  readonly traceparent?: string;
  /** Gives up waiting; the saga goes on. */
  readonly signal?: AbortSignal;
}

/** `compensated`: what had been done is undone; `why` names the step and its words. */
export type SagaOutcome<Results> =
  | { readonly kind: "completed"; readonly gid: string; readonly isReplay: boolean; readonly results: Results }
  | {
      readonly kind: "compensated";
      readonly gid: string;
      readonly isReplay: boolean;
      readonly why: string;
      readonly details: unknown;
    };

/** @throws INVALID_OPTION @since 0.2.0 */
export function sagas(options: SagaRunnerOptions): SagaRunner {
  const names = options.definitions.map(({ name }) => name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw conclaveError("INVALID_OPTION", `Saga ${twice} is defined twice.`);
  return new SagaRunner(options);
}

/** A saga that was begun. */
export interface SagaHandle<Results> {
  readonly gid: string;
  /** The key had been used; this is the first one's. */
  readonly isReplay: boolean;
  /** Waits for its end, wherever it runs. @throws the signal's reason, TRANSACTION_UNKNOWN (nothing is known of it any more) */
  outcome(signal?: AbortSignal): Promise<SagaOutcome<Results>>;
}

export class SagaRunner implements AsyncDisposable {
  readonly #sagas: Sagas;

  /** Use `sagas`. */
  constructor({ transactions: tm, store, definitions, onEvent, ...rest }: SagaRunnerOptions) {
    this.#sagas = new Sagas({
      ...rest,
      store: store.store(transactionsNamespace),
      coordinator: tm.coordinator,
      definitions: new Map(definitions.map(({ name, definition }) => [name, definition])),
      ...(onEvent === undefined ? {} : { telemetry: { emit: onEvent } }),
    });
    this.#sagas.open();
  }

  /** Durable once resolved: from then on it runs to its end, here or elsewhere. @throws TRANSACTION_KEY_REUSED, BUSY, CLOSED, TIMEOUT */
  async start<Input, Results>(
    { name }: Saga<Input, Results>,
    input: Input,
    { key, timeoutMs = sagaDefaults.timeoutMs, traceparent }: SagaRunOptions = {},
  ): Promise<SagaHandle<Results>> {
    if (key !== undefined && (typeof key !== "string" || key === "" || key.length > 512)) {
      throw conclaveError("INVALID_OPTION", "`key` must be a text of 1 to 512 characters.");
    }
    if (!(timeoutMs > 0)) throw conclaveError("INVALID_OPTION", `\`timeoutMs\` is ${timeoutMs}; it must be above 0.`);
    const fingerprint = fingerprintOf(input);
    const started = await this.#sagas.start({
      name,
      input,
      fingerprint,
      timeoutMs,
      ...(key === undefined ? {} : { key }),
      ...(traceparent === undefined ? {} : { traceparent }),
    });
    if (started.fingerprint !== fingerprint) {
      throw conclaveError(
        "TRANSACTION_KEY_REUSED",
        `Key ${JSON.stringify(key)} was used by saga ${started.gid} for other input.`,
      );
    }
    const { gid, isReplay } = started;
    return { gid, isReplay, outcome: async (signal) => ({ ...(await this.outcome<Results>(gid, signal)), isReplay }) };
  }

  /** `start` and `outcome`. */
  async run<Input, Results>(
    definition: Saga<Input, Results>,
    input: Input,
    options: SagaRunOptions = {},
  ): Promise<SagaOutcome<Results>> {
    const handle = await this.start(definition, input, options);
    return handle.outcome(options.signal);
  }

  /** Asked later, by the gid. @throws TRANSACTION_UNKNOWN (it ended longer ago than is kept, or never began) */
  async outcome<Results = unknown>(gid: string, signal?: AbortSignal): Promise<SagaOutcome<Results>> {
    const end = await this.#sagas.wait(gid, signal);
    if (end === null) throw new TransactionUnknown(`Nothing is known of saga ${gid}.`, gid);
    return end.kind === "completed"
      ? { kind: "completed", gid, isReplay: false, results: end.results as Results }
      : { kind: "compensated", gid, isReplay: false, why: end.why, details: end.details };
  }

  /** Every saga that runs, on any process of this store. */
  list(): Promise<readonly SagaRow[]> {
    return this.#sagas.list();
  }

  /** Looks now for sagas that nobody minds; answers how many were taken over. */
  pass(): Promise<number> {
    return this.#sagas.pass();
  }

  get figures(): SagaFigures {
    return this.#sagas.figures;
  }

  /** Those that run here are left to others. Close it before its transaction manager, whose epoch they have. Idempotent. */
  close(): Promise<void> {
    return this.#sagas.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
