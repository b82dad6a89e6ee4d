/**
 * The cluster file: who the replicas are, where they listen, and by which keys replicas and clients are known. The same
 * file lies beside every replica and every client; it holds no secret. The order of the replicas is the order of primaries.
 *
 * ```json
 * { "cluster": "bank",
 *   "replicas": [{ "name": "a", "address": "10.0.0.1:7400", "publicKey": "..." }, ...],
 *   "clients": [{ "name": "teller", "publicKey": "..." }] }
 * ```
 */
import { readFile } from "node:fs/promises";
import { conclaveError } from "../../base/errors.ts";
import { parseAddress } from "../embedded/tcp-transport.ts";
import { publicKeyDer } from "./keys.ts";

export interface ClusterFile {
  readonly cluster: string;
  readonly replicas: readonly { readonly name: string; readonly address: string; readonly publicKey: string }[];
  readonly clients: readonly { readonly name: string; readonly publicKey: string }[];
}

const replicasMax = 64;
const clientsMax = 4_096;

/** @throws INVALID_OPTION, naming the field */
export async function readClusterFile(path: string): Promise<ClusterFile> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The cluster file "${path}" cannot be read as JSON.`, { cause });
  }
  return checkClusterFile(parsed as ClusterFile);
}

/** @throws INVALID_OPTION, naming the field */
export function checkClusterFile(file: ClusterFile): ClusterFile {
  const refuse = (why: string): never => {
    throw conclaveError("INVALID_OPTION", `The cluster file: ${why}.`);
  };
  const { cluster, replicas, clients } = file;
  if (typeof cluster !== "string" || cluster === "") refuse("`cluster` is no name");
  if (!Array.isArray(replicas) || !Array.isArray(clients)) refuse("`replicas` and `clients` must be lists");
  if (replicas.length < 4 || replicas.length > replicasMax)
    refuse(`${replicas.length} replicas; it takes 4 to bear one that lies, ${replicasMax} at most`);
  if (clients.length > clientsMax) refuse(`${clients.length} clients; at most ${clientsMax}`);
  const names = new Set<string>();
  const keys = new Set<string>();
  for (const { name, publicKey } of [...replicas, ...clients]) {
    if (typeof name !== "string" || name === "" || typeof publicKey !== "string")
      refuse("a replica or client lacks name or publicKey");
    if (names.has(name)) refuse(`"${name}" stands there twice`);
    // Two replicas with one key would be one voice with two votes.
    if (keys.has(publicKey)) refuse(`"${name}" has the key of another`);
    names.add(name);
    keys.add(publicKey);
    publicKeyDer(publicKey, name);
  }
  for (const { name, address } of replicas) {
    if (typeof address !== "string") refuse(`replica "${name}" has no address`);
    parseAddress(address);
  }
  return file;
}
