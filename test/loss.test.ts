/**
 * A holder learns of the loss by its own clock: with real processes, a frozen server and a blocked event loop.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { type Conclave, connect } from "../src/index.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-loss-"));
let server: ChildProcess;
let conclave: Conclave;

beforeAll(async () => {
  const [port] = (await freePorts(1)) as [number];
  server = spawn(process.execPath, ["dist/cli/main.js", "serve", "--data", folder, "--listen", `127.0.0.1:${port}`], {
    stdio: "ignore",
  });
  for (const untilMs = Date.now() + 20_000; ; ) {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    if (response?.ok) break;
    if (Date.now() > untilMs) throw new Error("The member did not get ready.");
    await sleep(50);
  }
  conclave = await connect(`conclave://127.0.0.1:${port}`);
});

afterAll(async () => {
  server.kill("SIGCONT");
  await conclave.close();
  server.kill("SIGKILL");
  await new Promise((done) =>
    server.exitCode === null && server.signalCode === null ? server.once("exit", done) : done(undefined),
  );
  rmSync(folder, { recursive: true, force: true });
});

test("TTL 2 s, server frozen: the holder's signal fires in less than 2 s, and `held` is false", async () => {
  const hold = await conclave.lock("frozen", { ttlMs: 2_000 }).acquire();
  server.kill("SIGSTOP");
  const frozenMs = performance.now();
  await new Promise((done) => hold.signal.addEventListener("abort", done, { once: true }));
  const tookMs = performance.now() - frozenMs;
  console.log(`the signal fired ${tookMs.toFixed(0)} ms after the server froze`);
  expect(tookMs).toBeLessThan(2_000);
  expect(hold.held).toBe(false);
  expect(() => hold.assertHeld()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
  server.kill("SIGCONT");
});

test("event loop blocked for 3 s under a lock of 1 s: the first line afterwards sees held === false", async () => {
  const hold = await conclave.lock("blocked", { ttlMs: 1_000 }).acquire();
  expect(hold.held).toBe(true);
  for (const untilMs = performance.now() + 3_000; performance.now() < untilMs; );
  expect(hold.held).toBe(false);
});

test("a lost lock passes on to a waiter with a longer lease, with a higher token", async () => {
  const first = await conclave.lock("passes", { ttlMs: 1_000 }).acquire();
  const waiting = conclave.lock("passes", { ttlMs: 15_000 }).acquire({ waitMs: 20_000 });
  server.kill("SIGSTOP");
  await sleep(2_500);
  server.kill("SIGCONT");
  expect(first.held).toBe(false);
  const second = await waiting;
  expect(second.token).toBeGreaterThan(first.token);
  await second.release();
});

function sleep(durationMs: number): Promise<void> {
  return new Promise((done) => setTimeout(done, durationMs));
}
