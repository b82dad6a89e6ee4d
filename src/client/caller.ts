/**
 * Calls on their way: who waits, who is in flight, who must be said again, and until when.
 *
 *   submit --> (queue: no leader, no claim, no room) --> on the wire --> answer
 *                                                          |  link closed, leader changed, refused for now
 *                                                          '--> said again, in the order of their first sending
 *
 * A mutation carries a claim, so however often it is said it happens once, and whichever member answers first is right:
 * answers are matched by request id alone. Two queues, because reads need no claim and should not wait for one.
 */
import { ByteReader } from "../base/byte-codec.ts";
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { onAbort } from "../base/link-signal.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import { decodeCommand, type ResolvedOp, type ResolvedTxn } from "../store/command.ts";
import { type Outcome, readOutcome } from "../store/outcome.ts";
import { writeAdmin, writeCloseSession, writeOpenSession, writeRead, writeStatus, writeTxn } from "../wire/client-messages.ts";
import type { Refused } from "../wire/server-messages.ts";
import { Call, type CallRequest, timeoutError } from "./call.ts";
import type { ClaimWindow } from "./claim-window.ts";
import type { FramedMessage, Link } from "./link.ts";
import type { Navigator } from "./navigator.ts";
import type { ClientLimits } from "./options.ts";
import type { ProcessHold } from "./process-hold.ts";

export interface CallerOptions {
  readonly platform: Platform;
  readonly limits: ClientLimits;
  readonly processHold: ProcessHold;
  readonly navigator: Navigator;
  /** The claims of a session that is alive; undefined while one is being opened, and then `pump` is called. */
  readonly claims: (nowMs: number) => ClaimWindow | undefined;
  /** The store says that the session of these claims is gone. */
  readonly onClaimsExpired: (window: ClaimWindow) => void;
  /** A call went out: watch for silence. */
  readonly onAsked: (link: Link, nowMs: number) => void;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

export class Caller {
  readonly #options: CallerOptions;
  readonly #platform: Platform;
  readonly #limits: ClientLimits;
  /** Sent at least once and unanswered, by request id: in the order in which they were first sent. */
  readonly #open = new Map<number, Call>();
  readonly #writes = new CallQueue();
  readonly #reads = new CallQueue();
  #lastRequestId = 0;
  #bytesInFlight = 0;
  #sweepTimer: Timer | undefined;
  #sweepAtMs = Number.POSITIVE_INFINITY;
  #retryTimer: Timer | undefined;
  #retries = 0;
  #isClosed = false;

  constructor(options: CallerOptions) {
    this.#options = options;
    this.#platform = options.platform;
    this.#limits = options.limits;
  }

  /** Calls on the wire. */
  get openCount(): number {
    return this.#open.size;
  }

  /** Calls that are not on the wire yet. */
  get queuedCount(): number {
    return this.#writes.length + this.#reads.length;
  }

  /** Ids of requests outside this table (keep-alives) come from here too, so that no two are alike. */
  nextRequestId(): number {
    return ++this.#lastRequestId;
  }

