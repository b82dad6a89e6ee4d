import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createReadWriteLock } from "./rw-lock.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  return { platform, engine };
}

describe("a read/write lock", () => {
  test("costs one round trip each way, for readers and for a writer", async () => {
    const { engine } = world();
    const lock = createReadWriteLock(engine, "t");
    const reader = await lock.read.acquire();
    const second = await lock.read.acquire();
    expect(engine.txnCount).toBe(2);
    await Promise.all([reader.release(), second.release()]);
    const writer = await lock.write.acquire();
    expect(engine.txnCount).toBe(5);
    expect(writer.token).toBeGreaterThan(second.token);
  });

  test("serves in the order of asking: a reader behind a waiting writer waits for it", async () => {
    const { engine, platform } = world();
    const lock = createReadWriteLock(engine, "t");
    const served: string[] = [];
    const first = await lock.read.acquire();
    const take = async (name: string, mode: "read" | "write"): Promise<void> => {
      const hold = await lock[mode].acquire();
      served.push(name);
      await new Promise((resolve) => void platform.setTimer(10, () => resolve(undefined)));
      await hold.release();
    };
    const all = [take("writer 1", "write"), take("reader 2", "read"), take("reader 3", "read"), take("writer 4", "write")];
    await platform.advance(100);
    expect(served).toEqual([]);
    expect(await lock.read.tryAcquire()).toBeNull();
    await first.release();
    await platform.advance(15);
    expect(served).toEqual(["writer 1", "reader 2", "reader 3"]);
    await platform.advance(100);
    await Promise.all(all);
    expect(served.at(-1)).toBe("writer 4");
  });

  test("a writer that steps down lets the readers behind it in, and keeps the next writer out", async () => {
    const { engine, platform } = world();
    const lock = createReadWriteLock(engine, "t");
    const writer = await lock.write.acquire();
    let readerIn = false;
    let writerIn = false;
    const reader = lock.read.acquire();
    const next = lock.write.acquire();
    void reader.then(() => {
      readerIn = true;
    });
    void next.then(() => {
      writerIn = true;
    });
    await platform.settle();
    expect([readerIn, writerIn]).toEqual([false, false]);
    await lock.write.downgrade(writer);
    await lock.write.downgrade(writer);
    await platform.settle();
    expect([readerIn, writerIn, writer.held]).toEqual([true, false, true]);
    await (await reader).release();
    await platform.settle();
    expect(writerIn).toBe(false);
    await writer.release();
    expect((await next).held).toBe(true);
    expect((await lock.queue()).map(({ mode }) => mode)).toEqual(["write"]);
  });

  test("refuses to step down with a hold of something else, or one that has ended", async () => {
    const { engine } = world();
    const lock = createReadWriteLock(engine, "t");
    const reader = await lock.read.acquire();
    await reader.release();
    await expect(lock.write.downgrade(reader)).rejects.toMatchObject({ code: "NOT_HOLDER" });
    const other = await createReadWriteLock(engine, "u").write.acquire();
    await expect(lock.write.downgrade(other)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });
});
