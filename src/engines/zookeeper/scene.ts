/**
 * Reads what a txn may look at as it was at one moment, although ZooKeeper answers node by node.
 *
 *   sync | namespace's list | each node ... | namespace's stat again       one round trip, when the list was guessed right
 *
 * Every write of ours in a namespace also sets the namespace's own node, and ZooKeeper counts children that come and go. So when the
 * stat is the same before and after, nothing has changed in between: what was read node by node is one state. The list is
 * guessed from the last time; when it was wrong, or somebody wrote, the reading is made again with what is known now.
 */
import { conclaveError } from "../../base/errors.ts";
import type { Entry } from "../../store/entry.ts";
import { type BinaryRange, isInRange, isRangeOfKey } from "../../store/key.ts";
import type { Revision } from "../../store/store.ts";
import { decodeNode } from "./node-data.ts";
import { binaryOfName, namespaceOfRange, type ZkPaths } from "./paths.ts";
import {
  codes,
  errorOfCode,
  exists,
  getChildren,
  getData,
  type Reply,
  type Request,
  type Stat,
  setData,
  sync,
} from "./protocol.ts";
import type { ZkCall, ZkClient } from "./zk-client.ts";

/** Namespaces whose lists are remembered, and the longest list that is. */
const guessesMax = 1_000;
const guessLengthMax = 1_000;
const nothing = Buffer.alloc(0);
/** Nodes asked for in one go. */
const nodesMax = 50_000;

/** An entry, and what guards it. */
export interface SeenNode {
  readonly entry: Entry;
  readonly stat: Stat;
}

export interface SeenNamespace {
  readonly namespace: string;
  /** Null: there is no such node. */
  readonly stat: Stat | null;
}

export interface ReadScene {
  readonly revision: Revision;
  readonly nodes: ReadonlyMap<string, SeenNode>;
  readonly namespaces: readonly SeenNamespace[];
}

/** Last seen children of namespaces, as whole keys: a hint, never believed. */
export class Guesses {
  readonly #lists = new Map<string, readonly string[]>();

  of(namespace: string): readonly string[] {
    return this.#lists.get(namespace) ?? [];
  }

