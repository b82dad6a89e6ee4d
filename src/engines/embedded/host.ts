/**
 * A member on this machine: the pure `Member` with Node's clock, disk, sockets and checksum behind its ports.
 */
import type { ConclaveEvent } from "../../base/event.ts";
import type { Telemetry } from "../../base/ports.ts";
import { type ProtocolName, protocolDefault } from "../../base/protocol-name.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { Member, type MemberOptions } from "../../replica/member.ts";
import { type ProtocolOptions, protocolNamed } from "../../replica/protocols.ts";
import { identityOf } from "./directory-identity.ts";
import { lockDirectory } from "./directory-lock.ts";
import { checksum } from "./native-checksum.ts";
import { NodeDisk } from "./node-disk.ts";
import { NullDisk } from "./null-disk.ts";
import { TcpTransport } from "./tcp-transport.ts";

export interface HostOptions extends ProtocolOptions {
  /** Undefined: nothing is kept. */
  readonly directory: string | undefined;
  readonly member: string;
  readonly cluster: string;
  readonly addresses: ReadonlyMap<string, string>;
  /** An empty directory joins the cluster of these addresses instead of founding it. */
  readonly joins?: boolean;
  /** How the members agree. Default: that of the directory, raft for an empty one. */
  readonly protocol?: ProtocolName;
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

/** @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED */
export async function hostMember(options: HostOptions): Promise<HostedMember> {
  const { directory, ...rest } = options;
  const lock = directory === undefined ? undefined : await lockDirectory(directory);
  try {
    const disk = directory === undefined ? new NullDisk() : await NodeDisk.open(directory);
    const found = directory === undefined ? undefined : await identityOf(directory);
    const protocol = protocolNamed(options.protocol ?? found?.protocol ?? protocolDefault, options);
    const member = await Member.open({
      ...rest,
      platform: nodePlatform,
      transport: new TcpTransport(),
      disk,
      checksum,
      protocol,
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
