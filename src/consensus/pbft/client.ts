/**
 * The client's half of the protocol: signs a frame, sends it to the primary, believes what f + 1 replicas say alike, and
 * asks everybody when that takes too long.
 *
 * Source: OSDI 1999 §4.1. Among f + 1 equal replies one comes from a correct replica, and a correct replica answers only
 * what was agreed. Pure: time, signing and verification are handed in.
 *
 * Verifying a seal costs more than all else here, and n replicas answer where f + 1 are enough. So no more of them are verified
 * than would do, were they all true; the others are held until one of those turns out false.
 */
import type { PbftMessage, ReplicaNumber, Reply, RequestFrame, Signed, View } from "./messages.ts";
import { weakQuorumOf } from "./quorum.ts";
import { encodeStatement } from "./statements.ts";
import { primaryOf } from "./view-change.ts";

export interface PbftClientOptions {
  /** How long the primary alone is asked. Milliseconds. Default 300; doubles with every try. */
  readonly retryMs: number;
  /** Default 10_000. */
  readonly retryMsMax: number;
}

export const pbftClientDefaults: PbftClientOptions = { retryMs: 300, retryMsMax: 10_000 };

export interface PbftClientSend {
  readonly to: readonly ReplicaNumber[];
  readonly message: PbftMessage;
}

/** What a replica has said, and what is known of its seal. */
interface Word {
  readonly reply: Signed<Reply>;
  seal: "held" | "asked" | "true";
}

interface Call {
  readonly frame: Signed<RequestFrame>;
  readonly onResults: (results: readonly Uint8Array[]) => void;
  /** The last word of each replica. */
  readonly words: Map<ReplicaNumber, Word>;
  atMs: number;
  waitMs: number;
}

export class PbftClient {
  readonly #name: string;
  readonly #replicas: number;
  readonly #sign: (bytes: Uint8Array) => Uint8Array;
  readonly #verify: (reply: Signed<Reply>, onVerdict: (isTrue: boolean) => void) => void;
  readonly #options: PbftClientOptions;
  readonly #calls = new Map<number, Call>();
  #timestamp: number;
  #view: View = 0;

  /** `timestamp`: above every one that this client ever used, so that a restarted client is not taken for its own echo. */
  constructor(parts: {
    readonly name: string;
    readonly replicas: number;
    readonly timestamp: number;
    readonly sign: (bytes: Uint8Array) => Uint8Array;
    /** Calls back once, at once or later. */
    readonly verify: (reply: Signed<Reply>, onVerdict: (isTrue: boolean) => void) => void;
    readonly options?: Partial<PbftClientOptions>;
  }) {
    this.#name = parts.name;
    this.#replicas = parts.replicas;
    this.#timestamp = parts.timestamp;
    this.#sign = parts.sign;
    this.#verify = parts.verify;
    this.#options = { ...pbftClientDefaults, ...parts.options };
  }

  isBusy(lane: number): boolean {
    return this.#calls.has(lane);
  }

  /** One frame per lane at a time: the caller asks `isBusy` before. */
  call(
    lane: number,
    operations: readonly Uint8Array[],
    options: { readonly nowMs: number; readonly onResults: (results: readonly Uint8Array[]) => void },
  ): readonly PbftClientSend[] {
    this.#timestamp++;
    const statement = { kind: "request", client: this.#name, lane, timestamp: this.#timestamp, operations } as const;
    const bytes = encodeStatement(statement);
    const frame = { statement, bytes, signature: this.#sign(bytes) };
    const { retryMs } = this.#options;
    const { nowMs, onResults } = options;
    this.#calls.set(lane, { frame, onResults, words: new Map(), atMs: nowMs + retryMs, waitMs: retryMs });
    return [{ to: [primaryOf(this.#view, this.#replicas)], message: { kind: "request", frame } }];
  }

  /** Nobody waits any more. What was sent may still happen. */
  abandon(lane: number): void {
    this.#calls.delete(lane);
  }

  /** Its seal is not verified yet; that it came from the replica that it names, the caller knows. */
  onReply(reply: Signed<Reply>): void {
    const { client, lane, timestamp, replica } = reply.statement;
    const call = this.#calls.get(lane);
    if (call === undefined || client !== this.#name || timestamp !== call.frame.statement.timestamp) return;
    if (replica >= this.#replicas) return;
    call.words.set(replica, { reply, seal: "held" });
    this.#judge(lane, call, reply);
  }

  /** Of the words that agree with this one: enough are true, or enough are asked about. */
  #judge(lane: number, call: Call, { statement }: Signed<Reply>): void {
    const enough = weakQuorumOf(this.#replicas);
    const equal = [...call.words.values()].filter(({ reply }) => areEqual(reply.statement.results, statement.results));
    const proven = equal.filter(({ seal }) => seal === "true");
    if (proven.length >= enough) {
      // One of them is correct, so at least the lowest of their views is real.
      this.#view = Math.max(this.#view, Math.min(...proven.map(({ reply }) => reply.statement.view)));
      this.#calls.delete(lane);
      call.onResults(statement.results);
      return;
    }
    const open = equal.filter(({ seal }) => seal !== "held").length;
    for (const word of equal.filter(({ seal }) => seal === "held").slice(0, enough - open)) {
      word.seal = "asked";
      this.#verify(word.reply, (isTrue) => this.#onVerdict(lane, call, word, isTrue));
    }
  }

  #onVerdict(lane: number, call: Call, word: Word, isTrue: boolean): void {
    const { replica } = word.reply.statement;
    if (this.#calls.get(lane) !== call || call.words.get(replica) !== word) return;
    if (isTrue) word.seal = "true";
    else call.words.delete(replica);
    this.#judge(lane, call, word.reply);
  }

  /** What to send now: to all, because the primary may be the one that is silent. */
  onTime(nowMs: number): readonly PbftClientSend[] {
    const sends: PbftClientSend[] = [];
    for (const call of this.#calls.values()) {
      if (call.atMs > nowMs) continue;
      call.waitMs = Math.min(call.waitMs * 2, this.#options.retryMsMax);
      call.atMs = nowMs + call.waitMs;
      const to = Array.from({ length: this.#replicas }, (_, replica) => replica);
      sends.push({ to, message: { kind: "request", frame: call.frame } });
    }
    return sends;
  }

  /** When `onTime` has something to do; undefined while nothing is open. */
  nextMs(): number | undefined {
    let nextMs: number | undefined;
    for (const { atMs } of this.#calls.values()) nextMs = Math.min(nextMs ?? atMs, atMs);
    return nextMs;
  }
}

function areEqual(left: readonly Uint8Array[], right: readonly Uint8Array[]): boolean {
  return left.length === right.length && left.every((bytes, at) => areEqualBytes(bytes, right[at] as Uint8Array));
}

function areEqualBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}
