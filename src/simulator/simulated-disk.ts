/**
 * A disk of glass: the `Disk` port on byte arrays, with seeded latency, faults and power cuts.
 *
 * Each file has two images. What a program reads is the page cache; what a power cut leaves is the platter. A write goes
 * to the cache at once and onto a list of what the platter lacks; it leaves the list when it, or a sync after it, is done.
 *
 *                write ---> page cache  <--- read
 *                   '-----> unsynced list --- done, if durable, or sync ---> platter
 *
 *   crash()  power cut: each write on the list survives whole, as a prefix, as any set of its sectors, or not at all
 *   kill()   the process dies and the machine does not: the cache stays, nothing is synced by it
 *
 * Names (create, rename, remove) go through a journal of the same kind, of which a power cut leaves a prefix.
 * Assumes what the log assumes: a sector is written wholly or not at all. Deterministic: time and dice are handed in.
 */
import { assert, unreachable } from "../base/assert.ts";
import type { Disk, DiskFile } from "../base/ports.ts";

export interface SimulatedDiskOptions {
  /** A uniform unsigned 32-bit number. */
  readonly randomUint32: () => number;
  /** Runs the callback after so much virtual time. */
  readonly schedule: (delayMs: number, callback: () => void) => void;
  /** Bounds of one operation's latency. Default 0.05 to 0.5. */
  readonly latencyMs?: { readonly min: number; readonly max: number };
  /** On top of it. Default 500_000 (500 MB/s). */
  readonly bytesPerMs?: number;
  /** What survives a power cut in one piece. Default 512. */
  readonly sectorBytes?: number;
}

/** What the platform says when no space is left. */
export class DiskFullError extends Error {
  readonly code = "ENOSPC";
}

export class DiskFaultError extends Error {
  readonly code = "EIO";
}

type NameChange =
  | { readonly kind: "create"; readonly name: string; readonly file: Inode }
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  | { readonly kind: "remove"; readonly name: string };

/** What stays when a process or the power goes. Shared by the views before and after. */
interface Image {
  readonly names: Map<string, Inode>;
  readonly durableNames: Map<string, Inode>;
  /** Changes of names that are not yet durable, oldest first. */
  journal: NameChange[];
  nextCall: number;
  /** Durable writes so far. */
  durableWrites: number;
  /** Decay and misdirected writes, newest last, until enough was written behind them. */
  damage: Damage[];
  misdirectsNext: boolean;
}

interface Damage {
  readonly atWrite: number;
  readonly undo: () => void;
  /** What came to the platter of the same file since a write was misdirected: it stands over what that write had meant. */
  readonly since?: { readonly file: Inode; readonly writes: UnsyncedWrite[] };
}

interface UnsyncedWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** The call it belongs to: a later, faster write over its middle leaves two parts of it. */
  readonly call: number;
}

class Inode {
  readonly cache = new Content();
  readonly platter = new Content();
  unsynced: UnsyncedWrite[] = [];
}

export class SimulatedDisk implements Disk {
  readonly #options: Required<SimulatedDiskOptions>;
  readonly #image: Image;
  #dead = false;
  #failuresAhead = 0;
  #full = false;
  #slowFactor = 1;

