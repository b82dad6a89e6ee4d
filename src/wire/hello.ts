/**
 * How a connection begins. The first frame of either side's choosing is the caller's hello; the answer is a welcome or a
 * refusal, and a refusal is followed by close.
 *
 *   caller                                             member
 *     | "CNCL" + protocols, role, cluster, credential .. ->|
 *     |<- welcome: protocol, member, addresses, leader     |   or  refuse: code, message
 *     | requests ...                                     ->|
 *
 * The four letters come first so that a stranger (an HTTP client, a port scan) is told apart by its first bytes. Everything
 * after them is a field by number: what a version does not know it skips.
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { emptyBytes } from "../base/bytes.ts";
import type { ErrorCode } from "../base/error-table.ts";
import { conclaveError } from "../base/errors.ts";
import { beginMessage, endMessage, messageTypes } from "./envelope.ts";
import { readErrorCode } from "./error-code.ts";
import { readTaggedFields, TaggedFields } from "./tagged-fields.ts";

/** The range that this version speaks. The two sides use the highest that both know. */
export const protocolMin = 1;
export const protocolMax = 1;

/** A first frame above this is refused unread. */
export const helloBytesMax = 65_536;

export interface Hello {
  readonly protocolMin: number;
  readonly protocolMax: number;
  readonly role: "client" | "peer";
  /** Undefined: any cluster will do. */
  readonly cluster: string | undefined;
  /** The sender: a member's id, or a client's name for logs. */
  readonly member: string;
  /** The member that the sender means to reach. Undefined: whoever listens. */
  readonly to: string | undefined;
  readonly groupId: number;
  /** By which protocol the sender agrees with its peers. Undefined: a client, or a peer from before there was a choice. */
  readonly agreement?: string;
  /** Opaque here; the host's `authenticate` reads it. */
  readonly credential: Uint8Array;
  /** Of a peer: where it is reached, for whoever does not know it yet. */
  readonly address?: string | undefined;
  /** Of a peer: which life of its directory this is (`log/identity.ts`). Undefined: older than the question. */
  readonly incarnation?: number | undefined;
  /** Of a peer: whether the configuration in force there names it. One that is yet to be added does not belong. */
  readonly belongs?: boolean;
}

export interface Welcome {
  readonly protocol: number;
  readonly member: string;
  readonly cluster: string;
  /** Where to dial each member. */
  readonly addresses: ReadonlyMap<string, string>;
  readonly leader: string | undefined;
  readonly term: number;
  /** To a peer: this life of its directory is remembered here, durably. */
  readonly remembers?: boolean;
  /** The member serves no more until it is started anew, and why. */
  readonly stopped?: Refuse;
}

/** Whom a member follows, as it says when that changes and in answer to a ping. */
export type LeaderNews = Pick<Welcome, "leader" | "term" | "stopped">;

export interface Refuse {
  readonly code: ErrorCode;
  readonly message: string;
}

const magic = [0x43, 0x4e, 0x43, 0x4c] as const;
const helloTags = {
  protocolMin: 1,
  protocolMax: 2,
  role: 3,
  cluster: 4,
  member: 5,
  to: 6,
  groupId: 7,
  credential: 8,
  agreement: 9,
  address: 10,
  incarnation: 11,
  belongs: 12,
} as const;
const welcomeTags = { protocol: 1, member: 2, cluster: 3, address: 4, leader: 5, term: 6, remembers: 7, stopped: 8 } as const;
const roles = ["client", "peer"] as const;

/** Writes the whole first frame. */
export function writeHello(writer: ByteWriter, hello: Hello): void {
  for (const letter of magic) writer.u8(letter);
  const fields = new TaggedFields(writer);
  fields.number(helloTags.protocolMin, hello.protocolMin);
  fields.number(helloTags.protocolMax, hello.protocolMax);
  fields.number(helloTags.role, roles.indexOf(hello.role));
  fields.text(helloTags.cluster, hello.cluster);
  fields.text(helloTags.member, hello.member);
  fields.text(helloTags.to, hello.to);
  fields.number(helloTags.groupId, hello.groupId);
  fields.text(helloTags.agreement, hello.agreement);
  fields.text(helloTags.address, hello.address);
  if (hello.incarnation !== undefined) fields.number(helloTags.incarnation, hello.incarnation);
  if (hello.belongs !== undefined) fields.number(helloTags.belongs, hello.belongs ? 1 : 0);
  if (hello.credential.length > 0) fields.put(helloTags.credential, (value) => value.bytes(hello.credential));
}

