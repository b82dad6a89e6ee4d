/**
 * The name of a transaction, which says who may decide it: every database that holds a branch shows it.
 *
 *   cv1 . domain . coordinator . epoch . sequence [ . agent ]
 *   |     |        |             |       |            the resource whose own commit is the decision, if there is one
 *   |     |        |             |       counts up within the epoch
 *   |     |        |             create revision of the coordinator's session-bound key: a fencing token
 *   |     |        eight letters, drawn anew for each epoch
 *   |     six letters, drawn once per store: two clusters on one database never touch each other's branches
 *   version
 *
 * At most 60 bytes of [a-z0-9.]: MariaDB takes 64 for a global transaction id, PostgreSQL 199 for name and branch together.
 * Whoever reads a name can tell whether its coordinator lives, so any node resolves any branch.
 */
import { assert } from "../base/assert.ts";
import type { Platform } from "../base/ports.ts";

export interface GidParts {
  readonly domain: string;
  readonly coordinator: string;
  readonly epoch: number;
  readonly sequence: number;
  /** The resource that holds the decision; undefined: the store holds it. */
  readonly agent: string | undefined;
}

const pattern = /^cv1\.([a-z0-9]{6})\.([a-z0-9]{8})\.([a-z0-9]{1,11})\.([a-z0-9]{1,8})(?:\.([a-z][a-z0-9]{0,11}))?$/;
const letters = "abcdefghijklmnopqrstuvwxyz0123456789";

export function formatGid({ domain, coordinator, epoch, sequence, agent }: GidParts): string {
  const gid = `cv1.${domain}.${coordinator}.${epoch.toString(36)}.${sequence.toString(36)}${agent === undefined ? "" : `.${agent}`}`;
  assert(pattern.test(gid) && gid.length <= 60, "a transaction's name fits every database");
  return gid;
}

/** The first part of all names of an epoch: most of a name, said once. */
export function epochPrefix({ domain, coordinator, epoch }: Pick<GidParts, "domain" | "coordinator" | "epoch">): string {
  return formatGid({ domain, coordinator, epoch, sequence: 0, agent: undefined }).slice(0, -1);
}

/** The name behind a prefix; `agent` is a resource's name. */
export function gidOf(prefix: string, sequence: number, agent: string | undefined): string {
  assert(sequence < 36 ** 8, "an epoch's transactions are numbered in eight letters");
  return agent === undefined ? prefix + sequence.toString(36) : `${prefix}${sequence.toString(36)}.${agent}`;
}

/** Null for any text that is no name of ours. */
export function parseGid(gid: string): GidParts | null {
  const match = pattern.exec(gid);
  if (match === null) return null;
  const [, domain = "", coordinator = "", epoch = "", sequence = "", agent] = match;
  return { domain, coordinator, epoch: Number.parseInt(epoch, 36), sequence: Number.parseInt(sequence, 36), agent };
}

/** What all names of a domain begin with. */
export function domainPrefix(domain: string): string {
  return `cv1.${domain}.`;
}

/** So many random letters and digits. */
export function randomName(platform: Platform, length: number): string {
  let name = "";
  while (name.length < length) name += letters[platform.randomUint32() % letters.length];
  return name;
}

/** A resource's name stands in transaction names and marker rows. */
export function isResourceName(name: string): boolean {
  return /^[a-z][a-z0-9]{0,11}$/.test(name);
}
