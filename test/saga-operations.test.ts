/**
 * What an operator sees of sagas and of services that take part: `conclave tx`, and the figures as Prometheus reads them.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect } from "../src/index.ts";
import { http } from "../src/transactions/http.ts";
import { transactions } from "../src/transactions/manager.ts";
import { transactionMetrics } from "../src/transactions/metrics.ts";
import { saga } from "../src/transactions/saga.ts";
import { sagas } from "../src/transactions/saga-manager.ts";
import { storeBarrier } from "../src/transactions/store-barrier.ts";
import { tccHandler } from "../src/transactions/tcc-handler.ts";
import { tccService } from "../src/transactions/tcc-service.ts";
import { build, conclave as cli, killAll, ServedCluster, until } from "./cli-kit.ts";

let cluster: ServedCluster;
let folder = "";

beforeAll(async () => {
  build();
  folder = mkdtempSync(join(tmpdir(), "conclave-saga-"));
  cluster = await ServedCluster.start(folder, { count: 1 });
}, 60_000);
afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

test("a saga and a transaction over a service that do not get on are listed, shown and counted", {
  timeout: 120_000,
}, async () => {
  const conclave = await connect(cluster.url);
  const handler = tccHandler(
    tccService({ barrier: storeBarrier(conclave.engine, { name: "pay" }), actions: { take: { try: () => 1 } } }),
  );
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tx`;
  let letGo: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const tm = await transactions({
    store: conclave.engine,
    resources: { pay: http({ url }) },
    ttlMs: 2_000,
    checkpoint: (step) => (step === "all-prepared" || step === "one-phase" ? held : undefined),
  });
  const slow = saga<{ order: number }>("slow@3").step("wait", { do: () => held.then(() => 1), timeoutMs: 60_000 });
  const runner = sagas({ transactions: tm, store: conclave.engine, definitions: [slow] });
  try {
    const started = await runner.start(slow, { order: 7 }, { key: "order-7" });
    const running = tm.run({ timeoutMs: 60_000 }, async (tx) => {
      await tx.on("pay").try("take");
      return tx.gid;
    });
    const flags = ["--store", cluster.url, "--resource", `pay=${url}`];
    const list = async () => JSON.parse((await cli(["tx", "ls", "--json", ...flags])).stdout);
    await until(async () => (await list()).transactions.length === 1, "the transaction to be listed");
    const { transactions: rows, sagas: listed } = await list();
    expect(rows).toMatchObject([{ state: "deciding", branches: [{ resource: "pay", branch: 1 }] }]);
    expect(listed).toMatchObject([
      { gid: started.gid, name: "slow@3", turn: "none", key: "order-7", owner: { pid: process.pid } },
    ]);
    const alone = await cli(["tx", "ls", "--sagas", "--store", cluster.url]);
    expect([alone.exitCode, alone.stdout]).toEqual([0, expect.stringContaining(`${started.gid}  slow@3  forward`)]);
    const shown = await cli(["tx", "show", rows[0].gid, "--json", ...flags]);
    expect(JSON.parse(shown.stdout).branches).toMatchObject([{ resource: "pay", state: "prepared" }]);
    expect((await cli(["tx", "show", started.gid, ...flags])).stdout).toContain("slow@3");
    const text = transactionMetrics({ transactions: tm, sagas: runner });
    expect(text).toMatch(/^conclave_saga_running 1$/m);
    expect(text).toMatch(/^conclave_tx_in_doubt_oldest_seconds 0$/m);
    letGo();
    await running;
    expect(await started.outcome()).toMatchObject({ kind: "completed", results: { wait: 1 } });
    await until(async () => (await cli(["tx", "ls", ...flags])).stdout === "Nothing is open.\n", "nothing to be open");
    expect(transactionMetrics({ transactions: tm, sagas: runner })).toMatch(/^conclave_saga_total\{outcome="completed"\} 1$/m);
  } finally {
    letGo();
    await runner.close();
    await tm.close();
    server.closeAllConnections();
    server.close();
    await conclave.close();
  }
});
