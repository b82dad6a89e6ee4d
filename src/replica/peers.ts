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
import { protocolMax, protocolMin, readRefuse, writeHello } from "../wire/hello.ts";

export interface PeersOptions {
  readonly platform: Platform;
  readonly transport: Transport;
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId: number;
  readonly protocol: ProtocolName;
  readonly credential?: Uint8Array;
  /** Without this member. */
  readonly addresses: ReadonlyMap<MemberId, string>;
  readonly onLink: (peer: MemberId, up: boolean) => void;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

/** Letters are dropped above this; the protocol asks again, and the window of appends is far below. Bytes. */
const bufferedBytesMax = 67_108_864;
const redialMsMin = 50;
const redialMsMax = 500;

interface Peer {
  readonly member: MemberId;
  readonly address: string;
  connection: Connection | undefined;
  isUp: boolean;
  redialMs: number;
  timer: Timer | undefined;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #peers = new Map<MemberId, Peer>();
  readonly #writer = new ByteWriter();
  #closed = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    for (const [member, address] of options.addresses) {
      if (member === options.member) continue;
      this.#peers.set(member, { member, address, connection: undefined, isUp: false, redialMs: redialMsMin, timer: undefined });
    }
  }

  start(): void {
    for (const peer of this.#peers.values()) this.#dial(peer);
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

  #dial(peer: Peer): void {
    if (this.#closed) return;
    const { member, cluster, groupId, protocol, credential, platform } = this.#options;
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
        });
        connection.send(this.#writer.finish());
      },
      onFrame: (connection, frame) => this.#onFrame(peer, connection, frame),
      onClose: () => {
        peer.connection = undefined;
        const wasUp = peer.isUp;
        peer.isUp = false;
        if (wasUp) this.#options.onLink(peer.member, false);
        if (this.#closed) return;
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
        } else if (type === messageTypes.refuse) {
          const { code, message } = readRefuse(body);
          peer.redialMs = redialMsMax;
          this.#options.telemetry?.emit({
            kind: "connection.refused",
            member: this.#options.member,
            remote: peer.address,
            code,
            why: message,
          });
          connection.close();
        }
      });
    } catch {
      // What listens there is no member of ours: closed, reported by the next refusal or by status, and tried again later.
      peer.redialMs = redialMsMax;
      connection.close();
    }
  }
}
