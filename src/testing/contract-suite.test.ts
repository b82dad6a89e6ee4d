/**
 * The contract on the in-memory twin: with every event told, with states only, and in real time.
 */
import { describe, expect, test } from "vitest";
import type { Platform } from "../base/ports.ts";
import { contractSuite } from "./contract-suite.ts";
import { LocalEngine } from "./local-engine.ts";
import { VirtualPlatform } from "./virtual-platform.ts";

for (const watch of ["log", "level"] as const) {
  contractSuite({
    describe: (name, body) => describe(`${name} (watch: ${watch})`, body),
    test,
    skip: test.skip,
    caps: new LocalEngine({ platform: new VirtualPlatform(), watch }).caps,
    isolates: true,
    open: async () => {
      const platform = new VirtualPlatform();
      const engine = new LocalEngine({ platform, watch });
      return {
        engine,
        advance: (ms) => platform.advance(ms),
        isolate: async () => {
          const twin = engine.twin();
          return { engine: twin, cutOff: () => twin.cutOff() };
        },
        dispose: () => engine.close(),
      };
    },
  });
}

/** The host's own clock: what an engine in a real process has. */
const realPlatform: Platform = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer: (delayMs, callback, options) => {
    const timer = setTimeout(callback, delayMs);
    if (options?.ref !== true) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  defer: (callback) => void setImmediate(callback),
  randomUint32: () => Math.floor(Math.random() * 2 ** 32),
};

contractSuite({
  describe: (name, body) => describe(`${name} (in real time)`, body),
  test,
  skip: test.skip,
  caps: new LocalEngine({ platform: realPlatform }).caps,
  open: async () => {
    const engine = new LocalEngine({ platform: realPlatform, faults: { latencyMs: () => Math.random() * 2 } });
    return { engine, dispose: () => engine.close() };
  },
});

test("a case that the caps do not claim is registered with the reason", () => {
  const caps = { ...new LocalEngine({ platform: realPlatform }).caps, claims: false, olderReads: false };
  const names: string[] = [];
  contractSuite({
    describe: (_, body) => body(),
    test: () => undefined,
    skip: (name) => names.push(name),
    caps,
    open: () => Promise.reject(new Error("nothing runs here")),
  });
  expect(names).toContain("an older state can be read by its revision (skipped: this engine keeps the present only)");
  expect(names).toHaveLength(7);
});