  submit<T>(request: CallRequest): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const { signal } = request;
      if (signal?.aborted) return reject(signal.reason);
      if (this.#isClosed) return reject(conclaveError("CLOSED", "The client was closed."));
      const nowMs = this.#platform.now();
      const timeoutMs = request.timeoutMs ?? this.#limits.timeoutMs;
      const call = new Call(request, { nowMs, timeoutMs }, { resolve: resolve as (value: never) => void, reject });
      this.#admit(call, nowMs);
    });
  }

  /** Sends what waits, as far as there is a leader, a claim and room. */
  pump(): void {
    const nowMs = this.#platform.now();
    this.#pumpQueue(this.#reads, nowMs);
    this.#pumpQueue(this.#writes, nowMs);
  }

  /** A leader is ready: what is unanswered is said to it, then what waits. */
  onLeader(link: Link): void {
    this.#retryTimer?.cancel();
    this.#retryTimer = undefined;
    this.#sendUnanswered(link);
    this.pump();
  }

  /** Some member can be spoken to: what any of them can answer need not wait for a leader. */
  onLinkReady(): void {
    for (const call of this.#reads.all()) {
      if (isLeaderless(call)) {
        this.pump();
        return;
      }
    }
  }

  onLinkClosed(link: Link, error: Error): void {
    for (const call of this.#open.values()) {
      if (call.link !== link) continue;
      call.link = undefined;
      if (call.pinned === link) this.#fail(call, error);
      else if (isLeaderless(call)) this.#retryLater();
    }
    for (const call of this.#reads.all()) if (call.pinned === link) this.#fail(call, error);
  }

  onOutcome(requestId: number, body: ByteReader): void {
    const call = this.#open.get(requestId);
    if (call === undefined) return;
    this.#retries = 0;
    // Values are views of what they were read from, and the frame is not ours to keep.
    const reader = call.hasValues ? new ByteReader(body.raw(body.remaining).slice()) : body;
    const outcome = readOutcome(reader, call.keys);
    if (outcome.kind === "error") this.#onErrorOutcome(call, outcome);
    else if (outcome.kind === "txn") this.#succeed(call, outcome.result);
    // A lease is counted from the first sending: which copy was answered is not known.
    else if (outcome.kind === "opened") this.#succeed(call, { ...outcome, sentMs: call.firstSentMs });
    else this.#succeed(call, outcome);
  }

  onRefused(link: Link, requestId: number, refused: Refused): void {
    const call = this.#open.get(requestId);
    // A late refusal of a member that was left: whom we asked since will answer.
    if (call === undefined || call.link !== link) return;
    const { code, message, definite } = refused;
    // BUSY is the caller's to judge, unless an earlier copy may run: then asking on is the only way to know.
    const isFinal = (code === "DISK_FULL" || code === "DISK_FAILED") && this.#options.navigator.memberCount === 1;
    const isForNow =
      !isFinal && (code === "NOT_LEADER" || code === "NO_QUORUM" || !definite || (code === "BUSY" && call.sends > 1));
    if (!isForNow) {
      this.#fail(call, conclaveError(code, message, { definite: definite && (call.sends === 1 || call.isDefinite) }));
      return;
    }
    call.lastRefused = refused;
    call.link = undefined;
    this.#options.telemetry?.emit({ kind: "client.retry", request: requestId, why: refused.code });
    this.#retryLater();
  }

  onStatusReply(requestId: number, status: string): void {
    const call = this.#open.get(requestId);
    if (call !== undefined) this.#succeed(call, status);
  }

  /** Calls from now on fail with CLOSED, and so do those on their way; `submitLast` still works until `stop`. */
  close(): void {
    this.#isClosed = true;
    for (const call of this.#all()) this.#failClosed(call);
  }

  /** A goodbye after `close`. */
  submitLast<T>(request: CallRequest): Promise<T> {
    this.#isClosed = false;
    const promise = this.submit<T>(request);
    this.#isClosed = true;
    return promise;
  }

  stop(): void {
    this.close();
    this.#sweepTimer?.cancel();
    this.#retryTimer?.cancel();
  }

  /** No address can ever serve: waiting for the deadline would tell nothing more. */
  failAll(error: ConclaveError): void {
    this.#failEach(error, this.#all());
  }

  /** Nobody can ever lead: what waits for a leader waits in vain. What was said to a member is that member's to answer. */
  failUnled(error: ConclaveError): void {
    const waiting = this.#all().filter((call) => call.link === undefined && !isLeaderless(call));
    this.#failEach(error, waiting);
  }

  #all(): Call[] {
    return [...this.#open.values(), ...this.#writes.all(), ...this.#reads.all()];
  }

  #failEach(error: ConclaveError, calls: readonly Call[]): void {
    const text = this.#options.navigator.describe();
    for (const call of calls) {
      this.#fail(call, conclaveError(error.code, text, { cause: error, definite: call.isDefinite }));
    }
  }

  /** No claim can be had. */
  failWrites(error: ConclaveError): void {
    for (const call of this.#writes.all()) {
      if ((call.txn as ResolvedTxn).claim === null) this.#fail(call, error);
    }
  }

  // --- on the way out --------------------------------------------------------------------------------------------------

  #admit(call: Call, nowMs: number): void {
    const queue = this.#queueOf(call);
    if (queue.length > 0 || !this.#maybeSend(call, nowMs)) {
      if (this.queuedCount >= this.#limits.callsQueuedMax) {
        const text = `${this.#open.size} calls are in flight and ${this.queuedCount} wait.`;
        call.reject(conclaveError("BUSY", text));
        return;
      }
      if (call.kind === "write") call.txn = withOwnValues(call.txn as ResolvedTxn);
      queue.push(call);
      this.#options.navigator.want();
    }
    this.#options.processHold.retain();
    if (call.deadlineMs < this.#sweepAtMs) this.#sweepAt(call.deadlineMs, nowMs);
    const { signal } = call;
    if (signal === undefined) return;
    call.unfollow = onAbort(signal, () => this.#fail(call, signal.reason));
  }

  #queueOf(call: Call): CallQueue {
    return call.kind === "write" ? this.#writes : this.#reads;
  }

  #pumpQueue(queue: CallQueue, nowMs: number): void {
    for (let call = queue.peek(); call !== undefined; call = queue.peek()) {
      if (!this.#maybeSend(call, nowMs)) {
        // Calls that need no leader pass by the ones that wait for it.
        if (queue === this.#reads) queue.keep((other) => !isLeaderless(other) || !this.#maybeSend(other, nowMs));
        this.#options.navigator.want();
        return;
      }
      queue.shift();
    }
  }

  /** Sends it for the first time, if all that it needs is there. */
  #maybeSend(call: Call, nowMs: number): boolean {
    const link = this.#linkFor(call);
    if (link === undefined || !this.#hasRoom(call)) return false;
    if (call.kind === "write" && (call.txn as ResolvedTxn).claim === null) {
      const window = this.#options.claims(nowMs);
      if (window === undefined || window.isFull) return false;
      call.window = window;
      call.sequence = window.take();
    }
    call.requestId = ++this.#lastRequestId;
    call.firstSentMs = nowMs;
    this.#open.set(call.requestId, call);
    this.#bytesInFlight += call.bytes = this.#write(call, link);
    this.#options.onAsked(link, nowMs);
    return true;
  }

  #linkFor(call: Call): Link | undefined {
    const { navigator } = this.#options;
    if (call.pinned !== undefined) return call.pinned.state === "ready" ? call.pinned : undefined;
    if (call.kind === "stale" || call.kind === "status") return navigator.anyLink();
    return navigator.leaderLink;
  }

  /** Sessions and status are few and bounded by themselves; they must not wait behind a flood. */
  #hasRoom(call: Call): boolean {
    if (call.txn === undefined) return true;
    return this.#open.size < this.#limits.callsInFlightMax && this.#bytesInFlight < this.#limits.bytesInFlightMax;
  }

  /** Puts it into the link's frame: encoded the first time, as it was from then on. Answers its bytes. */
  #write(call: Call, link: Link): number {
    const writer = link.writer();
    const from = writer.length;
    call.link = link;
    call.sends++;
    if (call.message !== undefined) {
      writer.raw(call.message.frame.subarray(call.message.from, call.message.to));
    } else {
      this.#encode(call, writer);
      link.keepFrame(call, from);
    }
    return writer.length - from;
  }

  #encode(call: Call, writer: ReturnType<Link["writer"]>): void {
    const id = call.requestId;
    switch (call.kind) {
      case "write": {
        const txn = call.txn as ResolvedTxn;
        const { window } = call;
        if (window === undefined) {
          writeTxn(writer, id, txn);
          return;
        }
        const claim = { session: Number(window.session), sequence: call.sequence, lowestOpen: window.lowestOpen };
        writeTxn(writer, id, { kind: "txn", claim, compares: txn.compares, then: txn.then, else: txn.else });
        return;
      }
      case "read":
        writeRead(writer, id, "linearizable", call.txn as ResolvedTxn);
        break;
      case "stale":
        writeRead(writer, id, "stale", call.txn as ResolvedTxn);
        break;
      case "open-session":
        writeOpenSession(writer, id, call.number);
        break;
      case "close-session":
        writeCloseSession(writer, id, call.number);
        break;
      case "lease":
        writeRead(writer, id, "lease", call.txn as ResolvedTxn);
        break;
      case "status":
        writeStatus(writer, id);
        break;
      case "admin":
        writeAdmin(writer, id, call.text);
        break;
    }
  }

  // --- again -----------------------------------------------------------------------------------------------------------

  #retryLater(): void {
    if (this.#retryTimer !== undefined || this.#isClosed) return;
    const { backoffMsMin, backoffMsMax } = this.#limits;
    const ceilingMs = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(++this.#retries, 16));
    const delayMs = backoffMsMin + ((ceilingMs - backoffMsMin) * this.#platform.randomUint32()) / 2 ** 32;
    this.#retryTimer = this.#platform.setTimer(delayMs, () => {
      this.#retryTimer = undefined;
      const link = this.#options.navigator.leaderLink;
      if (link === undefined) this.#options.navigator.want();
      for (const call of this.#open.values()) if (call.link === undefined) this.#sendAgain(call, link);
    });
  }

  /** Everything that this leader does not owe an answer for. */
  #sendUnanswered(link: Link): void {
    for (const call of this.#open.values()) {
      if (call.link !== link && !isLeaderless(call)) this.#sendAgain(call, link);
    }
  }

  #sendAgain(call: Call, leader: Link | undefined): void {
    const link = isLeaderless(call) ? this.#linkFor(call) : leader;
    if (link === undefined) return;
    this.#write(call, link);
    this.#options.onAsked(link, this.#platform.now());
  }

  // --- answers ---------------------------------------------------------------------------------------------------------

  #onErrorOutcome(call: Call, outcome: Extract<Outcome, { readonly kind: "error" }>): void {
    const { code, message } = outcome;
    let { definite } = outcome;
    if (!definite && call.window !== undefined) {
      // Of its claim, then: the machine cannot know whether an earlier copy ran. Who said it once does.
      definite = call.sends === 1;
      if (code === "SESSION_EXPIRED") {
        this.#options.onClaimsExpired(call.window);
        if (definite) {
          this.#startOver(call);
          return;
        }
      }
    }
    this.#fail(call, conclaveError(code, message, { definite }));
  }

  /** It did not happen and its session is gone: back to the queue, for a claim of the next one. */
  #startOver(call: Call): void {
    const { frame, from, to } = call.message as FramedMessage;
    this.#leaveFlight(call);
    call.txn = claimlessTxn(frame.subarray(from, to));
    call.window = undefined;
    call.link = undefined;
    call.message = undefined;
    call.sends = 0;
    this.#writes.push(call);
    this.pump();
  }

  #succeed(call: Call, value: unknown): void {
    this.#settle(call);
    (call.resolve as (value: unknown) => void)(value);
    if (this.#writes.length + this.#reads.length > 0) this.pump();
  }

  #fail(call: Call, error: unknown): void {
    if (call.isSettled) return;
    this.#settle(call);
    call.reject(error);
    if (this.#writes.length + this.#reads.length > 0 && !this.#isClosed) this.pump();
  }

  #failClosed(call: Call): void {
    if (call.isSettled) return;
    this.#settle(call);
    const said = call.isDefinite ? "and it surely did not happen" : "and it may have happened";
    call.reject(
      conclaveError("CLOSED", `The client was closed while the call was on its way, ${said}.`, { definite: call.isDefinite }),
    );
  }

  #settle(call: Call): void {
    call.isSettled = true;
    if (call.requestId > 0 && this.#open.get(call.requestId) === call) this.#leaveFlight(call);
    else this.#queueOf(call).onSettled();
    call.unfollow?.();
    this.#options.processHold.release();
  }

  #leaveFlight(call: Call): void {
    this.#open.delete(call.requestId);
    this.#bytesInFlight -= call.bytes;
    call.window?.settle(call.sequence);
  }

  // --- deadlines -------------------------------------------------------------------------------------------------------

  /** One timer for all: at the earliest deadline that was known when it was set. */
  #sweepAt(atMs: number, nowMs: number): void {
    this.#sweepTimer?.cancel();
    this.#sweepAtMs = atMs;
    this.#sweepTimer = this.#platform.setTimer(Math.max(0, atMs - nowMs), () => this.#sweep());
  }

  #sweep(): void {
    this.#sweepAtMs = Number.POSITIVE_INFINITY;
    this.#sweepTimer = undefined;
    const nowMs = this.#platform.now();
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const call of [...this.#open.values(), ...this.#writes.all(), ...this.#reads.all()]) {
      if (call.deadlineMs <= nowMs) this.#fail(call, this.#timeoutOf(call));
      else if (call.deadlineMs < earliestMs) earliestMs = call.deadlineMs;
    }
    if (earliestMs < this.#sweepAtMs) this.#sweepAt(earliestMs, nowMs);
  }

  #timeoutOf(call: Call): ConclaveError {
    const { navigator } = this.#options;
    return timeoutError(call, {
      isLeaderKnown: navigator.leaderLink !== undefined,
      isAnyReached: navigator.anyLink() !== undefined,
      text: navigator.describe(),
    });
  }
}

