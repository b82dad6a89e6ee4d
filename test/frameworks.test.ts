/**
 * `tccHandler` and the fences of `conclave/guards` in real Express, Fastify and Hono: the packages are put into a folder of their own below `node_modules`, once, so
 * that nobody who installs Conclave's development tools pays for three servers. Skipped, and named so, where they cannot be had.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo, Server } from "node:net";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { volatileWords } from "../src/coordinator/options.ts";
import { expressFence, FenceGate, fastifyFence, fenceHeader, honoFence } from "../src/guards/http-fence.ts";
import { type Conclave, connect } from "../src/index.ts";
import { Abort } from "../src/transactions/errors.ts";
import { type HttpResource, http } from "../src/transactions/http.ts";
import { type TransactionManager, transactions } from "../src/transactions/manager.ts";
import { storeBarrier } from "../src/transactions/store-barrier.ts";
import type { StoreHandle } from "../src/transactions/store-branch.ts";
import { tccHandler } from "../src/transactions/tcc-handler.ts";
import { tccService } from "../src/transactions/tcc-service.ts";

const versions = { express: "5.3.0", fastify: "5.12.8", hono: "4.13.19", "@hono/node-server": "2.1.9" };
const folder = resolve("node_modules/.frameworks");
const whyNot = install();
const load = createRequire(join(folder, "package.json"));
const missing = whyNot === undefined ? "" : ` (skipped: ${whyNot})`;

/** What is mounted: the handler below /tx, and PUT /fenced behind a fence. */
interface Mounted {
  readonly handler: ReturnType<typeof tccHandler>;
  readonly gate: FenceGate;
  readonly fenced: () => Promise<string>;
}
interface Served {
  readonly server: Server;
  readonly close: () => unknown;
}
/** Each answers "elsewhere" for what is not mounted. */
// biome-ignore lint/suspicious/noExplicitAny: packages without types here.
type Loaded = any;
const frameworks: Readonly<Record<string, (mounted: Mounted) => Promise<Served>>> = {
  "express with express.json()": (mounted) => serveExpress(mounted, true),
  "express without a parser": (mounted) => serveExpress(mounted, false),
  fastify: async ({ handler, gate, fenced }) => {
    const app: Loaded = load("fastify")();
    app.all("/tx/*", handler);
    app.put("/fenced", { preHandler: fastifyFence(gate) }, fenced);
    app.setNotFoundHandler((_: unknown, reply: Loaded) => reply.code(404).send("elsewhere"));
    await app.listen({ port: 0, host: "127.0.0.1" });
    return { server: app.server, close: () => app.close() };
  },
  hono: async ({ handler, gate, fenced }) => {
    const app: Loaded = new (load("hono").Hono)();
    app.all("/tx/*", handler);
    app.use("/fenced", honoFence(gate));
    app.put("/fenced", async (context: Loaded) => context.text(await fenced()));
    app.all("*", (context: Loaded) => context.text("elsewhere", 404));
    const server: Server = load("@hono/node-server").serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" });
    await new Promise((done) => server.once("listening", done));
    return { server, close: () => server.close() };
  },
};

async function serveExpress({ handler, gate, fenced }: Mounted, parses: boolean): Promise<Served> {
  const express: Loaded = load("express");
  const app = express();
  if (parses) app.use(express.json());
  app.use("/tx", handler);
  app.put("/fenced", expressFence(gate), async (_: unknown, response: Loaded) => response.send(await fenced()));
  app.use((_: unknown, response: Loaded) => response.status(404).send("elsewhere"));
  const server = createServer(app);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { server, close: () => server.close() };
}

