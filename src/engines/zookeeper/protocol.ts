/**
 * The requests of ZooKeeper that the engine sends, and how their answers read.
 * Source: zookeeper-server ZooDefs.java (operation codes), KeeperException.java (error codes), zookeeper.jute (records).
 */
import { type ConclaveError, conclaveError } from "../../base/errors.ts";
import { type JuteReader, JuteWriter } from "./jute.ts";

export const opcodes = {
  create: 1,
  delete: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  sync: 9,
  ping: 11,
  getChildren2: 12,
  check: 13,
  multi: 14,
  create2: 15,
  removeWatches: 18,
  createContainer: 19,
  auth: 100,
  addWatch: 106,
  closeSession: -11,
} as const;

export const xids = { event: -1, ping: -2, auth: -4 } as const;

export const codes = {
  ok: 0,
  connectionLoss: -4,
  operationTimeout: -7,
  unimplemented: -6,
  noNode: -101,
  noAuth: -102,
  badVersion: -103,
  nodeExists: -110,
  sessionExpired: -112,
  authFailed: -115,
  sessionMoved: -118,
  notReadOnly: -119,
  noWatcher: -121,
  quotaExceeded: -125,
} as const;

export interface Stat {
  readonly czxid: number;
  readonly mzxid: number;
  readonly version: number;
  readonly cversion: number;
  /** Of the session that the node goes with, as hexadecimal digits; null: none. */
  readonly owner: string | null;
  readonly childCount: number;
}

/** What one request wants, and how its answer reads. */
export interface Request<T> {
  readonly opcode: number;
  readonly body: Buffer;
  readonly read: (reader: JuteReader) => T;
  /** It may change something. */
  readonly writes: boolean;
}

/** `value` only where the code is ok (and for multi whenever there is one). */
export interface Reply<T> {
  readonly code: number;
  /** The last transaction that the server had applied; of a write, its own. */
  readonly zxid: number;
  readonly value: T | undefined;
}

export type NodeKind = "persistent" | "ephemeral" | "container";
const flagsOf: Readonly<Record<NodeKind, number>> = { persistent: 0, ephemeral: 1, container: 4 };

/** Who may do what with a node. */
export interface Acl {
  readonly scheme: string;
  readonly id: string;
}
export const anybody: Acl = { scheme: "world", id: "anyone" };
export const creator: Acl = { scheme: "auth", id: "" };
const allPermissions = 31;

const none = (): undefined => undefined;

export function sync(path: string): Request<undefined> {
  return { opcode: opcodes.sync, body: new JuteWriter().text(path).finish(), read: none, writes: false };
}

export function exists(path: string): Request<Stat> {
  return { opcode: opcodes.exists, body: new JuteWriter().text(path).flag(false).finish(), read: readStat, writes: false };
}

export function getData(path: string): Request<{ readonly data: Buffer; readonly stat: Stat }> {
  const body = new JuteWriter().text(path).flag(false).finish();
  const read = (reader: JuteReader) => ({ data: reader.buffer(), stat: readStat(reader) });
  return { opcode: opcodes.getData, body, read, writes: false };
}

export function getChildren(path: string): Request<{ readonly names: readonly string[]; readonly stat: Stat }> {
  const body = new JuteWriter().text(path).flag(false).finish();
  const read = (reader: JuteReader) => {
    const names: string[] = [];
    for (let left = reader.int(); left > 0; left--) names.push(reader.text());
    return { names, stat: readStat(reader) };
  };
  return { opcode: opcodes.getChildren2, body, read, writes: false };
}

/** The path and everything below it, until taken away. */
export function addWatch(path: string): Request<undefined> {
  return { opcode: opcodes.addWatch, body: new JuteWriter().text(path).int(1).finish(), read: none, writes: false };
}

export function removeWatches(path: string): Request<undefined> {
  return { opcode: opcodes.removeWatches, body: new JuteWriter().text(path).int(3).finish(), read: none, writes: false };
}

export function create(path: string, { data, kind, acl }: CreateFields): Request<undefined> {
  const opcode = kind === "container" ? opcodes.createContainer : opcodes.create;
  return { opcode, body: createBody(path, { data, kind, acl }), read: none, writes: true };
}

/** `version` -1: any. */
export function remove(path: string, version: number): Request<undefined> {
  return { opcode: opcodes.delete, body: new JuteWriter().text(path).int(version).finish(), read: none, writes: true };
}

export function setData(path: string, { data, version }: { readonly data: Uint8Array; readonly version: number }): Request<Stat> {
  const body = new JuteWriter().text(path).buffer(data).int(version).finish();
  return { opcode: opcodes.setData, body, read: readStat, writes: true };
}

