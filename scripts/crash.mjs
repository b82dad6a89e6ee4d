// `npm run crash -- [options]`: builds the crash harness of transactions beside the source and runs it.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";

// A folder of its own: `npm test` runs a few points, perhaps beside a long run by hand.
const out = mkdtempSync("node_modules/.crash-");
process.on("exit", () => rmSync(out, { recursive: true, force: true }));
const built = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.crash.json", "--outDir", out], {
  stdio: ["ignore", 2, 2],
});
if (built.status !== 0 || !existsSync(`${out}/test/crash/main.js`)) process.exit(1);
writeFileSync(`${out}/package.json`, '{ "type": "module" }');
// `--only tcc,saga,outbox`: services, sagas and outboxes; without it the two-phase commit.
const entry = process.argv.includes("--only") ? "services-main" : "main";
const { status } = spawnSync(process.execPath, [`${out}/test/crash/${entry}.js`, ...process.argv.slice(2)], { stdio: "inherit" });
process.exit(status ?? 1);
