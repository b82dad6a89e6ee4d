/**
 * The contract of a store on Multi-Paxos and on Zab: in this process, and as a cluster of three over TCP. (On Raft it runs with the engine's own tests.)
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { embeddedCaps } from "../src/engines/embedded/embedded-caps.ts";
import { type Server, serve } from "../src/engines/embedded/serve.ts";
import { connect } from "../src/index.ts";
import { contractSuite } from "../src/testing/contract-suite.ts";

describe.each(["paxos", "zab"] as const)("on %s", (protocol) => {
  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps: embeddedCaps("memory", protocol),
    open: async () => {
      const conclave = await connect({ url: "memory:", protocol });
      return { engine: conclave.engine, dispose: () => conclave.close() };
    },
  });

  const folder = mkdtempSync(join(tmpdir(), `conclave-${protocol}-`));
  const servers: Server[] = [];
  let url = "";

  beforeAll(async () => {
    const ports = await freePorts(3);
    const members = new Map(ports.map((port, at) => [`m${at + 1}`, `127.0.0.1:${port}`]));
    for (const [member, listen] of members) {
      servers.push(await serve({ directory: join(folder, member), member, listen, members, protocol }));
    }
    url = `conclave://${[...members.values()].join(",")}`;
  });

  afterAll(async () => {
    for (const server of servers) await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps: embeddedCaps("cluster", protocol),
    open: async () => {
      const conclave = await connect(url);
      return { engine: conclave.engine, dispose: () => conclave.close() };
    },
  });

  test("the cluster that the contract ran on agreed by it, under one leader, with all members abreast", async () => {
    const statuses = servers.map((server) => server.status());
    expect(statuses.map((status) => status.protocol)).toEqual([protocol, protocol, protocol]);
    expect(new Set(statuses.map(({ leader }) => leader)).size).toBe(1);
    const revisions = new Set(statuses.map(({ revision }) => revision));
    expect(revisions.size).toBeLessThanOrEqual(2);
  });
});
