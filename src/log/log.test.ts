import fc from "fast-check";
import { expect, test } from "vitest";
import { crc32 } from "../base/crc32.ts";
import { hasCode } from "../base/errors.ts";
import type { LogEntry, LogOperation, Recovered } from "../consensus/core.ts";
import { DiskWorld } from "../simulator/disk-world.ts";
import { Log } from "./log.ts";
import type { LogOptions } from "./log-options.ts";

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const segmentBytes = 16_384;

interface OpenLog {
  readonly log: Log;
  readonly recovered: Recovered;
  readonly durable: number[];
  readonly failures: unknown[];
}

function makeWorld(seed = 1): DiskWorld {
  return new DiskWorld({ seed, settle });
}

function startOpen(world: DiskWorld, options: Partial<LogOptions> = {}): Promise<OpenLog> {
  return Log.open({
    disk: world.disk,
    member: "a",
    cluster: "test",
    incarnation: () => world.randomUint32(),
    checksum: crc32,
    limits: { segmentBytes, batchBytes: 8192 },
    ...options,
  }).then(({ log, recovered }) => {
    const opened: OpenLog = { log, recovered, durable: [], failures: [] };
    log.listen({ onDurable: (sequence) => opened.durable.push(sequence), onFailed: (error) => opened.failures.push(error) });
    return opened;
  });
}

function open(world: DiskWorld, options: Partial<LogOptions> = {}): Promise<OpenLog> {
  return world.finish(startOpen(world, options));
}

function entry(index: number, payload: string | Uint8Array = `entry ${index}`, term = 1): LogEntry {
  const bytes = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
  return { index, term, kind: "batch", stampMs: index / 4, payload: bytes };
}

const put = (index: number, payload?: string | Uint8Array, term?: number): LogOperation => ({
  kind: "put",
  entry: entry(index, payload, term),
});

/** Persists and waits until the last one is durable. */
async function persistAll(world: DiskWorld, opened: OpenLog, from: number, ...steps: (readonly LogOperation[])[]): Promise<void> {
  for (const [at, operations] of steps.entries()) opened.log.persist(from + at, operations);
  const last = from + steps.length - 1;
  while (opened.durable.at(-1) !== last) {
    if (!(await world.advance(1))) throw new Error("the persist does not become durable");
  }
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const ones = (bytes: number): Uint8Array => new Uint8Array(bytes).fill(1);
const zeros = (bytes: number): Uint8Array => new Uint8Array(bytes);
const used = (bytes: Uint8Array): number => {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
};

test("an empty directory is formatted and gives nothing back", async () => {
  const world = makeWorld();
  const { recovered } = await open(world);
  expect(recovered).toEqual({ meta: new Map(), entries: [] });
});

test("what was acknowledged is there after a power cut: entries, truncation and meta", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(
    world,
    opened,
    1,
    [{ kind: "meta", values: { term: "3", vote: "b", __proto__x: "y" } }, put(1)],
    [put(2), put(3), { kind: "put", entry: { ...entry(4, ""), kind: "noop", term: 2 ** 40, stampMs: 0.1 } }],
    [
      { kind: "truncate", from: 3 },
      { kind: "meta", values: { vote: "ä" } },
    ],
  );
  world.crash();
  const { recovered } = await open(world);
  expect(recovered.entries).toEqual([entry(1), entry(2)]);
  expect(recovered.meta).toEqual(
    new Map([
      ["term", "3"],
      ["vote", "ä"],
      ["__proto__x", "y"],
    ]),
  );
});

test("a put over an entry of another term drops what followed it, over one of the same term it does not (Raft §5.3)", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [put(1), put(2), put(3)], [put(2)], [put(1, "other", 2)]);
  world.crash();
  expect((await open(world)).recovered.entries).toEqual([entry(1, "other", 2)]);
});

test("sparse slots may be missing and survive a put below them", async () => {
  const world = makeWorld();
  const opened = await open(world, { slots: "sparse" });
  await persistAll(world, opened, 1, [put(5)], [put(2)], [put(2, "again", 2)]);
  world.crash();
  const { recovered } = await open(world, { slots: "sparse" });
  expect(recovered.entries).toEqual([entry(2, "again", 2), entry(5)]);
});