  note(namespace: string, keys: readonly string[]): void {
    this.#lists.delete(namespace);
    if (keys.length === 0 || keys.length > guessLengthMax) return;
    this.#lists.set(namespace, keys);
    if (this.#lists.size > guessesMax) this.#lists.delete(this.#lists.keys().next().value as string);
  }
}

export interface SceneOptions {
  readonly client: ZkClient;
  readonly paths: ZkPaths;
  readonly guesses: Guesses;
  /**
   * How what others were answered before is sure to be seen, by one more request in the same round trip. `sync`: to the leader and
   * back, who does not ask the others whether it still leads. `quorum`: a write. `any`: not at all.
   */
  readonly freshness: "any" | "sync" | "quorum";
  readonly call: ZkCall;
  readonly isTimeUp: () => boolean;
}

interface Part {
  readonly namespace: string;
  readonly wide: readonly BinaryRange[];
  readonly single: readonly string[];
}

/** @throws TIMEOUT (others write all the time), TXN_TOO_LARGE, UNAUTHORIZED, CONNECTION_LOST and others */
export async function readScene(sight: readonly BinaryRange[], options: SceneOptions): Promise<ReadScene> {
  const { client, call, guesses, isTimeUp, paths } = options;
  const parts = partsOf(sight);
  const wanted = new Map(parts.map((part) => [part.namespace, guessedKeys(part, guesses)]));
  for (let isFirst = true; ; isFirst = false) {
    const asked = parts.map((part) => ({ part, keys: wanted.get(part.namespace) ?? [] }));
    if (asked.reduce((sum, { keys }) => sum + keys.length, 0) > nodesMax)
      throw conclaveError("TXN_TOO_LARGE", `More than ${nodesMax} keys would have to be read.`);
    const requests: Request<unknown>[] = [];
    if (isFirst && options.freshness === "sync") requests.push(sync(paths.root));
    if (isFirst && options.freshness === "quorum") requests.push(setData(paths.sessions, { data: nothing, version: -1 }));
    const first = requests.length;
    for (const { keys, part } of asked) {
      const path = paths.namespace(part.namespace);
      requests.push(part.wide.length > 0 ? getChildren(path) : exists(path));
      for (const key of keys) requests.push(getData(paths.key(key)));
    }
    for (const { part } of asked) requests.push(exists(paths.namespace(part.namespace)));
    // Nothing to look at: still the answer is of some moment.
    if (asked.length === 0) requests.push(exists(paths.root));
    const replies = (await client.call(requests, call)) as readonly Reply<unknown>[];
    const scene = sceneOf(asked, replies.slice(first), { wanted, guesses });
    if (scene !== undefined) return scene;
    if (isTimeUp()) throw conclaveError("TIMEOUT", "Others wrote each time it was read.", { definite: true });
  }
}

interface Asked {
  readonly part: Part;
  readonly keys: readonly string[];
}

/** Undefined: it was no one state, or not all of it; `wanted` then knows more. */
function sceneOf(
  asked: readonly Asked[],
  replies: readonly Reply<unknown>[],
  { wanted, guesses }: { readonly wanted: Map<string, readonly string[]>; readonly guesses: Guesses },
): ReadScene | undefined {
  const nodes = new Map<string, SeenNode>();
  const namespaces: SeenNamespace[] = [];
  let isWhole = true;
  let at = 0;
  const last = replies.length - asked.length;
  for (const [index, { keys, part }] of asked.entries()) {
    const first = stable(replies[at++]);
    const again = stable(replies[last + index]);
    const before = first === null ? null : "stat" in first ? first.stat : first;
    const after = again as Stat | null;
    for (const key of keys) {
      const found = stable(replies[at++]) as { readonly data: Buffer; readonly stat: Stat } | null;
      if (found !== null) nodes.set(key, { entry: decodeNode(key, found), stat: found.stat });
    }
    if (!isSameStat(before, after)) isWhole = false;
    namespaces.push({ namespace: part.namespace, stat: after });
    if (part.wide.length === 0) continue;
    const names = first !== null && "names" in first ? first.names : [];
    const listed = names.map(binaryOfName).flatMap((name) => (name === undefined ? [] : [`${part.namespace}\0${name}`]));
    guesses.note(part.namespace, listed);
    const inSight = listed.filter((key) => part.wide.some((range) => isInRange(range, key)));
    const known = new Set(keys);
    if (inSight.some((key) => !known.has(key))) isWhole = false;
    // Keys that were guessed and are gone were answered with their absence.
    wanted.set(part.namespace, [...new Set([...part.single, ...inSight])]);
  }
  return isWhole ? { revision: (replies.at(-1) as Reply<unknown>).zxid, nodes, namespaces } : undefined;
}

type Found = Stat | { readonly names: readonly string[]; readonly stat: Stat } | { readonly data: Buffer; readonly stat: Stat };

/** Null: there is no such node. */
function stable(reply: Reply<unknown> | undefined): Found | null {
  if (reply?.code === codes.noNode) return null;
  if (reply === undefined || reply.code !== codes.ok) throw errorOfCode(reply?.code ?? 0, "Reading");
  return reply.value as Found;
}

function isSameStat(left: Stat | null, right: Stat | null): boolean {
  if (left === null || right === null) return left === right;
  return left.czxid === right.czxid && left.version === right.version && left.cversion === right.cversion;
}

function partsOf(sight: readonly BinaryRange[]): Part[] {
  const parts = new Map<string, { namespace: string; wide: BinaryRange[]; single: string[] }>();
  for (const range of sight) {
    const namespace = namespaceOfRange(range);
    let part = parts.get(namespace);
    if (part === undefined) {
      part = { namespace, wide: [], single: [] };
      parts.set(namespace, part);
    }
    if (isRangeOfKey(range)) part.single.push(range.from);
    else part.wide.push(range);
  }
  return [...parts.values()];
}

function guessedKeys({ namespace, single, wide }: Part, guesses: Guesses): readonly string[] {
  if (wide.length === 0) return single;
  const guessed = guesses.of(namespace).filter((key) => wide.some((range) => isInRange(range, key)));
  return [...new Set([...single, ...guessed])];
}
