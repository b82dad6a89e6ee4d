/**
 * What the host must know of an agreement protocol to run it: how to make its core, the bytes of its letters, how its log
 * is laid out, and what it can do. Everything else about a protocol is its own.
 *
 * Letters are opaque to the host (`unknown`): only the protocol that made one looks inside.
 * The first byte of a letter is its kind. Each protocol has thirty-two of them to itself, so that a letter that strayed
 * into another protocol is refused as one of unknown kind instead of being understood wrongly:
 * raft 0-31, paxos 32-63, zab 64-95, pbft 96-127.
 */
import type { ByteWriter } from "../base/byte-codec.ts";
import type { ProtocolName } from "../base/protocol-name.ts";
import type { Core } from "../consensus/core.ts";
import type { Slots } from "../log/recovery.ts";

export interface Protocol<M = unknown> {
  readonly name: ProtocolName;
  /** A new core, for one run of one member. */
  makeCore(): Core<M>;
  encode(writer: ByteWriter, message: M): void;
  /** @throws PROTOCOL when the bytes are no letter of this protocol; copies what it keeps. */
  decode(frame: Uint8Array): M;
  /** How the log room keeps its slots. */
  readonly slots: Slots;
  readonly abilities: ProtocolAbilities;
}

/** What a protocol can do beyond agreeing; `Caps` and the member commands read it. */
export interface ProtocolAbilities {
  /** `joint`: members can be added and removed while it runs. */
  readonly membership: "joint" | "fixed";
}
