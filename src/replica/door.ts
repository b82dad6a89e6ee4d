/**
 * One client's connection, as a member serves it: the hello, then requests in and answers out.
 *
 *   frame --> messages --> check, authorise --> service.propose / read / keepAlive   (tag: index of the request table)
 *                                                  |
 *   one frame a turn <-- answers by request id <---'        watches: `watch-hub.ts`
 *
 * Every buffer has a bound: pending requests (BUSY beyond), bytes that the client does not take (watches wait, requests are
 * refused, at last the connection is closed). Garbage in a frame closes the connection; in a command it refuses the command.
 * Not here: who may connect (`authenticate`, the transport's TLS), and anything that needs agreement (the service).
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { type ErrorCode, errorTable } from "../base/error-table.ts";
import { ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Connection, ConnectionHandler, Platform, Telemetry, Timer } from "../base/ports.ts";
import type { ReadLevel } from "../consensus/core.ts";
import { checkTtl, decodeCommand, encodeCommand, isReadOnly, keyRangesOf, type ResolvedTxn } from "../store/command.ts";
import type { BinaryRange } from "../store/key.ts";
import { type Outcome, writeOutcome } from "../store/outcome.ts";
import { type AdminRequest, decodeAdminRequest } from "../wire/admin.ts";
import { type ClientMessageHandler, type Consistency, readClientMessages, type WatchOpen } from "../wire/client-messages.ts";
import { endMessage } from "../wire/envelope.ts";
import { checkHello, chooseProtocol, type Hello, type Refuse, readHello, writeRefuse, writeWelcome } from "../wire/hello.ts";
import { encodeStatus } from "../wire/member-status.ts";
import {
  beginOutcome,
  writeLeader,
  writePong,
  writeReady,
  writeRefused,
  writeStatusReply,
  writeWatchEnd,
} from "../wire/server-messages.ts";
import type { AnswerSink, Refusal, ReplicaService } from "./service.ts";
import type { HubWatch, WatchHub, WatchLine } from "./watch-hub.ts";

/** Who is at the other end, as `authenticate` found. Opaque here. */
export type Principal = unknown;

/** Asked for each key range of each request, so it must be cheap. */
export type Authorize = (
  principal: Principal,
  use: { readonly range: BinaryRange; readonly access: "read" | "write" },
) => boolean;

/** Bounds of one connection. */
export interface DoorLimits {
  /** Requests that wait for their answers; beyond it BUSY. Default 16_384. */
  readonly requestsPendingMax: number;
  /** Watches; beyond it BUSY. Default 10_000. */
  readonly watchesMax: number;
  /** Bytes not taken by the client, above which watches wait. Default 1_048_576. */
  readonly outgoingBytesWatch: number;
  /** Above which requests are refused with BUSY. Default 16_777_216. */
  readonly outgoingBytesBusy: number;
  /** Above which the connection is closed. Default 67_108_864. */
  readonly outgoingBytesClose: number;
  /** How long a client may take nothing while watches wait before the connection is closed. Default 10_000. */
  readonly stalledMs: number;
  /** How long a connection may be without its hello. Default 5_000. */
  readonly helloTimeoutMs: number;
}

export const doorLimitsDefault: DoorLimits = {
  requestsPendingMax: 16_384,
  watchesMax: 10_000,
  outgoingBytesWatch: 1_048_576,
  outgoingBytesBusy: 16_777_216,
  outgoingBytesClose: 67_108_864,
  stalledMs: 10_000,
  helloTimeoutMs: 5_000,
};

