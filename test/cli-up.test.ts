/**
 * `conclave up`: a cluster of real processes from one command, broken and ended.
 */
import { existsSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { build, Cli, conclave, isReady, isRunning, killAll, until } from "./cli-kit.ts";

interface Up {
  readonly url: string;
  readonly leader: string;
  readonly members: readonly {
    readonly member: string;
    readonly address: string;
    readonly pid: number;
    readonly directory: string;
  }[];
}

beforeAll(build, 120_000);
afterEach(killAll);

test("up starts three members, starts a killed one again, and Ctrl-C leaves no process and no temporary directory", async () => {
  const cli = new Cli(["up", "--json"]);
  const up = await started(cli);
  const pids = up.members.map(({ pid }) => pid);
  expect(pids.map(isRunning)).toEqual([true, true, true]);
  expect((await conclave(["put", "k", "v", "--store", up.url])).exitCode).toBe(0);
  const leader = up.members.find(({ member }) => member === up.leader) as Up["members"][number];
  process.kill(leader.pid, "SIGKILL");
  await until(() => kinds(cli).includes("leader") && kinds(cli).includes("restarted"), "another leader and the member again");
  expect(cli.records.find(({ kind }) => kind === "ended")).toMatchObject({ member: up.leader, how: "SIGKILL" });
  const again = cli.records.find(({ kind }) => kind === "restarted") as { readonly member: string; readonly pid: number };
  await until(() => isReady(leader.address), "the killed member to follow");
  expect(await conclave(["get", "k", "--store", up.url])).toMatchObject({ exitCode: 0, stdout: "v\n" });
  cli.signal("SIGINT");
  expect(await cli.exitCode).toBe(0);
  expect([...pids, again.pid].filter(isRunning)).toEqual([]);
  expect(up.members.map(({ directory }) => existsSync(directory))).toEqual([false, false, false]);
});

test("up that is killed takes its members with it", async () => {
  const cli = new Cli(["up", "--json", "--members", "1"]);
  const { members } = await started(cli);
  cli.signal("SIGKILL");
  await until(() => !members.some(({ pid }) => isRunning(pid)), "the member to end");
  for (const { directory } of members) rmSync(dirname(directory), { recursive: true, force: true });
});

test("up takes free ports where the default ones are taken, and says so; ports that were asked for are refused", async () => {
  const taken = createServer();
  // Somebody may have it already: that serves as well.
  await new Promise<void>((done) => taken.once("error", () => done()).listen(7400, "127.0.0.1", done));
  try {
    const cli = new Cli(["up", "--members", "1"]);
    await cli.says("Try it in another terminal");
    expect(cli.stderr).toMatch(/Port 7400 is taken by another process/);
    expect(cli.stdout).toMatch(/1 member runs; m1 leads/);
    expect(cli.stdout).not.toContain("127.0.0.1:7400");
    cli.signal("SIGTERM");
    expect(await cli.exitCode).toBe(0);
    expect(cli.stdout).toMatch(/Deleted .*conclave-/);
    expect(await conclave(["up", "--port", "7400"])).toMatchObject({ exitCode: 64, stderr: expect.stringContaining("7400") });
  } finally {
    taken.close();
  }
});

test("a member that cannot start ends up with the member's exit code and its words", async () => {
  const [port] = await freePorts(1);
  const cli = new Cli(["up", "--members", "1", "--port", String(port), "--data", "/dev/null/nowhere"]);
  expect(await cli.exitCode).toBe(74);
  expect(cli.stderr).toContain("/dev/null");
});

async function started(cli: Cli): Promise<Up> {
  await until(() => kinds(cli).includes("up"), "the cluster to be up").catch((error: unknown) => {
    throw new Error(`${error}; it said ${cli.stdout}${cli.stderr}`);
  });
  return cli.records.find(({ kind }) => kind === "up") as unknown as Up;
}

function kinds(cli: Cli): readonly unknown[] {
  // The last line may be half written.
  const whole = cli.stdout.slice(0, cli.stdout.lastIndexOf("\n") + 1);
  return whole
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line).kind);
}
