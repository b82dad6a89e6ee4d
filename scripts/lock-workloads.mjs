// `npm run lock-workloads -- [options]`: builds Jepsen's lock workloads beside the source and runs them on real servers.
// `--planted [NAME]`: plants one bug at a time (`src/torture/plants.ts`) into a copy of what was built, and wants each to be found.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const hunts = [
  { name: "everybody-is-first", seconds: 10, expected: ["two-holders", "file-update-lost", "guard-refused-holder"] },
  {
    name: "held-ignores-the-clock",
    seconds: 20,
    expected: ["two-holders", "file-write-late", "file-update-lost", "guard-refused-holder"],
  },
  // Few additions come late.
  { name: "guard-always-holds", seconds: 120, expected: ["set-order"] },
];

const out = resolve("node_modules/.lock-workloads");
rmSync(out, { recursive: true, force: true });
const built = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.workloads.json"], {
  stdio: ["ignore", 2, 2],
});
if (built.status !== 0 || !existsSync(`${out}/test/lock-workloads/main.js`)) process.exit(2);
writeFileSync(`${out}/package.json`, '{ "type": "module" }');
const { plant } = await import(`${out}/src/torture/plants.js`);
const args = process.argv.slice(2);
process.exit(args[0] === "--planted" ? hunt(args.slice(1)) : run(out, args, "inherit").status);

function run(folder, options, output) {
  return spawnSync(process.execPath, [`${folder}/test/lock-workloads/main.js`, ...options], {
    stdio: ["ignore", output, "inherit"],
  });
}

function hunt(options) {
  const [first, ...rest] = options;
  const isNamed = first !== undefined && !first.startsWith("-");
  const chosen = isNamed ? hunts.filter(({ name }) => name === first) : hunts;
  if (chosen.length === 0)
    throw new Error(`No plant is called "${first}". There are: ${hunts.map(({ name }) => name).join(", ")}.`);
  const missed = chosen.filter((hunt) => !isCaught(hunt, isNamed ? rest : options));
  console.log(`${chosen.length - missed.length} of ${chosen.length} planted bugs were caught.`);
  return missed.length === 0 ? 0 : 1;
}

function isCaught({ expected, name, seconds }, options) {
  const folder = mkdtempSync(join(tmpdir(), "conclave-planted-"));
  try {
    cpSync(out, folder, { recursive: true });
    symlinkSync(resolve("node_modules"), join(folder, "node_modules"));
    plant(name, join(folder, "src"));
    const json = join(folder, "result.json");
    const { status } = run(folder, ["--seed", "1", "--seconds", `${seconds}`, "--json", json, ...options], "ignore");
    const kinds = existsSync(json)
      ? JSON.parse(readFileSync(json, "utf8")).flatMap(({ violations = [] }) => violations.map(({ kind }) => kind))
      : [];
    const caught = status === 1 && expected.some((kind) => kinds.includes(kind));
    console.log(`${caught ? "caught" : "MISSED"}  ${name}: ${[...new Set(kinds)].join(", ") || "no violation"}`);
    return caught;
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
