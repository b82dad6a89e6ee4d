// `npm run mutants`: plants bugs one at a time into a copy of the source, hunts each with the simulator, and prints which
// invariant caught it, with the seed, the steps and the seconds. A green simulator means something only because these turn
// it red. The source has no switch for any of them: each is a patch on a copy, and one that does not apply is an error.
//
//   npm run mutants -- [--only TEXT] [--protocol NAME] [--cpu-seconds N] [--base N[,N...]] [--jobs N]
//                      [--json FILE] [--markdown FILE] [--shrink FOLDER] [--replay FILE] [--check] [--part K/N] [--harmless]
//
// The bugs stand in `mutants/*.mjs`; each file default-exports an array of
//   { name, source, file, find, replace, also?: [{ file?, find, replace }], protocol?: "raft", world?: "core", tests?, explained? }
// `world: "servers"`: what no simulator runs, or reaches in its budget; hunted by its `tests`, once and not from any base.
// `--shrink` saves a short schedule of each kill in the core and stack worlds into the folder (docs/schedule-format.md).
// `--replay` runs one saved schedule on each bug instead of hunting it. `--part 2/6`: the second of six shares of the list.
// `source`: who shipped it, or which sentence it breaks. `find` must stand exactly once in `src/<file>`.
// `explained`: why a survivor may survive; it is printed, and it still counts as a survivor.
// `harmless`: why this change alone can do no harm: another rule of the code stops it, or nothing can tell it from the
// original. It is not hunted unless `--harmless` asks for it. `pair`: the row that plants it together with the rule that
// stops it, and must die.
// Exit code: 0 all died with every base, 1 one survived, 2 a patch does not apply or a copy does not build.
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { flagsOf } from "./flags.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const values = flagsOf(import.meta.url, {
  only: { type: "string", default: "" },
  protocol: { type: "string", default: "" },
  "cpu-seconds": { type: "string", default: "240" },
  base: { type: "string", default: "1" },
  jobs: { type: "string", default: String(Math.min(2, cpus().length)) },
  json: { type: "string" },
  markdown: { type: "string" },
  shrink: { type: "string" },
  replay: { type: "string" },
  check: { type: "boolean", default: false },
  part: { type: "string", default: "1/1" },
  harmless: { type: "boolean", default: false },
});
const bases = values.base.split(",").map(Number);
const budget = Number(values["cpu-seconds"]);
const [part, parts] = values.part.split("/").map(Number);

const mutants = await readMutants();
const misfits = mutants.flatMap((mutant) => misfitsOf(mutant));
for (const misfit of misfits) console.error(misfit);
if (misfits.length > 0) process.exit(2);
if (values.check) {
  console.log(`${mutants.length} patches apply`);
  process.exit(0);
}

const folder = join(root, "node_modules", `.mutants-${process.pid}`);
const hunted = mutants.filter(({ harmless }) => harmless === undefined || values.harmless);
const waiting = hunted.flatMap((mutant) => basesOf(mutant).map((base) => ({ mutant, base })));
const rows = [];
let broken = false;
try {
  await Promise.all(Array.from({ length: Number(values.jobs) }, (_, slot) => huntAll(join(folder, String(slot)))));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report();

async function readMutants() {
  const files = readdirSync(join(root, "mutants"))
    .filter((file) => file.endsWith(".mjs"))
    .sort();
  const lists = [];
  for (const file of files) {
    const { default: list } = await import(pathToFileURL(join(root, "mutants", file)));
    lists.push(...list.map((mutant) => ({ protocol: "raft", world: "core", ...mutant, list: file.replace(".mjs", "") })));
  }
  const names = new Set();
  for (const { name } of lists) {
    if (names.has(name)) throw new Error(`Two mutants are called "${name}".`);
    names.add(name);
  }
  for (const { name, pair } of lists)
    if (pair !== undefined && !names.has(pair)) throw new Error(`"${name}" names a pair that is in no list: "${pair}"`);
  const text = values.only.toLowerCase();
  const chosen = lists.filter(
    (mutant) =>
      (mutant.name.toLowerCase().includes(text) || mutant.list === text) &&
      (values.protocol === "" || values.protocol === mutant.protocol),
  );
  const share = Math.ceil(chosen.length / parts);
  return chosen.slice((part - 1) * share, part * share);
}

function basesOf({ world }) {
  return world === "servers" ? bases.slice(0, 1) : bases;
}

function patchesOf(mutant) {
  return [mutant, ...(mutant.also ?? [])].map(({ file = mutant.file, find, replace }) => ({ file, find, replace }));
}

function misfitsOf(mutant) {
  return patchesOf(mutant).flatMap(({ file, find, replace }) => {
    const path = join(root, "src", file);
    if (!existsSync(path)) return [`"${mutant.name}": there is no src/${file}`];
    const count = readFileSync(path, "utf8").split(find).length - 1;
    if (count !== 1) return [`"${mutant.name}": found ${count} times in src/${file}: ${find}`];
    return find === replace || typeof replace !== "string" ? [`"${mutant.name}": the patch changes nothing`] : [];
  });
}

/** One slot: its own copy, built once; a mutant costs the building of the files that it touches. */
async function huntAll(copy) {
  if (waiting.some(({ mutant }) => mutant.world !== "servers")) await prepare(copy);
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const { mutant, base } = next;
    await keepRow(mutant, base, () => (mutant.world === "servers" ? testPatched(mutant) : hunt(mutant, base, copy)));
  }
}

