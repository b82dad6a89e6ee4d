// `npm run trace-hash`: the same seeds on several versions of Node must go through the same steps. Each version is npm's own
// `node` package, fetched by `npm exec`; prints one line per protocol, world and version, and fails when two differ.
//
//   npm run trace-hash -- [--versions 20,22,24] [--seeds N]
import { execFileSync } from "node:child_process";
import { flagsOf } from "./flags.mjs";

const values = flagsOf(import.meta.url, {
  versions: { type: "string", default: "20,22,24" },
  seeds: { type: "string", default: "20" },
});
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const runs = [
  ["raft", "core"],
  ["raft", "stack"],
  ["paxos", "core"],
  ["paxos", "stack"],
  ["zab", "core"],
  ["zab", "stack"],
  ["pbft", "core"],
  ["transactions", "transactions"],
  ["cache", "cache"],
];
let differs = false;
for (const [protocol, world] of runs) {
  const hashes = new Set();
  for (const version of values.versions.split(",")) {
    const node = (...args) =>
      execFileSync(npm, ["exec", "--yes", `--package=node@${version}`, "--", "node", ...args], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
        env: { ...process.env, npm_config_node_version: undefined },
      });
    const exact = node("--version").trim();
    const { worlds } = JSON.parse(
      node("dist/simulator/main.js", "--protocol", protocol, "--world", world, "--seeds", values.seeds, "--json"),
    );
    const { seeds, steps, traceHash } = worlds[world];
    console.log(
      `${protocol}, ${world}: ${exact}: ${seeds} seeds, ${steps.toLocaleString("en-US")} steps, trace hash ${traceHash}`,
    );
    hashes.add(`${seeds} ${steps} ${traceHash}`);
  }
  if (hashes.size > 1) differs = true;
}
console.log(differs ? "The versions differ." : "Every version went through the same steps.");
process.exitCode = differs ? 1 : 0;
