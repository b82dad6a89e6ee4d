/**
 * The first frame of every PBFT connection: which cluster, which version, and who claims to be calling.
 *
 * `["CPBF"][u8 version][cluster][u8 kind][varint replica | client name][signature of the claim]`
 *
 * The claim is sealed, so that a stranger can neither be sent a client's replies nor use up the answers that a replica's
 * status is given. Somebody who taps the wire can repeat a hello, and read along anyway: the port does not encrypt. What
 * counts in the protocol bears seals of its own.
 */
import { ByteReader, ByteWriter } from "../../base/byte-codec.ts";
import { conclaveError } from "../../base/errors.ts";

export type PbftHello =
  | { readonly kind: "replica"; readonly cluster: string; readonly replica: number; readonly signature: Uint8Array }
  | { readonly kind: "client"; readonly cluster: string; readonly client: string; readonly signature: Uint8Array };

const magic = 0x46425043;
const version = 1;

/** What a caller signs to say who it is, to one replica. */
export function claimOf(caller: number | string, replica: number): Uint8Array {
  const writer = new ByteWriter();
  // 255 is no statement's kind, so a claim can never pass for one.
  writer.u8(255);
  writer.u8(typeof caller === "number" ? 0 : 1);
  writer.utf8(String(caller));
  writer.varint(replica);
  return writer.finish();
}

export function encodePbftHello(hello: PbftHello): Uint8Array {
  const writer = new ByteWriter();
  writer.u32(magic);
  writer.u8(version);
  writer.utf8(hello.cluster);
  if (hello.kind === "replica") {
    writer.u8(0);
    writer.varint(hello.replica);
  } else {
    writer.u8(1);
    writer.utf8(hello.client);
  }
  writer.bytes(hello.signature);
  return writer.finish();
}

/** @throws PROTOCOL, WRONG_PROTOCOL (another version), WRONG_CLUSTER */
export function decodePbftHello(frame: Uint8Array, cluster: string): PbftHello {
  const reader = new ByteReader(frame.slice());
  if (reader.u32() !== magic) throw conclaveError("PROTOCOL", "The peer does not speak the protocol of PBFT members.");
  const theirs = reader.u8();
  if (theirs !== version)
    throw conclaveError("WRONG_PROTOCOL", `The peer speaks version ${theirs} of PBFT's letters, this one ${version}.`);
  const named = reader.utf8();
  if (named !== cluster)
    throw conclaveError("WRONG_CLUSTER", `The peer belongs to the cluster "${named}", this replica to "${cluster}".`);
  if (reader.u8() === 0) return { kind: "replica", cluster, replica: reader.varint(), signature: reader.bytes() };
  return { kind: "client", cluster, client: reader.utf8(), signature: reader.bytes() };
}