test("persists that arrive while a write is in flight share the next one, and are acknowledged in order", async () => {
  const world = makeWorld();
  const writes: number[] = [];
  const opened = await open(world, {
    telemetry: { emit: (event) => event.kind === "log.synced" && writes.push(event.records) },
  });
  writes.length = 0;
  opened.log.persist(1, [put(1)]);
  await settle();
  for (let index = 2; index <= 40; index++) opened.log.persist(index, [put(index)]);
  await world.advance(20);
  expect(writes).toEqual([1, 39]);
  expect(opened.durable).toEqual([1, 40]);
  expect(opened.log.queuedBytes).toBe(0);
});

test("no second write starts while one is in flight", async () => {
  const world = makeWorld();
  let inFlight = 0;
  let inFlightMax = 0;
  const open = world.disk.open.bind(world.disk);
  world.disk.open = async (name, options) => {
    const file = await open(name, options);
    const write = file.write;
    file.write = async (...call) => {
      inFlightMax = Math.max(inFlightMax, ++inFlight);
      await write(...call);
      inFlight--;
    };
    return file;
  };
  const opened = await world.finish(startOpen(world, { limits: { segmentBytes: 1_048_576, batchBytes: 4096 } }));
  for (let index = 1; index <= 100; index++) {
    opened.log.persist(index, [put(index, zeros(700))]);
    await world.advance(index % 2);
  }
  await world.advance(200);
  expect(opened.durable.at(-1)).toBe(100);
  expect(inFlightMax).toBe(1);
});

test("nothing is acknowledged before the disk said so", async () => {
  const world = makeWorld();
  const opened = await open(world);
  opened.log.persist(1, [put(1)]);
  await settle();
  expect(opened.durable).toEqual([]);
  await world.advance(1);
  expect(opened.durable).toEqual([1]);
});

test("one write is bounded, and a longer record goes alone into a segment of its own size", async () => {
  const world = makeWorld();
  const sizes: number[] = [];
  const opened = await open(world, {
    telemetry: { emit: (event) => event.kind === "log.synced" && sizes.push(event.bytes) },
  });
  const long = new Uint8Array(3 * segmentBytes).fill(7);
  await persistAll(world, opened, 1, [put(1, new Uint8Array(6000))], [put(2, new Uint8Array(6000))], [put(3, long)], [put(4)]);
  expect(sizes.filter((bytes) => bytes > 8192)).toHaveLength(1);
  world.crash();
  const { recovered } = await open(world);
  expect(recovered.entries.map((item) => item.payload.length)).toEqual([6000, 6000, long.length, 7]);
  expect(recovered.entries[2]?.payload).toEqual(long);
});

test("segments roll over, carry meta along, and a crash at any step keeps what was acknowledged", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const world = makeWorld(seed);
    const opened = await open(world);
    const steps = Array.from({ length: 60 }, (_, at) => [put(at + 1, new Uint8Array(1500).fill(at))]);
    opened.log.persist(1, [{ kind: "meta", values: { term: "9" } }]);
    for (const [at, operations] of steps.entries()) {
      opened.log.persist(at + 2, operations);
      if (at % 3 === 0) await world.advance(1);
    }
    await world.advance(world.randomUint32() % 60);
    const acknowledged = (opened.durable.at(-1) ?? 1) - 1;
    world.crash();
    const { recovered } = await open(world);
    expect(recovered.entries.length).toBeGreaterThanOrEqual(acknowledged);
    expect(recovered.entries.map((item) => item.index)).toEqual(recovered.entries.map((_, at) => at + 1));
    for (const item of recovered.entries) expect(item.payload).toEqual(new Uint8Array(1500).fill(item.index - 1));
    if (acknowledged > 0) expect(recovered.meta.get("term")).toBe("9");
  }
});

test("the next segment is made ahead of need, not on the commit path", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [put(1, zeros(6000))], [put(2, zeros(6000))]);
  await world.advance(50);
  expect(world.disk.names()).toContain("segment-0000000002.log");
  expect(world.disk.peek("segment-0000000002.log")).toEqual(zeros(segmentBytes));
  world.steps = 0;
  await persistAll(world, opened, 3, [put(3, zeros(6000))]);
  expect(world.steps).toBeLessThanOrEqual(2);
});

// Torn or corrupt.

