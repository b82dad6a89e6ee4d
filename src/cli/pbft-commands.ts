/**
 * `conclave pbft ...`: keys and the cluster file, and the few things that a client of a Byzantine cluster can ask.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { conclaveError } from "../base/errors.ts";
import { makeDirectory } from "../engines/embedded/make-directory.ts";
import { readClusterFile } from "../engines/pbft/cluster-file.ts";
import { connectPbft } from "../engines/pbft/connect-pbft.ts";
import { generateKey, readKeyFile, writeKeyFile } from "../engines/pbft/keys.ts";
import type { CasEntry, CasStore } from "../store/store.ts";
import { parseDuration } from "./duration.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exit } from "./fail.ts";
import { oneLine, printJson, printLine } from "./print.ts";
import { addOutputFlags } from "./store-flags.ts";

interface ClientFlags {
  readonly clusterFile: string;
  readonly key: string;
  readonly namespace: string;
  readonly timeout: number;
  readonly json: boolean;
}

export function addPbftCommands(program: Command): void {
  const group = program
    .command("pbft")
    .summary("a cluster some of whose members may lie: keys, and compare-and-set")
    .description(
      "Byzantine agreement: 3f + 1 members bear f that do anything at all. Members run with conclave serve --protocol pbft.",
    );
  addInit(group);
  addKeygen(group);
  addGet(group);
  addSet(group);
  addList(group);
}

function addInit(group: Command): void {
  const command = group
    .command("init")
    .summary("make the keys and the cluster file of a new cluster")
    .description(
      "Makes cluster.json and a key file for each member and client. In earnest each owner makes its key itself (keygen).",
    )
    .argument("<dir>", "where the files go")
    .option("--cluster <name>", "the cluster's name", "local")
    .option(
      "--members <list>",
      "a=host:port,b=host:port,...; four bear one liar, seven two",
      "a=127.0.0.1:7400,b=127.0.0.1:7401,c=127.0.0.1:7402,d=127.0.0.1:7403",
    )
    .option("--clients <list>", "names, separated by commas", "app");
  addOutputFlags(command).action(
    async (directory: string, flags: { cluster: string; members: string; clients: string; json: boolean }) => {
      await makeDirectory(directory);
      const replicas = [];
      for (const part of flags.members.split(",")) {
        const [name, address] = part.split("=");
        if (name === undefined || address === undefined)
          throw conclaveError("INVALID_OPTION", `--members: "${part}" is not of the form name=host:port.`);
        replicas.push({ name, address, publicKey: await makeKey(directory, name) });
      }
      const clients = [];
      for (const name of flags.clients.split(",")) clients.push({ name, publicKey: await makeKey(directory, name) });
      const path = join(directory, "cluster.json");
      await writeFile(path, `${JSON.stringify({ cluster: flags.cluster, replicas, clients }, null, 2)}\n`, { flag: "wx" });
      await readClusterFile(path);
      if (flags.json) printJson({ clusterFile: path, members: replicas.length, clients: clients.length });
      else printLine(`${path}: ${replicas.length} members, ${clients.length} clients; their keys lie beside it, *.key`);
    },
  );
}

async function makeKey(directory: string, name: string): Promise<string> {
  const key = generateKey(name);
  await writeKeyFile(join(directory, `${name}.key`), key);
  return key.publicKey;
}

function addKeygen(group: Command): void {
  const command = group
    .command("keygen")
    .summary("make one Ed25519 key")
    .description("Makes a key file, readable by its owner alone, and prints the public key for the cluster file.")
    .argument("<name>", "of the member or client")
    .requiredOption("--out <file>", "the key file; one that exists is not overwritten");
  addOutputFlags(command).action(async (name: string, flags: { out: string; json: boolean }) => {
    const key = generateKey(name);
    await writeKeyFile(flags.out, key);
    if (flags.json) printJson({ name, publicKey: key.publicKey });
    else printLine(key.publicKey);
  });
}

function addGet(group: Command): void {
  const command = group
    .command("get")
    .summary("read a key")
    .description("Reads a key through the log: what f + 1 members say alike. Exit 1 when it is not there.")
    .argument("<key>");
  addClientFlags(command).action(async (key: string, flags: ClientFlags) => {
    const entry = await withStore(flags, (store) => store.get(key, { timeoutMs: flags.timeout }));
    if (entry === null) throw new Exit(exitCodes.no);
    if (flags.json) printJson(entryJson(entry));
    else printLine(oneLine(Buffer.from(entry.value).toString()));
  });
}

function addSet(group: Command): void {
  const command = group
    .command("set")
    .summary("write a key, if it is as expected")
    .description("Compare-and-set: writes when the key has the expected revision. Exit 1, with what is there, when it has not.")
    .argument("<key>")
    .argument("<value>")
    .option("--expect <revision>", "the revision that must be there, or none", parseRevision, null);
  addClientFlags(command).action(async (key: string, value: string, flags: ClientFlags & { expect: number | null }) => {
    const { applied, current } = await withStore(flags, (store) =>
      store.compareAndSet({ key, value, expected: flags.expect }, { timeoutMs: flags.timeout }),
    );
    if (flags.json) printJson({ applied, current: current === null ? null : entryJson(current) });
    else if (applied) printLine(`revision ${current?.revision}`);
    else
      printLine(
        current === null ? "not there" : `revision ${current.revision}: ${oneLine(Buffer.from(current.value).toString())}`,
      );
    if (!applied) throw new Exit(exitCodes.no);
  });
}

function addList(group: Command): void {
  const command = group
    .command("list")
    .summary("list the keys that begin alike")
    .description("Lists keys in order, with their values.")
    .argument("[prefix]", "what they begin with", "");
  addClientFlags(command).action(async (prefix: string, flags: ClientFlags) => {
    const entries = await withStore(flags, (store) => store.range({ prefix }, { timeoutMs: flags.timeout }));
    for (const entry of entries) {
      if (flags.json) printJson(entryJson(entry));
      else printLine(`${oneLine(entry.key)}\t${oneLine(Buffer.from(entry.value).toString())}`);
    }
  });
}

function addClientFlags(command: Command): Command {
  command
    .requiredOption("--cluster-file <file>", "everybody's names, addresses and public keys")
    .requiredOption("--key <file>", "this client's private key")
    .option("--namespace <name>", "where the keys live", "default")
    .option("--timeout <duration>", "how long to wait for f + 1 equal answers", parseDuration, 10_000);
  return addOutputFlags(command);
}

async function withStore<T>(flags: ClientFlags, work: (store: CasStore) => Promise<T>): Promise<T> {
  const connection = connectPbft({ clusterFile: await readClusterFile(flags.clusterFile), key: await readKeyFile(flags.key) });
  try {
    return await work(connection.cas(flags.namespace));
  } finally {
    await connection.close();
  }
}

function entryJson(entry: CasEntry): Record<string, unknown> {
  return { key: entry.key, value: Buffer.from(entry.value).toString(), revision: entry.revision };
}

function parseRevision(text: string): number | null {
  if (text === "none") return null;
  const revision = Number(text);
  if (!Number.isSafeInteger(revision) || revision < 0) throw new InvalidArgumentError("It is a whole number, or none.");
  return revision;
}
