/**
 * L2 over many nodes: where keys lie, what a dead node costs, and that it is left out.
 */
import { expect, test } from "vitest";
import type { L2 } from "../cache-core/l2.ts";
import { ring } from "../hash/ring.ts";
import { shardedL2 } from "./sharded-l2.ts";

class Node {
  readonly texts = new Map<string, string>();
  state: "up" | "refusing" | "silent" = "up";
  calls = 0;
  readonly l2 = (): L2 => ({
    name: "node",
    get: (key) => this.#answer(() => this.texts.get(key) ?? null),
    set: (key, text) => this.#answer(() => void this.texts.set(key, text)),
    delete: (key) => this.#answer(() => void this.texts.delete(key)),
    clockMs: () => 1_000,
  });
  #answer<T>(act: () => T): Promise<T> {
    this.calls++;
    if (this.state === "silent") return new Promise(() => undefined);
    return this.state === "refusing" ? Promise.reject(new Error("refused")) : Promise.resolve(act());
  }
}

const keys = Array.from({ length: 300 }, (_, at) => `key:${at}`);

function make(replicas: number) {
  const nodes = new Map(["a", "b", "c"].map((id) => [id, new Node()]));
  const l2 = shardedL2({
    nodes: [...nodes].map(([id, node]) => ({ id, l2: node.l2 })),
    replicas,
    nodeTimeoutMs: 10,
    // Longer than a busy machine takes for the reads of a test.
    outMs: 1_000,
  })("it");
  return { nodes, l2 };
}

test("a key lies on its owners on the ring, and nowhere else", async () => {
  const { nodes, l2 } = make(2);
  for (const key of keys) await l2.set(key, key, 1_000);
  const placement = ring(["a", "b", "c"]);
  for (const key of keys) {
    const owners = placement.owners(key, 2);
    expect([...nodes].filter(([, { texts }]) => texts.has(key)).map(([id]) => id)).toEqual([...owners].sort());
    expect(await l2.get(key)).toBe(key);
  }
});

for (const state of ["refusing", "silent"] as const) {
  test(`a node that is ${state} is a miss without replicas, and is left out after three failures`, async () => {
    const { nodes, l2 } = make(1);
    for (const key of keys) await l2.set(key, key, 1_000);
    const dead = nodes.get("b") as Node;
    dead.state = state;
    dead.calls = 0;
    const mine = keys.filter((key) => ring(["a", "b", "c"]).owner(key) === "b");
    for (const key of keys) expect(await l2.get(key)).toBe(mine.includes(key) ? null : key);
    expect(dead.calls).toBe(3);
    // Its keys live on the nodes after it meanwhile.
    await l2.set(mine[0] as string, "elsewhere", 1_000);
    expect(await l2.get(mine[0] as string)).toBe("elsewhere");
    dead.state = "up";
    await new Promise((resolve) => setTimeout(resolve, 1_010));
    for (const key of mine.slice(1)) expect(await l2.get(key)).toBe(key);
  });
}

test("with two replicas a dead node costs nothing but time", async () => {
  const { nodes, l2 } = make(2);
  for (const key of keys) await l2.set(key, key, 1_000);
  (nodes.get("a") as Node).state = "refusing";
  for (const key of keys) expect(await l2.get(key)).toBe(key);
});

test("all nodes dead: everything is a miss, and nothing is thrown", async () => {
  const { nodes, l2 } = make(2);
  for (const node of nodes.values()) node.state = "refusing";
  for (const key of keys) expect(await l2.get(key)).toBeNull();
  await l2.set("k", "v", 1);
  await l2.delete("k");
  expect(l2.clockMs("k")).toBeUndefined();
  expect(await l2.get("\ud800")).toBeNull();
});

test("no nodes, and replicas that are no number, are refused", () => {
  expect(() => shardedL2({ nodes: [] })).toThrow(/`nodes`/);
  expect(() => shardedL2({ nodes: [{ id: "a", l2: new Node().l2 }], replicas: 0 })).toThrow(/`replicas`/);
});
