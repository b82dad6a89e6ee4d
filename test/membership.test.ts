/**
 * Members that come and go, on real processes' sockets and disks, in this process: add, catch up, promote, hand over, remove,
 * a disk that was lost, and a backup that becomes a new store.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ConclaveEvent } from "../src/base/event.ts";
import { freePorts } from "../src/cli/free-ports.ts";
import type { Client } from "../src/client/client.ts";
import { connectCluster } from "../src/engines/embedded/cluster-engine.ts";
import { type Server, serve } from "../src/engines/embedded/serve.ts";

// Disks of a busy machine take their time.
vi.setConfig({ testTimeout: 90_000 });

let folder: string;
const servers = new Map<string, Server>();
const events: ConclaveEvent[] = [];
const halts: string[] = [];
let client: Client | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "conclave-membership-"));
  events.length = 0;
  halts.length = 0;
});

afterEach(async () => {
  await client?.close();
  client = undefined;
  await Promise.all([...servers.values()].map((server) => server.close()));
  servers.clear();
  await rm(folder, { recursive: true, force: true });
});

interface Place {
  readonly member: string;
  readonly address: string;
}

async function places(...members: readonly string[]): Promise<Place[]> {
  const ports = await freePorts(members.length);
  return members.map((member, at) => ({ member, address: `127.0.0.1:${ports[at]}` }));
}

async function start(
  { member, address }: Place,
  how: { readonly founders?: readonly Place[]; readonly join?: readonly string[] } = {},
): Promise<Server> {
  const { founders, join: joins } = how;
  const server = await serve({
    directory: join(folder, member),
    member,
    cluster: "town",
    listen: address,
    ...(founders === undefined ? {} : { members: new Map(founders.map((each) => [each.member, each.address])) }),
    ...(joins === undefined ? {} : { join: joins }),
    onEvent: (event) => events.push(event),
    onHalt: (why) => halts.push(why),
  });
  servers.set(member, server);
  return server;
}

async function stop(member: string): Promise<void> {
  await servers.get(member)?.close();
  servers.delete(member);
}

async function found(...members: readonly string[]): Promise<Place[]> {
  const founders = await places(...members);
  await Promise.all(founders.map((place) => start(place, { founders })));
  client = await connectCluster({ url: `conclave://${founders.map(({ address }) => address).join(",")}` });
  await put("k", "1");
  return founders;
}

async function put(key: string, value: string): Promise<number> {
  const { revision } = await (client as Client)
    .store("n")
    .txn({ then: [{ kind: "put", key, value: new TextEncoder().encode(value) }] });
  return revision;
}

async function get(key: string, consistency: "linearizable" | "lease" = "linearizable"): Promise<string | undefined> {
  const { results } = await (client as Client).store("n").txn({ then: [{ kind: "get", key }] }, { consistency });
  const [result] = results;
  return result?.kind === "get" && result.entry !== null ? new TextDecoder().decode(result.entry.value) : undefined;
}

async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const untilMs = Date.now() + 25_000;
  while (!(await holds())) {
    if (Date.now() > untilMs) expect.unreachable(`not within 25 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const ask = (request: Parameters<Client["administer"]>[0]): Promise<string> => (client as Client).administer(request);
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: { code: string }) => error.code,
  );
const leaderOf = (): string | undefined =>
  [...servers.values()].find((server) => server.status().role === "leader")?.status().member;

test("a member joins as a learner, catches up, is promoted, and holds the group when a founder is removed", async () => {
  const founders = await found("a", "b", "c");
  for (let at = 0; at < 50; at++) await put(`k${at}`, "v");
  const [d] = (await places("d")) as [Place];
  const joining = await start(d, { join: [(founders[0] as Place).address] });
  expect(joining.status()).toMatchObject({ cluster: "town", leader: undefined, voters: [] });
  expect(await codeOf(ask({ kind: "promote", member: "d" }))).toBe("MEMBER_UNKNOWN");
  await ask({ kind: "add", member: "d", address: d.address });
  expect(await codeOf(ask({ kind: "add", member: "d", address: d.address }))).toBe("MEMBER_EXISTS");
  await eventually("the learner has everything", () => joining.status().appliedIndex > 50);
  expect(joining.status()).toMatchObject({ voters: ["a", "b", "c"], learners: ["d"] });
  await ask({ kind: "promote", member: "d" });
  const leader = leaderOf() as string;
  const leaving = founders.map(({ member }) => member).find((member) => member !== leader) as string;
  await ask({ kind: "remove", member: leaving });
  await eventually("the removed member knows it", () => halts.some((why) => why.includes(`"${leaving}" was removed`)));
  await stop(leaving);
  // Two of three: the new one is needed.
  const other = founders.map(({ member }) => member).find((member) => member !== leader && member !== leaving) as string;
  await stop(other);
  await put("k", "2");
  expect(await get("k")).toBe("2");
  // A restart needs neither --members nor --join: the log knows them.
  await stop("d");
  await start(d);
  await put("k", "3");
  expect(servers.get("d")?.status().voters).toEqual([leader, other, "d"].sort());
});

test("leadership goes where it is sent, reads by lease go on, and the last voter stays", async () => {
  await found("a", "b", "c");
  expect(await get("k", "lease")).toBe("1");
  expect(await get("k", "lease")).toBe("1");
  const before = leaderOf() as string;
  expect(await codeOf(ask({ kind: "transfer", to: before }))).toBe("TRANSFER_REFUSED");
  const to = ["a", "b", "c"].find((member) => member !== before) as string;
  await ask({ kind: "transfer", to });
  await eventually("the target leads", () => leaderOf() === to);
  await put("k", "2");
  expect(await get("k", "lease")).toBe("2");
  // The leader removes itself, and the others elect another.
  await ask({ kind: "remove", member: to });
  await put("k", "3");
  expect(await get("k")).toBe("3");
  const rest = ["a", "b", "c"].filter((member) => member !== to);
  await ask({ kind: "remove", member: rest[0] as string });
  await put("k", "4");
  expect(await codeOf(ask({ kind: "remove", member: rest[1] as string }))).toBe("LAST_VOTER");
});

test("a member whose disk was lost is refused under its old name, and comes back as a new one", async () => {
  const founders = await found("a", "b", "c");
  await put("k", "2");
  const lost = founders.find(({ member }) => member !== leaderOf()) as Place;
  await stop(lost.member);
  await rm(join(folder, lost.member), { recursive: true });
  await start(lost, { founders });
  await eventually("it is told", () => halts.some((why) => why.includes("came back with an empty directory")));
  expect(servers.get(lost.member)?.status()).toMatchObject({ role: "halted", term: 0, committedIndex: 0 });
  await put("k", "3");
  // The remedy of the error, step by step.
  await stop(lost.member);
  await ask({ kind: "remove", member: lost.member });
  await rm(join(folder, lost.member), { recursive: true });
  const again = await start(lost, { join: founders.filter((place) => place !== lost).map(({ address }) => address) });
  await ask({ kind: "add", member: lost.member, address: lost.address });
  await eventually(
    "it has everything",
    () => again.status().revision > 0 && again.status().learners?.includes(lost.member) === true,
  );
  await eventually(
    "it is promoted",
    async () => (await codeOf(ask({ kind: "promote", member: lost.member }))) !== "LEARNER_LAGS",
  );
  await eventually("it votes", () => again.status().voters?.includes(lost.member) === true);
});

test("the first start of a group waits until enough members have met, and later ones do not", async () => {
  const founders = await places("a", "b", "c");
  const [a, b, c] = founders as [Place, Place, Place];
  await start(a, { founders });
  await start(b, { founders });
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(leaderOf()).toBeUndefined();
  await start(c, { founders });
  // Two that have met everybody may lead already; the third is part of it once it hears them.
  await eventually("all three follow a leader", () =>
    [...servers.values()].every((server) => server.status().leader !== undefined),
  );
  for (const { member } of founders) await stop(member);
  await start(a, { founders });
  await start(b, { founders });
  await eventually("a leader of two", () => leaderOf() !== undefined);
});

test("whoever is not added waits outside, with an event that says so", async () => {
  const founders = await found("a", "b", "c");
  const [d] = (await places("d")) as [Place];
  await start(d, { join: founders.map(({ address }) => address) });
  await eventually("it was refused", () =>
    events.some((event) => event.kind === "connection.refused" && event.code === "WRONG_MEMBER"),
  );
  expect(servers.get("d")?.status()).toMatchObject({ role: "follower", leader: undefined, lastIndex: 0 });
  expect(await codeOf(serve({ directory: join(folder, "e"), join: ["127.0.0.1:1"], listen: "127.0.0.1:0" }))).toBe(
    "CONNECTION_REFUSED",
  );
});