async function prepare(copy) {
  mkdirSync(copy, { recursive: true });
  cpSync(join(root, "src"), join(copy, "src"), {
    recursive: true,
    filter: (path) => !path.endsWith(".test.ts") && !/\/(cli|torture)$/.test(path),
  });
  cpSync(join(root, "tsconfig.json"), join(copy, "tsconfig.json"));
  writeFileSync(join(copy, "package.json"), '{ "type": "module" }');
  await build(copy, ["src"]);
  try {
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  } catch {
    // Windows without the right to link: resolution goes up to the repository's own folder all the same.
  }
}

async function keepRow(mutant, base, act) {
  try {
    rows.push({ ...mutant, base, ...(await act()) });
    printRow(rows.at(-1));
  } catch (error) {
    broken = true;
    console.error(`"${mutant.name}": ${error.message}`);
  }
}

/** A copy outside of `node_modules`, where the test runner would take the source for somebody's package. */
async function testPatched(mutant) {
  const copy = mkdtempSync(join(tmpdir(), "conclave-mutant-"));
  try {
    for (const part of ["src", "test", "vitest.config.ts", "tsconfig.json", "package.json"]) {
      cpSync(join(root, part), join(copy, part), { recursive: true });
    }
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
    patch(mutant, copy);
    const startedMs = Date.now();
    const vitest = join(root, "node_modules/vitest/vitest.mjs");
    const { output, code } = await run([vitest, "run", "--bail", "1", "--reporter", "verbose", ...mutant.tests], copy, budget);
    const seconds = (Date.now() - startedMs) / 1_000;
    if (code === "timeout") return { invariant: "Hang", seconds };
    if (code === 0) return { seconds };
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours.
    const [, test] = /FAIL.*?\.test\.ts > (.*)/.exec(output.replace(/\x1b\[\d+m/g, "")) ?? [];
    if (test === undefined) throw new Error(`no test failed, but the run did: ${output.slice(-2_000)}`);
    return { invariant: test, seconds };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

function patch(mutant, copy) {
  for (const { file, find, replace } of patchesOf(mutant)) {
    const path = join(copy, "src", file);
    // A function, because a string would give `$&` and its like a meaning.
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(find, () => replace),
    );
  }
}

async function hunt(mutant, base, copy) {
  const files = [...new Set(patchesOf(mutant).map(({ file }) => join("src", file)))];
  patch(mutant, copy);
  try {
    await build(copy, files);
    return values.replay === undefined ? await simulate(mutant, base, copy) : await replay(copy);
  } finally {
    for (const file of files) cpSync(join(root, file), join(copy, file));
    await build(copy, files);
  }
}

/** Of a whole folder, or of single files, which is much faster: types are not asked, so no file needs another. */
async function build(copy, include) {
  const single = include.some((path) => path.endsWith(".ts"));
  const compilerOptions = { noEmit: false, noCheck: true, noResolve: single, rootDir: "src", outDir: "dist" };
  const settings = { extends: "./tsconfig.json", compilerOptions, [single ? "files" : "include"]: include };
  writeFileSync(join(copy, "tsconfig.build.json"), JSON.stringify(single ? { ...settings, include: [] } : settings));
  const built = await run([join(root, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json"], copy, 120);
  if (built.code !== 0) throw new Error(`the patched copy does not build: ${built.output}`);
}

async function simulate({ name, protocol, world }, base, copy) {
  const args = [join(copy, "dist/simulator/main.js"), "--protocol", protocol, "--world", world, "--from", String(base)];
  args.push("--seeds", "1000000", "--jobs", "1", "--cpu-seconds", String(budget), "--until-failure", "--json");
  const startedMs = Date.now();
  // The budget is processor time: on a machine that others use, too, it may take long, and slow is not hung.
  const { output, code } = await run(args, copy, 20 * budget + 120);
  const seconds = (Date.now() - startedMs) / 1_000;
  // Virtual time that stands still for ever: no seed ends, and no invariant is asked.
  if (code === "timeout") return { invariant: "Hang", seconds };
  let result;
  try {
    result = JSON.parse(output);
  } catch {
    throw new Error(`the simulator did not run: ${output.slice(-2_000)}`);
  }
  const { steps } = result.worlds[world];
  const [failure] = result.failures;
  if (failure === undefined) return { steps, seconds };
  // A patch that does not make sense is not a bug that was caught.
  if (["ReferenceError", "SyntaxError"].includes(failure.invariant)) throw new Error(failure.message);
  const row = { invariant: failure.invariant, message: failure.message, seed: failure.seed, steps, seconds };
  if (values.shrink === undefined || !["core", "stack"].includes(world)) return row;
  const file = join(values.shrink, `${name.replace(/[^a-z0-9]+/gi, "-").toLowerCase()}.json`);
  mkdirSync(values.shrink, { recursive: true });
  const which = ["--protocol", protocol, "--world", world, "--seed", String(failure.seed)];
  const shrunk = await run([args[0], ...which, "--shrink", file], copy, 1_200);
  console.log(shrunk.output.trim());
  if (existsSync(file)) {
    const schedule = JSON.parse(readFileSync(file, "utf8"));
    row.events = schedule.events.length;
    schedule.found.mutant = name;
    writeFileSync(file, formatted(schedule));
  }
  return row;
}

async function replay(copy) {
  const startedMs = Date.now();
  const { output } = await run([join(copy, "dist/simulator/main.js"), "--replay", resolve(values.replay)], copy, 60);
  console.log(output.trim());
  return { invariant: /VIOLATION (\w+)/.exec(output)?.[1], seconds: (Date.now() - startedMs) / 1_000 };
}

/** As the simulator writes it: one event a line. */
function formatted({ events, ...head }) {
  const lines = events.map((event) => `    ${JSON.stringify(event)}`).join(",\n");
  return `${JSON.stringify(head, null, 2).slice(0, -2)},\n  "events": [\n${lines}\n  ]\n}\n`;
}

function run(args, cwd, secondsMax) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "pipe"], detached: true });
    let output = "";
    let timedOut = false;
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
    const timer = setTimeout(() => {
      timedOut = true;
      // The whole group: the simulator works in a process of its own.
      process.kill(-child.pid, "SIGKILL");
    }, secondsMax * 1_000);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ output, code: timedOut ? "timeout" : code });
    });
  });
}

