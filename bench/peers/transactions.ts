/**
 * A JTA manager of the JVM beside ours: Atomikos TransactionsEssentials with the databases' own JDBC drivers, built by Maven on
 * first use. One process for the whole bench, so that its code is warm when it is measured.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

export interface JtaPeer {
  readonly name: string;
  readonly version: string;
  measure(connections: number, seconds: number): Promise<{ readonly rate: number; readonly p50: number; readonly p99: number }>;
  stop(): void;
}

const version = "5.0.9";

export async function startJta(ports: {
  readonly postgres: number;
  readonly mariadb: number;
}): Promise<JtaPeer | { readonly skipped: string }> {
  const built = resolve("node_modules/.bench-jta");
  if (!existsSync(`${built}/lib`)) {
    const goals = ["compile", "dependency:copy-dependencies", `-DoutputDirectory=${built}/lib`, `-Dbuild.folder=${built}`];
    const { status } = spawnSync("mvn", ["-q", "-f", resolve("bench/peers/transactions/pom.xml"), ...goals], {
      stdio: "inherit",
    });
    if (status !== 0) return { skipped: "Maven could not build the JTA peer (needs a JDK 17, Maven and Maven Central)" };
  }
  const log = resolve("node_modules/.bench-jta/log");
  mkdirSync(log, { recursive: true });
  const args = ["-cp", `${built}/classes:${built}/lib/*`, "JtaPeer", String(ports.postgres), String(ports.mariadb), log];
  const child = spawn("java", args, { stdio: ["pipe", "pipe", "ignore"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  if ((await nextLine(child, lines)) !== "ready") return { skipped: "the JTA peer did not start" };
  return {
    name: "Atomikos",
    version,
    measure: async (connections, seconds) => {
      child.stdin.write(`${connections} ${seconds}\n`);
      const [rate = 0, p50 = 0, p99 = 0] = (await nextLine(child, lines)).split(" ").map(Number);
      return { rate, p50, p99 };
    },
    stop: () => {
      child.kill("SIGKILL");
    },
  };
}

/** What the peer logs on its standard output is not ours to read. */
async function nextLine(child: ChildProcess, lines: AsyncIterator<string>): Promise<string> {
  for (;;) {
    const { done, value } = await lines.next();
    if (done === true) throw new Error(`The JTA peer ended with ${child.exitCode ?? child.signalCode}.`);
    if (value === "ready" || /^[\d.E-]+ [\d.E-]+ [\d.E-]+$/.test(value)) return value;
  }
}
