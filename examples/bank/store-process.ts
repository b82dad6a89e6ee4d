/**
 * The store as a process of its own, on disk: decisions outlive whoever made them.
 */
import { spawn } from "node:child_process";
import { freePorts } from "../../src/cli/free-ports.ts";
import { canConnect, ended, until } from "../../test/servers/database-process.ts";

export async function serve(data: string): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const [port] = (await freePorts(1)) as [number];
  const args = ["dist/cli/main.js", "serve", "--data", data, "--listen", `127.0.0.1:${port}`, "--log-level", "error"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
  process.once("exit", () => child.kill("SIGKILL"));
  await until(() => canConnect(port));
  return {
    url: `conclave://127.0.0.1:${port}`,
    stop: async () => {
      child.kill("SIGTERM");
      await ended(child);
    },
  };
}
