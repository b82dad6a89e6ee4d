/**
 * The client of a PBFT cluster: a `CasStore` whose every answer f + 1 replicas have given alike.
 *
 * Calls of one turn are gathered into frames of up to 64 operations under one signature; a few frames may be in flight, each
 * on a lane of its own. Replies are verified on another thread before they count.
 *
 * Sessions, locks and watches are not offered: they need a time that 2f + 1 replicas agree on, and streams that f + 1
 * replicas vouch for, neither of which is built yet. Asking for them is UNSUPPORTED.
 */
import { Bag, type InBag } from "../../base/bag.ts";
import { ByteWriter } from "../../base/byte-codec.ts";
import { fromBinaryString, toBinaryString, utf8Decode, utf8Encode } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { Timer } from "../../base/ports.ts";
import { PbftClient, type PbftClientSend } from "../../consensus/pbft/client.ts";
import { sealsOf } from "../../consensus/pbft/gate.ts";
import { faultsTolerated } from "../../consensus/pbft/quorum.ts";
import { frameOperationsMax } from "../../consensus/pbft/statements.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import type { Caps } from "../../store/caps.ts";
import { embeddedLimits } from "../../store/caps.ts";
import {
  type CasAnswer,
  type CasOperation,
  type CasRecord,
  decodeCasAnswer,
  encodeCasOperation,
} from "../../store/cas-machine.ts";
import type { CallOptions, CasEntry, CasStore, Key, KeyRange, Revision, Store, Value } from "../../store/store.ts";
import { decodePbftMessage, encodePbftMessage } from "../../wire/pbft-messages.ts";
import { type ClusterFile, checkClusterFile } from "./cluster-file.ts";
import { claimOf, encodePbftHello } from "./hello.ts";
import { contextOf, type KeyFile, publicKeyDer, signingKey } from "./keys.ts";
import { PeerLink } from "./peer-link.ts";
import { Verifier } from "./verifier.ts";

export interface ConnectPbftOptions {
  readonly clusterFile: ClusterFile;
  /** This client's key; its name stands in the cluster file. One process at a time uses a key. */
  readonly key: KeyFile;
  /** Frames in flight at a time. Default 8; at most the replicas' `lanesMax`. */
  readonly lanes?: number;
  /** Calls that wait for a lane; more are refused with BUSY. Default 16_384. */
  readonly waitingMax?: number;
  /** How long the primary alone is asked before everybody is. Milliseconds. Default 300. */
  readonly retryMs?: number;
}

/** A connection to a PBFT cluster. */
export interface PbftConnection extends AsyncDisposable {
  readonly caps: Caps;
  /** Keys of a namespace, with get, compare-and-set and ordered ranges: all linearizable, all through the log. */
  cas(namespace?: string): CasStore;
  /** @throws UNSUPPORTED, always: sessions, watches and transactions need what this protocol does not have yet. */
  store(namespace?: string): Store;
  /** The time spent on signatures, for those who weigh their price. */
  signatures(): { readonly verified: number; readonly verifyMs: number; readonly signed: number; readonly signMs: number };
  close(): Promise<void>;
}

interface OpenCall extends InBag {
  readonly fail: (error: Error) => void;
}

interface Waiting {
  readonly operation: Uint8Array;
  readonly resolve: (answer: CasAnswer) => void;
}

/** @throws INVALID_OPTION */
export function connectPbft(options: ConnectPbftOptions): PbftConnection {
  return new Connection(options);
}

const separator = "\0";

class Connection implements PbftConnection {
  readonly caps: Caps;
  readonly #client: PbftClient;
  readonly #verifier: Verifier;
  readonly #links: readonly PeerLink[];
  readonly #lanes: number;
  readonly #waitingMax: number;
  readonly #writer = new ByteWriter();
  #waiting: Waiting[] = [];
  #planned = false;
  #timer: Timer | undefined;
  #closed = false;
  #signed = 0;
  #signMs = 0;
  readonly #open = new Bag<OpenCall>();

