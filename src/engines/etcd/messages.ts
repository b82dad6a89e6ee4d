/**
 * The messages of etcd's v3 API that the engine speaks, and their bytes.
 * Source: etcd api/etcdserverpb/rpc.proto, api/mvccpb/kv.proto (field numbers). Keys are binary strings, as stored.
 */
import type { Revision, SessionId } from "../../store/store.ts";
import { ProtoReader, ProtoWriter } from "./protobuf.ts";

export const paths = {
  txn: "/etcdserverpb.KV/Txn",
  watch: "/etcdserverpb.Watch/Watch",
  leaseGrant: "/etcdserverpb.Lease/LeaseGrant",
  leaseRevoke: "/etcdserverpb.Lease/LeaseRevoke",
  leaseKeepAlive: "/etcdserverpb.Lease/LeaseKeepAlive",
  authenticate: "/etcdserverpb.Auth/Authenticate",
  status: "/etcdserverpb.Maintenance/Status",
  alarm: "/etcdserverpb.Maintenance/Alarm",
  members: "/etcdserverpb.Cluster/MemberList",
} as const;

export interface KeyValue {
  readonly key: string;
  readonly value: Buffer;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  readonly version: number;
  /** "0": none. */
  readonly lease: SessionId;
}

/** Half-open; `to` undefined: the one key. */
export interface KeySpan {
  readonly from: string;
  readonly to: string | undefined;
}

export const compareResults = { equal: 0, greater: 1, less: 2, "not-equal": 3 } as const;
/** Which are also the numbers of the oneof's fields, less 4; the lease's field is 8. */
export const compareTargets = { version: 0, createRevision: 1, modRevision: 2, value: 3, lease: 4 } as const;

export interface EtcdCompare {
  readonly span: KeySpan;
  readonly target: keyof typeof compareTargets;
  readonly is: keyof typeof compareResults;
  readonly to: number | Uint8Array;
}

export type EtcdOp =
  | {
      readonly kind: "range";
      readonly span: KeySpan;
      /** 0: no limit. */
      readonly limit?: number;
      readonly revision?: Revision;
      readonly sort?: "key" | "create";
      readonly descending?: boolean;
      readonly keysOnly?: boolean;
      readonly countOnly?: boolean;
      /** 0: any. */
      readonly createRevisionMax?: Revision;
    }
  | {
      readonly kind: "put";
      readonly key: string;
      readonly value: Uint8Array;
      readonly lease: number;
      readonly returnsPrevious: boolean;
    }
  | { readonly kind: "delete"; readonly span: KeySpan; readonly returnsPrevious: boolean };

export interface EtcdTxn {
  readonly compares: readonly EtcdCompare[];
  readonly then: readonly EtcdOp[];
  readonly else: readonly EtcdOp[];
}

export type EtcdAnswer =
  | { readonly kind: "range"; readonly entries: readonly KeyValue[]; readonly count: number }
  | { readonly kind: "put"; readonly previous: KeyValue | null }
  | { readonly kind: "delete"; readonly count: number; readonly previous: readonly KeyValue[] };

export interface EtcdTxnAnswer {
  readonly succeeded: boolean;
  readonly revision: Revision;
  readonly answers: readonly EtcdAnswer[];
}

// --- transactions ------------------------------------------------------------------------------------------------------

export function encodeTxn(txn: EtcdTxn): Buffer {
  const writer = new ProtoWriter();
  for (const compare of txn.compares) writer.message(1, (inner) => writeCompare(inner, compare));
  for (const op of txn.then) writer.message(2, (inner) => writeOp(inner, op));
  for (const op of txn.else) writer.message(3, (inner) => writeOp(inner, op));
  return writer.finish();
}

function writeCompare(writer: ProtoWriter, { span, target, is, to }: EtcdCompare): void {
  writer.number(1, compareResults[is]).number(2, compareTargets[target]).binary(3, span.from);
  if (typeof to !== "number") writer.bytes(7, to, true);
  else writer.number(target === "lease" ? 8 : compareTargets[target] + 4, to);
  if (span.to !== undefined) writer.binary(64, span.to);
}