/** First in, first out. A settled call stays where it is, uncounted, until it comes to the head. */
class CallQueue {
  #calls: Call[] = [];
  #head = 0;
  #settled = 0;

  /** Calls that wait. */
  get length(): number {
    return this.#calls.length - this.#head - this.#settled;
  }

  push(call: Call): void {
    this.#calls.push(call);
  }

  peek(): Call | undefined {
    while (this.#calls[this.#head]?.isSettled) {
      this.#settled--;
      this.#drop();
    }
    return this.#calls[this.#head];
  }

  /** Drops what `peek` answered. */
  shift(): void {
    this.#drop();
  }

  /** A waiting call is waiting no more. */
  onSettled(): void {
    this.#settled++;
    if (this.#settled > 1_024 && this.#settled > this.length) this.keep(() => true);
  }

  /** Keeps the waiting calls that the predicate likes. */
  keep(predicate: (call: Call) => boolean): void {
    this.#calls = this.all().filter(predicate);
    this.#head = 0;
    this.#settled = 0;
  }

  all(): Call[] {
    return this.#calls.slice(this.#head).filter((call) => !call.isSettled);
  }

  #drop(): void {
    this.#head++;
    if (this.#head < 1_024 || this.#head * 2 < this.#calls.length) return;
    this.#calls = this.#calls.slice(this.#head);
    this.#head = 0;
  }
}

/** Whether any member can answer it. */
function isLeaderless(call: Call): boolean {
  return call.pinned !== undefined || call.kind === "stale" || call.kind === "status";
}

/** The caller may write into its buffers while the call waits. */
function withOwnValues(txn: ResolvedTxn): ResolvedTxn {
  const own = (op: ResolvedOp): ResolvedOp => (op.kind === "put" ? { ...op, value: op.value.slice() } : op);
  return { ...txn, then: txn.then.map(own), else: txn.else.map(own) };
}

/** The transaction of a message that was written, for another claim. Its values are views of the frame. */
function claimlessTxn(message: Uint8Array): ResolvedTxn {
  const reader = new ByteReader(message);
  reader.u8();
  reader.varint();
  reader.varint();
  const command = decodeCommand(reader.bytes());
  if (command.kind !== "txn") throw conclaveError("INVARIANT", "A write was encoded as something else.");
  return { ...command, claim: null };
}