export interface CreateFields {
  readonly data: Uint8Array;
  readonly kind: NodeKind;
  readonly acl: Acl;
}

/** One step of a multi; `version` -1: any. */
export type Step =
  | ({ readonly kind: "create"; readonly path: string } & { readonly fields: CreateFields })
  | { readonly kind: "delete"; readonly path: string; readonly version: number }
  | { readonly kind: "set"; readonly path: string; readonly data: Uint8Array; readonly version: number }
  | { readonly kind: "check"; readonly path: string; readonly version: number };

/** What became of each step: a Stat where it set, else nothing; or the code of why the whole failed. */
export type StepResult = { readonly code: number; readonly stat: Stat | undefined };

/** All of them or none. */
export function multi(steps: readonly Step[]): Request<readonly StepResult[]> {
  const writer = new JuteWriter();
  for (const step of steps) writer.int(opcodeOf(step)).flag(false).int(-1).raw(stepBody(step));
  writer.int(-1).flag(true).int(-1);
  return { opcode: opcodes.multi, body: writer.finish(), read: readMulti, writes: true };
}

function opcodeOf(step: Step): number {
  switch (step.kind) {
    case "create":
      return step.fields.kind === "container" ? opcodes.createContainer : opcodes.create;
    case "delete":
      return opcodes.delete;
    case "set":
      return opcodes.setData;
    case "check":
      return opcodes.check;
  }
}

function stepBody(step: Step): Buffer {
  switch (step.kind) {
    case "create":
      return createBody(step.path, step.fields);
    case "set":
      return new JuteWriter().text(step.path).buffer(step.data).int(step.version).finish();
    default:
      return new JuteWriter().text(step.path).int(step.version).finish();
  }
}

function createBody(path: string, { acl, data, kind }: CreateFields): Buffer {
  const writer = new JuteWriter().text(path).buffer(data);
  writer.int(1).int(allPermissions).text(acl.scheme).text(acl.id);
  return writer.int(flagsOf[kind]).finish();
}

function readMulti(reader: JuteReader): readonly StepResult[] {
  const results: StepResult[] = [];
  for (;;) {
    const type = reader.int();
    const isEnd = reader.flag();
    reader.int();
    if (isEnd) return results;
    switch (type) {
      case -1:
        results.push({ code: reader.int(), stat: undefined });
        break;
      case opcodes.create:
        reader.text();
        results.push({ code: 0, stat: undefined });
        break;
      case opcodes.create2:
      case opcodes.createContainer:
        reader.text();
        results.push({ code: 0, stat: readStat(reader) });
        break;
      case opcodes.setData:
        results.push({ code: 0, stat: readStat(reader) });
        break;
      default:
        results.push({ code: 0, stat: undefined });
    }
  }
}

function readStat(reader: JuteReader): Stat {
  const [czxid, mzxid] = [reader.long(), reader.long()];
  reader.bits();
  reader.bits();
  const [version, cversion] = [reader.int(), reader.int()];
  reader.int();
  const owner = reader.bits();
  reader.int();
  const childCount = reader.int();
  reader.bits();
  return { czxid, mzxid, version, cversion, owner: /^0+$/.test(owner) ? null : owner, childCount };
}

/** What a code means for the caller, where it is no answer that the engine expects. */
export function errorOfCode(code: number, what: string): ConclaveError {
  switch (code) {
    case codes.noAuth:
    case codes.authFailed:
      return conclaveError("UNAUTHORIZED", `${what}: ZooKeeper does not allow it to this user (${code}).`);
    case codes.sessionExpired:
      return conclaveError("SESSION_EXPIRED", `${what}: ZooKeeper has ended the session.`);
    case codes.notReadOnly:
      return conclaveError("READ_ONLY", `${what}: the server has lost the others and only answers readings.`);
    case codes.quotaExceeded:
      return conclaveError("ENGINE_REFUSED", `${what}: a quota of ZooKeeper is exceeded.`);
    case codes.unimplemented:
      return conclaveError(
        "UNSUPPORTED",
        `${what}: the server does not know this operation; Conclave needs ZooKeeper 3.6 or newer.`,
      );
    case codes.sessionMoved:
    case codes.connectionLoss:
    case codes.operationTimeout:
      return conclaveError("CONNECTION_LOST", `${what}: ZooKeeper answered ${code}.`);
    default:
      return conclaveError("ENGINE_REFUSED", `${what}: ZooKeeper answered ${code}.`, { definite: false });
  }
}
