/**
 * The two rules of the leader's watch that no cluster of our own clients can tell from their absence: such a client has
 * given its session up by its own clock before either of them is asked.
 */
import { expect, test } from "vitest";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { SessionKeeper } from "./session-keeper.ts";

const ttlMs = 2_000;

function keeping(): { readonly platform: VirtualPlatform; readonly keeper: SessionKeeper; readonly expired: number[] } {
  const platform = new VirtualPlatform();
  const expired: number[] = [];
  const keeper = new SessionKeeper(platform, (sessions) => expired.push(...sessions));
  keeper.begin([
    { session: 1, ttlMs },
    { session: 2, ttlMs },
  ]);
  return { platform, keeper, expired };
}

test("a silent session is expired when its TTL is over, and one that was confirmed is not", async () => {
  const { platform, keeper, expired } = keeping();
  await platform.advance(ttlMs / 2);
  expect(keeper.renew(2)).toBe(true);
  await platform.advance(ttlMs / 2 - 1);
  expect(expired).toEqual([]);
  await platform.advance(1);
  expect(expired).toEqual([1]);
  await platform.advance(ttlMs / 2);
  expect(expired).toEqual([1, 2]);
});

test("a leader that slept past every deadline expires nobody: what was said to it meanwhile is still unread", async () => {
  const { platform, keeper, expired } = keeping();
  platform.stall(3 * ttlMs);
  await platform.advance(0);
  expect(expired).toEqual([]);
  expect(keeper.renew(1)).toBe(true);
  // Full leases from the waking on: silence since then is the client's own.
  await platform.advance(ttlMs - 1);
  expect(expired).toEqual([]);
  await platform.advance(1);
  expect([...expired].sort()).toEqual([1, 2]);
});

test("a session whose end is under way is not confirmed, unless the end never entered the log", async () => {
  const { platform, keeper, expired } = keeping();
  await platform.advance(ttlMs);
  expect(expired).toEqual([1, 2]);
  expect(keeper.renew(1)).toBe(false);
  keeper.expiryFailed([1]);
  expect(keeper.renew(1)).toBe(true);
  expect(keeper.renew(2)).toBe(false);
});
