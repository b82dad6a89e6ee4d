// Makes a fresh clone ready: installs what the lock file names and builds `dist`, each only when it is missing or old.
// Every npm script begins with it, so `npm start` and `npm test` are the first commands that anyone needs.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`Conclave needs Node 20.19 or newer; this is ${process.versions.node}. Install a newer Node and try again.`);
}

const force = process.argv.includes("--force");
if (!existsSync("node_modules/.package-lock.json") || newer("package-lock.json", "node_modules/.package-lock.json")) {
  say("Installing the development tools (npm ci) ...");
  // No dependency needs an install script, so none is run.
  run(
    process.platform === "win32" ? "npm.cmd" : "npm",
    ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
    "Installing failed. Is the npm registry reachable?",
  );
}
const stamp = "dist/.built";
if (
  force ||
  !existsSync(stamp) ||
  newest("src") > statSync(stamp).mtimeMs ||
  newer("tsconfig.build.json", stamp) ||
  newer("tsconfig.json", stamp)
) {
  say("Building dist ...");
  rmSync("dist", { recursive: true, force: true });
  run(
    process.execPath,
    ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"],
    "The build failed; the messages above say where.",
  );
  mkdirSync("dist", { recursive: true });
  writeFileSync(stamp, "");
}

function newest(folder) {
  let latest = statSync(folder).mtimeMs;
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, item.name);
    latest = Math.max(latest, item.isDirectory() ? newest(path) : statSync(path).mtimeMs);
  }
  return latest;
}

function newer(file, than) {
  return existsSync(file) && statSync(file).mtimeMs > statSync(than).mtimeMs;
}

function run(command, args, onFailure) {
  const result = spawnSync(command, args, { stdio: ["ignore", 2, 2] });
  if (result.status !== 0) fail(onFailure);
}

function say(text) {
  process.stderr.write(`${text}\n`);
}

function fail(text) {
  say(text);
  process.exit(1);
}