  constructor(options: ConnectPbftOptions) {
    const { replicas, clients, cluster } = checkClusterFile(options.clusterFile);
    const { key } = options;
    const known = clients.find(({ name }) => name === key.name);
    if (known === undefined) throw conclaveError("INVALID_OPTION", `The cluster file names no client "${key.name}".`);
    if (known.publicKey !== key.publicKey) {
      throw conclaveError("INVALID_OPTION", `The key file of "${key.name}" is not the one that the cluster file knows it by.`);
    }
    const signer = signingKey(key, cluster);
    const keys = new Map<number | string, Uint8Array>();
    for (const [number, { name, publicKey }] of replicas.entries()) keys.set(number, publicKeyDer(publicKey, name));
    this.#verifier = new Verifier({ keys, context: contextOf(cluster) });
    this.#lanes = options.lanes ?? 8;
    this.#waitingMax = options.waitingMax ?? 16_384;
    this.caps = pbftCaps(replicas.length);
    this.#client = new PbftClient({
      name: key.name,
      replicas: replicas.length,
      // Above every timestamp of an earlier process of this name, as long as the calendar does not go back.
      timestamp: nodePlatform.wallMs() * 1_000,
      sign: (bytes) => {
        const startedMs = nodePlatform.now();
        const signature = signer.sign(bytes);
        this.#signMs += nodePlatform.now() - startedMs;
        this.#signed++;
        return signature;
      },
      verify: (reply, onVerdict) =>
        this.#verifier.verify(sealsOf({ kind: "reply", reply }), (isTrue) => {
          if (!this.#closed) onVerdict(isTrue);
        }),
      ...(options.retryMs === undefined ? {} : { options: { retryMs: options.retryMs } }),
    });
    this.#links = replicas.map(
      ({ address }, replica) =>
        new PeerLink({
          address,
          hello: encodePbftHello({
            kind: "client",
            cluster,
            client: key.name,
            signature: signer.sign(claimOf(key.name, replica)),
          }),
          onFrame: (frame) => this.#onFrame(replica, frame),
        }),
    );
  }

  cas(namespace = "default"): CasStore {
    return new PbftCasStore(namespace, this.caps, (operation, callOptions) => this.#call(operation, callOptions));
  }

  store(): Store {
    throw notSupported("A store with sessions and transactions");
  }

  signatures(): { readonly verified: number; readonly verifyMs: number; readonly signed: number; readonly signMs: number } {
    const { verified, workerMs } = this.#verifier.stats;
    return { verified, verifyMs: workerMs, signed: this.#signed, signMs: this.#signMs };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    for (const link of this.#links) link.close();
    for (const { fail } of this.#open.empty()) {
      fail(
        conclaveError("CLOSED", "The connection was closed while a call was open; it may have happened.", { definite: false }),
      );
    }
    await this.#verifier.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #call(operation: CasOperation, { signal, timeoutMs = 10_000 }: CallOptions = {}): Promise<CasAnswer> {
    if (this.#closed) return Promise.reject(conclaveError("CLOSED", "A call on a closed connection."));
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#waiting.length >= this.#waitingMax) {
      return Promise.reject(conclaveError("BUSY", `${this.#waiting.length} calls wait for a lane already.`));
    }
    return new Promise((resolve, reject) => {
      const end = (): void => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        this.#open.delete(call);
      };
      const fail = (error: Error): void => {
        end();
        reject(error);
      };
      const onAbort = (): void => fail(signal?.reason as Error);
      const timer = nodePlatform.setTimer(
        timeoutMs,
        () => fail(conclaveError("TIMEOUT", `A ${operation.kind} had no f + 1 equal answers within ${timeoutMs} ms.`)),
        { ref: true },
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      const call: OpenCall = { fail, place: -1 };
      this.#open.add(call);
      this.#waiting.push({
        operation: encodeCasOperation(operation),
        resolve: (answer) => {
          end();
          resolve(answer);
        },
      });
      this.#plan();
    });
  }

  #plan(): void {
    if (this.#planned) return;
    this.#planned = true;
    // After everything that this turn asks for: one signature for all of it.
    queueMicrotask(() => {
      this.#planned = false;
      this.#flush();
    });
  }

  #flush(): void {
    for (let lane = 0; lane < this.#lanes && this.#waiting.length > 0 && !this.#closed; lane++) {
      if (this.#client.isBusy(lane)) continue;
      const batch = this.#waiting.splice(0, frameOperationsMax);
      const sends = this.#client.call(
        lane,
        batch.map(({ operation }) => operation),
        {
          nowMs: nodePlatform.now(),
          onResults: (results) => {
            for (const [at, { resolve }] of batch.entries()) resolve(answerIn(results[at]));
            this.#plan();
          },
        },
      );
      this.#send(sends);
    }
    this.#setTimer();
  }

  #send(sends: readonly PbftClientSend[]): void {
    for (const { to, message } of sends) {
      this.#writer.reset();
      encodePbftMessage(this.#writer, message);
      const frame = this.#writer.finish();
      for (const replica of to) this.#links[replica]?.send(frame);
    }
  }

  #setTimer(): void {
    this.#timer?.cancel();
    const atMs = this.#client.nextMs();
    if (atMs === undefined) return;
    this.#timer = nodePlatform.setTimer(atMs - nodePlatform.now(), () => {
      this.#send(this.#client.onTime(nodePlatform.now()));
      this.#setTimer();
    });
  }

  #onFrame(replica: number, frame: Uint8Array): void {
    // A replica that sends nonsense is one of the f: the splitter's owner closes the connection on a throw.
    const message = decodePbftMessage(frame);
    // In another's name it would take the place of what that one says.
    if (message.kind === "reply" && message.reply.statement.replica === replica) this.#client.onReply(message.reply);
  }
}

