/**
 * The house rules as a test: which room may import which, and what a pure room may not know.
 * A new arrow changes the table below in the same commit and says why.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");
const source = join(root, "src");

interface Room {
  readonly floor: number;
  readonly pure: boolean;
  readonly mayImport: readonly string[];
}

/** The one table. Rooms of the same folder may always import one another's files. */
const rooms: Readonly<Record<string, Room>> = {
  base: { floor: 0, pure: true, mayImport: [] },
  hash: { floor: 1, pure: true, mayImport: ["base"] },
  consensus: { floor: 1, pure: true, mayImport: ["base"] },
  store: { floor: 2, pure: true, mayImport: ["base"] },
  log: { floor: 2, pure: true, mayImport: ["base", "consensus"] },
  wire: { floor: 2, pure: true, mayImport: ["base", "consensus", "store"] },
  replica: { floor: 3, pure: true, mayImport: ["base", "consensus", "store", "log", "wire"] },
  client: { floor: 3, pure: true, mayImport: ["base", "store", "wire"] },
  recipes: { floor: 3, pure: true, mayImport: ["base", "store"] },
  /** Who owns which partition: a recipe of its own size, which also needs the assignment's arithmetic. */
  partitions: { floor: 3, pure: true, mayImport: ["base", "hash", "store", "recipes"] },
  coordinator: { floor: 3, pure: true, mayImport: ["base", "store", "recipes"] },
  // The sketch of its L1 hashes keys as the rings do.
  "cache-core": { floor: 3, pure: true, mayImport: ["base", "hash", "store"] },
  /** Node behind the ports of the pure rooms, for every engine: time, dice, and the client's `StallKeeper`. Engines never see one another. */
  host: { floor: 3, pure: false, mayImport: ["base", "client"] },
  "engines/embedded": {
    floor: 4,
    pure: false,
    mayImport: ["base", "consensus", "store", "log", "wire", "replica", "client", "host"],
  },
  // The client's half of a lease (`client/session.ts`) is the same whoever keeps the other half.
  /** Borrows the disk, the sockets and the lock of the embedded engine; clients and letters are its own. */
  "engines/pbft": {
    floor: 4,
    pure: false,
    mayImport: ["base", "consensus", "store", "log", "wire", "host", "engines/embedded"],
  },
  "engines/redis": { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "client", "host"] },
  "engines/etcd": { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "client", "host"] },
  "engines/zookeeper": { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "client", "host"] },
  "engines/postgres": { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "client", "host"] },
  "engines/cassandra": { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "host"] },
  /** The other half of a fencing token: what refuses a stale one at the resource. */
  guards: { floor: 4, pure: false, mayImport: ["base", "store", "recipes"] },
  transactions: { floor: 4, pure: false, mayImport: ["base", "store", "recipes", "coordinator"] },
  cache: { floor: 4, pure: false, mayImport: ["base", "hash", "store", "recipes", "cache-core"] },
  /** The signatures of other lock libraries, for those who come from them. */
  compat: { floor: 5, pure: false, mayImport: ["base", "store", "recipes", "engines/redis"] },
  cli: {
    floor: 6,
    pure: false,
    mayImport: [
      "base",
      "consensus",
      "store",
      "wire",
      "recipes",
      "client",
      "coordinator",
      "transactions",
      "engines/embedded",
      "engines/pbft",
      "index.ts",
    ],
  },
  "index.ts": {
    floor: 6,
    pure: false,
    mayImport: [
      "base",
      "store",
      "recipes",
      "partitions",
      "client",
      "engines/embedded",
      "engines/pbft",
      "engines/redis",
      "engines/etcd",
      "engines/zookeeper",
      "engines/postgres",
      "engines/cassandra",
    ],
  },
  // Beside the house. Nothing in production imports these.
  simulator: {
    floor: 7,
    pure: true,
    mayImport: [
      "base",
      "consensus",
      "store",
      "log",
      "wire",
      "replica",
      "client",
      "recipes",
      "partitions",
      "coordinator",
      "cache-core",
      "testing",
    ],
  },
  testing: { floor: 7, pure: true, mayImport: ["base", "store", "recipes"] },
  torture: {
    floor: 8,
    pure: false,
    mayImport: ["base", "store", "wire", "recipes", "testing", "engines/embedded", "engines/pbft", "index.ts"],
  },
};