  constructor(options: SimulatedDiskOptions, image?: Image) {
    const defaults = { latencyMs: { min: 0.05, max: 0.5 }, bytesPerMs: 500_000, sectorBytes: 512 };
    this.#options = { ...defaults, ...options };
    this.#image = image ?? {
      names: new Map(),
      durableNames: new Map(),
      journal: [],
      nextCall: 1,
      durableWrites: 0,
      damage: [],
      misdirectsNext: false,
    };
  }

  /** The process is gone: nothing settles any more. What was not synced survives in any part. Returns the next boot's view. */
  crash(): SimulatedDisk {
    this.#dead = true;
    const { names, durableNames, journal } = this.#image;
    for (const change of journal.slice(0, this.#below(journal.length + 1))) applyNameChange(durableNames, change);
    this.#image.journal = [];
    names.clear();
    for (const [name, file] of durableNames) {
      names.set(name, file);
      for (const write of file.unsynced) this.#survive(file, write);
      file.unsynced = [];
      file.cache.copyFrom(file.platter);
    }
    return new SimulatedDisk(this.#options, this.#image);
  }

  /** The process is gone, the machine runs on: the page cache is whole and as unsynced as before. */
  kill(): SimulatedDisk {
    this.#dead = true;
    return new SimulatedDisk(this.#options, this.#image);
  }

  /** The next so many writes and syncs reject, having happened in any part. */
  failNextWrites(count = 1): void {
    this.#failuresAhead = count;
  }

  /** While full, whatever needs new space rejects with ENOSPC; writes inside a file do not. */
  setFull(full: boolean): void {
    this.#full = full;
  }

  /** Multiplies every latency. */
  setSlowFactor(factor: number): void {
    this.#slowFactor = factor;
  }

  /** Flips one bit on the platter and in the cache, as a decaying disk does. */
  bitFlip(name: string, offset: number, bit = 0): void {
    const file = this.#image.names.get(name);
    assert(file !== undefined && offset < file.cache.lengthBytes, `a bit to flip exists in ${name} at ${offset}`);
    for (const content of [file.cache, file.platter]) content.flip(offset, bit);
  }

  /** The next durable write lands somewhere before its place in the same file; the page cache knows nothing of it. */
  misdirectNext(): void {
    this.#image.misdirectsNext = true;
  }

  /**
   * Flips one bit of any file of that beginning, which `undoFreshDamage` takes back while nothing was written behind it.
   * Answers the file's name; undefined when there is none.
   */
  decay(prefixes: readonly string[]): string | undefined {
    const names = this.names().filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));
    const name = names[this.#below(Math.max(1, names.length))];
    const file = name === undefined ? undefined : this.#image.names.get(name);
    if (name === undefined || file === undefined || file.cache.lengthBytes === 0) return undefined;
    const [offset, bit] = [this.#below(file.cache.lengthBytes), this.#below(8)];
    const before = file.cache.read(offset, 1);
    this.bitFlip(name, offset, bit);
    const undo = (): void => {
      for (const content of [file.cache, file.platter]) {
        // What was written over it since is no longer damaged.
        if (((content.read(offset, 1)[0] ?? 0) ^ (before[0] as number)) === 1 << bit) content.flip(offset, bit);
      }
    };
    this.#image.damage.push({ atWrite: this.#image.durableWrites, undo });
    return name;
  }

  /**
   * Takes back the damage behind which fewer durable writes were made: a log cannot tell a decayed last write from one that
   * the power interrupted, so a world that wants to know what must be refused has to leave a witness.
   */
  undoFreshDamage(writesMin: number): void {
    const { damage, durableWrites } = this.#image;
    const isFresh = (one: { readonly atWrite: number }): boolean => durableWrites - one.atWrite < writesMin;
    for (const one of damage.filter(isFresh).reverse()) one.undo();
    this.#image.damage = damage.filter((one) => !isFresh(one));
    this.#image.misdirectsNext = false;
  }

  /** For checks: the bytes as a reader would see them now. */
  peek(name: string): Uint8Array | undefined {
    const content = this.#image.names.get(name)?.cache;
    return content?.read(0, content.lengthBytes);
  }

  /** For tests: replaces a file's bytes, durably and at once. */
  poke(name: string, bytes: Uint8Array): void {
    const file = this.#image.names.get(name) ?? new Inode();
    for (const names of [this.#image.names, this.#image.durableNames]) names.set(name, file);
    file.unsynced = [];
    for (const content of [file.cache, file.platter]) content.replace(bytes);
  }

  /** For checks: the names as a program would list them now. */
  names(): readonly string[] {
    return [...this.#image.names.keys()].sort();
  }

  list(): Promise<readonly string[]> {
    return this.#after(0, () => this.names());
  }

  async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
    let file = this.#image.names.get(name);
    if (file === undefined && options.create === true && !this.#full) {
      file = new Inode();
      this.#changeName({ kind: "create", name, file });
    }
    const found = file;
    return this.#after(0, () => {
      if (found !== undefined) return this.#openFile(name, found);
      throw options.create === true ? new DiskFullError(`no space for ${name}`) : new Error(`ENOENT: no file ${name}`);
    });
  }

  rename(from: string, to: string): Promise<void> {
    if (!this.#image.names.has(from)) return this.#after(0, () => Promise.reject(new Error(`ENOENT: no file ${from}`)));
    return this.#journaled({ kind: "rename", from, to });
  }

  remove(name: string): Promise<void> {
    return this.#image.names.has(name) ? this.#journaled({ kind: "remove", name }) : this.#after(0, () => undefined);
  }

  #openFile(name: string, file: Inode): DiskFile {
    return {
      name,
      sizeBytes: () => this.#after(0, () => file.cache.lengthBytes),
      read: (offset, lengthBytes) => this.#after(lengthBytes, () => file.cache.read(offset, lengthBytes)),
      write: (offset, bytes, { durable }) => this.#write(file, { offset, bytes: join(bytes), durable }),
      sync: () => this.#sync(file),
      preallocate: (sizeBytes) => this.#preallocate(file, sizeBytes),
      close: () => this.#after(0, () => undefined),
    };
  }

  #write(
    file: Inode,
    { offset, bytes, durable }: { readonly offset: number; readonly bytes: Uint8Array; readonly durable: boolean },
  ): Promise<void> {
    const fault = this.#fault(file, offset + bytes.length);
    if (fault instanceof DiskFullError) return this.#after(0, () => Promise.reject(fault));
    const call = this.#image.nextCall++;
    file.cache.write(offset, bytes);
    file.unsynced.push({ offset, bytes, call });
    return this.#after(bytes.length, () => {
      if (fault !== undefined) throw fault;
      if (!durable) return;
      this.#image.durableWrites++;
      this.#commitNamesOf(file);
      this.#commitWrite(file, call);
    });
  }

  #sync(file: Inode): Promise<void> {
    const fault = this.#fault(file, 0);
    const calls = new Set(file.unsynced.map((write) => write.call));
    return this.#after(0, () => {
      if (fault !== undefined) throw fault;
      this.#commitNamesOf(file);
      for (const call of calls) this.#commitWrite(file, call);
    });
  }

  #preallocate(file: Inode, sizeBytes: number): Promise<void> {
    const from = file.cache.lengthBytes;
    if (sizeBytes <= from) return this.#after(0, () => undefined);
    return this.#write(file, { offset: from, bytes: new Uint8Array(sizeBytes - from), durable: false });
  }

  /** Puts a call's bytes on the platter. Older writes lose what they cover: the cache never held those after them. */
  #commitWrite(file: Inode, call: number): void {
    let left: UnsyncedWrite[] = [];
    for (const write of file.unsynced) {
      if (write.call === call) {
        this.#toPlatter(file, write);
        left = left.flatMap((older) => outside(older, write));
      } else {
        left.push(write);
      }
    }
    file.unsynced = left;
  }

  #toPlatter(file: Inode, write: UnsyncedWrite): void {
    const { offset, bytes } = write;
    const { sectorBytes } = this.#options;
    for (const { since } of this.#image.damage) if (since?.file === file) since.writes.push(write);
    if (!this.#image.misdirectsNext || offset < sectorBytes) {
      file.platter.write(offset, bytes);
      return;
    }
    this.#image.misdirectsNext = false;
    const wrongOffset = offset - sectorBytes * (1 + this.#below(Math.floor(offset / sectorBytes)));
    const overwritten = file.platter.read(wrongOffset, bytes.length);
    file.platter.write(wrongOffset, bytes);
    const since = { file, writes: [] as UnsyncedWrite[] };
    const undo = (): void => {
      file.platter.write(wrongOffset, overwritten);
      // A misdirected preallocation had wiped what was written into its space since (stack seed 233).
      for (const each of [write, ...since.writes]) file.platter.write(each.offset, each.bytes);
    };
    this.#image.damage.push({ atWrite: this.#image.durableWrites, undo, since });
  }

  /** A power cut's choice for one write. */
  #survive(file: Inode, { offset, bytes }: UnsyncedWrite): void {
    const { sectorBytes } = this.#options;
    const choice = this.#below(4);
    if (choice === 0) return;
    if (choice === 1) {
      file.platter.write(offset, bytes);
      return;
    }
    if (choice === 2) {
      // A prefix of sectors: a long write that was under way.
      const end = Math.floor((offset + this.#below(bytes.length + 1)) / sectorBytes) * sectorBytes;
      if (end > offset) file.platter.write(offset, bytes.subarray(0, end - offset));
      return;
    }
    for (let from = offset; from < offset + bytes.length; ) {
      const end = Math.min((Math.floor(from / sectorBytes) + 1) * sectorBytes, offset + bytes.length);
      if (this.#below(2) === 0) file.platter.write(from, bytes.subarray(from - offset, end - offset));
      from = end;
    }
  }

  #fault(file: Inode, endOffset: number): Error | undefined {
    if (this.#full && endOffset > file.cache.lengthBytes) return new DiskFullError("no space left on the simulated disk");
    if (this.#failuresAhead === 0) return undefined;
    this.#failuresAhead--;
    return new DiskFaultError("the simulated disk failed");
  }

  #changeName(change: NameChange): void {
    applyNameChange(this.#image.names, change);
    this.#image.journal.push(change);
  }

  #journaled(change: NameChange): Promise<void> {
    this.#changeName(change);
    return this.#after(0, () => this.#commitNames(this.#image.journal.indexOf(change)));
  }

  /** Durable bytes need a durable name. */
  #commitNamesOf(file: Inode): void {
    this.#commitNames(this.#image.journal.findIndex((change) => change.kind === "create" && change.file === file));
  }

  /** A journal commits in order: everything up to the place goes along. */
  #commitNames(last: number): void {
    for (const change of this.#image.journal.splice(0, last + 1)) applyNameChange(this.#image.durableNames, change);
  }

  /** Settles after the latency, never once the process is dead. */
  #after<T>(bytes: number, act: () => T | Promise<T>): Promise<T> {
    const { latencyMs, bytesPerMs, schedule } = this.#options;
    const share = this.#below(1_000_001) / 1_000_000;
    const delayMs = latencyMs.min + share * (latencyMs.max - latencyMs.min) + bytes / bytesPerMs;
    return new Promise((resolve, reject) => {
      if (this.#dead) return;
      schedule(delayMs * this.#slowFactor, () => {
        if (this.#dead) return;
        try {
          resolve(act());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #below(bound: number): number {
    return this.#options.randomUint32() % bound;
  }
}

/** Bytes that grow; what was never written is zero. */
class Content {
  #bytes = new Uint8Array(0);
  lengthBytes = 0;

  read(offset: number, lengthBytes: number): Uint8Array {
    const end = Math.min(offset + lengthBytes, this.lengthBytes);
    const result = new Uint8Array(Math.max(0, end - offset));
    result.set(this.#bytes.subarray(offset, Math.min(end, this.#bytes.length)));
    return result;
  }

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, offset);
    this.lengthBytes = Math.max(this.lengthBytes, end);
  }

  flip(offset: number, bit: number): void {
    if (offset < this.lengthBytes) this.write(offset, Uint8Array.of((this.#bytes[offset] as number) ^ (1 << bit)));
  }

  replace(bytes: Uint8Array): void {
    this.#bytes = bytes.slice();
    this.lengthBytes = bytes.length;
  }

  copyFrom(other: Content): void {
    this.replace(other.#bytes.subarray(0, other.lengthBytes));
  }
}

function applyNameChange(names: Map<string, Inode>, change: NameChange): void {
  switch (change.kind) {
    case "create":
      names.set(change.name, change.file);
      return;
    case "rename": {
      const file = names.get(change.from);
      if (file === undefined) return;
      names.delete(change.from);
      names.set(change.to, file);
      return;
    }
    case "remove":
      names.delete(change.name);
      return;
    default:
      unreachable(change);
  }
}

/** The parts of the write that the other one does not cover. */
function outside(write: UnsyncedWrite, cover: UnsyncedWrite): UnsyncedWrite[] {
  const end = write.offset + write.bytes.length;
  const coverEnd = cover.offset + cover.bytes.length;
  if (cover.offset >= end || coverEnd <= write.offset) return [write];
  const parts: UnsyncedWrite[] = [];
  if (write.offset < cover.offset) {
    parts.push({ ...write, bytes: write.bytes.subarray(0, cover.offset - write.offset) });
  }
  if (coverEnd < end) parts.push({ ...write, offset: coverEnd, bytes: write.bytes.subarray(coverEnd - write.offset) });
  return parts;
}

function join(buffers: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const buffer of buffers) length += buffer.length;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const buffer of buffers) {
    whole.set(buffer, at);
    at += buffer.length;
  }
  return whole;
}