describe.skipIf(whyNot !== undefined).each(Object.keys(frameworks))(`in %s${missing}`, (name) => {
  type Shop = { readonly stock: HttpResource };
  let conclave: Conclave;
  let tm: TransactionManager<Shop>;
  let served: Served;
  let url: string;
  /** Of the work behind the fence. */
  let steps: string[];

  beforeEach(async () => {
    conclave = await connect("memory:");
    steps = [];
    served = await (frameworks[name] as (mounted: Mounted) => Promise<Served>)({
      handler: tccHandler(service()),
      gate: new FenceGate(),
      fenced: async () => {
        steps.push("in");
        await new Promise((done) => setTimeout(done, 30));
        steps.push("out");
        return "written";
      },
    });
    url = `http://127.0.0.1:${(served.server.address() as AddressInfo).port}`;
    tm = await transactions<Shop>({
      store: conclave.engine,
      resources: { stock: http({ url: `${url}/tx`, answerMs: 2_000 }) },
      acceptVolatileDecisions: volatileWords,
    });
  });

  afterEach(async () => {
    await tm.close();
    await served.close();
    await conclave.close();
  });

  test("a TCC service: Try and Confirm of a commit, Try and Cancel of a refusal", async () => {
    const { value } = await tm.run({}, (tx) => tx.on("stock").try("take", { count: 3 }));
    expect(value).toEqual({ count: 3 });
    expect(await kept()).toEqual({ free: 7, sold: 3 });
    const refused = tm.run({}, async (tx) => {
      await tx.on("stock").try("take", { count: 2 });
      await tx.on("stock").try("take", { count: 20 });
    });
    await expect(refused).rejects.toMatchObject({
      code: "TRANSACTION_ABORTED",
      why: "business",
      reason: "sold out",
      details: { free: 5 },
    });
    await expect.poll(kept).toEqual({ free: 7, sold: 3 });
  });

  test("a Try without a body", async () => {
    await tm.run({}, (tx) => tx.on("stock").try("take"));
    expect(await kept()).toEqual({ free: 9, sold: 1 });
  });

  test("a late Try is refused, a wrong method, header and path are told", async () => {
    const headers = {
      "conclave-tx": "cv1.abcdef.k3j4h5g6.1a2b.7",
      "conclave-tx-branch": "1",
      "content-type": "application/json",
    };
    const ask = (path: string, init: RequestInit = {}): Promise<Response> => fetch(`${url}${path}`, { method: "POST", ...init });
    expect((await ask("/tx/cancel", { headers: { ...headers, "content-type": "text/plain" } })).status).toBe(200);
    const late = await ask("/tx/try/take", { headers, body: '{"count":1}' });
    expect(late.status).toBe(409);
    expect(late.headers.get("content-type")).toMatch(/^application\/problem\+json\b/);
    expect(await late.json()).toMatchObject({ title: "TRANSACTION_CLOSED", why: "cancelled" });
    const standing = await fetch(`${url}/tx/status`, { headers });
    expect([standing.status, await standing.json()]).toEqual([200, { standing: "cancelled" }]);
    expect((await fetch(`${url}/tx/confirm`, { headers })).status).toBe(405);
    expect((await ask("/tx/confirm")).status).toBe(400);
    expect((await fetch(`${url}/tx/other`)).status).toBe(404);
    expect(await (await fetch(`${url}/elsewhere`)).text()).toBe("elsewhere");
  });

  test("a body that is too long is refused, and the next request is served", async () => {
    const body = JSON.stringify({ count: 1, text: "x".repeat(1_100_000) });
    const headers = {
      "conclave-tx": "cv1.abcdef.k3j4h5g6.1a2b.8",
      "conclave-tx-branch": "1",
      "content-type": "application/json",
    };
    const answer = await fetch(`${url}/tx/try/take`, { method: "POST", headers, body }).catch(() => ({ status: 413 }));
    expect(answer.status).toBe(413);
    await tm.run({}, (tx) => tx.on("stock").try("take", { count: 1 }));
    expect(await kept()).toEqual({ free: 9, sold: 1 });
  });

  test("a fence lets newer tokens through one after another, and says why it refuses", async () => {
    const put = (headers: Record<string, string>): Promise<Response> => fetch(`${url}/fenced`, { method: "PUT", headers });
    const newest = await put(fenceHeader({ name: "r", token: 2 }));
    expect([newest.status, await newest.text()]).toEqual([200, "written"]);
    const stale = await put(fenceHeader({ name: "r", token: 1 }));
    expect([stale.status, ((await stale.json()) as { readonly title: string }).title]).toEqual([412, "STALE_TOKEN"]);
    expect(stale.headers.get("content-type")).toMatch(/json/);
    expect((await put({})).status).toBe(428);
    expect((await put({ "fence-token": "nonsense" })).status).toBe(400);
    const both = await Promise.all([put(fenceHeader({ name: "r", token: 3 })), put(fenceHeader({ name: "r", token: 3 }))]);
    expect(both.map(({ status }) => status)).toEqual([200, 200]);
    expect(steps).toEqual(["in", "out", "in", "out", "in", "out"]);
  });

  function service() {
    return tccService<StoreHandle>({
      barrier: storeBarrier(conclave.engine, { name: "stock", namespace: "stock" }),
      actions: {
        take: {
          try: async ({ handle, body }) => {
            const count = body?.count ?? 1;
            const taken = Number((await handle.get("taken"))?.text ?? 0);
            if (taken + count > 10) throw new Abort("sold out", { free: 10 - taken });
            handle.add("taken", count);
            return { count };
          },
          confirm: ({ handle, tried }) => void handle.add("sold", tried.count),
          cancel: ({ handle, tried }) => void handle.add("taken", -tried.count),
        },
      },
    });
  }

  async function kept(): Promise<{ readonly free: number; readonly sold: number }> {
    const { results } = await conclave.engine.store("stock").txn({
      then: [
        { kind: "get", key: "taken" },
        { kind: "get", key: "sold" },
      ],
    });
    const [taken = 0, sold = 0] = results.map((each) => (each.kind === "get" ? Number(each.entry?.text ?? 0) : 0));
    return { free: 10 - taken, sold };
  }
});

/** Why they are not there; undefined when they are. */
function install(): string | undefined {
  const wanted = JSON.stringify({ private: true, dependencies: versions });
  const manifest = join(folder, "package.json");
  const stamp = join(folder, "installed");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return undefined;
  mkdirSync(folder, { recursive: true });
  writeFileSync(manifest, wanted);
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status, stderr } = spawnSync(npm, ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: folder,
    encoding: "utf8",
    timeout: 60_000,
  });
  if (status !== 0) return `npm could not install them: ${(stderr ?? "").trim().split("\n")[0] || "no answer within a minute"}`;
  writeFileSync(stamp, wanted);
  return undefined;
}
