// `npm run example:bank -- [seconds]`: builds the examples beside the source and runs one.
import { spawnSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";

const [name, ...options] = process.argv.slice(2);
const out = "node_modules/.examples";
rmSync(out, { recursive: true, force: true });
const flags = ["--noEmit", "false", "--rootDir", ".", "--outDir", out];
const built = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.examples.json", ...flags], {
  stdio: ["ignore", 2, 2],
});
const entry = `${out}/examples/${name}/${name}.js`;
if (built.status !== 0 || !existsSync(entry)) process.exit(1);
writeFileSync(`${out}/package.json`, '{ "type": "module" }');
const { status } = spawnSync(process.execPath, [entry, ...options], { stdio: "inherit" });
process.exit(status ?? 1);