/** `CasStore` on calls through the log. */
class PbftCasStore implements CasStore {
  readonly namespace: string;
  readonly caps: Caps;
  readonly #call: (operation: CasOperation, options?: CallOptions) => Promise<CasAnswer>;

  constructor(namespace: string, caps: Caps, call: (operation: CasOperation, options?: CallOptions) => Promise<CasAnswer>) {
    if (namespace.includes(separator)) throw conclaveError("INVALID_OPTION", "A namespace holds no U+0000.");
    this.namespace = namespace;
    this.caps = caps;
    this.#call = call;
  }

  async get(key: Key, options?: CallOptions): Promise<CasEntry | null> {
    const answer = await this.#call({ kind: "get", key: this.#placed(key) }, options);
    if (answer.kind !== "entry") throw unexpected(answer);
    return this.#entry(answer.entry);
  }

  async compareAndSet(
    change: { readonly key: Key; readonly expected: Revision | null; readonly value: Value | null },
    options?: CallOptions,
  ): Promise<{ readonly applied: boolean; readonly current: CasEntry | null }> {
    const { expected } = change;
    const value = change.value === null ? null : bytesOf(change.value);
    if (value !== null && value.length > this.caps.limits.valueBytesMax) {
      throw conclaveError("VALUE_TOO_LARGE", `The value has ${value.length} bytes, ${this.caps.limits.valueBytesMax} are taken.`);
    }
    const key = this.#placed(change.key);
    const answer = await this.#call({ kind: "compare-and-set", key, expected, value }, options);
    if (answer.kind === "differs") return { applied: false, current: this.#entry(answer.current) };
    if (answer.kind !== "applied") throw unexpected(answer);
    const { revision } = answer;
    // The caller's own bytes may change after this.
    const record = revision === null || value === null ? null : { key, revision, value: value.slice() };
    return { applied: true, current: this.#entry(record) };
  }

  async range(range: KeyRange, options?: CallOptions & { readonly limit?: number }): Promise<readonly CasEntry[]> {
    const limit = options?.limit ?? Number.MAX_SAFE_INTEGER;
    const answer = await this.#call({ kind: "range", ...this.#bounds(range), limit }, options);
    if (answer.kind !== "range") throw unexpected(answer);
    return answer.entries.map((entry) => this.#entry(entry) as CasEntry);
  }

  #bounds(range: KeyRange): { readonly from: string; readonly to: string | undefined } {
    if ("key" in range) {
      const key = this.#placed(range.key);
      return { from: key, to: `${key}\0` };
    }
    const end = `${this.#prefix()}\xff`;
    if ("prefix" in range) {
      const prefix = toBinaryString(bytesOf(range.prefix));
      return { from: this.#prefix() + prefix, to: prefix === "" ? after(this.#prefix()) : after(this.#prefix() + prefix) };
    }
    const from = this.#placed(range.from);
    const to = range.to === undefined ? after(this.#prefix()) : this.#placed(range.to);
    return { from, to: to ?? end };
  }

  #prefix(): string {
    return toBinaryString(utf8Encode(this.namespace)) + separator;
  }

  /** @throws KEY_INVALID, KEY_TOO_LARGE */
  #placed(key: Key): string {
    const bytes = bytesOf(key);
    if (bytes.length === 0) throw conclaveError("KEY_INVALID", "A key is empty.");
    const placed = this.#prefix() + toBinaryString(bytes);
    if (placed.length > this.caps.limits.keyBytesMax) {
      throw conclaveError(
        "KEY_TOO_LARGE",
        `The key has ${placed.length} bytes with its namespace, ${this.caps.limits.keyBytesMax} are taken.`,
      );
    }
    return placed;
  }

  #entry(record: CasRecord | null): CasEntry | null {
    if (record === null) return null;
    const bytes = fromBinaryString(record.key.slice(this.#prefix().length));
    return { key: utf8Decode(bytes), value: record.value, revision: record.revision };
  }
}

/** The first string after all that begin with the prefix; undefined: there is none. */
function after(prefix: string): string | undefined {
  let end = prefix.length;
  while (end > 0 && prefix.charCodeAt(end - 1) === 255) end--;
  if (end === 0) return undefined;
  return prefix.slice(0, end - 1) + String.fromCharCode(prefix.charCodeAt(end - 1) + 1);
}

function bytesOf(value: Key | Value): Uint8Array {
  return typeof value === "string" ? utf8Encode(value) : value;
}

/** An empty result: the frame's answers had grown too long before this operation's turn, and it was not run. */
function answerIn(result: Uint8Array | undefined): CasAnswer {
  return result === undefined || result.length === 0 ? { kind: "refused" } : decodeCasAnswer(result);
}

function unexpected(answer: CasAnswer): Error {
  if (answer.kind === "refused")
    return conclaveError("TXN_TOO_LARGE", "The calls of one turn ask for too much at once; this one was not run.");

  return conclaveError("PROTOCOL", `The cluster agreed on an answer of kind "${answer.kind}", which does not fit the question.`);
}

/** What a recipe asks for and this protocol does not have, with the reason. */
export function notSupported(what: string): Error {
  return conclaveError(
    "UNSUPPORTED",
    `${what} on PBFT: leases need a time that 2f + 1 replicas agree on, and watches need f + 1 equal streams; neither is built. ` +
      "Use connectPbft(...).cas().",
  );
}

function pbftCaps(replicas: number): Caps {
  return {
    engine: `pbft, ${faultsTolerated(replicas)} of ${replicas} may lie`,
    linearizable: "always",
    durability: "quorum",
    watch: "none",
    handOff: "poll",
    clock: "none: there is no agreed time",
    fair: false,
    crossNamespace: false,
    claims: true,
    olderReads: false,
    tokenSurvives: ["restart", "failover"],
    limits: { ...embeddedLimits, valueBytesMax: 65_536, txnOpsMax: 1, historyRevisions: 0, historyBytes: 0 },
  };
}
