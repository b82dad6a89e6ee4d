/**
 * What a client says to a member. One function writes each message into the frame of this turn; `readClientMessages`
 * calls a handler's method for each, so that no object is made on the way.
 *
 * A request id is the client's own and comes back in the answer; a watch id likewise in its batches. The bytes of a command
 * are those of `store/command.ts`, in the client's encoding, and go into the log as they are.
 */
import type { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { type ResolvedTxn, writeCommand } from "../store/command.ts";
import type { BinaryRange } from "../store/key.ts";
import { beginLength, beginMessage, endLength, endMessage, messageTypes, readMessages } from "./envelope.ts";

export interface WatchOpen {
  readonly watchId: number;
  /** Whole keys, namespace and all. */
  readonly range: BinaryRange;
  /** The first revision to tell; undefined: what comes after the opening. */
  readonly from: number | undefined;
  /** How many bytes of batches may be sent before the first `watch-credit`. */
  readonly creditBytes: number;
}

/** `lease`: linearizable while the clocks of the members keep the bound that the protocol's page states. */
export type Consistency = "linearizable" | "stale" | "lease";

const consistencies: readonly Consistency[] = ["linearizable", "stale", "lease"];

/** The bytes handed over are views of the frame: copy what must outlive the call. */
export interface ClientMessageHandler {
  onTxn(requestId: number, command: Uint8Array): void;
  onRead(requestId: number, consistency: Consistency, command: Uint8Array): void;
  onOpenSession(requestId: number, ttlMs: number): void;
  onCloseSession(requestId: number, session: number): void;
  onKeepAlive(requestId: number, session: number): void;
  onWatchOpen(watch: WatchOpen): void;
  onWatchClose(watchId: number): void;
  onWatchCredit(watchId: number, creditBytes: number): void;
  onStatus(requestId: number): void;
  onPing(token: number): void;
  /** An operator's request: see `admin.ts`. */
  onAdmin(requestId: number, request: string): void;
}

export function writeTxn(writer: ByteWriter, requestId: number, txn: ResolvedTxn): void {
  const at = beginMessage(writer, messageTypes.txn);
  writer.varint(requestId);
  const commandAt = beginLength(writer);
  writeCommand(writer, txn);
  endLength(writer, commandAt);
  endMessage(writer, at);
}

export function writeRead(writer: ByteWriter, requestId: number, consistency: Consistency, txn: ResolvedTxn): void {
  const at = beginMessage(writer, messageTypes.read);
  writer.varint(requestId);
  writer.u8(consistencies.indexOf(consistency));
  const commandAt = beginLength(writer);
  writeCommand(writer, txn);
  endLength(writer, commandAt);
  endMessage(writer, at);
}

export function writeOpenSession(writer: ByteWriter, requestId: number, ttlMs: number): void {
  writeNumbers(writer, messageTypes.openSession, requestId, ttlMs);
}

export function writeCloseSession(writer: ByteWriter, requestId: number, session: number): void {
  writeNumbers(writer, messageTypes.closeSession, requestId, session);
}

export function writeKeepAlive(writer: ByteWriter, requestId: number, session: number): void {
  writeNumbers(writer, messageTypes.keepAlive, requestId, session);
}

export function writeWatchOpen(writer: ByteWriter, watch: WatchOpen): void {
  const at = beginMessage(writer, messageTypes.watchOpen);
  writer.varint(watch.watchId);
  writer.varint(watch.creditBytes);
  // 0 stands for "none": no revision is 0.
  writer.varint(watch.from ?? 0);
  writer.binaryString(watch.range.from);
  writer.binaryString(watch.range.to);
  endMessage(writer, at);
}

export function writeWatchClose(writer: ByteWriter, watchId: number): void {
  const at = beginMessage(writer, messageTypes.watchClose);
  writer.varint(watchId);
  endMessage(writer, at);
}

export function writeWatchCredit(writer: ByteWriter, watchId: number, creditBytes: number): void {
  writeNumbers(writer, messageTypes.watchCredit, watchId, creditBytes);
}

export function writeStatus(writer: ByteWriter, requestId: number): void {
  const at = beginMessage(writer, messageTypes.status);
  writer.varint(requestId);
  endMessage(writer, at);
}

export function writeAdmin(writer: ByteWriter, requestId: number, request: string): void {
  const at = beginMessage(writer, messageTypes.admin);
  writer.varint(requestId);
  writer.utf8(request);
  endMessage(writer, at);
}

export function writePing(writer: ByteWriter, token: number): void {
  const at = beginMessage(writer, messageTypes.ping);
  writer.varint(token);
  endMessage(writer, at);
}

/** @throws PROTOCOL (the frame is not made of client messages; some of it may have been handled) */
export function readClientMessages(frame: Uint8Array, handler: ClientMessageHandler): void {
  readMessages(frame, (type, body) => readClientMessage(type, body, handler));
}

function readClientMessage(type: number, body: ByteReader, handler: ClientMessageHandler): void {
  switch (type) {
    case messageTypes.txn:
      handler.onTxn(body.varint(), body.bytes());
      break;
    case messageTypes.read:
      handler.onRead(body.varint(), consistencies[body.u8()] ?? "linearizable", body.bytes());
      break;
    case messageTypes.openSession:
      handler.onOpenSession(body.varint(), body.varint());
      break;
    case messageTypes.closeSession:
      handler.onCloseSession(body.varint(), body.varint());
      break;
    case messageTypes.keepAlive:
      handler.onKeepAlive(body.varint(), body.varint());
      break;
    case messageTypes.watchOpen:
      handler.onWatchOpen(readWatchOpen(body));
      break;
    case messageTypes.watchClose:
      handler.onWatchClose(body.varint());
      break;
    case messageTypes.watchCredit:
      handler.onWatchCredit(body.varint(), body.varint());
      break;
    case messageTypes.status:
      handler.onStatus(body.varint());
      break;
    case messageTypes.ping:
      handler.onPing(body.varint());
      break;
    case messageTypes.admin:
      handler.onAdmin(body.varint(), body.utf8());
      break;
    default:
      // A newer client: it finds out by the protocol range, or by the missing answer.
      return;
  }
}

function readWatchOpen(body: ByteReader): WatchOpen {
  const watchId = body.varint();
  const creditBytes = body.varint();
  const from = body.varint();
  const range: BinaryRange = { from: body.binaryString(), to: body.binaryString() };
  return { watchId, creditBytes, from: from === 0 ? undefined : from, range };
}

function writeNumbers(writer: ByteWriter, type: number, first: number, second: number): void {
  const at = beginMessage(writer, type);
  writer.varint(first);
  writer.varint(second);
  endMessage(writer, at);
}