/** A log with acknowledged entries 1-5, whose last write holds 6-9; the bytes before and after that write. */
async function lastWrite(): Promise<{ world: DiskWorld; file: string; before: Uint8Array; after: Uint8Array }> {
  const world = makeWorld();
  const opened = await open(world);
  const file = "segment-0000000001.log";
  for (let index = 1; index <= 5; index++) await persistAll(world, opened, index, [put(index)]);
  const before = world.disk.peek(file) as Uint8Array;
  await persistAll(world, opened, 6, [put(6)], [put(7, "x".repeat(700))], [put(8)], [put(9, "y".repeat(300))]);
  const after = world.disk.peek(file) as Uint8Array;
  return { world, file, before, after };
}

async function recoverFrom(world: DiskWorld, file: string, bytes: Uint8Array): Promise<number> {
  world.disk.poke(file, bytes);
  world.kill();
  const opened = await open(world);
  const { entries } = opened.recovered;
  expect(entries.slice(0, 5)).toEqual([1, 2, 3, 4, 5].map((index) => entry(index)));
  expect(entries.map((item) => item.index)).toEqual(entries.map((_, at) => at + 1));
  // What comes after the repair is recovered, and nothing else.
  const next = entries.length + 1;
  await persistAll(world, opened, 1, [put(next, "new", 2)]);
  world.crash();
  const again = await open(world);
  expect(again.recovered.entries).toEqual([...entries, entry(next, "new", 2)]);
  return entries.length;
}

test("the last write cut off at every byte: the file ends there, or zeros follow", async () => {
  const { world, file, before, after } = await lastWrite();
  const lengths = new Set<number>();
  for (let end = used(before); end <= used(after); end++) {
    lengths.add(await recoverFrom(world, file, after.slice(0, end)));
    const zeroed = after.slice();
    zeroed.fill(0, end);
    lengths.add(await recoverFrom(world, file, zeroed));
  }
  expect([...lengths].sort()).toEqual([5, 6, 7, 8, 9]);
});

test("any set of sectors of the last write may be missing: what is recovered is a prefix", async () => {
  const { world, file, before, after } = await lastWrite();
  const lengths = new Set<number>();
  const first = Math.floor(used(before) / 64);
  const last = Math.ceil(used(after) / 64);
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.nat(9).map((dice) => dice > 0),
        { minLength: last - first, maxLength: last - first },
      ),
      async (written) => {
        const bytes = before.slice();
        for (const [at, present] of written.entries()) {
          const from = (first + at) * 64;
          if (present) bytes.set(after.subarray(from, from + 64), from);
        }
        lengths.add(await recoverFrom(world, file, bytes));
      },
    ),
    { numRuns: 300 },
  );
  expect(lengths.size).toBeGreaterThan(2);
});

test("a hole in the last write with valid records behind it is torn, and the left-over never comes back", async () => {
  const { world, file, before, after } = await lastWrite();
  const bytes = after.slice();
  bytes.fill(0, used(before), used(before) + 50);
  expect(await recoverFrom(world, file, bytes)).toBe(5);
});

test("a left-over record that lines up behind a new one of the same size is not its successor", async () => {
  const world = makeWorld();
  const opened = await open(world);
  const file = "segment-0000000001.log";
  await persistAll(world, opened, 1, [put(1)]);
  const start = Math.ceil(used(world.disk.peek(file) as Uint8Array) / 8) * 8;
  // An empty record, as the one that every start writes, then entry 2, in one write; the empty one is lost.
  await persistAll(world, opened, 2, [], [put(2)]);
  const bytes = world.disk.peek(file) as Uint8Array;
  bytes.fill(0xff, start, start + 8);
  world.disk.poke(file, bytes);
  world.kill();
  expect((await open(world)).recovered.entries).toEqual([entry(1)]);
  world.crash();
  expect((await open(world)).recovered.entries).toEqual([entry(1)]);
});

test("a record that stands where another should is not replayed, however valid", async () => {
  const world = makeWorld();
  const opened = await open(world);
  const file = "segment-0000000001.log";
  const end = (): number => Math.ceil(used(world.disk.peek(file) as Uint8Array) / 8) * 8;
  await persistAll(world, opened, 1, [put(1)]);
  const start = end();
  await persistAll(world, opened, 2, [
    { kind: "truncate", from: 1 },
    { kind: "meta", values: { a: "z" } },
  ]);
  const stale = (world.disk.peek(file) as Uint8Array).slice(start, end());
  await persistAll(world, opened, 3, [put(1), put(2), { kind: "meta", values: { a: "b" } }]);
  const bytes = world.disk.peek(file) as Uint8Array;
  bytes.set(stale, end());
  world.disk.poke(file, bytes);
  world.kill();
  const { recovered } = await open(world);
  expect(recovered.entries).toEqual([entry(1), entry(2)]);
  expect(recovered.meta.get("a")).toBe("b");
});

