/**
 * What each member says about itself, and which versions are known to end leases that live.
 *
 * Before 3.4.31 and 3.5.13 a leader that had been cut off and deposed could still have its revocations carried out by the new one:
 * keys vanish under a session that was kept alive all the time (etcd #15247; CHANGELOG-3.4, -3.5, March 2024).
 */
import { ConclaveError, hasCode } from "../../base/errors.ts";
import type { EtcdLink, LinkCall } from "./link.ts";
import { decodeAlarms, decodeStatus, decodeVoterCount, type EtcdStatus, paths } from "./messages.ts";

export interface MemberReport extends EtcdStatus {
  readonly endpoint: string;
}

export interface ServerReport {
  readonly members: readonly MemberReport[];
  /** What did not answer, with the reason. */
  readonly silent: readonly { readonly endpoint: string; readonly why: string }[];
  /** Undefined: it may not be asked. */
  readonly alarms: readonly string[] | undefined;
  readonly voters: number | undefined;
}

/** @throws what the first endpoint failed with, where none answers */
export async function readServerReport(link: EtcdLink, call: LinkCall): Promise<ServerReport> {
  // By way of the link first: it moves on from members that do not answer, and says why when none does.
  const first = { ...decodeStatus(await ask(link, paths.status, call)), endpoint: link.endpoint };
  const others = link.endpoints.filter((endpoint) => endpoint !== first.endpoint);
  const [alarms, voters, ...told] = await Promise.all([
    optional(ask(link, paths.alarm, call)).then((bytes) => bytes && decodeAlarms(bytes)),
    optional(ask(link, paths.members, call)).then((bytes) => bytes && decodeVoterCount(bytes)),
    ...others.map((endpoint) => statusOf(link, endpoint, call)),
  ]);
  return {
    members: [first, ...told.filter((each): each is MemberReport => "version" in each)],
    silent: told.filter((each): each is { endpoint: string; why: string } => "why" in each),
    alarms,
    voters,
  };
}

/** Lower than the version that mends it: "3.4.23" is, "3.4.31" is not. */
export function losesLeases(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split(/[.+-]/).map(Number);
  if (major !== 3) return major < 3;
  if (minor === 4) return patch < 31;
  if (minor === 5) return patch < 13;
  return minor < 4;
}

/** Where `etcdutl snapshot restore --bump-revision` exists. */
export function canBumpRevision(version: string): boolean {
  const [, minor = 0, patch = 0] = version.split(/[.+-]/).map(Number);
  return minor > 5 || (minor === 5 && patch >= 10) || (minor === 4 && patch >= 27);
}

/** A member that sleeps keeps its connections and says nothing: each gets its part of the time, and then the next one. */
async function ask(link: EtcdLink, path: string, call: LinkCall): Promise<Buffer> {
  const attempts = link.endpoints.length;
  for (let left = attempts; ; left--) {
    try {
      return await link.call(path, Buffer.alloc(0), { ...call, timeoutMs: call.timeoutMs / attempts });
    } catch (error) {
      if (left <= 1 || !(hasCode(error, "TIMEOUT") || hasCode(error, "CONNECTION_LOST"))) throw error;
    }
  }
}

async function statusOf(
  link: EtcdLink,
  endpoint: string,
  call: LinkCall,
): Promise<MemberReport | { readonly endpoint: string; readonly why: string }> {
  try {
    const timeoutMs = Math.min(call.timeoutMs, 2_000);
    return { ...decodeStatus(await link.callMember(endpoint, paths.status, { ...call, timeoutMs })), endpoint };
  } catch (error) {
    return { endpoint, why: error instanceof Error ? error.message : String(error) };
  }
}

async function optional(call: Promise<Buffer>): Promise<Buffer | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof ConclaveError && !hasCode(error, "CLOSED")) return undefined;
    throw error;
  }
}
