/**
 * The door `conclave/transactions`.
 */
export { volatileWords } from "../coordinator/options.ts";
export { Abort, type AbortKind, TransactionAborted, TransactionUnknown } from "./errors.ts";
export {
  type Committed,
  type OutcomeAnswer,
  type Resource,
  type Resources,
  type RunOptions,
  TransactionManager,
  type TransactionsOptions,
  transactions,
} from "./manager.ts";
export { type MariadbHandle, type MariadbOptions, MariadbResource, mariadb } from "./mariadb.ts";
export { type PostgresHandle, type PostgresOptions, PostgresResource, postgres } from "./postgres.ts";
export type { Finding, HandleOf, SqlResource } from "./resource.ts";
export { type StoreHandle, type StoreResource, storeResource } from "./store-branch.ts";
export { Transaction } from "./transaction.ts";
