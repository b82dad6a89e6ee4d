/**
 * The door `conclave/transactions`.
 */
export { volatileWords } from "../coordinator/options.ts";
export { type Barrier, type BarrierAnswer, type BarrierCall, type BarrierWork, barrierKeptMs } from "./barrier.ts";
export { Abort, type AbortKind, TransactionAborted, TransactionUnknown } from "./errors.ts";
export { type HttpOptions, HttpResource, http, type ServiceHandle } from "./http.ts";
export { type Inbox, inbox } from "./inbox.ts";
export {
  type Committed,
  type Resource,
  type Resources,
  type RunOptions,
  TransactionManager,
  type TransactionsOptions,
  transactions,
} from "./manager.ts";
export { type MariadbHandle, type MariadbOptions, MariadbResource, mariadb } from "./mariadb.ts";
export { type MetricSources, transactionMetrics } from "./metrics.ts";
export {
  type EmittedEvent,
  mariadbOutbox,
  type Outbox,
  type OutboxEvent,
  postgresOutbox,
  storeOutbox,
} from "./outbox.ts";
export { OutboxRelay, type OutboxRelayOptions, relayOutbox } from "./outbox-relay.ts";
export { httpSink, queueSink, redisStreamSink, type Sink } from "./outbox-sinks.ts";
export type { OutcomeAnswer } from "./outcome.ts";
export { type PostgresHandle, type PostgresOptions, PostgresResource, postgres } from "./postgres.ts";
export type { Finding, HandleOf, SqlResource } from "./resource.ts";
export { barrierStep, type Saga, SagaBuilder, type SagaStep, SagaTail, type StepContext, saga, serviceStep } from "./saga.ts";
export {
  type SagaHandle,
  type SagaOutcome,
  SagaRunner,
  type SagaRunnerOptions,
  type SagaRunOptions,
  sagas,
} from "./saga-manager.ts";
export { parseContext, type TxContext } from "./service-wire.ts";
export { mariadbBarrier, postgresBarrier, type SqlBarrierOptions } from "./sql-barrier.ts";
export { type StoreBarrierOptions, storeBarrier } from "./store-barrier.ts";
export { type StoreHandle, type StoreResource, storeResource } from "./store-branch.ts";
export { tccHandler } from "./tcc-handler.ts";
export { type TccAction, type TccCall, TccService, type TccServiceOptions, tccService } from "./tcc-service.ts";
export { Transaction } from "./transaction.ts";
