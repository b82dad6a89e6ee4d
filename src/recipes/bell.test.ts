import { expect, test } from "vitest";
import { conclaveError } from "../base/errors.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { Bell } from "./bell.ts";
import { insist } from "./insist.ts";

const never = new AbortController().signal;

test("a bell wakes its waiter once, and a ring before the wait is heard", async () => {
  const platform = new VirtualPlatform();
  const bell = new Bell<string>();
  bell.ring("early");
  bell.ring("dropped");
  expect(await bell.wait({ platform, timeoutMs: 10, signal: never })).toBe("early");
  const waiting = bell.wait({ platform, timeoutMs: 10, signal: never });
  bell.ring("now");
  expect(await waiting).toBe("now");
  expect(platform.pending.timers).toBe(0);
});

test("a bell that nobody rings wakes by time, or by the signal with its reason, and leaves no timer", async () => {
  const platform = new VirtualPlatform();
  const bell = new Bell<string>();
  const timed = bell.wait({ platform, timeoutMs: 10, signal: never });
  await platform.advance(10);
  expect(await timed).toBeUndefined();
  const controller = new AbortController();
  const aborted = bell.wait({ platform, timeoutMs: 10, signal: controller.signal }).catch((reason: unknown) => reason);
  controller.abort("enough");
  expect(await aborted).toBe("enough");
  expect(platform.pending.timers).toBe(0);
  await expect(bell.wait({ platform, timeoutMs: 10, signal: controller.signal })).rejects.toBe("enough");
});

test("insist asks again while the answer is retryable, and stops at any other", async () => {
  const platform = new VirtualPlatform();
  let asked = 0;
  const trying = insist(
    () => {
      asked++;
      return Promise.reject(conclaveError(asked < 4 ? "NO_QUORUM" : "CLOSED", "As ordered."));
    },
    { platform, signal: never },
  ).catch((error: unknown) => error);
  await platform.advance(10_000);
  expect(await trying).toMatchObject({ code: "CLOSED" });
  expect(asked).toBe(4);
});