test("a damaged record that a later one vouches for stops the member, with file and offset", async () => {
  const { world, file, before } = await lastWrite();
  const reference = world.disk.peek(file) as Uint8Array;
  let refused = 0;
  for (let offset = 0; offset < used(before); offset++) {
    const bytes = reference.slice();
    bytes[offset] = (bytes[offset] as number) ^ 0x10;
    world.disk.poke(file, bytes);
    world.kill();
    const error = await failure(open(world));
    if (error === undefined) {
      // Padding between records is nobody's.
      expect(bytes[offset]).toBe(0x10);
      continue;
    }
    expect(hasCode(error, "LOG_CORRUPT"), String(error)).toBe(true);
    expect(String(error)).toMatch(/"segment-0000000001\.log" at offset \d+: .*Restore this member from the others/s);
    refused++;
  }
  expect(refused).toBeGreaterThan(used(before) * 0.9);
});

test("damage in an older segment, at the start of a later one, or a missing segment is corruption", async () => {
  const world = makeWorld();
  const opened = await open(world);
  for (let index = 1; index <= 30; index++) await persistAll(world, opened, index, [put(index, ones(1500))]);
  const files = ["segment-0000000001.log", "segment-0000000002.log", "segment-0000000003.log"];
  const original = files.map((file) => world.disk.peek(file) as Uint8Array);
  const damaged = (at: number, offset: number): void => {
    for (const [index, file] of files.entries()) world.disk.poke(file, original[index] as Uint8Array);
    world.disk.bitFlip(files[at] as string, offset);
    world.kill();
  };
  damaged(0, 3200);
  expect(String(await failure(open(world)))).toContain('"segment-0000000001.log" at offset 3');
  damaged(0, 10);
  expect(String(await failure(open(world)))).toContain('"segment-0000000001.log" at offset 0');
  damaged(1, 10);
  expect(String(await failure(open(world)))).toContain('"segment-0000000002.log" at offset 0');
  damaged(1, 5000);
  expect(String(await failure(open(world)))).toMatch(/"segment-0000000002.log" at offset \d{4}:/);
  damaged(1, used(original[1] as Uint8Array) + 100);
  expect(await failure(open(world))).toBeUndefined();
  for (const missing of files.slice(0, 2)) {
    damaged(1, used(original[1] as Uint8Array) + 100);
    await world.finish(world.disk.remove(missing));
    const error = await failure(open(world));
    expect(hasCode(error, "LOG_CORRUPT"), String(error)).toBe(true);
  }
});

test("after close the last record has a witness too", async () => {
  const { world, file, before, after } = await lastWrite();
  world.kill();
  const opened = await open(world);
  await world.finish(opened.log.close());
  expect(used(before)).toBeLessThan(used(after));
  world.disk.bitFlip(file, used(after) - 20);
  world.kill();
  expect(hasCode(await failure(open(world)), "LOG_CORRUPT")).toBe(true);
});

test("records of another directory's life are nobody's", async () => {
  const first = makeWorld(1);
  await persistAll(first, await open(first), 1, [put(1)]);
  const second = makeWorld(2);
  await persistAll(second, await open(second), 1, [put(1)]);
  second.disk.poke("segment-0000000001.log", first.disk.peek("segment-0000000001.log") as Uint8Array);
  second.kill();
  expect(hasCode(await failure(open(second)), "LOG_CORRUPT")).toBe(true);
});

test("what was recovered without ever having been synced is durable from then on", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = makeWorld(seed);
    const opened = await open(world);
    opened.log.persist(1, [put(1, zeros(2000))]);
    await settle();
    world.kill();
    const { recovered } = await open(world);
    expect(recovered.entries).toHaveLength(1);
    world.crash();
    expect((await open(world)).recovered.entries).toHaveLength(1);
  }
});

// Identity.

test("another member's directory is refused by name", async () => {
  const world = makeWorld();
  await open(world);
  world.kill();
  const error = await failure(open(world, { member: "b" }));
  expect(hasCode(error, "DIRECTORY_FOREIGN")).toBe(true);
  expect(String(error)).toMatch(/member "a" of cluster "test" .* as member "b" of cluster "test"/);
  expect(hasCode(await failure(open(world, { cluster: "other" })), "DIRECTORY_FOREIGN")).toBe(true);
  expect(hasCode(await failure(open(world, { group: 4 })), "DIRECTORY_FOREIGN")).toBe(true);
});

