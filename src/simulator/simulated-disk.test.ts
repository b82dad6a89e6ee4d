import fc from "fast-check";
import { expect, test } from "vitest";
import type { DiskFile } from "../base/ports.ts";
import { DiskWorld } from "./disk-world.ts";

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const makeWorld = (seed = 1): DiskWorld => new DiskWorld({ seed, settle });
const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

async function create(world: DiskWorld, name = "a"): Promise<DiskFile> {
  return world.finish(world.disk.open(name, { create: true }));
}

async function contentAfterCrash(world: DiskWorld, name = "a"): Promise<Uint8Array | undefined> {
  world.crash();
  return world.disk.peek(name);
}

test("what was written durably survives a power cut, with its name", async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const world = makeWorld(seed);
    const file = await create(world);
    await world.finish(file.write(3, [filled(700, 1), filled(1, 2)], { durable: true }));
    const bytes = await contentAfterCrash(world);
    expect(bytes).toEqual(Uint8Array.from([0, 0, 0, ...filled(700, 1), 2]));
  }
});

test("sync makes everything before it durable, in the order of the writes", async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const world = makeWorld(seed);
    const file = await create(world);
    for (const byte of [1, 2, 3]) await world.finish(file.write(0, [filled(100, byte)], { durable: false }));
    await world.finish(file.sync());
    expect(await contentAfterCrash(world)).toEqual(filled(100, 3));
  }
});

test("a misdirected preallocation that is taken back leaves what was written into its space since (stack seed 233)", async () => {
  const world = makeWorld();
  const file = await create(world);
  await world.finish(file.write(0, [filled(1_024, 1)], { durable: true }));
  world.disk.misdirectNext();
  await world.finish(file.preallocate(2_048));
  await world.finish(file.sync());
  // The zeros went over what was there.
  await world.finish(file.write(1_024, [filled(700, 2)], { durable: true }));
  world.disk.undoFreshDamage(3);
  const bytes = (await contentAfterCrash(world)) as Uint8Array;
  expect(bytes.subarray(0, 1_024)).toEqual(filled(1_024, 1));
  expect(bytes.subarray(1_024, 1_724)).toEqual(filled(700, 2));
});

test("an older unsynced write never comes back over a newer durable one", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.nat(2000), fc.nat(2000), async (seed, first, second) => {
      const world = makeWorld(seed);
      const file = await create(world);
      const old = file.write(first, [filled(1500, 1)], { durable: seed % 2 === 0 });
      await world.finish(file.write(second, [filled(800, 2)], { durable: true }));
      const oldIsDurable = seed % 4 === 0;
      if (oldIsDurable) await world.finish(old);
      const bytes = (await contentAfterCrash(world)) as Uint8Array;
      expect(bytes.subarray(second, second + 800)).toEqual(filled(800, 2));
      for (let at = first; oldIsDurable && at < first + 1500; at++) expect(bytes[at]).toBeGreaterThan(0);
    }),
    { numRuns: 200 },
  );
});

test("an unsynced write survives whole, as a prefix, in any sectors, or not: all of it happens", async () => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= 200; seed++) {
    const world = makeWorld(seed);
    const file = await create(world);
    await world.finish(file.write(0, [filled(2048, 1)], { durable: true }));
    void file.write(0, [filled(2048, 2)], { durable: true });
    const bytes = (await contentAfterCrash(world)) as Uint8Array;
    const sectors = [0, 1, 2, 3].map((at) => new Set(bytes.subarray(at * 512, at * 512 + 512)));
    for (const values of sectors) expect(values.size).toBe(1);
    seen.add(sectors.map((values) => [...values][0]).join(""));
  }
  for (const kind of ["1111", "2222", "2211", "2111", "1221", "1212"]) expect(seen).toContain(kind);
});

test("a file without a durable name may vanish, and a resolved rename or remove stays done", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const world = makeWorld(seed);
    const file = await create(world, "old");
    await world.finish(file.write(0, [filled(1, 1)], { durable: true }));
    await world.finish(world.disk.rename("old", "new"));
    void world.disk.rename("new", "newer");
    world.crash();
    expect(["new", "newer"]).toContain(world.disk.names().join());
    const [name] = world.disk.names();
    await world.finish(world.disk.remove(name as string));
    world.crash();
    expect(world.disk.names()).toEqual([]);
  }
  const vanished = new Set<number>();
  for (let seed = 1; seed <= 20; seed++) {
    const world = makeWorld(seed);
    await create(world);
    world.crash();
    vanished.add(world.disk.names().length);
  }
  expect(vanished.size).toBe(2);
});

test("after a crash nothing of the old process settles", async () => {
  const world = makeWorld();
  const file = await create(world);
  let settled = false;
  const mark = (): void => {
    settled = true;
  };
  file.write(0, [filled(1, 1)], { durable: true }).then(mark, mark);
  world.crash();
  file.read(0, 1).then(mark, mark);
  await world.advance(10);
  expect(settled).toBe(false);
});

test("a killed process leaves the page cache, which a power cut may still take", async () => {
  const lengths = new Set<number>();
  for (let seed = 1; seed <= 30; seed++) {
    const world = makeWorld(seed);
    const file = await create(world);
    await world.finish(file.sync());
    void file.write(0, [filled(100, 1)], { durable: true });
    world.kill();
    expect(world.disk.peek("a")).toEqual(filled(100, 1));
    lengths.add((await contentAfterCrash(world))?.length ?? -1);
  }
  expect([...lengths].sort()).toEqual([0, 100]);
});

test("faults: a failing write, a full disk, a flipped bit, a slow disk", async () => {
  const world = makeWorld();
  const file = await create(world);
  world.disk.failNextWrites();
  await expect(world.finish(file.write(0, [filled(1, 1)], { durable: true }))).rejects.toMatchObject({ code: "EIO" });
  await world.finish(file.write(0, [filled(10, 1)], { durable: true }));
  world.disk.setFull(true);
  await expect(world.finish(file.write(5, [filled(10, 1)], { durable: true }))).rejects.toMatchObject({ code: "ENOSPC" });
  await expect(world.finish(file.preallocate(11))).rejects.toMatchObject({ code: "ENOSPC" });
  await expect(world.finish(world.disk.open("b", { create: true }))).rejects.toMatchObject({ code: "ENOSPC" });
  await world.finish(file.write(0, [filled(10, 3)], { durable: true }));
  world.disk.bitFlip("a", 4, 2);
  expect((await contentAfterCrash(world))?.[4]).toBe(7);
  const again = await create(world);
  world.disk.setSlowFactor(1000);
  const before = world.nowMs;
  await world.finish(again.sync());
  expect(world.nowMs - before).toBeGreaterThan(50);
});

test("the same seed gives the same disk", async () => {
  const run = async (seed: number): Promise<string> => {
    const world = makeWorld(seed);
    const file = await create(world);
    for (let at = 0; at < 20; at++) {
      void file.write(at * 300, [filled(900, at)], { durable: at % 3 === 0 });
      await world.advance(at % 2);
    }
    const bytes = await contentAfterCrash(world);
    return `${world.nowMs} ${bytes?.join(" ")}`;
  };
  expect(await run(5)).toBe(await run(5));
  expect(await run(5)).not.toBe(await run(6));
});