export interface DoorOptions {
  readonly service: ReplicaService;
  /** One for all doors of the member. */
  readonly hub: WatchHub;
  readonly connection: Connection;
  readonly platform: Platform;
  /** Who shows this credential; undefined: nobody, and the connection is refused. Default: everybody is `null`. */
  readonly authenticate?: (credential: Uint8Array, connection: Connection) => Principal | undefined;
  /** Default: everything is allowed. */
  readonly authorize?: Authorize;
  readonly limits?: Partial<DoorLimits>;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

const everything: BinaryRange = { from: "", to: "\xff\xff\xff\xff" };

/** A frame is sent early once it holds this much, so that answers do not pile up unseen by the bounds. */
const frameBytesGoal = 262_144;

/** How often a full line is looked at again. */
const drainCheckMs = 20;

/** A read that waits for the moment when it may be answered. */
interface PendingRead {
  readonly requestId: number;
  readonly txn: ResolvedTxn;
}

export class Door implements ConnectionHandler, AnswerSink, ClientMessageHandler, WatchLine {
  readonly #service: ReplicaService;
  readonly #hub: WatchHub;
  readonly #connection: Connection;
  readonly #platform: Platform;
  readonly #options: DoorOptions;
  readonly #limits: DoorLimits;
  #state: "hello" | "open" | "closed" = "hello";
  #principal: Principal = null;
  readonly #helloTimer: Timer;
  #unsubscribe: (() => void) | undefined;
  readonly #writer = new ByteWriter({ initialBytes: 4_096 });
  #isFlushDue = false;
  /** The client takes too little: requests are refused. Looked at once a frame. */
  #isClogged = false;

  /** The request table: by tag the client's request id, and the tags that are free. */
  readonly #requestIds: number[] = [];
  readonly #freeTags: number[] = [];
  /** Reads by the tag of the one `service.read` that they share. */
  readonly #reads = new Map<number, readonly PendingRead[]>();
  /** Reads of the frame that is being handled. */
  #newReads: PendingRead[] = [];
  #newLeaseReads: PendingRead[] = [];
  #pendingCount = 0;

  readonly #watches = new Map<number, HubWatch>();
  readonly #blocked = new Set<HubWatch>();
  #drainTimer: Timer | undefined;
  /** The least that was buffered since the line was full, and when it last became less. */
  #leastBuffered = 0;
  #drainedMs = 0;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#service = options.service;
    this.#hub = options.hub;
    this.#connection = options.connection;
    this.#platform = options.platform;
    this.#limits = { ...doorLimitsDefault, ...options.limits };
    this.#helloTimer = options.platform.setTimer(this.#limits.helloTimeoutMs, () => this.close("no hello came"));
  }

