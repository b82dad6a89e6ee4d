/**
 * A JTA manager of the JVM beside ours: Atomikos TransactionsEssentials with the databases' own JDBC drivers. One process for the
 * whole bench, so that its code is warm when it is measured.
 */
import { startJvm } from "./jvm-process.ts";

export interface JtaPeer {
  readonly name: string;
  readonly version: string;
  /** `marked`: each branch also writes the row that ours writes, the same INSERT with the same values. */
  measure(
    connections: number,
    seconds: number,
    marked: boolean,
  ): Promise<{ readonly rate: number; readonly p50: number; readonly p99: number }>;
  stop(): void;
}

const version = "5.0.9";

export async function startJta(ports: {
  readonly postgres: number;
  readonly mariadb: number;
}): Promise<JtaPeer | { readonly skipped: string }> {
  const jvm = await startJvm("transactions", "JtaPeer", [String(ports.postgres), String(ports.mariadb), "."]);
  if ("skipped" in jvm) return jvm;
  return {
    name: "Atomikos",
    version,
    measure: async (connections, seconds, marked) => {
      jvm.say(`${connections} ${seconds} ${marked ? "marked" : "plain"}`);
      const line = await jvm.hear(/^[\d.E-]+ [\d.E-]+ [\d.E-]+$/);
      const [rate = 0, p50 = 0, p99 = 0] = line.split(" ").map(Number);
      return { rate, p50, p99 };
    },
    stop: () => jvm.stop(),
  };
}