test("a directory keeps its protocol: another is refused by name, and none stands for raft", async () => {
  const world = makeWorld();
  await open(world);
  world.kill();
  // Byte for byte what it was before there was a choice.
  const plain = world.disk.peek("identity") as Uint8Array;
  expect(plain[8]).toBe(1);
  await open(world, { protocol: "raft" });
  world.kill();
  const error = await failure(open(world, { protocol: "paxos" }));
  expect(hasCode(error, "DIRECTORY_OTHER_PROTOCOL")).toBe(true);
  expect(String(error)).toMatch(/written by raft .* with paxos/);

  const other = makeWorld();
  await open(other, { protocol: "paxos", slots: "sparse" });
  other.kill();
  // A version that knows only raft must refuse it as newer than itself.
  expect((other.disk.peek("identity") as Uint8Array)[8]).toBe(2);
  expect(hasCode(await failure(open(other)), "DIRECTORY_OTHER_PROTOCOL")).toBe(true);
  await open(other, { protocol: "paxos", slots: "sparse" });
});

test("a newer format is refused, a damaged or missing identity is corruption", async () => {
  const world = makeWorld();
  await open(world);
  world.kill();
  const identity = world.disk.peek("identity") as Uint8Array;
  const newer = identity.slice();
  newer[8] = 9;
  new DataView(newer.buffer).setUint32(newer.length - 4, crc32(newer.subarray(0, -4)), true);
  world.disk.poke("identity", newer);
  expect(hasCode(await failure(open(world)), "DIRECTORY_NEWER")).toBe(true);
  for (let offset = 0; offset < identity.length; offset++) {
    world.disk.poke("identity", identity);
    world.disk.bitFlip("identity", offset, 2);
    expect(hasCode(await failure(open(world)), "LOG_CORRUPT")).toBe(true);
  }
  await world.finish(world.disk.remove("identity"));
  expect(hasCode(await failure(open(world)), "LOG_CORRUPT")).toBe(true);
});

test("a crash at any step of formatting leaves a directory that can be opened", async () => {
  for (let seed = 1; seed <= 10; seed++) {
    for (let steps = 0; steps < 16; steps++) {
      const world = makeWorld(seed);
      void startOpen(world);
      await world.advance(steps);
      world.crash();
      expect((await open(world)).recovered.entries).toEqual([]);
    }
  }
});

test("a formatted directory that lost its segments is not a new one", async () => {
  const world = makeWorld();
  await open(world);
  world.kill();
  await world.finish(world.disk.remove("segment-0000000001.log"));
  expect(hasCode(await failure(open(world)), "LOG_CORRUPT")).toBe(true);
});

// Failures.

test("the first failed write is the last, and is told once", async () => {
  const world = makeWorld();
  const opened = await open(world);
  world.disk.failNextWrites();
  opened.log.persist(1, [put(1)]);
  await settle();
  opened.log.persist(2, [put(2)]);
  await world.advance(20);
  opened.log.persist(3, [put(3)]);
  expect(await world.advance(20)).toBe(false);
  expect(opened.failures).toHaveLength(1);
  expect(hasCode(opened.failures[0], "DISK_FAILED")).toBe(true);
  expect(String(opened.failures[0])).toContain('Writing "segment-0000000001.log" at offset');
  expect(opened.durable).toEqual([]);
  expect(hasCode(await failure(opened.log.saveSnapshot(snapshotAt(1))), "DISK_FAILED")).toBe(true);
  await world.finish(opened.log.close());
});

test("a full disk goes on until the segment is used up, then says DISK_FULL", async () => {
  const world = makeWorld();
  const opened = await open(world);
  world.disk.setFull(true);
  for (let index = 1; index <= 20; index++) {
    opened.log.persist(index, [put(index, zeros(1500))]);
    await world.advance(5);
  }
  expect(hasCode(opened.failures[0], "DISK_FULL")).toBe(true);
  expect(opened.failures).toHaveLength(1);
  expect(opened.durable.length).toBeGreaterThan(5);
  world.disk.setFull(false);
  world.crash();
  expect((await open(world)).recovered.entries.length).toBe(opened.durable.at(-1));
});

// Snapshots.

