/**
 * Proves that the torture run can fail: plants one bug at a time into a copy of the built product, runs a short torture on
 * the copy, and tells which violations were found. A judge that has never found anybody guilty proves nothing.
 *
 *   node dist/torture/planted.js [NAME ...]        default: all of them
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { ViolationKind } from "./evidence.ts";
import { type PlantName, plant, plants } from "./plants.ts";
import type { Report } from "./report.ts";

interface Hunt {
  readonly name: PlantName;
  readonly arguments: readonly string[];
  /** At least one of these must be found. */
  readonly expected: readonly ViolationKind[];
}

const hunts: readonly Hunt[] = [
  {
    name: "guard-always-holds",
    arguments: ["--minutes", "0.75", "--ttl", "1s", "--kill-every", "20s"],
    expected: ["set-order"],
  },
  {
    name: "held-ignores-the-clock",
    arguments: ["--minutes", "0.75", "--ttl", "1s", "--kill-every", "20s"],
    expected: ["two-holders", "file-write-late", "file-update-lost", "guard-refused-holder"],
  },
  { name: "token-always-one", arguments: ["--minutes", "0.1"], expected: ["token-repeated"] },
  {
    name: "lease-too-short",
    arguments: ["--minutes", "0.4", "--kill-every", "10s"],
    expected: ["two-holders", "guard-refused-holder"],
  },
  {
    name: "commit-without-a-majority",
    arguments: ["--minutes", "0.75", "--kill-every", "1s"],
    expected: ["set-element-lost", "registers-not-linearizable", "probe-lost", "member-died", "two-holders", "members-differ"],
  },
  {
    name: "claims-forgotten",
    arguments: ["--minutes", "0.5", "--kill-every", "1s"],
    expected: ["registers-not-linearizable"],
  },
];

process.exit(main(process.argv.slice(2)));

function main(names: readonly string[]): number {
  const chosen = names.length === 0 ? hunts : hunts.filter(({ name }) => names.includes(name));
  const unknown = names.find((name) => !hunts.some((hunt) => hunt.name === name));
  if (unknown !== undefined) {
    console.error(`No plant is called "${unknown}". There are: ${hunts.map(({ name }) => name).join(", ")}.`);
    return 2;
  }
  const missed = chosen.filter((hunt) => !isCaught(hunt));
  console.log(`${chosen.length - missed.length} of ${chosen.length} planted bugs were caught.`);
  return missed.length === 0 ? 0 : 1;
}

function isCaught(hunt: Hunt): boolean {
  const folder = mkdtempSync(join(tmpdir(), "conclave-planted-"));
  try {
    copyProduct(folder);
    plant(hunt.name, join(folder, "dist"));
    const reportPath = join(folder, "report.json");
    const args = [...hunt.arguments, "--seed", "1", "--json", reportPath, "--directory", folder];
    const startedAtMs = performance.now();
    const { status, stderr } = spawnSync(process.execPath, [join(folder, "dist", "torture", "main.js"), ...args], {
      encoding: "utf8",
    });
    const tookSeconds = ((performance.now() - startedAtMs) / 1_000).toFixed(0);
    if (!existsSync(reportPath)) throw new Error(`The run on "${hunt.name}" left no report, exit ${status}:\n${stderr}`);
    const found = countKinds(JSON.parse(readFileSync(reportPath, "utf8")) as Report);
    const caught = status === 1 && hunt.expected.some((kind) => found.has(kind));
    const list = [...found].map(([kind, count]) => `${count} ${kind}`).join(", ");
    console.log(
      `${caught ? "caught" : "MISSED"}  ${hunt.name} (${plants[hunt.name].means}): ${list || "no violation"}, in ${tookSeconds} s`,
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

function countKinds({ violations }: Report): Map<ViolationKind, number> {
  const counts = new Map<ViolationKind, number>();
  for (const { kind } of violations) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}