function writeOp(writer: ProtoWriter, op: EtcdOp): void {
  switch (op.kind) {
    case "range":
      writer.message(1, (inner) => {
        writeSpan(inner, op.span);
        inner.number(3, op.limit ?? 0).number(4, op.revision ?? 0);
        if (op.sort === "create" || op.descending) inner.number(5, op.descending ? 2 : 1).number(6, op.sort === "create" ? 2 : 0);
        inner
          .flag(8, op.keysOnly ?? false)
          .flag(9, op.countOnly ?? false)
          .number(13, op.createRevisionMax ?? 0);
      });
      return;
    case "put":
      writer.message(2, (inner) => inner.binary(1, op.key).bytes(2, op.value).number(3, op.lease).flag(4, op.returnsPrevious));
      return;
    case "delete":
      writer.message(3, (inner) => {
        writeSpan(inner, op.span);
        inner.flag(3, op.returnsPrevious);
      });
      return;
  }
}

function writeSpan(writer: ProtoWriter, { from, to }: KeySpan): void {
  writer.binary(1, from);
  if (to !== undefined) writer.binary(2, to);
}

export function decodeTxn(bytes: Buffer): EtcdTxnAnswer {
  const reader = new ProtoReader(bytes);
  let revision = 0;
  let succeeded = false;
  const answers: EtcdAnswer[] = [];
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 1) revision = readHeader(reader.message());
    else if (field === 2) succeeded = reader.flag();
    else if (field === 3) answers.push(readAnswer(reader.message()));
    else reader.skip();
  }
  return { succeeded, revision, answers };
}

function readAnswer(reader: ProtoReader): EtcdAnswer {
  let answer: EtcdAnswer = { kind: "range", entries: [], count: 0 };
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 1) answer = readRange(reader.message());
    else if (field === 2) answer = { kind: "put", previous: readMany(reader.message(), 2, 0).entries[0] ?? null };
    else if (field === 3) {
      const { entries, count } = readMany(reader.message(), 3, 2);
      answer = { kind: "delete", count, previous: entries };
    } else reader.skip();
  }
  return answer;
}

function readRange(reader: ProtoReader): EtcdAnswer {
  return { kind: "range", ...readMany(reader, 2, 4) };
}

function readMany(reader: ProtoReader, entryField: number, countField: number): { entries: KeyValue[]; count: number } {
  const entries: KeyValue[] = [];
  let count = 0;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === entryField) entries.push(readKeyValue(reader.message()));
    else if (field === countField) count = reader.number();
    else reader.skip();
  }
  return { entries, count };
}

function readHeader(reader: ProtoReader): Revision {
  let revision = 0;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 3) revision = reader.number();
    else reader.skip();
  }
  return revision;
}

const noBytes = Buffer.alloc(0);

function readKeyValue(reader: ProtoReader): KeyValue {
  let [key, lease] = ["", "0"];
  let [createRevision, modRevision, version] = [0, 0, 0];
  let value: Buffer = noBytes;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 1) key = reader.binary();
    else if (field === 2) createRevision = reader.number();
    else if (field === 3) modRevision = reader.number();
    else if (field === 4) version = reader.number();
    else if (field === 5) value = reader.bytes();
    else if (field === 6) lease = reader.id();
    else reader.skip();
  }
  return { key, value, createRevision, modRevision, version, lease };
}

// --- leases ------------------------------------------------------------------------------------------------------------

export function encodeLeaseGrant({ id, ttlSeconds }: { readonly id: number; readonly ttlSeconds: number }): Buffer {
  return new ProtoWriter().number(1, ttlSeconds).number(2, id).finish();
}

/** Revoke and keep-alive name the lease alone. */
export function encodeLeaseId(id: number): Buffer {
  return new ProtoWriter().number(1, id).finish();
}

/** Of a grant or a keep-alive. A TTL of 0 or less: there is no such lease. */
export function decodeLease(bytes: Buffer): { readonly id: string; readonly ttlSeconds: number } {
  const reader = new ProtoReader(bytes);
  let id = "0";
  let ttlSeconds = 0;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 2) id = reader.id();
    else if (field === 3) ttlSeconds = reader.signed();
    else reader.skip();
  }
  return { id, ttlSeconds };
}

// --- watches -----------------------------------------------------------------------------------------------------------

export function encodeWatchCreate({
  id,
  span,
  from,
}: {
  readonly id: number;
  readonly span: KeySpan;
  /** 0: from now on. */
  readonly from: Revision;
}): Buffer {
  return new ProtoWriter()
    .message(1, (create) => {
      writeSpan(create, span);
      create.number(3, from).flag(6, true).number(7, id);
    })
    .finish();
}

export function encodeWatchCancel(id: number): Buffer {
  return new ProtoWriter().message(2, (cancel) => cancel.number(1, id)).finish();
}

