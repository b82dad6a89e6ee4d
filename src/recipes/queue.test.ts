import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { badWeather } from "../testing/weather.ts";
import { createQueue } from "./queue.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  return { platform, engine };
}

describe("a queue", () => {
  test("gives items in order, each to one consumer, and forgets what is finished", async () => {
    const { engine } = world();
    const queue = createQueue(engine, "q");
    for (const payload of ["a", "b", "c"]) await queue.push(payload);
    const first = await queue.tryTake();
    const second = await createQueue(engine.twin(), "q").tryTake();
    expect([first?.payload, second?.payload]).toEqual(["a", "b"]);
    expect(second?.token).toBeGreaterThan(first?.token ?? 0);
    await first?.finish();
    expect(await queue.size()).toBe(2);
    await second?.giveBack();
    const again = await queue.tryTake();
    expect([again?.payload, again?.tries]).toEqual(["b", 2]);
    await again?.finish();
    await (await queue.tryTake())?.finish();
    expect(await queue.tryTake()).toBeNull();
    const { results } = await engine.store("queue/q").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(results[0]).toMatchObject({ count: 0 });
  });

  test("a waiting consumer is woken by an item", async () => {
    const { engine, platform } = world();
    const taking = createQueue(engine.twin(), "q").take();
    await platform.advance(100);
    await createQueue(engine, "q").push(1);
    await platform.advance(10);
    expect((await taking).payload).toBe(1);
  });

  test("an item comes back from a consumer that died, and from one that takes too long", async () => {
    const { engine, platform } = world();
    const queue = createQueue(engine, "q", { ttlMs: 2_000, visibilityMs: 5_000 });
    await queue.push("x");
    const dying = engine.twin();
    expect(await createQueue(dying, "q", { ttlMs: 2_000 }).tryTake()).not.toBeNull();
    dying.cutOff();
    expect(await queue.tryTake()).toBeNull();
    await platform.advance(2_500);
    const slow = await queue.tryTake();
    const signal = slow?.signal;
    await platform.advance(5_000);
    expect(signal?.aborted).toBe(true);
    const third = await queue.tryTake();
    expect(third?.tries).toBe(3);
    await expect(slow?.finish()).rejects.toMatchObject({ code: "LOCK_LOST" });
    await third?.finish();
  });

  test("an item that somebody else has finished is not finished by who lost it meanwhile", async () => {
    const { engine } = world();
    const queue = createQueue(engine, "q");
    await queue.push("x");
    const late = await queue.tryTake();
    // As when its session ends while the call is on its way: the tag is gone, and the consumer does not know yet.
    await engine.store("queue/q").txn({ then: [{ kind: "delete", range: { prefix: "taken/" } }] });
    await (await createQueue(engine.twin(), "q").tryTake())?.finish();
    expect(late?.held).toBe(true);
    await expect(late?.finish()).rejects.toMatchObject({ code: "LOCK_LOST" });
  });

  test("is bounded, and puts aside what fails too often", async () => {
    const { engine } = world();
    const queue = createQueue(engine, "q", { sizeMax: 2, triesMax: 2 });
    await queue.push("poison");
    await queue.push("good");
    await expect(queue.push("too much")).rejects.toMatchObject({ code: "QUEUE_FULL" });
    for (let tries = 0; tries < 2; tries++) await (await queue.tryTake())?.giveBack();
    const next = await queue.tryTake();
    expect(next?.payload).toBe("good");
    expect(await queue.dead()).toMatchObject([{ payload: "poison" }]);
  });

  test("consumes until it is told to stop, and hears of failures", async () => {
    const { engine, platform } = world();
    const queue = createQueue(engine, "q");
    const controller = new AbortController();
    const done: unknown[] = [];
    const failures: unknown[] = [];
    const consuming = queue.consume(
      (delivery) => {
        if (delivery.payload === "b" && delivery.tries === 1) throw new Error("no");
        done.push(delivery.payload);
      },
      { signal: controller.signal, concurrency: 2, onFailure: (error) => failures.push(String(error)) },
    );
    for (const payload of ["a", "b", "c"]) await queue.push(payload);
    await platform.advance(200);
    controller.abort();
    await consuming;
    expect([...done].sort()).toEqual(["a", "b", "c"]);
    expect(failures).toEqual(["Error: no"]);
  });
});

const seeds = Array.from({ length: Number(process.env.CONCLAVE_SEEDS ?? 40) }, (_, index) => index + 1);

test.each(["log", "level"] as const)(
  "no item is in two hands at once, and each is finished, in any weather (watch: %s)",
  { timeout: 60_000 },
  async (watch) => {
    for (const seed of seeds) {
      const platform = new VirtualPlatform({ seed });
      const weather = badWeather(seed * 11 + 3, watch);
      const { dice } = weather;
      const root = new LocalEngine({ platform, watch });
      const options = { ttlMs: 3_000, triesMax: 1_000 };
      const finished = new Map<unknown, number>();
      const inHand = new Map<string, { readonly held: boolean }>();
      const controller = new AbortController();
      let failure: unknown;
      const consumer = async (client: LocalEngine): Promise<void> => {
        const queue = createQueue(client, "q", options);
        while (!controller.signal.aborted) {
          try {
            const delivery = await queue.take({ signal: controller.signal, waitMs: 1_000 });
            if (delivery.held) {
              expect(inHand.get(delivery.id)?.held ?? false, "two hands").toBe(false);
              inHand.set(delivery.id, delivery);
            }
            await new Promise((resolve) => void platform.setTimer(dice.below(50), () => resolve(undefined)));
            if (weather.isBad && dice.chance(20)) await delivery.giveBack();
            else {
              await delivery.finish({ timeoutMs: 500 });
              finished.set(delivery.payload, (finished.get(delivery.payload) ?? 0) + 1);
            }
          } catch (error) {
            if (error instanceof Error && error.name === "AssertionError") throw error;
            await new Promise((resolve) => void platform.setTimer(20, () => resolve(undefined)));
          }
        }
      };
      const consumers = Array.from({ length: 4 }, () =>
        consumer(root.twin({ faults: weather.faults })).catch((error: unknown) => {
          failure = error;
        }),
      );
      for (let index = 0; index < 10; index++) await createQueue(root, "q", options).push(index);
      for (let step = 0; step < 40 && failure === undefined; step++) {
        await platform.advance(dice.below(200));
        if (dice.chance(5)) platform.stall(dice.below(4_000));
      }
      weather.isBad = false;
      for (let waited = 0; waited < 40_000 && failure === undefined; waited += 500) await platform.advance(500);
      controller.abort(new Error("over"));
      await platform.advance(2_000);
      await Promise.all(consumers);
      if (failure !== undefined) throw new Error(`seed ${seed}`, { cause: failure });
      expect(await createQueue(root, "q", options).size(), `seed ${seed}: nothing is left`).toBe(0);
    }
  },
);