  onFrame(_connection: Connection, frame: Uint8Array): void {
    if (this.#state === "closed") return;
    try {
      if (this.#state === "hello") {
        this.#onHello(readHello(frame));
        return;
      }
      this.#isClogged = this.#connection.bufferedBytes() > this.#limits.outgoingBytesBusy;
      readClientMessages(frame, this);
    } catch (error) {
      if (!hasCode(error, "PROTOCOL")) throw error;
      this.#refuse({ code: "PROTOCOL", message: bareMessage(error) });
      return;
    }
    this.#newReads = this.#shareRead(this.#newReads, "linearizable");
    this.#newLeaseReads = this.#shareRead(this.#newLeaseReads, "lease");
  }

  onClose(_connection: Connection, error?: Error): void {
    this.#end(error?.message ?? "the client left");
  }

  /** Ends the service of this connection. Idempotent. */
  close(why: string): void {
    if (this.#state === "closed") return;
    this.#sendFrame();
    this.#end(why);
    this.#connection.close();
  }

  // --- requests --------------------------------------------------------------------------------------------------------

  onTxn(requestId: number, command: Uint8Array): void {
    if (this.#readTxn(requestId, command) === undefined) return;
    const tag = this.#takeTag(requestId);
    if (tag !== undefined) this.#service.propose(command, this, tag);
  }

  onRead(requestId: number, consistency: Consistency, command: Uint8Array): void {
    // The machine as it stands is the answer: nothing has to outlive the frame.
    const isNow = consistency === "stale" || (consistency === "lease" && this.#service.holdsLease());
    const txn = this.#readTxn(requestId, isNow ? command : command.slice());
    if (txn === undefined) return;
    if (!isReadOnly(txn)) {
      this.#refuseRequest(requestId, "INVALID_OPTION", "A transaction that writes was sent as a read.");
      return;
    }
    if (isNow) {
      this.#answer(requestId, this.#service.machine.read(txn));
      return;
    }
    if (this.#isBusy(requestId)) return;
    this.#pendingCount++;
    (consistency === "lease" ? this.#newLeaseReads : this.#newReads).push({ requestId, txn });
  }

  onOpenSession(requestId: number, ttlMs: number): void {
    try {
      checkTtl(ttlMs, this.#service.machine.limits);
    } catch (error) {
      this.#refuseError(requestId, error);
      return;
    }
    const tag = this.#takeTag(requestId);
    if (tag !== undefined) this.#service.propose(encodeCommand({ kind: "open-session", ttlMs }), this, tag);
  }

  onCloseSession(requestId: number, session: number): void {
    const tag = this.#takeTag(requestId);
    if (tag !== undefined) this.#service.propose(encodeCommand({ kind: "close-session", session }), this, tag);
  }

  onKeepAlive(requestId: number, session: number): void {
    const tag = this.#takeTag(requestId);
    if (tag !== undefined) this.#service.keepAlive(session, this, tag);
  }

  onStatus(requestId: number): void {
    writeStatusReply(this.writer(), requestId, encodeStatus(this.#service.status()));
  }

  /** Whoever may change the members or read everything owns the store, so the whole of it must be open to them. */
  onAdmin(requestId: number, text: string): void {
    let request: AdminRequest;
    try {
      request = decodeAdminRequest(text);
    } catch (error) {
      this.#refuseError(requestId, error);
      return;
    }
    const isReading = request.kind === "save-snapshot" || request.kind === "read-snapshot";
    if (!this.#isAllowed(everything, "read") || !(isReading || this.#isAllowed(everything, "write"))) {
      this.#refuseRequest(requestId, "UNAUTHORIZED", "Members, leadership and backups are for those who may use every key.");
      return;
    }
    if (this.#isBusy(requestId)) return;
    this.#pendingCount++;
    this.#service.administer(request, (answer) => {
      this.#pendingCount--;
      if (this.#state !== "open") return;
      if ("text" in answer) writeStatusReply(this.writer(), requestId, answer.text);
      else writeRefused(this.writer(), requestId, answer.refusal);
    });
  }

  onPing(token: number): void {
    writePong(this.writer(), token, this.#service.leader());
  }

  onWatchOpen(open: WatchOpen): void {
    const { watchId, range, from, creditBytes } = open;
    this.onWatchClose(watchId);
    if (this.#watches.size >= this.#limits.watchesMax) {
      writeWatchEnd(this.writer(), watchId, {
        code: "BUSY",
        message: `${this.#limits.watchesMax} watches are open on this connection.`,
      });
      return;
    }
    if (range.to < range.from || !this.#isAllowed(range, "read")) {
      writeWatchEnd(this.writer(), watchId, { code: "UNAUTHORIZED", message: "The range may not be watched." });
      return;
    }
    const watch = this.#hub.open({ line: this, watchId, range, from, creditBytes });
    this.#watches.set(watchId, watch);
  }

  onWatchClose(watchId: number): void {
    const watch = this.#watches.get(watchId);
    if (watch === undefined) return;
    this.#watches.delete(watchId);
    this.#blocked.delete(watch);
    this.#hub.remove(watch);
  }

  onWatchCredit(watchId: number, creditBytes: number): void {
    this.#watches.get(watchId)?.addCredit(creditBytes);
  }

  // --- answers of the service ------------------------------------------------------------------------------------------

  onOutcome(tag: number, outcome: Outcome): void {
    if (this.#state === "open") this.#answer(this.#releaseTag(tag), outcome);
  }

  onReady(tag: number): void {
    if (this.#state !== "open") return;
    const reads = this.#reads.get(tag);
    const requestId = this.#releaseTag(tag);
    if (reads === undefined) {
      writeReady(this.writer(), requestId);
      return;
    }
    this.#forgetReads(tag, reads);
    for (const read of reads) this.#answer(read.requestId, this.#service.machine.read(read.txn));
  }

  onRefused(tag: number, refusal: Refusal): void {
    if (this.#state !== "open") return;
    const reads = this.#reads.get(tag);
    const requestId = this.#releaseTag(tag);
    if (reads === undefined) {
      writeRefused(this.writer(), requestId, refusal);
      return;
    }
    this.#forgetReads(tag, reads);
    for (const read of reads) writeRefused(this.writer(), read.requestId, refusal);
  }

  // --- what watches ask of the line ------------------------------------------------------------------------------------

  /** The frame of this turn: append whole messages. */
  writer(): ByteWriter {
    if (!this.#isFlushDue) {
      this.#isFlushDue = true;
      this.#platform.defer(() => {
        this.#isFlushDue = false;
        this.#sendFrame();
      });
    } else if (this.#writer.length > frameBytesGoal) {
      this.#sendFrame();
    }
    return this.#writer;
  }

  hasRoom(): boolean {
    return this.#writer.length + this.#connection.bufferedBytes() < this.#limits.outgoingBytesWatch;
  }

  onBlocked(watch: HubWatch): void {
    this.#blocked.add(watch);
    if (this.#drainTimer !== undefined) return;
    this.#leastBuffered = Number.POSITIVE_INFINITY;
    this.#drainedMs = this.#platform.now();
    this.#checkDrainLater();
  }

  // --- the rest --------------------------------------------------------------------------------------------------------

  #onHello(hello: Hello): void {
    const { cluster, member, groupId } = this.#service;
    const wrong = checkHello(hello, { cluster, member, groupId });
    if (wrong !== undefined) {
      this.#refuse(wrong);
      return;
    }
    if (hello.role !== "client") {
      this.#refuse({ code: "PROTOCOL", message: `Member "${member}" takes peers elsewhere.` });
      return;
    }
    const { authenticate } = this.#options;
    const principal = authenticate === undefined ? null : authenticate(hello.credential, this.#connection);
    if (principal === undefined) {
      this.#refuse({ code: "UNAUTHORIZED", message: `Member "${member}" does not know the credential.` });
      return;
    }
    this.#principal = principal;
    this.#state = "open";
    this.#helloTimer.cancel();
    const news = this.#service.leader();
    const protocol = chooseProtocol(hello) as number;
    const { addresses } = this.#service;
    writeWelcome(this.writer(), { protocol, member, cluster, addresses, ...news });
    this.#unsubscribe = this.#service.onLeaderChange(() => {
      writeLeader(this.writer(), this.#service.leader());
    });
    this.#options.telemetry?.emit({ kind: "connection.opened", member, remote: this.#connection.remote, role: "client" });
  }

  /** Says why and closes. */
  #refuse(refuse: Refuse): void {
    const { member } = this.#service;
    this.#options.telemetry?.emit({
      kind: "connection.refused",
      member,
      remote: this.#connection.remote,
      code: refuse.code,
      why: refuse.message,
    });
    writeRefuse(this.#writer, refuse);
    this.close(refuse.message);
  }

  /** The transaction, checked and allowed; undefined when it was refused. */
  #readTxn(requestId: number, bytes: Uint8Array): ResolvedTxn | undefined {
    try {
      const command = decodeCommand(bytes, this.#service.machine.limits);
      // Expiries and the like are the leader's alone.
      if (command.kind !== "txn") throw conclaveError("PROTOCOL", `A client sent the command "${command.kind}".`);
      if (this.#options.authorize !== undefined) this.#checkAccess(command);
      return command;
    } catch (error) {
      this.#refuseError(requestId, error);
      return undefined;
    }
  }

  #checkAccess(txn: ResolvedTxn): void {
    for (const { range, access } of keyRangesOf(txn)) {
      const isAllowed =
        (access === "write" || this.#isAllowed(range, "read")) && (access === "read" || this.#isAllowed(range, "write"));
      if (!isAllowed)
        throw conclaveError("UNAUTHORIZED", `Key range ${JSON.stringify(range)} is not open to this client (${access}).`);
    }
  }

  #isAllowed(range: BinaryRange, access: "read" | "write"): boolean {
    const { authorize } = this.#options;
    return authorize === undefined || authorize(this.#principal, { range, access });
  }

  #isBusy(requestId: number): boolean {
    if (this.#pendingCount < this.#limits.requestsPendingMax && !this.#isClogged) return false;
    const why = this.#isClogged ? "the client does not take its answers" : `${this.#pendingCount} requests wait`;
    this.#refuseRequest(requestId, "BUSY", `Too much is in flight on this connection: ${why}.`);
    return true;
  }

  /** A place in the request table; undefined when the request was refused. */
  #takeTag(requestId: number): number | undefined {
    if (this.#isBusy(requestId)) return undefined;
    this.#pendingCount++;
    const tag = this.#freeTags.pop() ?? this.#requestIds.length;
    this.#requestIds[tag] = requestId;
    return tag;
  }

  #releaseTag(tag: number): number {
    this.#pendingCount--;
    this.#freeTags.push(tag);
    return this.#requestIds[tag] as number;
  }

  /** All reads of the frame wait for one proof of leadership: it is later than each of their arrivals. */
  #shareRead(reads: PendingRead[], level: ReadLevel): PendingRead[] {
    if (reads.length === 0 || this.#state !== "open") return reads;
    this.#pendingCount++;
    const tag = this.#freeTags.pop() ?? this.#requestIds.length;
    this.#requestIds[tag] = 0;
    this.#reads.set(tag, reads);
    this.#service.read(this, tag, level);
    return [];
  }

  #forgetReads(tag: number, reads: readonly PendingRead[]): void {
    this.#reads.delete(tag);
    this.#pendingCount -= reads.length;
  }

  #answer(requestId: number, outcome: Outcome): void {
    const writer = this.writer();
    const at = beginOutcome(writer, requestId);
    writeOutcome(writer, outcome);
    endMessage(writer, at);
  }

  #refuseError(requestId: number, error: unknown): void {
    if (!(error instanceof ConclaveError)) throw error;
    this.#refuseRequest(requestId, error.code, bareMessage(error));
  }

  #refuseRequest(requestId: number, code: ErrorCode, message: string): void {
    writeRefused(this.writer(), requestId, { code, message, definite: true, leader: undefined });
  }

  #sendFrame(): void {
    if (this.#writer.length === 0 || this.#state === "closed") {
      this.#writer.reset();
      return;
    }
    this.#connection.send(this.#writer.finish());
    if (this.#connection.bufferedBytes() > this.#limits.outgoingBytesClose) this.close("the client does not read");
  }

  #checkDrainLater(): void {
    this.#drainTimer = this.#platform.setTimer(drainCheckMs, () => {
      this.#drainTimer = undefined;
      if (this.#state !== "open") return;
      this.#checkDrain();
    });
  }

  #checkDrain(): void {
    const buffered = this.#connection.bufferedBytes();
    const nowMs = this.#platform.now();
    if (buffered < this.#leastBuffered) {
      this.#leastBuffered = buffered;
      this.#drainedMs = nowMs;
    } else if (nowMs - this.#drainedMs > this.#limits.stalledMs) {
      this.close("the client stopped reading");
      return;
    }
    if (this.hasRoom()) {
      const blocked = [...this.#blocked];
      this.#blocked.clear();
      this.#leastBuffered = Number.POSITIVE_INFINITY;
      for (const watch of blocked) watch.advance();
    }
    if (this.#blocked.size > 0 && this.#drainTimer === undefined) this.#checkDrainLater();
  }

  #end(why: string): void {
    if (this.#state === "closed") return;
    const wasOpen = this.#state === "open";
    this.#state = "closed";
    this.#helloTimer.cancel();
    this.#drainTimer?.cancel();
    this.#unsubscribe?.();
    for (const watch of this.#watches.values()) this.#hub.remove(watch);
    this.#watches.clear();
    this.#blocked.clear();
    this.#reads.clear();
    this.#service.drop(this);
    if (wasOpen) {
      this.#options.telemetry?.emit({
        kind: "connection.closed",
        member: this.#service.member,
        remote: this.#connection.remote,
        why,
      });
    }
  }
}

/** The other side adds the remedy of its own table. */
function bareMessage(error: ConclaveError): string {
  const { remedy } = errorTable[error.code];
  return error.message.endsWith(remedy) ? error.message.slice(0, -remedy.length).trimEnd() : error.message;
}