/** @throws PROTOCOL (the frame is no hello) */
export function readHello(frame: Uint8Array): Hello {
  if (frame.length > helloBytesMax) throw conclaveError("PROTOCOL", `A first frame of ${frame.length} bytes is no hello.`);
  if (!magic.every((letter, at) => frame[at] === letter)) {
    throw conclaveError("PROTOCOL", `The first frame does not begin with "CNCL".`);
  }
  let [min, max, role, groupId] = [0, 0, 0, 0];
  let cluster: string | undefined;
  let member = "";
  let to: string | undefined;
  let agreement: string | undefined;
  let address: string | undefined;
  let incarnation: number | undefined;
  let belongs: boolean | undefined;
  let credential: Uint8Array = emptyBytes;
  readTaggedFields(new ByteReader(frame, magic.length), new ByteReader(emptyBytes), (tag, value) => {
    if (tag === helloTags.protocolMin) min = value.varint();
    else if (tag === helloTags.protocolMax) max = value.varint();
    else if (tag === helloTags.role) role = value.varint();
    else if (tag === helloTags.cluster) cluster = value.utf8();
    else if (tag === helloTags.member) member = value.utf8();
    else if (tag === helloTags.to) to = value.utf8();
    else if (tag === helloTags.groupId) groupId = value.varint();
    else if (tag === helloTags.agreement) agreement = value.utf8();
    else if (tag === helloTags.address) address = value.utf8();
    else if (tag === helloTags.incarnation) incarnation = value.varint();
    else if (tag === helloTags.belongs) belongs = value.varint() === 1;
    else if (tag === helloTags.credential) credential = value.bytes().slice();
  });
  const roleName = roles[role];
  if (roleName === undefined) throw conclaveError("PROTOCOL", `A hello names the unknown role ${role}.`);
  if (groupId > 0xffff_ffff) throw conclaveError("PROTOCOL", "A hello names a group id above 32 bits.");
  const known = { protocolMin: min, protocolMax: max, role: roleName, cluster, member, to, groupId, credential };
  return {
    ...known,
    ...(agreement === undefined ? {} : { agreement }),
    ...(address === undefined ? {} : { address }),
    ...(incarnation === undefined ? {} : { incarnation }),
    ...(belongs === undefined ? {} : { belongs }),
  };
}

/** The highest protocol that both sides speak; undefined when their ranges do not meet. */
export function chooseProtocol(hello: Hello): number | undefined {
  const chosen = Math.min(hello.protocolMax, protocolMax);
  return chosen >= Math.max(hello.protocolMin, protocolMin) ? chosen : undefined;
}

export interface HelloExpectation {
  readonly cluster: string;
  readonly member: string;
  readonly groupId: number;
}

/** What is wrong with a hello, for doors of clients and of peers alike; undefined when it fits. Credentials are not looked at. */
export function checkHello(hello: Hello, expected: HelloExpectation): Refuse | undefined {
  if (chooseProtocol(hello) === undefined) {
    return {
      code: "WRONG_PROTOCOL",
      message:
        `Member "${expected.member}" speaks protocols ${protocolMin} to ${protocolMax}; ` +
        `the caller speaks ${hello.protocolMin} to ${hello.protocolMax}.`,
    };
  }
  if (hello.cluster !== undefined && hello.cluster !== expected.cluster) {
    return {
      code: "WRONG_CLUSTER",
      message: `Member "${expected.member}" belongs to cluster "${expected.cluster}"; the caller asked for "${hello.cluster}".`,
    };
  }
  if (hello.groupId !== expected.groupId) {
    return {
      code: "WRONG_CLUSTER",
      message: `Member "${expected.member}" serves group ${expected.groupId}; the caller asked for group ${hello.groupId}.`,
    };
  }
  if (hello.to !== undefined && hello.to !== expected.member) {
    return {
      code: "WRONG_MEMBER",
      message: `Member "${expected.member}" listens here; the caller meant to reach "${hello.to}".`,
    };
  }
  return undefined;
}

export function writeWelcome(writer: ByteWriter, welcome: Welcome): void {
  const at = beginMessage(writer, messageTypes.welcome);
  const fields = new TaggedFields(writer);
  fields.number(welcomeTags.protocol, welcome.protocol);
  fields.text(welcomeTags.member, welcome.member);
  fields.text(welcomeTags.cluster, welcome.cluster);
  for (const [member, address] of welcome.addresses) {
    fields.put(welcomeTags.address, (value) => {
      value.utf8(member);
      value.utf8(address);
    });
  }
  fields.text(welcomeTags.leader, welcome.leader);
  fields.number(welcomeTags.term, welcome.term);
  if (welcome.remembers === true) fields.number(welcomeTags.remembers, 1);
  const { stopped } = welcome;
  if (stopped !== undefined) fields.put(welcomeTags.stopped, (value) => writeReason(value, stopped));
  endMessage(writer, at);
}

export function readWelcome(body: ByteReader): Welcome {
  let [protocol, term] = [0, 0];
  let [member, cluster] = ["", ""];
  let leader: string | undefined;
  let remembers = false;
  let stopped: Refuse | undefined;
  const addresses = new Map<string, string>();
  readTaggedFields(body, new ByteReader(emptyBytes), (tag, value) => {
    if (tag === welcomeTags.protocol) protocol = value.varint();
    else if (tag === welcomeTags.member) member = value.utf8();
    else if (tag === welcomeTags.cluster) cluster = value.utf8();
    else if (tag === welcomeTags.address) addresses.set(value.utf8(), value.utf8());
    else if (tag === welcomeTags.leader) leader = value.utf8();
    else if (tag === welcomeTags.term) term = value.varint();
    else if (tag === welcomeTags.remembers) remembers = value.varint() === 1;
    else if (tag === welcomeTags.stopped) stopped = readRefuse(value);
  });
  const known = { protocol, member, cluster, addresses, leader, term };
  return { ...known, ...(remembers ? { remembers } : {}), ...(stopped === undefined ? {} : { stopped }) };
}

export function writeRefuse(writer: ByteWriter, refuse: Refuse): void {
  const at = beginMessage(writer, messageTypes.refuse);
  writeReason(writer, refuse);
  endMessage(writer, at);
}

/** What `readRefuse` reads, inside another message. */
export function writeReason(writer: ByteWriter, { code, message }: Refuse): void {
  writer.utf8(code);
  writer.utf8(message);
}

export function readRefuse(body: ByteReader): Refuse {
  return { code: readErrorCode(body), message: body.utf8() };
}