const configuration = { voters: ["a", "b"], outgoing: ["c"], learners: ["d"] };
const chunks = [new Uint8Array(3000).fill(1), new Uint8Array(1).fill(2), new Uint8Array(700).fill(3)];
const snapshotAt = (index: number, term = 1) => ({ index, term, configuration, stampMs: 2.5, chunks });

async function readAll(log: Log): Promise<Uint8Array[]> {
  const found: Uint8Array[] = [];
  for await (const chunk of log.loadSnapshot()?.chunks ?? []) found.push(chunk);
  return found;
}

test("a snapshot takes the place of what it covers: entries, older snapshots, segments", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [{ kind: "meta", values: { vote: "b" } }]);
  for (let index = 1; index <= 40; index++) await persistAll(world, opened, index + 1, [put(index, zeros(1500))]);
  const grown = opened.log.bytesSinceSnapshot;
  expect(grown).toBeGreaterThan(40 * 1500);
  await world.finish(opened.log.saveSnapshot(snapshotAt(5)));
  await world.finish(opened.log.saveSnapshot(snapshotAt(35)));
  expect(opened.log.bytesSinceSnapshot).toBe(0);
  expect(world.disk.names().filter((name) => name.endsWith(".snap"))).toEqual(["snapshot-0000000000000035.snap"]);
  expect(world.disk.names()).not.toContain("segment-0000000001.log");
  world.crash();
  const again = await open(world);
  expect(again.recovered.snapshot).toMatchObject({ index: 35, term: 1, configuration, stampMs: 2.5 });
  expect(again.recovered.snapshot?.lengthBytes).toBeGreaterThan(3701);
  expect(again.recovered.entries.map((item) => item.index)).toEqual([36, 37, 38, 39, 40]);
  expect(again.recovered.meta.get("vote")).toBe("b");
  expect(again.log.bytesSinceSnapshot).toBeLessThan(grown / 4);
  expect(await world.finish(readAll(again.log))).toEqual(chunks);
});

test("saving crashes at every step: the old state or the new one, whole", async () => {
  let done = false;
  const seen = new Set<number>();
  for (let steps = 0; !done; steps++) {
    for (let seed = 1; seed <= 4; seed++) {
      const world = makeWorld(seed);
      const opened = await open(world);
      for (let index = 1; index <= 30; index++) await persistAll(world, opened, index, [put(index, zeros(1500))]);
      await world.finish(opened.log.saveSnapshot(snapshotAt(4)));
      let saved = false;
      void opened.log.saveSnapshot(snapshotAt(28)).then(() => {
        saved = true;
      });
      await world.advance(steps);
      world.crash();
      const { recovered, log } = await open(world);
      const index = recovered.snapshot?.index ?? 0;
      seen.add(index);
      if (saved) expect(index).toBe(28);
      expect([4, 28]).toContain(index);
      expect(recovered.entries.map((item) => item.index)).toEqual(Array.from({ length: 30 - index }, (_, at) => index + 1 + at));
      expect(await world.finish(readAll(log))).toEqual(chunks);
      expect(world.disk.names().filter((name) => /\.(tmp|snap)$/.test(name))).toHaveLength(1);
      done = saved;
    }
  }
  expect([...seen].sort((left, right) => left - right)).toEqual([4, 28]);
});

test("a snapshot of one's own that overtakes the truncation below it leaves no entry of the dropped log behind it", {
  timeout: 60_000,
}, async () => {
  const seen = new Set<string>();
  let done = false;
  for (let steps = 0; !done; steps += 3) {
    for (let index = 8; index <= 11; index++) {
      const world = makeWorld(index);
      const opened = await open(world);
      // Another leader's entries from 4 on fill several segments; a follower hands out what is committed before its disk has it.
      for (let at = 1; at <= 60; at++) opened.log.persist(at, [put(at, zeros(1500))]);
      const replaced = [4, 5, 6, 7, 8, 9, 10, 11, 12].map((at) => put(at, "replaced", 2));
      opened.log.persist(61, [{ kind: "truncate", from: 4 }, ...replaced]);
      let saved = false;
      void opened.log.saveSnapshot(snapshotAt(index, 2)).then(() => {
        saved = true;
      });
      await world.advance(steps);
      world.crash();
      const { recovered } = await open(world);
      const overruled = recovered.entries.filter((item) => item.index > index && item.term === 1);
      if (recovered.snapshot !== undefined) {
        expect(overruled).toEqual([]);
        seen.add(recovered.entries.length > 0 ? "replaced" : "overtaken");
      }
      done = saved && opened.durable.at(-1) === 61;
    }
  }
  expect([...seen].sort()).toEqual(["overtaken", "replaced"]);
});

