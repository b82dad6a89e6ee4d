/**
 * The snapshot file: the machine's state up to one index, in pieces that prove that they belong together.
 *
 *   header   checksum u32 | "CLS" version u32 | body bytes u32 | group u32 | body: index, term, stamp, configuration
 *   chunk    checksum u32 | bytes u32 (not 0)  | bytes                                     ... any number of them
 *   trailer  checksum u32 | 0 u32              | chunk count f64 | file bytes f64
 *
 * Each checksum continues from the one before it, as in a chain: a chunk that is changed, missing, doubled, out of order or
 * from another snapshot breaks every checksum after it. The same bytes are the file on disk and what a follower is sent.
 * The file is written under a temporary name, synced, and renamed: under its final name it is always whole.
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Checksum, DiskFile } from "../base/ports.ts";
import type { Configuration, Index, Term } from "../consensus/core.ts";
import { newerFormat } from "./identity.ts";
import { formatVersion } from "./record.ts";

export interface SnapshotHeader {
  readonly index: Index;
  readonly term: Term;
  readonly configuration: Configuration;
  readonly stampMs: number;
}

/** What is saved: the machine's state in pieces, of its own choice of size (64 KiB to 1 MiB is good). */
export interface SnapshotContent extends SnapshotHeader {
  readonly chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** A header that was found in a file, and the size of that file. */
export interface SnapshotInfo extends SnapshotHeader {
  readonly lengthBytes: number;
}

const marker = 0x53_4c_43 | (formatVersion << 24);
const markerMask = 0x00_ff_ff_ff;
const headerBytes = 16;
const headerBodyBytesMax = 1_048_576;
const frameBytes = 8;
const trailerBytes = 24;

export function snapshotName(index: Index): string {
  return `snapshot-${String(index).padStart(16, "0")}.snap`;
}

export function snapshotIndex(name: string): Index | undefined {
  const match = /^snapshot-(\d{16})\.snap$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Writes the whole file and syncs it. Each chunk is one write, so the caller's thread is free in between. */
export async function writeSnapshot(
  file: DiskFile,
  content: SnapshotContent,
  options: { readonly group: number; readonly checksum: Checksum },
): Promise<number> {
  const { checksum } = options;
  const header = encodeHeader(content, options);
  let chain = header.checksum;
  let count = 0;
  let at = header.bytes.length;
  await file.write(0, [header.bytes], { durable: false });
  for await (const chunk of content.chunks) {
    if (chunk.length === 0) continue;
    const frame = new Uint8Array(frameBytes);
    const view = new DataView(frame.buffer);
    view.setUint32(4, chunk.length, true);
    chain = checksum(chunk, checksum(frame.subarray(4), chain));
    view.setUint32(0, chain, true);
    await file.write(at, [frame, chunk], { durable: false });
    at += frameBytes + chunk.length;
    count++;
  }
  const trailer = new Uint8Array(trailerBytes);
  const view = new DataView(trailer.buffer);
  view.setFloat64(8, count, true);
  view.setFloat64(16, at + trailerBytes, true);
  view.setUint32(0, checksum(trailer.subarray(4), chain), true);
  await file.write(at, [trailer], { durable: false });
  await file.sync();
  return at + trailerBytes;
}

/**
 * The header, and a look at the trailer: a file that was cut short is found here, a damaged chunk by `readChunks`.
 * @throws SNAPSHOT_CORRUPT, DIRECTORY_NEWER
 */
export async function readSnapshotHeader(
  file: DiskFile,
  options: { readonly group: number; readonly checksum: Checksum },
): Promise<SnapshotInfo> {
  const { lengthBytes, ...header } = (await readHeader(file, options)).info;
  const trailer = await file.read(lengthBytes - trailerBytes, trailerBytes);
  const view = new DataView(trailer.buffer, trailer.byteOffset, trailer.byteLength);
  const whole = trailer.length === trailerBytes && view.getUint32(4, true) === 0 && view.getFloat64(16, true) === lengthBytes;
  if (!whole) throw corruptSnapshot(file, lengthBytes - trailerBytes, "it does not end with its trailer");
  return { ...header, lengthBytes };
}

/**
 * Every chunk, in order, each checked before it is handed out; the end only after the trailer was checked.
 * @throws SNAPSHOT_CORRUPT
 */
export async function* readChunks(
  file: DiskFile,
  options: { readonly group: number; readonly checksum: Checksum },
): AsyncGenerator<Uint8Array, void, undefined> {
  const { checksum } = options;
  const header = await readHeader(file, options);
  const { lengthBytes } = header.info;
  let chain = header.checksum;
  let count = 0;
  let at = header.endOffset;
  for (;;) {
    const frame = await file.read(at, frameBytes);
    if (frame.length < frameBytes) throw corruptSnapshot(file, at, "it ends before its trailer");
    const view = new DataView(frame.buffer, frame.byteOffset, frameBytes);
    const chunkBytes = view.getUint32(4, true);
    if (chunkBytes === 0) break;
    if (at + frameBytes + chunkBytes > lengthBytes) throw corruptSnapshot(file, at, "a chunk reaches beyond its end");
    const chunk = await file.read(at + frameBytes, chunkBytes);
    chain = checksum(chunk, checksum(frame.subarray(4), chain));
    if (chain !== view.getUint32(0, true)) throw corruptSnapshot(file, at, `the checksum of chunk ${count} does not fit`);
    yield chunk;
    at += frameBytes + chunkBytes;
    count++;
  }
  const trailer = await file.read(at, trailerBytes);
  if (trailer.length < trailerBytes) throw corruptSnapshot(file, at, "it ends within its trailer");
  const view = new DataView(trailer.buffer, trailer.byteOffset, trailerBytes);
  const whole =
    checksum(trailer.subarray(4), chain) === view.getUint32(0, true) &&
    view.getFloat64(8, true) === count &&
    view.getFloat64(16, true) === lengthBytes &&
    at + trailerBytes === lengthBytes;
  if (!whole) throw corruptSnapshot(file, at, "its trailer does not fit what stands before it");
}

function encodeHeader(
  header: SnapshotHeader,
  options: { readonly group: number; readonly checksum: Checksum },
): { readonly bytes: Uint8Array; readonly checksum: number } {
  const writer = new ByteWriter();
  writer.u32(0);
  writer.u32(marker);
  writer.u32(0);
  writer.u32(options.group);
  writer.varint(header.index);
  writer.varint(header.term);
  writer.f64(header.stampMs);
  const { voters, outgoing, learners } = header.configuration;
  for (const members of [voters, outgoing ?? [], learners]) {
    writer.varint(members.length);
    for (const member of members) writer.utf8(member);
  }
  writer.u8(outgoing === undefined ? 0 : 1);
  const addresses = Object.entries(header.configuration.addresses ?? {});
  writer.varint(addresses.length);
  for (const text of addresses.flat()) writer.utf8(text);
  writer.patchU32(8, writer.length - headerBytes);
  const checksum = options.checksum(writer.view().subarray(4));
  writer.patchU32(0, checksum);
  return { bytes: writer.finish(), checksum };
}

async function readHeader(
  file: DiskFile,
  options: { readonly group: number; readonly checksum: Checksum },
): Promise<{ readonly info: SnapshotInfo; readonly checksum: number; readonly endOffset: number }> {
  const lengthBytes = await file.sizeBytes();
  const start = await file.read(0, headerBytes);
  if (start.length < headerBytes) throw corruptSnapshot(file, 0, "it has no header");
  const view = new DataView(start.buffer, start.byteOffset, headerBytes);
  const bodyBytes = view.getUint32(8, true);
  const known = (view.getUint32(4, true) & markerMask) === (marker & markerMask) && bodyBytes <= headerBodyBytesMax;
  const bytes = known ? await file.read(0, headerBytes + bodyBytes) : start;
  const checksum = view.getUint32(0, true);
  if (!known || options.checksum(bytes.subarray(4)) !== checksum) throw corruptSnapshot(file, 0, "its header is damaged");
  const version = view.getUint32(4, true) >>> 24;
  if (version > formatVersion) throw newerFormat(file.name, version);
  const group = view.getUint32(12, true);
  if (group !== options.group) throw corruptSnapshot(file, 0, `it is of group ${group}, not of ${options.group}`);
  const reader = new ByteReader(bytes, headerBytes);
  const index = reader.varint();
  const term = reader.varint();
  const stampMs = reader.f64();
  const [voters, outgoing, learners] = [readMembers(reader), readMembers(reader), readMembers(reader)];
  const isJoint = reader.u8() === 1;
  const configuration: Configuration = {
    voters,
    ...(isJoint ? { outgoing } : {}),
    learners,
    // Snapshots of before 0.2 end here.
    ...(reader.remaining === 0 ? {} : readAddresses(reader)),
  };
  return { info: { index, term, stampMs, configuration, lengthBytes }, checksum, endOffset: bytes.length };
}

function readMembers(reader: ByteReader): string[] {
  const members: string[] = [];
  for (let count = reader.count(); count > 0; count--) members.push(reader.utf8());
  return members;
}

function readAddresses(reader: ByteReader): Pick<Configuration, "addresses"> {
  const addresses: Record<string, string> = {};
  for (let count = reader.count(); count > 0; count--) {
    const member = reader.utf8();
    addresses[member] = reader.utf8();
  }
  return Object.keys(addresses).length === 0 ? {} : { addresses };
}

function corruptSnapshot(file: DiskFile, offset: number, why: string): Error {
  return conclaveError("SNAPSHOT_CORRUPT", `The snapshot "${file.name}" is damaged at offset ${offset}: ${why}.`);
}
