/**
 * Four processes of `conclave serve --protocol pbft`, killed without warning, and clients that believe f + 1 of them.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { freePorts } from "../src/cli/free-ports.ts";
import { build, Cli, conclave, isReady, killAll, until } from "./cli-kit.ts";

let folder: string;
let files: string;
let ports: readonly number[];
const names = ["a", "b", "c", "d"] as const;
type Name = (typeof names)[number];
const members = new Map<Name, Cli>();

beforeAll(build);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "conclave-pbft-"));
  files = join(folder, "keys");
  ports = await freePorts(4);
  const list = names.map((name, at) => `${name}=127.0.0.1:${ports[at]}`).join(",");
  const made = await conclave(["pbft", "init", files, "--members", list, "--clients", "teller,ann"]);
  expect(made).toMatchObject({ exitCode: 0 });
});
afterEach(async () => {
  killAll();
  await rm(folder, { recursive: true, force: true });
});

function addressOf(name: Name): string {
  return `127.0.0.1:${ports[names.indexOf(name)]}`;
}

async function start(name: Name): Promise<void> {
  const parts = ["--cluster-file", join(files, "cluster.json"), "--key", join(files, `${name}.key`)];
  members.set(name, new Cli(["serve", "--protocol", "pbft", "--data", join(folder, name), ...parts]));
  await until(() => isReady(addressOf(name)), `${name} to be ready`);
}

function client(...args: readonly string[]) {
  const [verb, ...rest] = args as [string, ...string[]];
  return conclave(["pbft", verb, ...rest, "--cluster-file", join(files, "cluster.json"), "--key", join(files, "teller.key")]);
}

test("four processes agree; one may be killed, even the primary; all may be killed and keep what they answered", {
  timeout: 120_000,
}, async () => {
  await Promise.all(names.map((name) => start(name)));
  expect(await client("set", "balance", "10")).toMatchObject({ exitCode: 0 });
  expect(await client("set", "balance", "20")).toMatchObject({ exitCode: 1, stdout: "revision 1: 10\n" });
  members.get("a")?.signal("SIGKILL");
  expect(await client("set", "balance", "20", "--expect", "1")).toMatchObject({ exitCode: 0, stdout: "revision 2\n" });
  const status = (await (await fetch(`http://${addressOf("b")}/status`)).json()) as { view: number; protocol: string };
  expect(status).toMatchObject({ protocol: "pbft" });
  expect(status.view).toBeGreaterThan(0);
  for (const name of ["b", "c", "d"] as const) members.get(name)?.signal("SIGKILL");
  await Promise.all(names.map((name) => start(name)));
  expect(await client("get", "balance")).toMatchObject({ exitCode: 0, stdout: "20\n" });
  expect(await client("list")).toMatchObject({ exitCode: 0, stdout: "balance\t20\n" });
  expect(await client("get", "nothing")).toMatchObject({ exitCode: 1 });
});

test("a member without its key, with another's, or on another protocol's directory does not start", {
  timeout: 60_000,
}, async () => {
  const data = join(folder, "x");
  const clusterFile = ["--cluster-file", join(files, "cluster.json")];
  expect(await conclave(["serve", "--protocol", "pbft", "--data", data])).toMatchObject({ exitCode: 64 });
  const asClient = ["serve", "--protocol", "pbft", "--data", data, ...clusterFile, "--key", join(files, "teller.key")];
  expect(await conclave(asClient)).toMatchObject({ exitCode: 64 });
  await start("a");
  members.get("a")?.signal("SIGTERM");
  expect(await members.get("a")?.exitCode).toBe(0);
  // The directory is a's, for good.
  const asB = ["serve", "--data", join(folder, "a"), ...clusterFile, "--key", join(files, "b.key")];
  expect(await conclave(asB)).toMatchObject({ exitCode: 78 });
  const asRaft = ["serve", "--protocol", "raft", "--data", join(folder, "a"), "--member", "a", "--cluster", "local"];
  expect(await conclave(asRaft)).toMatchObject({ exitCode: 78 });
});
