/**
 * The door `conclave/postgres`: locks in a SQL transaction of the caller's own, and the tables for who installs them by hand.
 * Locks by lease need no door: `connect("postgres://...")`.
 */
export {
  guardInTransaction,
  type InTransactionOptions,
  type LockInTransactionOptions,
  lockInTransaction,
  type TransactionClient,
} from "./in-transaction.ts";
export { postgresSchema } from "./install.ts";
