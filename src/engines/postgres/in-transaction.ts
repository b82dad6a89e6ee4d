/**
 * Locks inside a SQL transaction of the caller's own: the lock and the data commit together, or not at all.
 *
 *   BEGIN
 *     lockInTransaction(client, "invoice/42")      one statement; nobody else holds it until this transaction ends
 *     ... reads and writes ...
 *   COMMIT                                         the lock is gone with it
 *
 * This is the one lock that needs no clock and no token: who stalls, stalls with his writes uncommitted. It is the same
 * lock as `conclave.lock(name)`: neither is granted while the other is held. Works through any pooler.
 * Assumes a short transaction: everybody who asks for the lock meanwhile waits at its row, with a connection each.
 * `guardInTransaction` ties a transaction to a hold of the other kind: it commits only while the store still knows the hold.
 */
import { utf8ToBinaryString } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import { checkName } from "../../recipes/options.ts";
import type { Compare } from "../../store/store.ts";
import { checkGroup } from "./address.ts";
import { errorOf } from "./database.ts";
import { functionName } from "./function-caller.ts";
import { bytea } from "./txn-codec.ts";

/** A client of `pg`, checked out and in a transaction; never a Pool. */
export interface TransactionClient {
  query(text: string, values?: unknown[]): Promise<{ readonly rows: readonly unknown[] }>;
}

export interface InTransactionOptions {
  /** As in the URL of `connect`, which has made the group's tables and functions. Default "conclave". */
  readonly group?: string;
}

export interface LockInTransactionOptions extends InTransactionOptions {
  /** How long to wait for who holds it, in the server. Milliseconds. Default 5_000. */
  readonly waitMs?: number;
}

const waitMsDefault = 5_000;

/**
 * Takes the lock until the transaction ends, and answers with its token. One round trip.
 * @throws LOCK_TIMEOUT (the transaction can go on), QUARANTINED, ENGINE_REFUSED (roll back: a deadlock, or no such group)
 * @since 0.3.0
 */
export async function lockInTransaction(
  client: TransactionClient,
  name: string,
  { group = "conclave", waitMs = waitMsDefault }: LockInTransactionOptions = {},
): Promise<{ readonly token: number }> {
  checkName(name, "lock");
  checkGroup(group);
  if (!(Number.isSafeInteger(waitMs) && waitMs >= 0 && waitMs < 2 ** 31))
    throw conclaveError("INVALID_OPTION", `\`waitMs\` is ${waitMs}; it must be a whole number from 0.`);
  const token = await ask(client, functionName(group, "lock"), [bytea(utf8ToBinaryString(`lock/${name}`)), waitMs, null]);
  if (token === null) throw conclaveError("LOCK_TIMEOUT", `Lock ${JSON.stringify(name)} was still held after ${waitMs} ms.`);
  return { token: Number(token) };
}

/**
 * Ties the transaction to a hold: from here until its end nobody can take the hold away, not by its session's end, not by
 * force. Whoever would have to, waits. Commit before you release. One round trip.
 * @param guard Of a hold: `hold.guard()`.
 * @throws LOCK_LOST (roll back: somebody else may hold it by now), INVALID_OPTION, ENGINE_REFUSED
 * @since 0.3.0
 */
export async function guardInTransaction(
  client: TransactionClient,
  guard: Compare,
  { group = "conclave" }: InTransactionOptions = {},
): Promise<void> {
  checkGroup(group);
  const isOfHold = "key" in guard && guard.target === "createRevision" && guard.is === "equal" && guard.namespace !== undefined;
  if (!isOfHold) throw conclaveError("INVALID_OPTION", "`guard` must be what `hold.guard()` gives, of a hold on this database.");
  const key = typeof guard.key === "string" ? utf8ToBinaryString(guard.key) : Buffer.from(guard.key).toString("latin1");
  const place = utf8ToBinaryString(guard.namespace as string);
  const isHeld = await ask(client, functionName(group, "guard"), [bytea(place), bytea(key), guard.to]);
  if (isHeld !== true)
    throw conclaveError("LOCK_LOST", `The hold in "${guard.namespace}" is not known to the database any more.`);
}

async function ask(client: TransactionClient, name: string, values: unknown[]): Promise<unknown> {
  const holes = values.map((_, index) => `$${index + 1}`).join(", ");
  try {
    const { rows } = await client.query(`SELECT ${name}(${holes}) AS answer`, values);
    return (rows[0] as { readonly answer: unknown } | undefined)?.answer;
  } catch (error) {
    throw errorOf(error, true);
  }
}
