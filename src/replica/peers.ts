/**
 * The connections on which a member sends to its peers: one to each, dialled anew whenever it breaks.
 *
 * Each side dials the other, and each connection carries letters in one direction only; so "my connection to the leader
 * closed" is a hint that its process is gone, and is told to the core as such.
 * The first frame is the hello, the answer a welcome or a refusal; from then on each frame is one letter of the protocol.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { emptyBytes } from "../base/bytes.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Connection, Platform, Telemetry, Timer, Transport } from "../base/ports.ts";
import type { ProtocolName } from "../base/protocol-name.ts";
import type { Lane, MemberId } from "../consensus/core.ts";
import { messageTypes, readMessages } from "../wire/envelope.ts";
import { protocolMax, protocolMin, type Refuse, readRefuse, readWelcome, writeHello } from "../wire/hello.ts";

export interface PeersOptions {
  readonly platform: Platform;
  readonly transport: Transport;
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId: number;
  readonly protocol: ProtocolName;
  readonly credential?: Uint8Array;
  /** Those at the start, this member included; `setMembers` says who came and went. */
  readonly addresses: ReadonlyMap<MemberId, string>;
  readonly incarnation: number;
  /** Whether the configuration in force names this member. */
  readonly belongs: () => boolean;
  /** The peer remembers us, durably. */
  readonly onRemembered: (peer: MemberId) => void;
  readonly onRefused: (refuse: Refuse) => void;
  readonly onLink: (peer: MemberId, up: boolean) => void;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

/** Letters are dropped above this; the protocol asks again, and the window of appends is far below. Bytes. */
const bufferedBytesMax = 67_108_864;
const redialMsMin = 50;
const redialMsMax = 500;
/** A member that left is still written to for so long: what it has to know of its leaving is on the way. */
const farewellMs = 2_000;
/** Members that are not in the configuration here and say that they are in theirs: an old configuration knows few of them. */
const unknownMax = 16;

interface Peer {
  readonly member: MemberId;
  address: string;
  /** Not in our configuration: dialled once, to answer it. */
  isUnknown: boolean;
  connection: Connection | undefined;
  isUp: boolean;
  redialMs: number;
  timer: Timer | undefined;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #peers = new Map<MemberId, Peer>();
  readonly #writer = new ByteWriter();
  #started = false;
  #closed = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.setMembers(options.addresses);
  }

  start(): void {
    this.#started = true;
    for (const peer of this.#peers.values()) this.#dial(peer);
  }

  /** Dials whoever is new or has moved, and says farewell to whoever left. */
  setMembers(addresses: ReadonlyMap<MemberId, string>): void {
    for (const [member, address] of addresses) {
      if (member === this.#options.member) continue;
      const peer = this.#peers.get(member);
      if (peer === undefined) this.#add(member, address, { isUnknown: false });
      else {
        peer.isUnknown = false;
        if (peer.address === address) continue;
        peer.address = address;
        // Its end dials the new one.
        peer.connection?.close();
      }
    }
    for (const peer of this.#peers.values()) {
      if (addresses.has(peer.member) || peer.isUnknown) continue;
      peer.isUnknown = true;
      this.#options.platform.setTimer(farewellMs, () => {
        if (peer.isUnknown) this.#remove(peer);
      });
    }
  }

  /** A peer of the group that this member does not know (yet) writes to us: to be answered, it must be dialled. */
  answerUnknown(member: MemberId, address: string): void {
    if (this.#peers.has(member) || member === this.#options.member) return;
    if ([...this.#peers.values()].filter(({ isUnknown }) => isUnknown).length < unknownMax) {
      this.#add(member, address, { isUnknown: true });
    }
  }

  close(): void {
    this.#closed = true;
    for (const peer of this.#peers.values()) {
      peer.timer?.cancel();
      peer.connection?.close();
    }
  }

  /** Sends the letter, or drops it where there is no connection or too much waits: the protocol bears both. */
  post(to: MemberId, frame: Uint8Array, _lane: Lane): void {
    const peer = this.#peers.get(to);
    if (peer?.connection === undefined || !peer.isUp || peer.connection.bufferedBytes() > bufferedBytesMax) return;
    peer.connection.send(frame);
  }

  isUp(member: MemberId): boolean {
    return this.#peers.get(member)?.isUp ?? false;
  }

  #add(member: MemberId, address: string, { isUnknown }: { readonly isUnknown: boolean }): void {
    const peer: Peer = {
      member,
      address,
      isUnknown,
      connection: undefined,
      isUp: false,
      redialMs: redialMsMin,
      timer: undefined,
    };
    this.#peers.set(member, peer);
    if (this.#started) this.#dial(peer);
  }

  #remove(peer: Peer): void {
    // Under its name there may be somebody new by now: whoever left, and came back before the farewell was over.
    if (this.#peers.get(peer.member) === peer) this.#peers.delete(peer.member);
    peer.timer?.cancel();
    peer.connection?.close();
  }

  #dial(peer: Peer): void {
    if (this.#closed || this.#peers.get(peer.member) !== peer) return;
    const { member, cluster, groupId, protocol, credential, platform, incarnation } = this.#options;
    peer.connection = this.#options.transport.dial(peer.address, {
      onOpen: (connection) => {
        this.#writer.reset();
        writeHello(this.#writer, {
          protocolMin,
          protocolMax,
          role: "peer",
          cluster,
          member,
          to: peer.member,
          groupId,
          agreement: protocol,
          credential: credential ?? emptyBytes,
          address: this.#options.addresses.get(member),
          incarnation,
          belongs: this.#options.belongs(),
        });
        connection.send(this.#writer.finish());
      },
      onFrame: (connection, frame) => this.#onFrame(peer, connection, frame),
      onClose: () => {
        peer.connection = undefined;
        const wasUp = peer.isUp;
        peer.isUp = false;
        if (wasUp) this.#options.onLink(peer.member, false);
        if (this.#closed || this.#peers.get(peer.member) !== peer) return;
        if (peer.isUnknown) {
          this.#remove(peer);
          return;
        }
        peer.timer = platform.setTimer(peer.redialMs, () => this.#dial(peer));
        peer.redialMs = Math.min(redialMsMax, peer.redialMs * 2);
      },
    });
  }

  /** Peers answer the hello and nothing else on this connection. */
  #onFrame(peer: Peer, connection: Connection, frame: Uint8Array): void {
    try {
      readMessages(frame, (type, body) => {
        if (type === messageTypes.welcome && !peer.isUp) {
          peer.isUp = true;
          peer.redialMs = redialMsMin;
          this.#options.onLink(peer.member, true);
          if (readWelcome(body).remembers === true) this.#options.onRemembered(peer.member);
        } else if (type === messageTypes.refuse) {
          const refuse = readRefuse(body);
          const { code, message } = refuse;
          peer.redialMs = redialMsMax;
          this.#options.telemetry?.emit({
            kind: "connection.refused",
            member: this.#options.member,
            remote: peer.address,
            code,
            why: message,
          });
          connection.close();
          this.#options.onRefused(refuse);
        }
      });
    } catch {
      // What listens there is no member of ours: closed, reported by the next refusal or by status, and tried again later.
      peer.redialMs = redialMsMax;
      connection.close();
    }
  }
}
