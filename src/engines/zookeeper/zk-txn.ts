/**
 * A txn on ZooKeeper.
 *
 *   join     creates alone, bound to a session (a place in a queue)    1 round trip: sent blind, with the list behind it
 *   drop     deletions alone, of keys that this process has bound      1 round trip: sent blind
 *   read     nothing is written                                        1, 2 where the list was guessed wrong
 *   else     read, rehearse, write what differs under guards           2, again when somebody was faster
 *
 * A join whose namespace has nobody else in it knows that from the write itself (`childCount`), and is the answer.
 */
import { ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { Limits } from "../../store/caps.ts";
import { isReadOnly, type ResolvedOp, type ResolvedTxn, type SessionNumber } from "../../store/command.ts";
import { Entry } from "../../store/entry.ts";
import { isInRange, isRangeOfKey, namespaceOf } from "../../store/key.ts";
import { rehearse, sightOf } from "../../store/rehearse.ts";
import type { CallOptions, TxnResult } from "../../store/store.ts";
import { decodeNode } from "./node-data.ts";
import { binaryOfName, type ZkPaths } from "./paths.ts";
import {
  type Acl,
  codes,
  create,
  errorOfCode,
  getChildren,
  getData,
  multi,
  type Reply,
  type Request,
  type Stat,
  type Step,
  type StepResult,
} from "./protocol.ts";
import { type Guesses, readScene, type SceneOptions } from "./scene.ts";
import { anyVersion, blindCreate, bump, stepsOf, tooManyOwners } from "./steps.ts";
import type { ZkCall, ZkClient } from "./zk-client.ts";
import type { ZkSessions } from "./zk-sessions.ts";

export const timeoutMsDefault = 10_000;
const firstPauseMs = 1;
const pauseMsMax = 50;
const nothing = Buffer.alloc(0);
/** Namespaces whose node is known to be there; forgotten when it turns out otherwise. */
const knownMax = 10_000;

export interface ZkTxnParts {
  readonly main: () => Promise<ZkClient>;
  readonly sessions: ZkSessions;
  readonly paths: ZkPaths;
  readonly acl: Acl;
  readonly limits: Limits;
  readonly platform: Platform;
  readonly guesses: Guesses;
  readonly known: KnownNamespaces;
  /** How a reading makes sure that it sees what was answered before. */
  readonly reads: "sync" | "quorum";
}

export class KnownNamespaces {
  readonly #names = new Set<string>();

  has(name: string): boolean {
    return this.#names.has(name);
  }

  add(name: string): void {
    this.#names.add(name);
    if (this.#names.size > knownMax) this.#names.delete(this.#names.values().next().value as string);
  }

  delete(name: string): void {
    this.#names.delete(name);
  }
}

type PutOp = Extract<ResolvedOp, { readonly kind: "put" }>;
type RangeOp = Extract<ResolvedOp, { readonly kind: "range" }>;

export async function runZkTxn(txn: ResolvedTxn, parts: ZkTxnParts, options: CallOptions): Promise<TxnResult> {
  const { platform } = parts;
  const { signal, timeoutMs = timeoutMsDefault } = options;
  const untilMs = platform.now() + timeoutMs;
  const call = (): ZkCall => ({ timeoutMs: Math.max(1, untilMs - platform.now()), signal });
  const joined = await join(txn, parts, call());
  if (joined !== undefined) return joined;
  const dropped = await drop(txn, parts, call());
  if (dropped !== undefined) return dropped;
  return inFull(txn, parts, { call, isTimeUp: () => platform.now() > untilMs, isStale: options.consistency === "stale" });
}

// --- the whole way -----------------------------------------------------------------------------------------------------

interface InFull {
  readonly call: () => ZkCall;
  readonly isTimeUp: () => boolean;
  readonly isStale: boolean;
}

async function inFull(txn: ResolvedTxn, parts: ZkTxnParts, options: InFull): Promise<TxnResult> {
  const { main, platform, sessions } = parts;
  const { isTimeUp } = options;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
    const owner = senderOf(txn, sessions);
    const client = owner ?? (await main());
    try {
      const result = await onceInFull(txn, parts, { ...options, client });
      if (result !== undefined) return result;
      if (isTimeUp()) throw conclaveError("TIMEOUT", "Others wrote the same keys each time it was tried.", { definite: true });
    } catch (error) {
      // Nothing is bound to the session that is read by: where the servers have ended it, the next one is as good.
      if (owner !== undefined || !client.isOver || !hasCode(error, "SESSION_EXPIRED") || isTimeUp()) throw error;
    }
    const jitter = platform.randomUint32() / 2 ** 32;
    await new Promise<void>((resolve) => void platform.setTimer(pauseMs * jitter, resolve, { ref: true }));
  }
}

/** Undefined: somebody was faster. */
async function onceInFull(
  txn: ResolvedTxn,
  parts: ZkTxnParts,
  { call, client, isStale, isTimeUp }: InFull & { readonly client: ZkClient },
): Promise<TxnResult | undefined> {
  const { acl, guesses, limits, paths, platform, reads, sessions } = parts;
  const sight = sightOf(txn);
  const freshness = isStale ? "any" : reads;
  const read = () => readScene(sight, { client, paths, guesses, freshness, call: call(), isTimeUp } satisfies SceneOptions);
  const scene = await reading(read, { isTimeUp, platform });
  const entries = [...scene.nodes.values()].map(({ entry }) => entry);
  const isAlive = (session: SessionNumber): boolean => sessions.clientOf(session) !== undefined;
  const { answer, differences } = rehearse(txn, { revision: scene.revision, entries, isAlive }, limits);
  if (isReadOnly(txn) || differences.length === 0) return answer(scene.revision);
  for (const { after, key } of differences) if (after?.session != null) sessions.noteBound(Number(after.session), key);
  const steps = stepsOf(differences, scene, { paths, acl, owner: client.owner });
  const [reply] = await client.call([multi(steps)], call());
  if (!didAll(reply)) {
    checkConflict(reply);
    return undefined;
  }
  for (const { after, key } of differences) if (after?.session == null) sessions.noteGone(key);
  return answer(reply.zxid);
}

/** A reading is made again as long as there is time: the connection that it was sent over may have ended. */
async function reading<T>(
  read: () => Promise<T>,
  { isTimeUp, platform }: { readonly isTimeUp: () => boolean; readonly platform: Platform },
): Promise<T> {
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if ((error as ConclaveError).code !== "CONNECTION_LOST" || isTimeUp()) throw error;
      await new Promise<void>((resolve) => void platform.setTimer(firstPauseMs, resolve, { ref: true }));
    }
  }
}