/** The bytes of a snapshot file, made by another member. */
async function snapshotBytes(index: number, term = 1): Promise<Uint8Array> {
  const world = makeWorld(99);
  const { log } = await open(world, { member: "leader" });
  await world.finish(log.saveSnapshot(snapshotAt(index, term)));
  const parts: number[] = [];
  for (;;) {
    const part = await world.finish(log.readSnapshot(parts.length, 1000));
    parts.push(...(part?.bytes ?? []));
    expect(part?.index).toBe(index);
    if (part?.done) return Uint8Array.from(parts);
  }
}

async function send(log: Log, bytes: Uint8Array, index: number, term = 1, pieceBytes = 900): Promise<string> {
  let last = "";
  for (let offset = 0; offset < bytes.length; offset += pieceBytes) {
    const done = offset + pieceBytes >= bytes.length;
    const piece = bytes.subarray(offset, offset + pieceBytes);
    last = (await log.receiveSnapshot({ index, term, configuration, offset, bytes: piece, done })).kind;
  }
  return last;
}

test("a received snapshot is checked, installed, and the log goes on behind it", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [put(1)], [put(2)]);
  const bytes = await snapshotBytes(100, 5);
  expect(await world.finish(send(opened.log, bytes, 100, 5))).toBe("installed");
  await persistAll(world, opened, 3, [put(101, "next", 5)]);
  world.crash();
  const { recovered, log } = await open(world);
  expect(recovered.snapshot).toMatchObject({ index: 100, term: 5, configuration, lengthBytes: bytes.length });
  expect(recovered.entries).toEqual([entry(101, "next", 5)]);
  expect(await world.finish(readAll(log))).toEqual(chunks);
});

test("a damaged, cut or foreign snapshot is refused and leaves nothing behind", async () => {
  const world = makeWorld();
  const opened = await open(world);
  const bytes = await snapshotBytes(100);
  for (let offset = 0; offset < bytes.length; offset += 97) {
    const damaged = bytes.slice();
    damaged[offset] = (damaged[offset] as number) ^ 4;
    expect(await world.finish(send(opened.log, damaged, 100, 1, 4000))).toBe("refused");
  }
  expect(await world.finish(send(opened.log, bytes.subarray(0, bytes.length - 1), 100))).toBe("refused");
  expect(await world.finish(send(opened.log, bytes, 99))).toBe("refused");
  const skipped = opened.log.receiveSnapshot({ index: 100, term: 1, configuration, offset: 7, bytes, done: true });
  expect((await world.finish(skipped)).kind).toBe("refused");
  expect(opened.log.snapshot).toBeUndefined();
  expect(world.disk.names().filter((name) => /\.(tmp|snap)$/.test(name))).toEqual([]);
  expect(await world.finish(send(opened.log, bytes, 100))).toBe("installed");
  expect(await world.finish(send(opened.log, bytes, 100))).toBe("installed");
});

