/**
 * A member on this machine: the pure `Member` with Node's clock, disk, sockets and checksum behind its ports.
 */
import { crc32 as zlibCrc32 } from "node:zlib";
import { crc32 } from "../../base/crc32.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Checksum, Telemetry } from "../../base/ports.ts";
import type { RaftOptions } from "../../consensus/raft/options.ts";
import { Raft } from "../../consensus/raft/raft.ts";
import { Member, type MemberOptions } from "../../replica/member.ts";
import { lockDirectory } from "./directory-lock.ts";
import { NodeDisk } from "./node-disk.ts";
import { nodePlatform } from "./node-platform.ts";
import { NullDisk } from "./null-disk.ts";
import { TcpTransport } from "./tcp-transport.ts";

/** Node's own since 20.15 and 22.2; several times faster, the same numbers. */
export const checksum: Checksum = zlibCrc32 ?? crc32;

export interface HostOptions {
  /** Undefined: nothing is kept. */
  readonly directory: string | undefined;
  readonly member: string;
  readonly cluster: string;
  readonly addresses: ReadonlyMap<string, string>;
  readonly raft?: Partial<RaftOptions>;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  readonly onHalt?: (why: string, error?: unknown) => void;
  readonly reception?: NonNullable<MemberOptions["reception"]>;
  readonly credential?: Uint8Array;
}

export interface HostedMember {
  readonly member: Member;
  /** Idempotent. Lets the disk finish and gives the directory free. */
  close(): Promise<void>;
}

/** @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED */
export async function hostMember(options: HostOptions): Promise<HostedMember> {
  const { directory, raft, ...rest } = options;
  const lock = directory === undefined ? undefined : await lockDirectory(directory);
  try {
    const disk = directory === undefined ? new NullDisk() : await NodeDisk.open(directory);
    const makeCore = (): Raft => new Raft(raft);
    const member = await Member.open({
      ...rest,
      platform: nodePlatform,
      transport: new TcpTransport(),
      disk,
      checksum,
      makeCore,
    });
    let closing: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      await member.close();
      await lock?.release();
    };
    return {
      member,
      close: () => {
        closing ??= close();
        return closing;
      },
    };
  } catch (error) {
    await lock?.release();
    throw error;
  }
}