/** The client of the sessions that it binds to; undefined: it binds nothing to any that lives. @throws UNSUPPORTED */
function senderOf(txn: ResolvedTxn, sessions: ZkSessions): ZkClient | undefined {
  let sender: ZkClient | undefined;
  for (const op of [...txn.then, ...txn.else]) {
    if (op.kind !== "put" || op.session === null) continue;
    const client = sessions.clientOf(op.session);
    if (client === undefined) continue;
    if (sender !== undefined && client !== sender) throw tooManyOwners();
    sender = client;
  }
  return sender;
}

export function didAll({ code, value }: Reply<readonly StepResult[]>): boolean {
  return code === codes.ok && value !== undefined && value.every((each) => each.code === codes.ok);
}

/** Passes over what only says that somebody was faster. */
export function checkConflict({ code, value }: Reply<readonly StepResult[]>): void {
  const conflicts: readonly number[] = [codes.badVersion, codes.noNode, codes.nodeExists];
  // The steps before the one that failed say ok, those behind it that they were not tried.
  const failed = value?.find((each) => each.code !== codes.ok && each.code !== -2)?.code ?? code;
  if (!conflicts.includes(failed)) throw errorOfCode(failed, "A transaction");
}

// --- joins -------------------------------------------------------------------------------------------------------------