test("receiving crashes at every step: old or new, and conflicting entries never stand behind the new one (Raft §7)", async () => {
  const bytes = await snapshotBytes(20, 5);
  const seen = new Set<string>();
  for (const kind of ["conflict", "match"]) {
    let done = false;
    for (let steps = 0; !done; steps++) {
      for (let seed = 1; seed <= 4; seed++) {
        const world = makeWorld(seed);
        const opened = await open(world);
        // The log's entry 20 has term 3 (another leader's) or 5 (the snapshot's); 21 on look newer than the snapshot.
        for (let index = 1; index <= 30; index++) {
          const term = index < 20 ? 1 : index === 20 ? (kind === "match" ? 5 : 3) : 6;
          await persistAll(world, opened, index, [put(index, zeros(1500), term)]);
        }
        let installed = false;
        void send(opened.log, bytes, 20, 5).then(() => {
          installed = true;
        });
        await world.advance(steps);
        if (installed && kind === "conflict") await persistAll(world, opened, 31, [put(21, "after", 5)]);
        world.crash();
        const { recovered } = await open(world);
        const indexes = recovered.entries.map((item) => item.index);
        if (installed) expect(recovered.snapshot?.index).toBe(20);
        if (recovered.snapshot === undefined) expect(indexes).toHaveLength(30);
        else if (kind === "match") expect(indexes).toEqual([21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
        else expect(recovered.entries).toEqual(installed ? [entry(21, "after", 5)] : []);
        seen.add(`${kind} ${recovered.snapshot?.index} ${installed}`);
        done = installed;
      }
    }
  }
  expect(seen).toContain("conflict 20 false");
  expect(seen).toContain("match 20 false");
});

test("a snapshot that a killed process had just renamed is durable before anything is built on it", async () => {
  const bytes = await snapshotBytes(20);
  const seen = new Set<boolean>();
  for (let steps = 0; steps < 24; steps++) {
    for (let seed = 1; seed <= 6; seed++) {
      const world = makeWorld(seed);
      const opened = await open(world);
      void send(opened.log, bytes, 20, 1, 4000);
      await world.advance(steps);
      world.kill();
      const { recovered } = await open(world);
      world.crash();
      const again = await open(world);
      if (recovered.snapshot !== undefined) expect(again.recovered.snapshot).toEqual(recovered.snapshot);
      seen.add(recovered.snapshot !== undefined);
    }
  }
  expect(seen.size).toBe(2);
});

test("a damaged snapshot is noticed: the header at the start, a chunk when it is read", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [put(1)]);
  await world.finish(opened.log.saveSnapshot(snapshotAt(1)));
  const name = "snapshot-0000000000000001.snap";
  const bytes = world.disk.peek(name) as Uint8Array;
  world.disk.bitFlip(name, 2000);
  world.kill();
  const again = await open(world);
  const error = await failure(world.finish(readAll(again.log)));
  expect(hasCode(error, "SNAPSHOT_CORRUPT")).toBe(true);
  expect(String(error)).toContain(`"${name}" is damaged at offset`);
  world.disk.poke(name, bytes);
  world.disk.bitFlip(name, 20);
  world.kill();
  expect(hasCode(await failure(open(world)), "SNAPSHOT_CORRUPT")).toBe(true);
  world.disk.poke(name, bytes.subarray(0, bytes.length - 9));
  world.kill();
  expect(hasCode(await failure(open(world)), "SNAPSHOT_CORRUPT")).toBe(true);
});

test("a lost snapshot leaves a gap, and a gap is corruption", async () => {
  const world = makeWorld();
  const opened = await open(world);
  for (let index = 1; index <= 40; index++) await persistAll(world, opened, index, [put(index, zeros(1500))]);
  await world.finish(opened.log.saveSnapshot(snapshotAt(35)));
  await world.finish(world.disk.remove("snapshot-0000000000000035.snap"));
  world.kill();
  const error = await failure(open(world));
  expect(hasCode(error, "LOG_CORRUPT"), String(error)).toBe(true);
  expect(String(error)).toContain("are missing behind the snapshot at 0");
});

test("close waits for what is under way and leaves the directory alone afterwards", async () => {
  const bytes = await snapshotBytes(60);
  for (let steps = 0; steps < 30; steps++) {
    const world = makeWorld(steps);
    const opened = await open(world);
    await persistAll(world, opened, 1, [put(1), put(2)]);
    const work = [opened.log.saveSnapshot(snapshotAt(1)), send(opened.log, bytes, 60, 1, 4000)].map((promise) =>
      failure(promise),
    );
    opened.log.persist(2, [put(3)]);
    await world.advance(steps);
    await world.finish(opened.log.close());
    expect(await world.advance(1)).toBe(false);
    for (const error of await Promise.all(work)) if (error !== undefined) expect(hasCode(error, "CLOSED")).toBe(true);
    expect(opened.durable.at(-1)).toBe(2);
    opened.log.persist(3, [put(4)]);
    expect(hasCode(await failure(opened.log.saveSnapshot(snapshotAt(2))), "CLOSED")).toBe(true);
    expect(await world.advance(1)).toBe(false);
    world.crash();
    await open(world);
  }
});

test("a snapshot that does not fit on the disk is given up, and the log goes on", async () => {
  const world = makeWorld();
  const opened = await open(world);
  await persistAll(world, opened, 1, [put(1)]);
  world.disk.setFull(true);
  const error = await failure(world.finish(opened.log.saveSnapshot(snapshotAt(1))));
  expect(hasCode(error, "DISK_FULL")).toBe(true);
  await persistAll(world, opened, 2, [put(2)]);
  expect(opened.failures).toEqual([]);
});
