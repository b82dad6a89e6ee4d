/**
 * The options of every command that talks to a store, and the way from them to an open one.
 */
import { type Command, Option } from "commander";
import type { Conclave } from "../index.ts";
import { connect } from "../index.ts";
import { parseDuration } from "./duration.ts";

export interface StoreFlags {
  readonly store: string;
  readonly cluster?: string;
  readonly namespace: string;
  readonly timeout: number;
  readonly json: boolean;
  readonly verbose: boolean;
}

export const defaultStore = "conclave://127.0.0.1:7400";

export function addStoreFlags(command: Command, options: { readonly namespace: boolean }): Command {
  command
    .addOption(
      new Option("--store <url>", "where: conclave://host:port[,...], file:DIRECTORY, redis://host:port, ...")
        .env("CONCLAVE_STORE")
        .default(defaultStore),
    )
    .addOption(new Option("--cluster <name>", "refuse to talk to any other cluster"))
    .addOption(
      new Option("--timeout <duration>", "how long to wait for the store's answer")
        .argParser(parseDuration)
        .default(10_000, "10s"),
    );
  if (options.namespace) command.option("--namespace <name>", "where the keys live", "default");
  return addOutputFlags(command);
}

export function addOutputFlags(command: Command): Command {
  return command
    .option("--json", "print JSON, and errors as JSON on standard error", false)
    .option("--verbose", "print stacks and causes of errors", false);
}

/** Opens the store, does the work, closes: sessions end, and with them locks and waits. The signal ends the opening. */
export async function withConclave<T>(
  flags: StoreFlags,
  work: (conclave: Conclave) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const conclave = await connect({ ...connectOptions(flags), ...(signal === undefined ? {} : { signal }) });
  try {
    return await work(conclave);
  } finally {
    await conclave.close();
  }
}

export function connectOptions({ store, cluster, timeout }: StoreFlags): { url: string; timeoutMs: number; cluster?: string } {
  return { url: store, timeoutMs: timeout, ...(cluster === undefined ? {} : { cluster }) };
}