/** Undefined: it is no join, or something stood where it wanted to; nothing was done then. */
async function join(txn: ResolvedTxn, parts: ZkTxnParts, call: ZkCall): Promise<TxnResult | undefined> {
  const plan = joinPlanOf(txn, parts.sessions);
  if (plan === undefined) return undefined;
  const { client, namespaces, puts, ranges } = plan;
  const { acl, guesses, known, paths, sessions } = parts;
  for (const { key, session } of puts) sessions.noteBound(session as SessionNumber, key);
  const steps: Step[] = [
    ...puts.map(({ key, session, value }) => blindCreate({ key, value, session: String(session) }, { acl, paths })),
    ...namespaces.map((namespace) => bump(namespace, paths)),
  ];
  const container = { data: nothing, kind: "container", acl } as const;
  const making = namespaces.filter((namespace) => !known.has(namespace)).map((each) => create(paths.namespace(each), container));
  const [namespace] = namespaces as [string];
  const list =
    ranges.length > 0
      ? [getChildren(paths.namespace(namespace)), ...guesses.of(namespace).map((key) => getData(paths.key(key)))]
      : [];
  const requests: Request<unknown>[] = [...making, multi(steps), ...list];
  const replies = (await client.call(requests, call)) as readonly Reply<unknown>[];
  const written = replies[making.length] as Reply<readonly StepResult[]>;
  if (!didAll(written)) {
    checkConflict(written);
    for (const each of namespaces) known.delete(each);
    return undefined;
  }
  for (const each of namespaces) known.add(each);
  const stat = written.value?.at(-1)?.stat as Stat;
  const isAlone = stat.childCount === puts.length;
  if (isAlone) guesses.note(namespace, []);
  const own = puts.map(
    ({ key, session, value }) =>
      new Entry({
        binaryKey: key,
        value,
        createRevision: written.zxid,
        modRevision: written.zxid,
        version: 1,
        session: String(session),
      }),
  );
  let others: readonly Entry[] = [];
  if (ranges.length > 0 && !isAlone) {
    const joined = { namespace, own, stat, zxid: written.zxid, replies: replies.slice(making.length + 1) };
    others = await behindAWrite(() => othersAt(joined, client, parts, call));
  }
  const view: ResolvedTxn = { ...txn, compares: [], then: ranges, else: [] };
  const told = rehearse(view, { revision: written.zxid, entries: [...own, ...others], isAlive: () => true }, parts.limits).answer(
    written.zxid,
  );
  const rangeResults = [...told.results];
  const results = txn.then.map((op) => (op.kind === "put" ? ({ kind: "put", previous: null } as const) : rangeResults.shift()));
  return { succeeded: true, revision: written.zxid, results: results as TxnResult["results"] };
}

/** What is asked once something was written. Its failure says nothing against that: it is never definite. */
export async function behindAWrite<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof ConclaveError) || !error.definite) throw error;
    throw conclaveError(error.code, `It was written, but not told what else is there: ${error.message}`, {
      definite: false,
      cause: error,
    });
  }
}

interface JoinPlan {
  readonly client: ZkClient;
  readonly namespaces: readonly string[];
  readonly puts: readonly PutOp[];
  readonly ranges: readonly RangeOp[];
}

/** Puts of absent keys, bound to living sessions of one client; then ranges, of the one namespace. */
function joinPlanOf(txn: ResolvedTxn, sessions: ZkSessions): JoinPlan | undefined {
  const puts = txn.then.filter((op): op is PutOp => op.kind === "put");
  const ranges = txn.then.filter((op): op is RangeOp => op.kind === "range");
  const keys = new Set(puts.map(({ key }) => key));
  const namespaces = [...new Set(puts.map(({ key }) => namespaceOf(key)))];
  const isJoin =
    puts.length > 0 &&
    keys.size === puts.length &&
    puts.length + ranges.length === txn.then.length &&
    txn.then.findLastIndex((op) => op.kind === "put") < puts.length &&
    puts.every(({ session }) => session !== null) &&
    (ranges.length === 0 || namespaces.length === 1) &&
    ranges.every(({ range }) => namespaceOf(range.from) === namespaces[0]) &&
    txn.compares.length > 0 &&
    txn.compares.every((compare) => compare.target === "exists" && !compare.to && "key" in compare && keys.has(compare.key));
  if (!isJoin) return undefined;
  const clients = new Set(puts.map(({ session }) => sessions.clientOf(session as SessionNumber)));
  const [client] = clients;
  return clients.size === 1 && client !== undefined ? { client, namespaces, puts, ranges } : undefined;
}

