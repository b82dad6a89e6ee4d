/**
 * What lies in the Store: the table of assignments, who is there, who holds what, and which moves are under way.
 *
 *     table        { epoch, count, owners }         who should hold each partition; written by the planner, by compare
 *     member/ID    { weight, mark }                 bound to the member's session
 *     own/P        ID                               bound to the holder's session: the hold itself, as in a lock's queue
 *     move/P       { member, progress, ready }      bound to the session of who takes it over
 *
 * The table is a wish. What excludes is `own/P`: put only where it is absent, gone when its session ends.
 */
import { assert } from "../base/assert.ts";
import { utf8Decode } from "../base/bytes.ts";
import { ConclaveError } from "../base/errors.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Op, OpResult, Revision, SessionId, Store } from "../store/store.ts";

export const tableKey = "table";
export const memberKey = (id: string): string => `member/${id}`;
export const ownKey = (partition: number): string => `own/${partition}`;
export const moveKey = (partition: number): string => `move/${partition}`;

export interface Table {
  /** One higher with each change. */
  readonly epoch: number;
  /** By partition: the id of the member that should hold it; null before there was any. */
  readonly owners: readonly (string | null)[];
}

export interface MemberEntry {
  readonly id: string;
  readonly weight: number;
  /** Drawn by the process that wrote it, so that it knows its own writing again. */
  readonly mark: string;
  readonly session: SessionId | null;
}

export interface ClaimEntry {
  readonly member: string;
  readonly session: SessionId | null;
  /** The revision of the transaction that claimed: the shard's epoch. */
  readonly token: Revision;
}

export interface MoveEntry {
  readonly member: string;
  /** 0-1, as the hook reports it. */
  readonly progress: number;
  /** The holder may stop now. */
  readonly ready: boolean;
}

export interface PartitionsState {
  readonly revision: Revision;
  /** Null before the first planner wrote it. */
  readonly table: Table | null;
  /** 0: there is no table. */
  readonly tableRevision: Revision;
  /** In order of id. */
  readonly members: readonly MemberEntry[];
  readonly claims: ReadonlyMap<number, ClaimEntry>;
  readonly moves: ReadonlyMap<number, MoveEntry>;
}

/** One round trip (more only where the answer does not fit into one). */
export async function readState(store: Store, options: CallOptions): Promise<PartitionsState> {
  const { revision, results } = await store.txn({ then: [{ kind: "get", key: tableKey }, ...prefixes.map(rangeOf)] }, options);
  const [table, ...listed] = results;
  assert(table?.kind === "get", "a get is answered with an entry");
  const [members, claims, moves] = await Promise.all(
    listed.map((result, index) => wholeRange(store, prefixes[index] as string, result, options)),
  );
  return {
    revision,
    table: table.entry === null ? null : (JSON.parse(utf8Decode(table.entry.value)) as Table),
    tableRevision: table.entry?.modRevision ?? 0,
    members: (members as Entry[]).map(memberOf),
    claims: byPartition(claims as Entry[], ({ value, session, createRevision }) => ({
      member: utf8Decode(value),
      session,
      token: createRevision,
    })),
    moves: byPartition(moves as Entry[], ({ value }) => JSON.parse(utf8Decode(value)) as MoveEntry),
  };
}

const prefixes = ["member/", "own/", "move/"] as const;

function rangeOf(prefix: string): Op {
  return { kind: "range", range: { prefix } };
}

async function wholeRange(store: Store, prefix: string, first: OpResult, options: CallOptions): Promise<Entry[]> {
  assert(first.kind === "range", "a range is answered with entries");
  const entries = [...first.entries];
  for (let more = first.more; more; ) {
    const from = `${(entries.at(-1) as Entry).key}\u0000`;
    // "0" follows "/": the end of the prefix.
    const { results } = await store.txn({ then: [{ kind: "range", range: { from, to: `${prefix.slice(0, -1)}0` } }] }, options);
    const [next] = results;
    assert(next?.kind === "range", "a range is answered with entries");
    entries.push(...next.entries);
    more = next.more;
  }
  return entries;
}

function memberOf({ key, value, session }: Entry): MemberEntry {
  const { weight, mark } = JSON.parse(utf8Decode(value)) as Pick<MemberEntry, "weight" | "mark">;
  return { id: key.slice("member/".length), weight, mark, session };
}

function byPartition<T>(entries: readonly Entry[], of: (entry: Entry) => T): ReadonlyMap<number, T> {
  return new Map(entries.map((entry) => [Number(entry.key.slice(entry.key.indexOf("/") + 1)), of(entry)]));
}

/** Errors after which the next look at the store finds out what is true. */
export function isWorthAnotherLook(error: unknown): boolean {
  return error instanceof ConclaveError && (error.retryable || error.code === "SESSION_EXPIRED");
}
