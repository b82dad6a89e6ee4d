/**
 * One member, assembled: its log, machine, replica, connections to peers and door. The host on Node and the simulator
 * both build members by this function, so what is tortured there is what runs here.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Checksum, Connection, ConnectionHandler, Disk, Platform, Telemetry, Transport } from "../base/ports.ts";
import type { Configuration, Lane, MemberId } from "../consensus/core.ts";
import { guardDisk } from "../log/guarded-disk.ts";
import { Log, type LogLimits } from "../log/log.ts";
import { embeddedLimits, type Limits } from "../store/caps.ts";
import { Machine } from "../store/machine.ts";
import type { Refuse } from "../wire/hello.ts";
import { Acquaintances } from "./acquaintances.ts";
import { Peers } from "./peers.ts";
import type { Protocol } from "./protocol.ts";
import { Reception, type ReceptionOptions } from "./reception.ts";
import { loadMachine, Replica, type ReplicaLimits } from "./replica.ts";

export interface MemberOptions {
  readonly platform: Platform;
  readonly disk: Disk;
  readonly checksum: Checksum;
  readonly transport: Transport;
  readonly protocol: Protocol;
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId?: number;
  /** Every member with the address at which peers and clients reach it; this one included. */
  readonly addresses: ReadonlyMap<MemberId, string>;
  /** An empty directory joins the group of these addresses, whose leader adds it; else its members found a group. */
  readonly joins?: boolean;
  readonly limits?: Limits;
  readonly logLimits?: Partial<LogLimits>;
  readonly replicaLimits?: Partial<ReplicaLimits>;
  readonly reception?: Pick<ReceptionOptions, "authenticate" | "authorize" | "limits">;
  readonly credential?: Uint8Array;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  readonly onHalt?: (why: string, error?: unknown) => void;
  /** Takes the letters instead of the connections to peers: the simulator's network. */
  readonly post?: (to: MemberId, frame: Uint8Array, lane: Lane) => void;
  /** Keeps a hash of the state, for the simulator's comparison of members. */
  readonly keepsDigest?: boolean;
}

export class Member {
  readonly replica: Replica;
  readonly #log: Log;
  readonly #peers: Peers | undefined;
  readonly #reception: Reception;

  private constructor(parts: {
    readonly replica: Replica;
    readonly log: Log;
    readonly peers: Peers | undefined;
    readonly reception: Reception;
  }) {
    this.replica = parts.replica;
    this.#log = parts.log;
    this.#peers = parts.peers;
    this.#reception = parts.reception;
  }

  /**
   * Recovers the log, rebuilds the machine and begins to take part.
   * @throws DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED
   */
  static async open(options: MemberOptions): Promise<Member> {
    const { platform, protocol, member, cluster, addresses, telemetry } = options;
    const groupId = options.groupId ?? 0;
    const limits = options.limits ?? embeddedLimits;
    const { log, recovered } = await Log.open({
      disk: options.disk,
      member,
      cluster,
      group: groupId,
      protocol: protocol.name,
      slots: protocol.slots,
      incarnation: () => platform.randomUint32(),
      checksum: options.checksum,
      now: () => platform.now(),
      ...(options.logLimits === undefined ? {} : { limits: options.logLimits }),
      ...(telemetry === undefined ? {} : { telemetry }),
    });
    try {
      const keepsDigest = options.keepsDigest ?? false;
      const machine = (await loadMachine(log, { limits, keepsDigest })) ?? new Machine({ limits, keepsDigest });
      const isNew = recovered.entries.length === 0 && recovered.meta.size === 0 && recovered.snapshot === undefined;
      const acquaintances = await Acquaintances.open({
        disk: guardDisk(options.disk),
        checksum: options.checksum,
        isNew,
        joins: options.joins ?? false,
        isAlone: addresses.size <= 1,
      });
      // Whoever joins knows nobody until it is sent the log.
      const configuration: Configuration = acquaintances.joins
        ? { voters: [], learners: [] }
        : { voters: [...addresses.keys()].sort(), learners: [], addresses: Object.fromEntries(addresses) };
      const halt = (why: string, error?: unknown): void => replica.halt(why, error);
      let peers: Peers | undefined;
      const post =
        options.post ??
        ((to: MemberId, frame: Uint8Array, lane: Lane) => {
          if (acquaintances.isAdmitted) peers?.post(to, frame, lane);
        });
      const shared = { platform, member, cluster, groupId, addresses, ...(telemetry === undefined ? {} : { telemetry }) };
      const replica = new Replica({
        ...shared,
        protocol,
        log,
        recovered,
        machine,
        machineOptions: { limits, keepsDigest },
        configuration,
        post,
        onMembers: (known) => peers?.setMembers(known),
        onSettledMembers: (settled) => {
          background(
            acquaintances.forgetAllBut(settled).catch((error: unknown) => halt("A file could not be written.", error)),
            "forget a member",
          );
        },
        ...(options.replicaLimits === undefined ? {} : { limits: options.replicaLimits }),
        ...(options.onHalt === undefined ? {} : { onHalt: options.onHalt }),
      });
      if (options.post === undefined) {
        const { transport, credential } = options;
        const onLink = (peer: MemberId, up: boolean): void => replica.linkChanged(peer, up);
        const onRemembered = (peer: MemberId): void => {
          const others = [...replica.addresses.keys()].filter((other) => other !== member);
          background(
            acquaintances.welcomedBy(peer, others).then(
              () => undefined,
              (error: unknown) => halt("A file could not be written.", error),
            ),
            "be welcomed",
          );
        };
        const onRefused = ({ code, message }: Refuse): void => {
          // One that has taken part already is refused by somebody who was away when its name was given anew.
          if (code === "MEMBER_WIPED" && !acquaintances.isAdmitted) halt(message, conclaveError(code, message));
        };
        peers = new Peers({
          ...shared,
          protocol: protocol.name,
          transport,
          incarnation: log.incarnation,
          belongs: () => replica.knowsMembers && replica.addresses.has(member),
          onLink,
          onRemembered,
          onRefused,
          ...(credential === undefined ? {} : { credential }),
        });
      }
      const reception = new Reception({
        platform,
        replica,
        acquaintances,
        hasMembership: protocol.abilities.membership !== "fixed",
        onUnknownPeer: (unknown, address) => peers?.answerUnknown(unknown, address),
        onFailed: (error) => halt("A file could not be written.", error),
        ...options.reception,
        ...(telemetry === undefined ? {} : { telemetry }),
      });
      const opened = new Member({ replica, log, peers, reception });
      replica.start();
      peers?.start();
      return opened;
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  /** A connection came in: from a client or a peer, which its first frame tells. */
  accept(connection: Connection): ConnectionHandler {
    return this.#reception.accept(connection);
  }

  /** Stops taking part, lets the disk finish, closes everything. Idempotent. */
  async close(): Promise<void> {
    this.#reception.close();
    this.#peers?.close();
    this.replica.close();
    await this.#log.close();
  }
}
