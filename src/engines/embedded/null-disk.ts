/**
 * A disk that remembers nothing: what `memory:` stands on. Every write is confirmed and forgotten, so the store lives in
 * the machine alone, by the same path as a durable one, and nothing grows.
 */
import { emptyBytes } from "../../base/bytes.ts";
import type { Disk, DiskFile } from "../../base/ports.ts";

const done = Promise.resolve();

export class NullDisk implements Disk {
  async list(): Promise<readonly string[]> {
    return [];
  }

  async open(name: string): Promise<DiskFile> {
    return new NullFile(name);
  }

  rename(): Promise<void> {
    return done;
  }

  remove(): Promise<void> {
    return done;
  }
}

class NullFile implements DiskFile {
  readonly name: string;
  #sizeBytes = 0;

  constructor(name: string) {
    this.name = name;
  }

  async sizeBytes(): Promise<number> {
    return this.#sizeBytes;
  }

  async read(): Promise<Uint8Array> {
    return emptyBytes;
  }

  write(offset: number, bytes: readonly Uint8Array[]): Promise<void> {
    for (const part of bytes) offset += part.length;
    this.#sizeBytes = Math.max(this.#sizeBytes, offset);
    return done;
  }

  sync(): Promise<void> {
    return done;
  }

  async preallocate(sizeBytes: number): Promise<void> {
    this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes);
  }

  close(): Promise<void> {
    return done;
  }
}
