/**
 * Proves that the torture run can fail: plants one bug at a time into a copy of the built product, runs a short torture on
 * the copy, and tells which violations were found. A judge that has never found anybody guilty proves nothing.
 *
 *   node dist/torture/planted.js [NAME ...]        default: all of them
 *
 * The bugs are edits of the built text, so the product itself has no switch for them. An edit that no longer fits exactly
 * once is an error: the code has moved on, and the plant must follow.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { ViolationKind } from "./evidence.ts";
import type { Report } from "./report.ts";

interface Plant {
  readonly name: string;
  /** What is wrong then. */
  readonly means: string;
  /** In `dist`. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly arguments: readonly string[];
  /** At least one of these must be found. */
  readonly expected: readonly ViolationKind[];
}

const plants: readonly Plant[] = [
  {
    name: "guard-always-holds",
    means: "a late holder's txn is let in",
    file: "recipes/place-claim.js",
    find: `const compare = { key, target: "createRevision", is: "equal", to: createRevision };`,
    replace: `const compare = { key, target: "createRevision", is: "less", to: Number.MAX_SAFE_INTEGER };`,
    arguments: ["--minutes", "0.75", "--ttl", "1s", "--kill-every", "20s"],
    expected: ["set-order"],
  },
  {
    name: "held-ignores-the-clock",
    means: "a holder that slept believes that it holds until somebody tells it otherwise",
    file: "client/session.js",
    find: "return isInTime && !this.#lost.signal.aborted;",
    replace: "return !this.#lost.signal.aborted;",
    arguments: ["--minutes", "0.75", "--ttl", "1s", "--kill-every", "20s"],
    expected: ["two-holders", "file-write-late", "file-update-lost", "guard-refused-holder"],
  },
  {
    name: "token-always-one",
    means: "tokens do not rise",
    file: "recipes/hold.js",
    find: "this.token = options.token;",
    replace: "this.token = 1;",
    arguments: ["--minutes", "0.1"],
    expected: ["token-repeated"],
  },
  {
    name: "lease-too-short",
    means: "the leader lets a lock pass on before its holder stops by its own clock",
    file: "replica/session-keeper.js",
    find: "kept.deadlineMs = this.#platform.now() + kept.ttlMs;",
    replace: "kept.deadlineMs = this.#platform.now() + kept.ttlMs * 0.3;",
    arguments: ["--minutes", "0.4", "--kill-every", "10s"],
    expected: ["two-holders", "guard-refused-holder"],
  },
  {
    name: "commit-without-a-majority",
    means: "the leader answers when its own disk has it",
    file: "consensus/raft/raft.js",
    find: "const index = quorumReached(this.#configuration, (member) => member === this.#self ? this.#durableIndex : (this.#progress.get(member)?.match ?? 0));",
    replace: "const index = this.#durableIndex;",
    arguments: ["--minutes", "0.75", "--kill-every", "1s"],
    expected: ["set-element-lost", "registers-not-linearizable", "probe-lost", "member-died", "two-holders", "members-differ"],
  },
  {
    name: "claims-forgotten",
    means: "a mutation that is said twice happens twice",
    file: "store/machine.js",
    find: "if (first !== undefined)\n            return first;",
    replace: "",
    arguments: ["--minutes", "0.5", "--kill-every", "1s"],
    expected: ["registers-not-linearizable"],
  },
];

process.exit(main(process.argv.slice(2)));

function main(names: readonly string[]): number {
  const chosen = names.length === 0 ? plants : plants.filter(({ name }) => names.includes(name));
  const unknown = names.find((name) => !plants.some((plant) => plant.name === name));
  if (unknown !== undefined) {
    console.error(`No plant is called "${unknown}". There are: ${plants.map(({ name }) => name).join(", ")}.`);
    return 2;
  }
  const missed = chosen.filter((plant) => !isCaught(plant));
  console.log(`${chosen.length - missed.length} of ${chosen.length} planted bugs were caught.`);
  return missed.length === 0 ? 0 : 1;
}

function isCaught(plant: Plant): boolean {
  const folder = mkdtempSync(join(tmpdir(), "conclave-planted-"));
  try {
    copyProduct(folder);
    edit(join(folder, "dist", plant.file), plant);
    const reportPath = join(folder, "report.json");
    const args = [...plant.arguments, "--seed", "1", "--json", reportPath, "--directory", folder];
    const startedAtMs = performance.now();
    const { status, stderr } = spawnSync(process.execPath, [join(folder, "dist", "torture", "main.js"), ...args], {
      encoding: "utf8",
    });
    const tookSeconds = ((performance.now() - startedAtMs) / 1_000).toFixed(0);
    if (!existsSync(reportPath)) throw new Error(`The run on "${plant.name}" left no report, exit ${status}:\n${stderr}`);
    const found = countKinds(JSON.parse(readFileSync(reportPath, "utf8")) as Report);
    const caught = status === 1 && plant.expected.some((kind) => found.has(kind));
    const list = [...found].map(([kind, count]) => `${count} ${kind}`).join(", ");
    console.log(
      `${caught ? "caught" : "MISSED"}  ${plant.name} (${plant.means}): ${list || "no violation"}, in ${tookSeconds} s`,
    );
    return caught;
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** `dist` and what it needs around it. */
function copyProduct(folder: string): void {
  const dist = dirname(import.meta.dirname);
  cpSync(dist, join(folder, "dist"), { recursive: true });
  copyFileSync(join(dirname(dist), "package.json"), join(folder, "package.json"));
  symlinkSync(join(dirname(dist), "node_modules"), join(folder, "node_modules"));
}

function edit(path: string, { find, name, replace }: Plant): void {
  const parts = readFileSync(path, "utf8").split(find);
  if (parts.length !== 2)
    throw new Error(
      `"${name}" fits ${parts.length - 1} times into ${path}; it must fit once. The code has moved on: correct the plant.`,
    );
  writeFileSync(path, parts.join(replace));
}

function countKinds({ violations }: Report): Map<ViolationKind, number> {
  const counts = new Map<ViolationKind, number>();
  for (const { kind } of violations) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}
