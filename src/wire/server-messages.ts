/**
 * What a member says to a client: answers by request id, watch batches by watch id, and the leader whenever it changes.
 * The counterpart of `client-messages.ts`, built the same way.
 */
import type { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import type { ErrorCode } from "../base/error-table.ts";
import { beginMessage, endMessage, messageTypes, readMessages } from "./envelope.ts";
import { readErrorCode } from "./error-code.ts";
import { type LeaderNews, type Refuse, readRefuse, readWelcome, type Welcome, writeReason } from "./hello.ts";

export interface Refused {
  readonly code: ErrorCode;
  readonly message: string;
  /** It did not happen by this request and never will. */
  readonly definite: boolean;
  /** Whom to ask instead, when known. */
  readonly leader: string | undefined;
}

export interface ServerMessageHandler {
  onWelcome(welcome: Welcome): void;
  onRefuse(refuse: Refuse): void;
  /** The reader stands at the outcome's bytes and is valid only during the call. */
  onOutcome(requestId: number, outcome: ByteReader): void;
  onRefused(requestId: number, refused: Refused): void;
  /** A keep-alive is confirmed. */
  onReady(requestId: number): void;
  /** The reader stands at a batch part (`watch-batch.ts`) and is valid only during the call. */
  onWatchBatch(watchId: number, part: ByteReader): void;
  /** The member serves this watch no longer. */
  onWatchEnd(watchId: number, refuse: Refuse): void;
  onLeader(news: LeaderNews): void;
  /** The answer to a ping, and whom the member follows. */
  onPong(token: number, news: LeaderNews): void;
  /** The status as JSON. */
  onStatusReply(requestId: number, status: string): void;
}

/** Starts an outcome message; the caller appends the outcome's bytes and ends it with `endMessage`. */
export function beginOutcome(writer: ByteWriter, requestId: number): number {
  const at = beginMessage(writer, messageTypes.outcome);
  writer.varint(requestId);
  return at;
}

export function writeRefused(writer: ByteWriter, requestId: number, refused: Refused): void {
  const at = beginMessage(writer, messageTypes.refused);
  writer.varint(requestId);
  writer.utf8(refused.code);
  writer.utf8(refused.message);
  writer.u8(refused.definite ? 1 : 0);
  writer.utf8(refused.leader ?? "");
  endMessage(writer, at);
}

export function writeReady(writer: ByteWriter, requestId: number): void {
  const at = beginMessage(writer, messageTypes.ready);
  writer.varint(requestId);
  endMessage(writer, at);
}

/** Starts a watch-batch message; the caller appends the part and ends it with `endMessage`. */
export function beginWatchBatch(writer: ByteWriter, watchId: number): number {
  const at = beginMessage(writer, messageTypes.watchBatch);
  writer.varint(watchId);
  return at;
}

export function writeWatchEnd(writer: ByteWriter, watchId: number, refuse: Refuse): void {
  const at = beginMessage(writer, messageTypes.watchEnd);
  writer.varint(watchId);
  writeReason(writer, refuse);
  endMessage(writer, at);
}

export function writeLeader(writer: ByteWriter, news: LeaderNews): void {
  const at = beginMessage(writer, messageTypes.leader);
  writeNews(writer, news);
  endMessage(writer, at);
}

export function writePong(writer: ByteWriter, token: number, news: LeaderNews): void {
  const at = beginMessage(writer, messageTypes.pong);
  writer.varint(token);
  writeNews(writer, news);
  endMessage(writer, at);
}

/** `stopped` stands last, and only where there is one: an older reader ends before it. */
function writeNews(writer: ByteWriter, { leader, term, stopped }: LeaderNews): void {
  writer.varint(term);
  writer.utf8(leader ?? "");
  if (stopped !== undefined) writeReason(writer, stopped);
}

function readNews(body: ByteReader): LeaderNews {
  const term = body.varint();
  const leader = body.utf8() || undefined;
  return { leader, term, ...(body.remaining > 0 ? { stopped: readRefuse(body) } : {}) };
}

export function writeStatusReply(writer: ByteWriter, requestId: number, status: string): void {
  const at = beginMessage(writer, messageTypes.statusReply);
  writer.varint(requestId);
  writer.utf8(status);
  endMessage(writer, at);
}

/** @throws PROTOCOL (the frame is not made of server messages; some of it may have been handled) */
export function readServerMessages(frame: Uint8Array, handler: ServerMessageHandler): void {
  readMessages(frame, (type, body) => readServerMessage(type, body, handler));
}

function readServerMessage(type: number, body: ByteReader, handler: ServerMessageHandler): void {
  switch (type) {
    case messageTypes.outcome:
      handler.onOutcome(body.varint(), body);
      break;
    case messageTypes.ready:
      handler.onReady(body.varint());
      break;
    case messageTypes.refused:
      handler.onRefused(body.varint(), readRefused(body));
      break;
    case messageTypes.watchBatch:
      handler.onWatchBatch(body.varint(), body);
      break;
    case messageTypes.watchEnd:
      handler.onWatchEnd(body.varint(), readRefuse(body));
      break;
    case messageTypes.leader:
      handler.onLeader(readNews(body));
      break;
    case messageTypes.welcome:
      handler.onWelcome(readWelcome(body));
      break;
    case messageTypes.refuse:
      handler.onRefuse(readRefuse(body));
      break;
    case messageTypes.pong:
      handler.onPong(body.varint(), readNews(body));
      break;
    case messageTypes.statusReply:
      handler.onStatusReply(body.varint(), body.utf8());
      break;
    default:
      // A newer member: nothing that this version waits for.
      return;
  }
}

function readRefused(body: ByteReader): Refused {
  const code = readErrorCode(body);
  const message = body.utf8();
  const definite = body.u8() === 1;
  return { code, message, definite, leader: body.utf8() || undefined };
}
