// `npm run bench -- NAME [options]`: builds the benches beside the source and runs one. Benches run alone on the machine.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { headOf } from "./flags.mjs";

const [name, ...options] = process.argv.slice(2);
const names = readdirSync("bench").flatMap((file) => (/^[a-z0-9-]+\.ts$/.test(file) ? [file.slice(0, -3)] : []));
const known = names.filter(
  (each) =>
    !["load", "pbft-load", "figures", "processor", "cluster", "pbft-cluster", "cache-rig", "cache-subject"].includes(each),
);
if (name === undefined || !known.includes(name)) {
  console.error(`npm run bench -- NAME, where NAME is one of: ${known.join(", ")}.`);
  process.exit(2);
}
if (options.includes("--help") || options.includes("-h")) {
  console.log(headOf(`bench/${name}.ts`));
  process.exit(0);
}
const out = "node_modules/.bench";
rmSync(out, { recursive: true, force: true });
const built = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.bench.json"], {
  stdio: ["ignore", 2, 2],
});
if (built.status !== 0 || !existsSync(`${out}/bench/${name}.js`)) process.exit(1);
writeFileSync(`${out}/package.json`, '{ "type": "module" }');
const { status } = spawnSync(process.execPath, ["--expose-gc", `${out}/bench/${name}.js`, ...options], { stdio: "inherit" });
process.exit(status ?? 1);
