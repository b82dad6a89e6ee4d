// `npm run ok`: everything that must hold before a commit lands. Reads only; `npm run fix` writes.
import { spawnSync } from "node:child_process";

const node = process.execPath;
const steps = [
  ["types", [node, "node_modules/typescript/bin/tsc", "--noEmit"]],
  ["lint and format", [node, "node_modules/@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."]],
  ["the packed package", [node, "scripts/check-package.mjs"]],
  ["tests", [node, "scripts/test.mjs"]],
];
for (const [name, [command, ...args]] of steps) {
  console.log(`\n== ${name}`);
  const startedMs = Date.now();
  const { status } = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) {
    console.error(`\nNot ok: ${name}.${name === "lint and format" ? " `npm run fix` mends most of it." : ""}`);
    process.exit(1);
  }
  console.log(`== ${name}: ok, ${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
}
console.log("\nok");