/** Answered whatever happens: how a watch that hears nothing knows that there is somebody to hear. */
export function encodeWatchProgress(): Buffer {
  return new ProtoWriter().message(3, () => undefined).finish();
}

export interface EtcdEvent {
  readonly isDelete: boolean;
  readonly entry: KeyValue;
  /** Null: there was none, or it is no longer kept. */
  readonly previous: KeyValue | null;
}

export interface EtcdWatchAnswer {
  /** -1 in an answer to a progress request of the whole stream. */
  readonly id: number;
  readonly revision: Revision;
  readonly isCreated: boolean;
  readonly isCanceled: boolean;
  /** Above 0: what was asked for is no longer kept; this is. */
  readonly compactRevision: Revision;
  readonly reason: string;
  readonly events: readonly EtcdEvent[];
}

export function decodeWatch(bytes: Buffer): EtcdWatchAnswer {
  const reader = new ProtoReader(bytes);
  let [id, revision, compactRevision] = [0, 0, 0];
  let [isCreated, isCanceled] = [false, false];
  let reason = "";
  const events: EtcdEvent[] = [];
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 1) revision = readHeader(reader.message());
    else if (field === 2) id = reader.signed();
    else if (field === 3) isCreated = reader.flag();
    else if (field === 4) isCanceled = reader.flag();
    else if (field === 5) compactRevision = reader.number();
    else if (field === 6) reason = reader.text();
    else if (field === 11) events.push(readEvent(reader.message()));
    else reader.skip();
  }
  return { id, revision, isCreated, isCanceled, compactRevision, reason, events };
}

function readEvent(reader: ProtoReader): EtcdEvent {
  let isDelete = false;
  let entry: KeyValue | undefined;
  let previous: KeyValue | null = null;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 1) isDelete = reader.flag();
    else if (field === 2) entry = readKeyValue(reader.message());
    else if (field === 3) previous = readKeyValue(reader.message());
    else reader.skip();
  }
  return { isDelete, entry: entry as KeyValue, previous };
}

// --- who answers -------------------------------------------------------------------------------------------------------

export function encodeAuthenticate({ name, password }: { readonly name: string; readonly password: string }): Buffer {
  return new ProtoWriter().bytes(1, Buffer.from(name)).bytes(2, Buffer.from(password)).finish();
}

export function decodeToken(bytes: Buffer): string {
  const reader = new ProtoReader(bytes);
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 2) return reader.text();
    reader.skip();
  }
  return "";
}

export interface EtcdStatus {
  readonly version: string;
  readonly dbBytes: number;
  readonly hasLeader: boolean;
  readonly isLearner: boolean;
}

export function decodeStatus(bytes: Buffer): EtcdStatus {
  const reader = new ProtoReader(bytes);
  let [version, leader] = ["", "0"];
  let dbBytes = 0;
  let isLearner = false;
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === 2) version = reader.text();
    else if (field === 3) dbBytes = reader.number();
    else if (field === 4) leader = reader.id();
    else if (field === 10) isLearner = reader.flag();
    else reader.skip();
  }
  return { version, dbBytes, hasLeader: leader !== "0", isLearner };
}

/** The alarms that are raised: "NOSPACE", "CORRUPT". */
export function decodeAlarms(bytes: Buffer): readonly string[] {
  const names = ["NONE", "NOSPACE", "CORRUPT"];
  return repeated(bytes, 2, (alarm) => {
    let kind = 0;
    for (let field = alarm.field(); field !== 0; field = alarm.field()) {
      if (field === 2) kind = alarm.number();
      else alarm.skip();
    }
    return names[kind] ?? String(kind);
  });
}

/** How many vote. */
export function decodeVoterCount(bytes: Buffer): number {
  const learners = repeated(bytes, 2, (member) => {
    let isLearner = false;
    for (let field = member.field(); field !== 0; field = member.field()) {
      if (field === 5) isLearner = member.flag();
      else member.skip();
    }
    return isLearner;
  });
  return learners.filter((isLearner) => !isLearner).length;
}

function repeated<T>(bytes: Buffer, wanted: number, read: (reader: ProtoReader) => T): T[] {
  const reader = new ProtoReader(bytes);
  const found: T[] = [];
  for (let field = reader.field(); field !== 0; field = reader.field()) {
    if (field === wanted) found.push(read(reader.message()));
    else reader.skip();
  }
  return found;
}
