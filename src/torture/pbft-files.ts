/**
 * Keys and cluster files of a Byzantine cluster of four: each member has a cluster file of its own, in which the addresses of
 * the others are those of the links that lead from it to them.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ClusterFile, generateKey, type KeyFile } from "../index.ts";

export interface PbftFiles {
  /** By member. */
  readonly flagsOf: (member: string) => readonly string[];
  /** By client: what `connectPbft` takes. */
  readonly access: (client: string) => PbftAccess;
}

export interface PbftAccess {
  readonly clusterFile: ClusterFile;
  readonly key: KeyFile;
}

export function makePbftFiles(options: {
  readonly directory: string;
  readonly cluster: string;
  readonly members: readonly { readonly name: string; readonly address: string }[];
  readonly clients: readonly string[];
  readonly addressFor: (from: string, to: string) => string;
}): PbftFiles {
  const { addressFor, cluster, directory, members } = options;
  const keys = new Map([...members.map(({ name }) => name), ...options.clients].map((name) => [name, generateKey(name)]));
  const publicKeyOf = (name: string): string => (keys.get(name) as KeyFile).publicKey;
  const fileWith = (addressOf: (name: string) => string): ClusterFile => ({
    cluster,
    replicas: members.map(({ name }) => ({ name, address: addressOf(name), publicKey: publicKeyOf(name) })),
    clients: options.clients.map((name) => ({ name, publicKey: publicKeyOf(name) })),
  });
  mkdirSync(directory, { recursive: true });
  for (const { name } of members) {
    const clusterFile = fileWith((other) => addressFor(name, other));
    writeFileSync(join(directory, `${name}.json`), JSON.stringify(clusterFile));
    writeFileSync(join(directory, `${name}.key`), JSON.stringify(keys.get(name)), { mode: 0o600 });
  }
  const forClients = fileWith((name) => (members.find((member) => member.name === name) as { address: string }).address);
  return {
    flagsOf: (member) => ["--cluster-file", join(directory, `${member}.json`), "--key", join(directory, `${member}.key`)],
    access: (client) => ({ clusterFile: forClients, key: keys.get(client) as KeyFile }),
  };
}