/** Where a pure room's command line or host end lives. */
const impureFiles = new Set(["simulator/main.ts", "testing/virtual-platform.ts"]);

const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
const production = files.filter((file) => !file.endsWith(".test.ts"));

function roomOf(file: string): string {
  if (file === "index.ts") return "index.ts";
  const [first, second] = file.split("/");
  return first === "engines" ? `engines/${second}` : (first as string);
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(source, file), "utf8");
  const found = [
    ...text.matchAll(/^\s*(?:import|export)\b[^"'`;]*?\bfrom\s+"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)|^import\s+"([^"]+)"/gm),
  ];
  return found.map((match) => (match[1] ?? match[2] ?? match[3]) as string);
}

test("every folder of src is a room of the table", () => {
  for (const file of files) expect(rooms[roomOf(file)], `${file} lies in no room`).toBeDefined();
});

test("imports go down: a room imports only what the table allows", () => {
  const wrong: string[] = [];
  for (const file of production) {
    const room = roomOf(file);
    for (const specifier of importsOf(file)) {
      if (!specifier.startsWith(".")) continue;
      const target = roomOf(relative(source, resolve(source, dirname(file), specifier)));
      if (target !== room && !rooms[room]?.mayImport.includes(target)) wrong.push(`${file} imports ${target} (${specifier})`);
    }
  }
  expect(wrong).toEqual([]);
});

test("the table itself has no arrow that goes up", () => {
  for (const [name, room] of Object.entries(rooms)) {
    for (const target of room.mayImport) expect(rooms[target]?.floor, `${name} -> ${target}`).toBeLessThanOrEqual(room.floor);
  }
});

test("a pure room imports nothing of Node and names no global of a host", () => {
  const forbidden =
    /\b(?:Date\.now|new Date|Math\.random|setTimeout|setInterval|setImmediate|process\.(?:env|argv|exit|pid|hrtime|nextTick|stdout|stderr|cwd|on|memoryUsage|versions|uptime)\b|Buffer\.|performance\.)/;
  const wrong: string[] = [];
  for (const file of production) {
    if (!rooms[roomOf(file)]?.pure || impureFiles.has(file)) continue;
    const code = withoutComments(readFileSync(join(source, file), "utf8"));
    if (importsOf(file).some((specifier) => !specifier.startsWith("."))) wrong.push(`${file} imports a package`);
    const found = forbidden.exec(code);
    if (found !== null) wrong.push(`${file} uses ${found[0]}`);
  }
  expect(wrong).toEqual([]);
});

test("imports inside the house name the defining file", () => {
  const wrong = production.flatMap((file) =>
    importsOf(file)
      .filter((specifier) => specifier.startsWith(".") && !specifier.endsWith(".ts"))
      .map((specifier) => `${file}: ${specifier}`),
  );
  expect(wrong).toEqual([]);
});

test("every file says in its head what it is, nothing swallows an error in silence, and no FIXME is on main", () => {
  const wrong: string[] = [];
  for (const file of production) {
    const text = readFileSync(join(source, file), "utf8");
    if (!/^(?:#!.*\n)?\/\*\*/.test(text)) wrong.push(`${file} has no head comment`);
    if (/\bFIXME\b/.test(text)) wrong.push(`${file} has a FIXME`);
    if (/catch\s*(?:\([^)]*\))?\s*\{\s*\}/.test(text)) wrong.push(`${file} has an empty catch`);
    if (/\.catch\(\(\)\s*=>\s*\{\s*\}\)/.test(text)) wrong.push(`${file} swallows a rejection`);
  }
  expect(wrong).toEqual([]);
});

test("the lock file names no registry but npm's public one", () => {
  const lock = readFileSync(join(root, "package-lock.json"), "utf8");
  const hosts = new Set([...lock.matchAll(/"resolved": "https?:\/\/([^/"]+)/g)].map((match) => match[1]));
  expect([...hosts].filter((host) => host !== "registry.npmjs.org")).toEqual([]);
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}
