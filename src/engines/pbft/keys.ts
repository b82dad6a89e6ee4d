/**
 * Ed25519 keys of replicas and clients: made, written to a file, read back, and used to sign.
 *
 * What is signed is `conclave/pbft/CLUSTER` and a zero byte before the statement, so that a statement of one cluster means
 * nothing in another that has the same keys. A key file holds a secret: it is written readable by its owner alone.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { conclaveError } from "../../base/errors.ts";

/** What a key file holds, as JSON. */
export interface KeyFile {
  readonly name: string;
  /** Raw, base64. Belongs into the cluster file. */
  readonly publicKey: string;
  /** PKCS #8, base64. Belongs nowhere else. */
  readonly privateKey: string;
}

export interface SigningKey {
  readonly name: string;
  readonly publicKey: string;
  sign(bytes: Uint8Array): Uint8Array;
}

const rawKeyBytes = 32;
/** The fixed front of an Ed25519 key in SubjectPublicKeyInfo form (RFC 8410 §4). */
const spkiPrefix = Buffer.from("302a300506032b6570032100", "hex");

export function generateKey(name: string): KeyFile {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const spki = publicKey.export({ format: "der", type: "spki" });
  return {
    name,
    publicKey: spki.subarray(spki.length - rawKeyBytes).toString("base64"),
    privateKey: privateKey.export({ format: "der", type: "pkcs8" }).toString("base64"),
  };
}

/** @throws INVALID_OPTION (the file is there already: a key that was overwritten cannot be had back) */
export async function writeKeyFile(path: string, key: KeyFile): Promise<void> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, "wx", 0o600);
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The key file "${path}" cannot be made; one that exists is not overwritten.`, {
      cause,
    });
  }
  try {
    await file.writeFile(`${JSON.stringify(key, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** @throws INVALID_OPTION */
export async function readKeyFile(path: string): Promise<KeyFile> {
  try {
    const { name, publicKey, privateKey } = JSON.parse(await readFile(path, "utf8")) as Partial<KeyFile>;
    if (typeof name !== "string" || typeof publicKey !== "string" || typeof privateKey !== "string") {
      throw new Error("name, publicKey or privateKey is missing");
    }
    return { name, publicKey, privateKey };
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The key file "${path}" cannot be read as one.`, { cause });
  }
}

/** What every signature of the cluster begins with. */
export function contextOf(cluster: string): Uint8Array {
  return Buffer.from(`conclave/pbft/${cluster}\0`);
}

/** @throws INVALID_OPTION (no Ed25519 key) */
export function signingKey(key: KeyFile, cluster: string): SigningKey {
  const context = contextOf(cluster);
  let secret: KeyObject;
  try {
    secret = createPrivateKey({ key: Buffer.from(key.privateKey, "base64"), format: "der", type: "pkcs8" });
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The private key of "${key.name}" is none.`, { cause });
  }
  if (secret.asymmetricKeyType !== "ed25519") throw conclaveError("INVALID_OPTION", `The key of "${key.name}" is not Ed25519.`);
  return {
    name: key.name,
    publicKey: key.publicKey,
    sign: (bytes) => new Uint8Array(sign(null, Buffer.concat([context, bytes]), secret)),
  };
}

/** The DER form that a verifier takes. @throws INVALID_OPTION */
export function publicKeyDer(publicKey: string, owner: string): Buffer {
  const raw = Buffer.from(publicKey, "base64");
  const der = Buffer.concat([spkiPrefix, raw]);
  try {
    if (raw.length !== rawKeyBytes) throw new Error(`${raw.length} bytes`);
    createPublicKey({ key: der, format: "der", type: "spki" });
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The public key of "${owner}" is no Ed25519 key in base64.`, { cause });
  }
  return der;
}
