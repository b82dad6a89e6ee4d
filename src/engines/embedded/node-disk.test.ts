import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Log } from "../../log/log.ts";
import { NodeDisk, skipBytes } from "./node-disk.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "conclave-disk-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values);

test("bytes are read back from where they were written, durable or not, and end at the end of the file", async () => {
  const disk = await NodeDisk.open(join(directory, "made", "on", "demand"));
  const file = await disk.open("a", { create: true });
  await file.write(2, [bytesOf(1, 2), bytesOf(), bytesOf(3)], { durable: true });
  await file.write(5, [bytesOf(4)], { durable: false });
  await file.sync();
  expect(await file.sizeBytes()).toBe(6);
  expect([...(await file.read(0, 100))]).toEqual([0, 0, 1, 2, 3, 4]);
  expect([...(await file.read(3, 2))]).toEqual([2, 3]);
  expect([...(await file.read(9, 2))]).toEqual([]);
  await file.close();
  await file.close();
});

test("preallocation fills with zeros, keeps what is there and never shortens", async () => {
  const disk = await NodeDisk.open(directory);
  const file = await disk.open("a", { create: true });
  await file.write(0, [bytesOf(9)], { durable: true });
  await file.preallocate(3_000_000);
  await file.preallocate(10);
  const bytes = await file.read(0, 4_000_000);
  expect(bytes.length).toBe(3_000_000);
  expect(bytes[0]).toBe(9);
  expect(bytes.subarray(1).every((byte) => byte === 0)).toBe(true);
  await file.close();
});

test("names: list, rename over another, remove, remove what is absent, open what is absent", async () => {
  const disk = await NodeDisk.open(directory);
  for (const name of ["a", "b"]) await (await disk.open(name, { create: true })).close();
  await disk.rename("a", "b");
  expect(await disk.list()).toEqual(["b"]);
  await disk.rename("b", "b");
  await disk.remove("b");
  await disk.remove("b");
  expect(await disk.list()).toEqual([]);
  await expect(disk.open("b")).rejects.toMatchObject({ code: "ENOENT" });
});

test("a name that leads out of the directory is refused", async () => {
  const disk = await NodeDisk.open(directory);
  for (const name of ["../a", "a/b", "", ".", "a\\b"]) await expect(disk.open(name)).rejects.toThrow("not a plain file name");
});

test("a write of thousands of buffers arrives whole", async () => {
  const disk = await NodeDisk.open(directory);
  const file = await disk.open("a", { create: true });
  const buffers = Array.from({ length: 5000 }, (_, at) => bytesOf(at & 255, at >> 8));
  await file.write(0, buffers, { durable: true });
  const bytes = await file.read(0, 10_000);
  for (let at = 0; at < 5000; at++) expect(bytes[2 * at]).toBe(at & 255);
  await file.close();
});

test("a short write goes on at the byte where it stopped", () => {
  const buffers = [bytesOf(1, 2, 3), bytesOf(4), bytesOf(5, 6)];
  const whole = [1, 2, 3, 4, 5, 6];
  for (let count = 0; count <= 6; count++) {
    expect(skipBytes(buffers, count).flatMap((buffer) => [...buffer])).toEqual(whole.slice(count));
  }
});

test("a log on a real directory: written, closed, recovered, with a snapshot", async () => {
  const open = async () =>
    Log.open({
      disk: await NodeDisk.open(directory),
      member: "a",
      cluster: "test",
      incarnation: () => 7,
      checksum: crc32,
      limits: { segmentBytes: 65_536 },
    });
  const first = await open();
  let durable = 0;
  first.log.listen({
    onDurable: (sequence) => {
      durable = sequence;
    },
    onFailed: (error) => {
      throw error;
    },
  });
  const payload = new Uint8Array(3000).fill(5);
  for (let index = 1; index <= 100; index++) {
    first.log.persist(index, [{ kind: "put", entry: { index, term: 1, kind: "batch", stampMs: index, payload } }]);
  }
  while (durable < 100) await new Promise((resolve) => setTimeout(resolve, 1));
  const configuration = { voters: ["a"], learners: [] };
  await first.log.saveSnapshot({ index: 90, term: 1, configuration, stampMs: 90, chunks: [payload, payload] });
  await first.log.close();
  const second = await open();
  expect(second.recovered.entries.map((entry) => entry.index)).toEqual([91, 92, 93, 94, 95, 96, 97, 98, 99, 100]);
  expect(second.recovered.snapshot).toMatchObject({ index: 90, configuration });
  const chunks: Uint8Array[] = [];
  for await (const chunk of second.log.loadSnapshot()?.chunks ?? []) chunks.push(chunk);
  expect(chunks).toEqual([payload, payload]);
  await second.log.close();
});

test("the lock's files are none of the disk's", async () => {
  await writeFile(join(directory, "lock-3"), "");
  expect(await (await NodeDisk.open(directory)).list()).toEqual([]);
});