function printRow({ name, base, invariant, seed, steps, seconds }) {
  const verdict = invariant === undefined ? "SURVIVED" : `${invariant}${seed === undefined ? "" : `, seed ${seed}`}`;
  console.log(`${name} [${base}]: ${verdict} (${count(steps)} steps, ${seconds.toFixed(1)} s)`);
}

function report() {
  const byMutant = hunted.map((mutant) => ({ mutant, found: rows.filter((row) => row.name === mutant.name) }));
  const survivors = rows.filter((row) => row.invariant === undefined);
  if (values.json !== undefined) {
    const table = rows.map(({ find, replace, also, ...row }) => row);
    writeFileSync(values.json, `${JSON.stringify({ bases, cpuSeconds: budget, rows: table }, null, 2)}\n`);
  }
  if (values.markdown !== undefined) writeFileSync(values.markdown, toMarkdown(byMutant));
  for (const row of survivors) {
    console.log(
      `SURVIVED: ${row.name} (base ${row.base}, ${row.list})${row.explained === undefined ? "" : `: ${row.explained}`}`,
    );
  }
  const dead = byMutant.filter(({ found }) => found.length > 0 && found.every((row) => row.invariant !== undefined)).length;
  console.log(
    `${dead} of ${hunted.length} died with every one of ${bases.length} seed bases; ${survivors.length} hunts without a kill`,
  );
  for (const { name, harmless, pair } of mutants.filter((mutant) => !hunted.includes(mutant)))
    console.log(`not hunted: ${name}: ${harmless}${pair === undefined ? "" : ` With it: "${pair}".`}`);
  process.exitCode = broken ? 2 : survivors.length === 0 ? 0 : 1;
}

function toMarkdown(byMutant) {
  const head = [
    "list",
    "bug",
    "who shipped it, or what it breaks",
    "caught by",
    ...bases.map((base) => `base ${base}: seed, steps, seconds`),
  ];
  const lines = byMutant.map(({ mutant, found }) => {
    const invariants = [...new Set(found.map((row) => row.invariant ?? "**survived**"))].join(", ");
    const cells = bases.map((base) => {
      const row = found.find((one) => one.base === base);
      if (row === undefined) return "not run";
      return row.invariant === undefined
        ? `survived ${count(row.steps)}, ${row.seconds.toFixed(0)} s`
        : `${row.seed ?? ""}, ${count(row.steps)}, ${row.seconds.toFixed(1)}`;
    });
    return [mutant.list, mutant.name, mutant.source, invariants, ...cells];
  });
  return `${[head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n")}\n`;
}

function count(steps) {
  return (steps ?? 0).toLocaleString("en-US");
}