interface Joined {
  readonly namespace: string;
  readonly own: readonly Entry[];
  /** Of the namespace, at the moment of the write. */
  readonly stat: Stat;
  readonly zxid: number;
  /** The list, read right behind the write, and the nodes that were guessed. */
  readonly replies: readonly Reply<unknown>[];
}

/**
 * Who else was there at the moment of the write. Exactly so, unless somebody left between the write and the list behind
 * it; those who left since are told of as the oldest, with a revision of 0: nobody can ask any more when they came.
 * @throws BUSY (not definite): all the others left meanwhile, and their keys are not known. It is done; ask again.
 */
async function othersAt(
  { namespace, own, replies, stat, zxid }: Joined,
  client: ZkClient,
  { guesses, paths }: ZkTxnParts,
  call: ZkCall,
): Promise<Entry[]> {
  const list = replies[0] as Reply<{ readonly names: readonly string[]; readonly stat: Stat }>;
  if (list.code !== codes.ok || list.value === undefined) throw errorOfCode(list.code, "Reading who is there");
  const isExact = list.value.stat.cversion === stat.cversion;
  const mine = new Set(own.map(({ binaryKey }) => binaryKey));
  const guessed = guesses.of(namespace);
  const listed = list.value.names
    .map(binaryOfName)
    .flatMap((name) => (name === undefined ? [] : [`${namespace}\0${name}`]))
    .filter((key) => !mine.has(key));
  guesses.note(namespace, listed);
  const found = new Map<string, Reply<unknown>>();
  for (const [index, key] of guessed.entries())
    if (replies[index + 1] !== undefined) found.set(key, replies[index + 1] as Reply<unknown>);
  const missing = listed.filter((key) => !found.has(key));
  if (missing.length > 0) {
    const more = (await client.call(
      missing.map((key) => getData(paths.key(key))),
      call,
    )) as readonly Reply<unknown>[];
    for (const [index, key] of missing.entries()) found.set(key, more[index] as Reply<unknown>);
  }
  const others: Entry[] = [];
  for (const key of listed) {
    const reply = found.get(key) as Reply<{ readonly data: Buffer; readonly stat: Stat }>;
    if (reply.code === codes.ok && reply.value !== undefined) {
      const entry = decodeNode(key, reply.value);
      if (entry.createRevision < zxid) others.push(entry);
      else if (isExact) others.push(left(key));
    } else if (reply.code === codes.noNode) {
      if (isExact) others.push(left(key));
    } else throw errorOfCode(reply.code, "Reading who is there");
  }
  if (others.length === 0)
    throw conclaveError("BUSY", "The keys were put, and everybody who was there has left before they could be told.", {
      definite: false,
    });
  return others;
}

function left(key: string): Entry {
  return new Entry({ binaryKey: key, value: nothing, createRevision: 0, modRevision: 0, version: 0, session: null });
}

// --- drops -------------------------------------------------------------------------------------------------------------

/** Undefined: it is no drop, or a key was gone already; nothing was done then. */
async function drop(txn: ResolvedTxn, { paths, sessions }: ZkTxnParts, call: ZkCall): Promise<TxnResult | undefined> {
  if (txn.compares.length > 0 || txn.then.length === 0) return undefined;
  const keys: string[] = [];
  const clients = new Set<ZkClient | undefined>();
  for (const op of txn.then) {
    if (op.kind !== "delete" || op.returnPrevious || !isRangeOfKey(op.range)) return undefined;
    const session = sessions.bindingOf(op.range.from);
    if (session === undefined || keys.some((key) => isInRange(op.range, key))) return undefined;
    keys.push(op.range.from);
    clients.add(sessions.clientOf(session));
  }
  const [client] = clients;
  if (clients.size !== 1 || client === undefined) return undefined;
  const steps: Step[] = [
    ...keys.map((key): Step => ({ kind: "delete", path: paths.key(key), version: anyVersion })),
    ...[...new Set(keys.map(namespaceOf))].map((namespace) => bump(namespace, paths)),
  ];
  const [reply] = await client.call([multi(steps)], call);
  if (!didAll(reply)) {
    checkConflict(reply);
    return undefined;
  }
  for (const key of keys) sessions.noteGone(key);
  return { succeeded: true, revision: reply.zxid, results: keys.map(() => ({ kind: "delete", count: 1, previous: [] })) };
}
