/**
 * From what a txn changes to the steps of one multi that ZooKeeper does wholly or not at all.
 *
 *   guards   each namespace that was read: its node is set (where the txn writes there) or checked, at the version read;
 *            each node that was read and goes with a session: checked, since the end of a session sets nobody's version
 *   writes   create, set at the version read, delete at the version read; a binding that changes is a delete and a create
 */
import { conclaveError } from "../../base/errors.ts";
import { namespaceOf } from "../../store/key.ts";
import type { Difference } from "../../store/rehearse.ts";
import type { Revision } from "../../store/store.ts";
import { encodeNode, parseNode } from "./node-data.ts";
import type { ZkPaths } from "./paths.ts";
import type { Acl, Step } from "./protocol.ts";
import type { ReadScene, SeenNode } from "./scene.ts";

const nothing = Buffer.alloc(0);
export const anyVersion = -1;

export interface StepsOptions {
  readonly paths: ZkPaths;
  readonly acl: Acl;
  /** Of the session whose client sends: what it creates goes with it. */
  readonly owner: string;
}

/** Steps that hold only while the scene is as it was read. */
export function stepsOf(differences: readonly Difference[], scene: ReadScene, options: StepsOptions): Step[] {
  const { paths } = options;
  const written = new Set(differences.map(({ key }) => namespaceOf(key)));
  const steps: Step[] = [];
  for (const { namespace, stat } of scene.namespaces) {
    const path = paths.namespace(namespace);
    const fields = { data: nothing, kind: "container", acl: options.acl } as const;
    if (stat !== null && written.has(namespace)) steps.push({ kind: "set", path, data: nothing, version: stat.version });
    else if (stat !== null) steps.push({ kind: "check", path, version: stat.version });
    else {
      steps.push({ kind: "create", path, fields });
      // It was not there, and shall not be: made and deleted at once, it guards that.
      if (!written.has(namespace)) steps.push({ kind: "delete", path, version: anyVersion });
    }
  }
  const changed = new Set(differences.map(({ key }) => key));
  for (const [key, { stat }] of scene.nodes)
    if (stat.owner !== null && !changed.has(key)) steps.push({ kind: "check", path: paths.key(key), version: stat.version });
  for (const difference of differences)
    steps.push(...writingSteps(difference, scene.nodes.get(difference.key), { ...options, revision: scene.revision }));
  return steps;
}

function writingSteps(
  { after, key }: Difference,
  seen: SeenNode | undefined,
  { acl, owner, paths, revision }: StepsOptions & { readonly revision: Revision },
): Step[] {
  const path = paths.key(key);
  if (after === null) return seen === undefined ? [] : [{ kind: "delete", path, version: seen.stat.version }];
  const { session, value, version } = after;
  const isNew = after.createRevision > revision;
  const createRevision = isNew ? null : after.createRevision;
  const kind = session === null ? "persistent" : "ephemeral";
  // ZooKeeper counts versions from 0.
  const made: Step = {
    kind: "create",
    path,
    fields: { data: encodeNode({ session, createRevision, versionsBefore: version - 1 }, value), kind, acl },
  };
  if (seen === undefined) return [made];
  const { entry, stat } = seen;
  const isSameBinding =
    session === null ? stat.owner === null : stat.owner !== null && (stat.owner === owner || entry.session === session);
  if (isNew || !isSameBinding) return [{ kind: "delete", path, version: stat.version }, made];
  const carried = stat.czxid === createRevision ? null : createRevision;
  const data = encodeNode({ session, createRevision: carried, versionsBefore: version - stat.version - 2 }, value);
  return [{ kind: "set", path, data, version: stat.version }];
}

/** A create that knows of nothing before it. @throws nothing */
export function blindCreate(
  { key, value, session }: { readonly key: string; readonly value: Uint8Array; readonly session: string | null },
  { acl, paths }: Pick<StepsOptions, "acl" | "paths">,
): Step {
  const kind = session === null ? "persistent" : "ephemeral";
  const data = encodeNode({ session, createRevision: null, versionsBefore: 0 }, value);
  return { kind: "create", path: paths.key(key), fields: { data, kind, acl } };
}

/** Says that something in the namespace has changed. */
export function bump(namespace: string, paths: ZkPaths): Step {
  return { kind: "set", path: paths.namespace(namespace), data: nothing, version: anyVersion };
}

/** The session that a node's own bytes name. */
export function sessionIn(data: Buffer): string | null {
  return parseNode(data).head.session;
}

export function tooManyOwners(): Error {
  return conclaveError(
    "UNSUPPORTED",
    "One transaction binds keys to sessions of different TTLs: on ZooKeeper those are different sessions, and a transaction is of one.",
  );
}
