/**
 * A peer that lives in a JVM: built by Maven on first use and when its source has changed, spoken to by lines, warm for the whole bench.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

export interface JvmProcess {
  say(line: string): void;
  /** The next line that the pattern knows: what a library logs is not ours to read. Rejects when the process has ended. */
  hear(pattern: RegExp): Promise<string>;
  /** Kills it; what it still held ends with its lease. */
  stop(): void;
}

/** `folder`: of the `pom.xml`, in `bench/peers`. */
export async function startJvm(
  folder: string,
  main: string,
  args: readonly string[],
): Promise<JvmProcess | { readonly skipped: string }> {
  const built = resolve(`node_modules/.bench-jvm/${folder}`);
  // Also where the peer's source has changed since: what runs would else be an older peer, under the new one's name.
  if (!existsSync(`${built}/lib`) || newestMs(resolve(`bench/peers/${folder}`)) > newestMs(`${built}/classes`)) {
    const goals = ["compile", "dependency:copy-dependencies", `-DoutputDirectory=${built}/lib`, `-Dbuild.folder=${built}`];
    const { status } = spawnSync("mvn", ["-q", "-B", "-f", resolve(`bench/peers/${folder}/pom.xml`), ...goals], {
      stdio: "inherit",
    });
    if (status !== 0) return { skipped: `Maven could not build ${main} (needs a JDK 17, Maven and Maven Central)` };
  }
  const log = `${built}/log`;
  mkdirSync(log, { recursive: true });
  const child = spawn("java", ["-cp", `${built}/classes:${built}/lib/*`, main, ...args], {
    cwd: log,
    stdio: ["pipe", "pipe", "ignore"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const jvm: JvmProcess = {
    say: (line) => void child.stdin.write(`${line}\n`),
    hear: (pattern) => hear(child, lines, pattern),
    stop: () => void child.kill("SIGKILL"),
  };
  const ready = await jvm.hear(/^ready$/).catch(() => undefined);
  return ready === undefined ? { skipped: `${main} ended with ${child.exitCode ?? child.signalCode} before it was ready` } : jvm;
}

async function hear(child: ChildProcess, lines: AsyncIterator<string>, pattern: RegExp): Promise<string> {
  for (;;) {
    const { done, value } = await lines.next();
    if (done === true) throw new Error(`The JVM peer ended with ${child.exitCode ?? child.signalCode}.`);
    if (pattern.test(value)) return value;
  }
}

/** When the youngest file in the folder was written. */
function newestMs(folder: string): number {
  const times = readdirSync(folder, { recursive: true, withFileTypes: true }).flatMap((each) =>
    each.isFile() ? [statSync(join(each.parentPath, each.name)).mtimeMs] : [],
  );
  return Math.max(0, ...times);
}
