/**
 * What a node holds: a few bytes about the entry that ZooKeeper does not keep itself, then the value.
 *
 *     u8 0xC0 | flags     1: session, u64     2: carried: created u64, versions before u32
 *     value
 *
 * A binding can only change by deleting the node and making it anew; what it was created as is then carried along. A node
 * without the first byte is not ours: all of it is its value.
 */
import { Entry } from "../../store/entry.ts";
import type { Revision, SessionId } from "../../store/store.ts";
import type { Stat } from "./protocol.ts";

const mark = 0xc0;
const hasSession = 1;
const isCarried = 2;
const two32 = 2 ** 32;

export interface NodeHead {
  readonly session: SessionId | null;
  /** Null: as ZooKeeper has it. */
  readonly createRevision: Revision | null;
  /** Added to ZooKeeper's own. */
  readonly versionsBefore: number;
}

export function encodeNode({ session, createRevision, versionsBefore }: NodeHead, value: Uint8Array): Buffer {
  const carries = createRevision !== null || versionsBefore !== 0;
  const head = Buffer.alloc(1 + (session === null ? 0 : 8) + (carries ? 12 : 0));
  head[0] = mark | (session === null ? 0 : hasSession) | (carries ? isCarried : 0);
  let at = 1;
  if (session !== null) at = writeLong(head, at, Number(session));
  if (carries) {
    at = writeLong(head, at, createRevision ?? 0);
    head.writeInt32BE(versionsBefore, at);
  }
  return Buffer.concat([head, value]);
}

/** With its whole key. */
export function decodeNode(whole: string, { data, stat }: { readonly data: Buffer; readonly stat: Stat }): Entry {
  const { head, value } = parseNode(data);
  return new Entry({
    binaryKey: whole,
    value,
    createRevision: head.createRevision ?? stat.czxid,
    modRevision: stat.mzxid,
    version: head.versionsBefore + stat.version + 1,
    session: head.session,
  });
}

export function parseNode(data: Buffer): { readonly head: NodeHead; readonly value: Buffer } {
  const flags = data[0] ?? 0;
  const length = 1 + (flags & hasSession ? 8 : 0) + (flags & isCarried ? 12 : 0);
  if ((flags & 0xfc) !== mark || data.length < length)
    return { head: { session: null, createRevision: null, versionsBefore: 0 }, value: data };
  let at = 1;
  let session: SessionId | null = null;
  if (flags & hasSession) {
    session = String(readLong(data, at));
    at += 8;
  }
  if (!(flags & isCarried)) return { head: { session, createRevision: null, versionsBefore: 0 }, value: data.subarray(at) };
  const created = readLong(data, at);
  const versionsBefore = data.readInt32BE(at + 8);
  const createRevision = created === 0 ? null : created;
  return { head: { session, createRevision, versionsBefore }, value: data.subarray(at + 12) };
}

function writeLong(bytes: Buffer, at: number, value: number): number {
  bytes.writeUInt32BE(Math.floor(value / two32), at);
  return bytes.writeUInt32BE(value % two32, at + 4);
}

function readLong(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * two32 + bytes.readUInt32BE(at + 4);
}
