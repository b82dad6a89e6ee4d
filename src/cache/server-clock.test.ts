import fc from "fast-check";
import { expect, test } from "vitest";
import { ServerClock } from "./server-clock.ts";

test("a clock of whole seconds is learnt to a fraction of one, and anew when it was set", () => {
  const asks = fc.array(fc.tuple(fc.nat(400), fc.nat(20)), { maxLength: 12 });
  fc.assert(
    fc.property(fc.integer({ min: -1e9, max: 1e9 }), asks, (aheadMs, some) => {
      const clock = new ServerClock();
      let nowMs = 5e9;
      const ask = (ahead: number, [pauseMs, tookMs]: readonly [number, number]): void => {
        const sentMs = nowMs + pauseMs;
        nowMs = sentMs + tookMs;
        const readMs = Math.floor((sentMs + tookMs / 2 + ahead) / 1_000) * 1_000;
        clock.learn({ readMs, stepMs: 1_000, sentMs, nowMs });
      };
      for (const each of some) {
        ask(aheadMs, each);
        // Whatever it has heard, the truth lies in what it leaves open.
        expect(Math.abs((clock.aheadMs as number) - aheadMs)).toBeLessThanOrEqual(clock.widthMs(nowMs) / 2 + 1);
        expect(clock.widthMs(nowMs)).toBeLessThanOrEqual(1_021);
      }
      for (let time = 0; time < 12; time++) ask(aheadMs, [170, 2]);
      expect(clock.widthMs(nowMs)).toBeLessThan(300);
      for (let time = 0; time < 12; time++) ask(aheadMs + 600_500, [170, 2]);
      expect(Math.abs((clock.aheadMs as number) - aheadMs - 600_500)).toBeLessThan(200);
    }),
  );
});

test("an exact clock is known at least as well as by its quickest answer, wherever on the way the time went", () => {
  const asks = fc.array(fc.record({ pauseMs: fc.nat(1_000), thereMs: fc.nat(500), backMs: fc.nat(500) }), { minLength: 1 });
  fc.assert(
    fc.property(fc.integer({ min: -1e9, max: 1e9 }), asks, (aheadMs, some) => {
      const clock = new ServerClock();
      let nowMs = 5e9;
      let bestMs = Number.POSITIVE_INFINITY;
      for (const { pauseMs, thereMs, backMs } of some) {
        const sentMs = nowMs + pauseMs;
        nowMs = sentMs + thereMs + backMs;
        clock.learn({ readMs: sentMs + thereMs + aheadMs, stepMs: 0.001, sentMs, nowMs });
        bestMs = Math.min(bestMs + 2 * 1e-4 * (nowMs - sentMs + pauseMs), thereMs + backMs);
        expect(Math.abs((clock.aheadMs as number) - aheadMs)).toBeLessThanOrEqual(clock.widthMs(nowMs) / 2 + 0.01);
        expect(clock.widthMs(nowMs)).toBeLessThanOrEqual(bestMs + 0.01);
      }
    }),
  );
});
