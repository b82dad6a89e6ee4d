// Packs the package, installs the tarball into an empty folder, and uses it as a stranger would: import, lock, types, bin.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const folder = mkdtempSync(join(tmpdir(), "conclave-package-"));
try {
  execFileSync(npm, ["pack", "--pack-destination", folder, "--ignore-scripts"], { stdio: ["ignore", "ignore", "pipe"] });
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "stranger", private: true, type: "module" }));
  execFileSync(npm, ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", join(folder, tarball)], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  writeFileSync(
    join(folder, "use.mts"),
    `import { connect, type Hold } from "conclave";
import { checkLinearizable } from "conclave/testing";
const conclave = await connect("memory:");
const token: number = await conclave.lock("a stranger's").run(async (hold: Hold) => hold.token);
if (!(token > 0) || typeof checkLinearizable !== "function") throw new Error("the package does not work");
await conclave.close();
`,
  );
  const tsc = resolve("node_modules/typescript/bin/tsc");
  const types = [
    "--module",
    "nodenext",
    "--target",
    "es2022",
    "--strict",
    "--types",
    "node",
    "--typeRoots",
    resolve("node_modules/@types"),
    "--lib",
    "es2023,esnext.disposable",
  ];
  execFileSync(process.execPath, [tsc, ...types, "use.mts"], { cwd: folder, stdio: ["ignore", "inherit", "inherit"] });
  execFileSync(process.execPath, ["use.mjs"], { cwd: folder, stdio: ["ignore", "inherit", "inherit"], timeout: 20_000 });
  const help = execFileSync(process.execPath, ["node_modules/conclave/dist/cli/main.js", "--help"], {
    cwd: folder,
    encoding: "utf8",
  });
  if (!help.includes("conclave")) throw new Error("the packed command shows no help");
  console.log(`${tarball} installs, type-checks and runs in an empty folder.`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
