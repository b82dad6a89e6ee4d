/**
 * Installs the packages that a bench stands beside, at the versions of its own lock file, into the peers' own folder.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Answers with the folder. */
export function installPeers(name: string): string {
  const folder = `${process.cwd()}/bench/peers/${name}`;
  if (existsSync(`${folder}/node_modules/.package-lock.json`)) return folder;
  console.error(`Installing the peers of ${name} (npm ci) ...`);
  const command = existsSync(`${folder}/package-lock.json`) ? "ci" : "install";
  const { status } = spawnSync("npm", [command, "--ignore-scripts", "--no-audit", "--no-fund"], {
    cwd: folder,
    stdio: ["ignore", 2, 2],
  });
  if (status !== 0) throw new Error(`The peers of ${name} could not be installed.`);
  return folder;
}
