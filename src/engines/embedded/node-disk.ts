/**
 * The `Disk` port on a real directory.
 *
 * A durable write is one positional write on a descriptor opened with O_DSYNC: the kernel returns when the bytes, and the
 * metadata that is needed to read them back, are on the disk. That is one trip through the thread pool instead of two
 * (write, then fdatasync). On macOS O_DSYNC does not reach the platter and Windows has none: there it is write and
 * fdatasync, which libuv turns into F_FULLFSYNC and FlushFileBuffers. Space is made by writing zeros, because Node has no
 * fallocate and a hole in a file would be filled, with its metadata, at the moment of the commit.
 * A name is durable only when its directory is synced: after create, rename and remove.
 */
import { close, constants, fdatasync, fstat, fsync, open as openDescriptor, read, writev } from "node:fs";
import { open, readdir, rename, rm } from "node:fs/promises";
import { resolve as resolvePath, sep } from "node:path";
import { promisify } from "node:util";
import { conclaveError } from "../../base/errors.ts";
import type { Disk, DiskFile } from "../../base/ports.ts";
import { isLockName } from "./directory-lock.ts";
import { makeDirectory } from "./make-directory.ts";

const openAsync = promisify(openDescriptor);
const closeAsync = promisify(close);
const fsyncAsync = promisify(fsync);
const fdatasyncAsync = promisify(fdatasync);
const fstatAsync = promisify(fstat);

const hasDurableWrites = process.platform === "linux";
const zeros = new Uint8Array(1_048_576);

export class NodeDisk implements Disk {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes the directory where it is missing. Lock it first: `lockDirectory`. */
  static async open(directory: string): Promise<NodeDisk> {
    await makeDirectory(directory);
    return new NodeDisk(resolvePath(directory));
  }

  async list(): Promise<readonly string[]> {
    const items = await readdir(this.#directory, { withFileTypes: true });
    return items.filter((item) => item.isFile() && !isLockName(item.name)).map((item) => item.name);
  }

  async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
    const path = this.#path(name);
    if (options.create !== true) return new NodeFile({ name, path, descriptor: await openAsync(path, constants.O_RDWR) });
    const descriptor = await openAsync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      await syncDirectory(this.#directory);
    } catch (error) {
      await closeAsync(descriptor);
      throw error;
    }
    return new NodeFile({ name, path, descriptor });
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#path(from), this.#path(to));
    await syncDirectory(this.#directory);
  }

  async remove(name: string): Promise<void> {
    try {
      await rm(this.#path(name));
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      throw error;
    }
    await syncDirectory(this.#directory);
  }

  #path(name: string): string {
    if (name === "" || name.startsWith(".") || name.includes("/") || name.includes("\\")) {
      throw conclaveError("INVALID_OPTION", `"${name}" is not a plain file name.`);
    }
    return this.#directory + sep + name;
  }
}

class NodeFile implements DiskFile {
  readonly name: string;
  readonly #path: string;
  readonly #descriptor: number;
  /** Opened at the first durable write; its writes return when they are on the disk. */
  #durable: Promise<number> | undefined;
  #closing: Promise<void> | undefined;

  constructor(parts: {
    readonly name: string;
    readonly path: string;
    readonly descriptor: number;
  }) {
    this.name = parts.name;
    this.#path = parts.path;
    this.#descriptor = parts.descriptor;
  }

  async sizeBytes(): Promise<number> {
    return (await fstatAsync(this.#descriptor)).size;
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const size = await this.sizeBytes();
    const bytes = new Uint8Array(Math.max(0, Math.min(lengthBytes, size - offset)));
    let done = 0;
    while (done < bytes.length) {
      const count = await readOnce(this.#descriptor, bytes, done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done === bytes.length ? bytes : bytes.subarray(0, done);
  }

  async write(offset: number, bytes: readonly Uint8Array[], options: { readonly durable: boolean }): Promise<void> {
    if (!options.durable) return writeAll(this.#descriptor, bytes, offset);
    if (hasDurableWrites) {
      this.#durable ??= openAsync(this.#path, constants.O_RDWR | constants.O_DSYNC);
      return writeAll(await this.#durable, bytes, offset);
    }
    await writeAll(this.#descriptor, bytes, offset);
    await fdatasyncAsync(this.#descriptor);
  }

  async sync(): Promise<void> {
    await fsyncAsync(this.#descriptor);
  }

  async preallocate(sizeBytes: number): Promise<void> {
    for (let at = await this.sizeBytes(); at < sizeBytes; at += zeros.length) {
      await writeAll(this.#descriptor, [zeros.subarray(0, Math.min(zeros.length, sizeBytes - at))], at);
      // Synced piece by piece: all at once would hold up the commits that go on beside it.
      await fdatasyncAsync(this.#descriptor);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const durable = await this.#durable?.catch(() => undefined);
    if (durable !== undefined) await closeAsync(durable);
    await closeAsync(this.#descriptor);
  }
}

/** One system call as a rule; a short write (a signal, a limit, a full disk) goes on where it stopped. */
async function writeAll(descriptor: number, buffers: readonly Uint8Array[], offset: number): Promise<void> {
  let left = buffers.filter((buffer) => buffer.length > 0);
  let at = offset;
  while (left.length > 0) {
    const count = await writeOnce(descriptor, left, at);
    if (count === 0) throw Object.assign(new Error("the disk took no bytes"), { code: "EIO" });
    at += count;
    left = skipBytes(left, count);
  }
}

/** What is left after the first `count` bytes. */
export function skipBytes(buffers: readonly Uint8Array[], count: number): Uint8Array[] {
  let first = 0;
  let skip = count;
  while (first < buffers.length && skip >= (buffers[first] as Uint8Array).length) {
    skip -= (buffers[first] as Uint8Array).length;
    first++;
  }
  const left = buffers.slice(first);
  if (skip > 0) left[0] = (left[0] as Uint8Array).subarray(skip);
  return left;
}

function writeOnce(descriptor: number, buffers: readonly Uint8Array[], position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    writev(descriptor, buffers, position, (error, count) => (error === null ? resolve(count) : reject(error)));
  });
}

function readOnce(descriptor: number, bytes: Uint8Array, offset: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(descriptor, bytes, offset, bytes.length - offset, position, (error, count) =>
      error === null ? resolve(count) : reject(error),
    );
  });
}

async function syncDirectory(directory: string): Promise<void> {
  // Windows cannot open a directory; NTFS journals names by itself.
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function codeOf(error: unknown): unknown {
  return typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
}
