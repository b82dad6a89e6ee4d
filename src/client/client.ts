/**
 * The client's side of the embedded engine: an `Engine` over a `Transport`.
 *
 * It finds the leader and follows it (`navigator.ts`), says every call to it until it is answered (`caller.ts`), keeps
 * sessions (`session-keeper.ts`) and resumes watches (`watch.ts`). Here the parts are joined: what a link hears goes to whom
 * it concerns.
 * Pure: `memory:` and `file:` use it over a transport in memory, `conclave://` over sockets, the simulator over its network.
 */
import { assert } from "../base/assert.ts";
import type { ByteReader } from "../base/byte-codec.ts";
import { emptyBytes } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { Platform, Timer } from "../base/ports.ts";
import type { Caps } from "../store/caps.ts";
import { namespacePrefix, wholeRange } from "../store/key.ts";
import { findNamespaces, keysTxn } from "../store/namespaces.ts";
import { resolveTxn } from "../store/resolve.ts";
import { checkMaxStall } from "../store/stall.ts";
import type {
  CallOptions,
  Engine,
  KeyRange,
  NamespacesOptions,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../store/store.ts";
import type { AdminRequest } from "../wire/admin.ts";
import { type LeaderNews, protocolMax, protocolMin, type Refuse, type Welcome } from "../wire/hello.ts";
import { decodeStatus, type MemberStatus } from "../wire/member-status.ts";
import type { Refused } from "../wire/server-messages.ts";
import { kindOf } from "./call.ts";
import { Caller } from "./caller.ts";
import type { Link, LinkOwner } from "./link.ts";
import { Navigator, type NodeInfo } from "./navigator.ts";
import { type ClientLimits, type ClientOptions, checkClientOptions, checkTtl } from "./options.ts";
import { ProcessHold } from "./process-hold.ts";
import type { ClientSession } from "./session.ts";
import { SessionKeeper } from "./session-keeper.ts";
import type { LeaseKeeping, LeaseToKeep, StallKeeper } from "./stall-keeper.ts";
import { ClientWatch } from "./watch.ts";

/** Whom the client talks to. */
export interface Connected {
  /** The member that it takes for the leader and is connected to. */
  readonly leader: string | undefined;
  readonly address: string | undefined;
  readonly term: number;
  readonly nodes: readonly NodeInfo[];
}

export class Client implements Engine, LeaseKeeping {
  #caps: Caps;
  readonly #options: ClientOptions;
  readonly #limits: ClientLimits;
  readonly #platform: Platform;
  readonly #processHold: ProcessHold;
  readonly #navigator: Navigator;
  readonly #caller: Caller;
  readonly #sessions: SessionKeeper;
  /** Watches that are open, by the id of their present opening. */
  readonly #watches = new Map<number, ClientWatch>();
  #lastWatchId = 0;
  #silenceTimer: Timer | undefined;
  #closing: Promise<void> | undefined;

  /** @throws INVALID_OPTION. Dials nobody before the first call. */
  constructor(options: ClientOptions) {
    this.#limits = checkClientOptions(options);
    this.#options = options;
    this.#caps = withKeeper(options);
    const { platform, transport, addresses, telemetry } = options;
    this.#platform = platform;
    this.#processHold = new ProcessHold(platform);
    const parts = { platform, limits: this.#limits, processHold: this.#processHold, telemetry };
    const onAsked = (link: Link, nowMs: number): void => this.#onAsked(link, nowMs);
    this.#navigator = new Navigator({
      platform,
      transport,
      addresses,
      limits: this.#limits,
      hello: {
        protocolMin,
        protocolMax,
        role: "client",
        cluster: options.cluster,
        member: options.clientName ?? "client",
        to: undefined,
        groupId: options.groupId ?? 0,
        credential: options.credential ?? emptyBytes,
      },
      owner: this.#linkOwner(),
      onLeader: (link) => this.#onLeader(link),
      isWanted: () => this.#isWanted(),
    });
    this.#caller = new Caller({
      ...parts,
      navigator: this.#navigator,
      claims: (nowMs) => this.#sessions.claims(nowMs),
      onClaimsExpired: (window) => this.#sessions.onClaimsExpired(window),
      onAsked,
    });
    this.#sessions = new SessionKeeper({
      ...parts,
      claimsOpenMax: options.caps.limits.claimsOpenMax,
      navigator: this.#navigator,
      caller: this.#caller,
      onAsked,
      stallKeeper: options.stallKeeper,
    });
  }

  get caps(): Caps {
    return this.#caps;
  }

  /** What the first answer of a member taught about the engine behind. Before the first store is made. */
  promises(caps: Caps): void {
    this.#caps = withKeeper({ caps, stallKeeper: this.#options.stallKeeper });
  }

  /** @throws INVALID_OPTION */
  store(namespace: string): Store {
    this.#assertOpen();
    return new ClientStore(this, namespace, this.#platform);
  }

  /** Whom the client talks to at this moment. */
  get connected(): Connected {
    const link = this.#navigator.leaderLink;
    return { leader: link?.member, address: link?.address, term: this.#navigator.term, nodes: this.#navigator.nodes() };
  }

  /**
   * An operator's request, to whoever leads; resolves with the answer's text once it is done.
   * @throws MEMBER_EXISTS, MEMBER_UNKNOWN, LAST_VOTER, CHANGE_IN_FLIGHT, LEARNER_LAGS, TRANSFER_REFUSED, TRANSFER_ABANDONED,
   * UNSUPPORTED, UNAUTHORIZED, BUSY, TIMEOUT, NO_QUORUM (may have happened)
   */
  async administer(request: AdminRequest, options: Pick<CallOptions, "signal" | "timeoutMs"> = {}): Promise<string> {
    checkCallOptions(options);
    this.#assertOpen();
    return this.#caller.submit<string>({ kind: "admin", text: JSON.stringify(request), ...options });
  }

  /**
   * How a member sees itself and its cluster: the one at the address, or whichever can be reached.
   * @throws TIMEOUT, CONNECTION_REFUSED
   */
  async status(address?: string, options: Pick<CallOptions, "signal" | "timeoutMs"> = {}): Promise<MemberStatus> {
    checkCallOptions(options);
    this.#assertOpen();
    const at = address === undefined ? {} : { pinned: this.#navigator.linkTo(address) };
    const text = await this.#caller.submit<string>({ kind: "status", ...at, ...options });
    return decodeStatus(text);
  }

  /** @throws INVALID_OPTION, TIMEOUT, NO_QUORUM */
  namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    const { signal, timeoutMs } = options;
    return findNamespaces(options, async (range, limit) => {
      const request = { kind: "read", keys: "whole", txn: keysTxn(range, limit), timeoutMs, signal } as const;
      const { results } = await this.#caller.submit<TxnResult>(request);
      const [listed] = results;
      assert(listed?.kind === "range", "a range is answered with entries");
      return listed.entries.map(({ binaryKey }) => binaryKey);
    });
  }

  /** In the thread of a keeper: keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    this.#assertOpen();
    return this.#sessions.adopt(lease);
  }

  /** Sessions end, calls in flight fail with CLOSED, watches end. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // --- for `ClientStore` -----------------------------------------------------------------------------------------------

  txn(namespace: string, txn: Txn, options: CallOptions): Promise<TxnResult> {
    try {
      checkCallOptions(options);
      const resolved = resolveTxn(namespace, txn, this.caps.limits);
      if (txn.claim !== undefined && txn.claim.session === this.#sessions.claimSession?.id) {
        throw conclaveError(
          "INVALID_OPTION",
          "`claim.session` is the one by which the client makes its own claims; open a session for yours.",
        );
      }
      const kind = kindOf(resolved, options.consistency);
      return this.#caller.submit({ kind, txn: resolved, timeoutMs: options.timeoutMs, signal: options.signal });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async session(options: SessionOptions, isShared: boolean): Promise<Session> {
    checkCallOptions(options);
    const ttlMs = options.ttlMs ?? this.#limits.sessionTtlMs;
    checkTtl(ttlMs, "ttlMs", this.caps);
    checkMaxStall(options.maxStallMs, this.caps);
    this.#assertOpen();
    options.signal?.throwIfAborted();
    return isShared ? this.#sessions.shared(ttlMs, options) : this.#sessions.open(ttlMs, options);
  }

  /** @throws INVALID_OPTION, KEY_INVALID, KEY_TOO_LARGE, CLOSED */
  watch(namespace: string, range: KeyRange, options: WatchOptions): AsyncIterable<WatchBatch> {
    this.#assertOpen();
    const { from } = options;
    if (from !== undefined && (!Number.isSafeInteger(from) || from < 1)) {
      throw conclaveError("INVALID_OPTION", `\`from\` must be a revision, a whole number from 1; it is ${from}.`);
    }
    const binaryRange = wholeRange(namespacePrefix(options.namespace ?? namespace), range, this.caps.limits);
    return { [Symbol.asyncIterator]: () => this.#openWatch(binaryRange, from, options) };
  }

  // --- the parts joined ------------------------------------------------------------------------------------------------

  #linkOwner(): LinkOwner {
    return {
      onLinkReady: (link: Link, welcome: Welcome) => {
        this.#navigator.onLinkReady(link, welcome);
        this.#caller.onLinkReady();
        this.#failIfStopped();
      },
      onLinkClosed: (link: Link, error: Error) => this.#onLinkClosed(link, error),
      onOutcome: (_link: Link, requestId: number, outcome: ByteReader) => {
        this.#navigator.onSuccess();
        this.#caller.onOutcome(requestId, outcome);
      },
      onRefused: (link: Link, requestId: number, refused: Refused) => {
        if (!this.#sessions.onRefused(requestId, refused)) this.#caller.onRefused(link, requestId, refused);
        if (refused.code === "NOT_LEADER") this.#navigator.onNotLeader(link, refused.leader);
      },
      onReady: (_link: Link, requestId: number) => this.#sessions.onReady(requestId),
      onWatchBatch: (_link: Link, watchId: number, part: ByteReader) => this.#watches.get(watchId)?.onPart(part),
      onWatchEnd: (_link: Link, watchId: number, refuse: Refuse) => {
        this.#watches.get(watchId)?.end(conclaveError(refuse.code, refuse.message));
      },
      onLeader: (link: Link, news: LeaderNews) => this.#onNews(link, news),
      onStatusReply: (_link: Link, requestId: number, status: string) => this.#caller.onStatusReply(requestId, status),
    };
  }

  #onNews(link: Link, { leader, term }: LeaderNews): void {
    this.#navigator.onNews(leader, term, link.member);
    this.#failIfStopped();
  }

  #failIfStopped(): void {
    const stopped = this.#navigator.stopped();
    if (stopped !== undefined) this.#caller.failUnled(conclaveError(stopped.code, stopped.message));
  }

  #onLeader(link: Link): void {
    this.#options.telemetry?.emit({ kind: "client.leader", leader: link.member });
    link.askedMs = this.#platform.now();
    // Leases first: they are the most urgent, and the least.
    this.#sessions.onLeader();
    this.#caller.onLeader(link);
    for (const watch of [...this.#watches.values()]) this.#reopen(watch, link);
  }

  #onLinkClosed(link: Link, error: Error): void {
    this.#sessions.onLinkClosed(link);
    this.#caller.onLinkClosed(link, error);
    this.#navigator.onLinkClosed(link, error);
    const hopeless = this.#closing === undefined ? this.#navigator.hopeless() : undefined;
    if (hopeless === undefined) return;
    this.#caller.failAll(hopeless);
    for (const watch of [...this.#watches.values()]) watch.end(hopeless);
  }

  #isWanted(): boolean {
    const calls = this.#caller.openCount + this.#caller.queuedCount;
    return calls > 0 || this.#sessions.count > 0 || this.#watches.size > 0;
  }

  #openWatch(range: ClientWatchRange, from: number | undefined, { signal, ref }: WatchOptions): ClientWatch {
    this.#assertOpen();
    const onAbort = (): void => watch.end();
    const watch = new ClientWatch({
      range,
      from,
      bufferBytes: this.#limits.watchBufferBytes,
      processHold: ref === false ? undefined : this.#processHold,
      nextWatchId: () => ++this.#lastWatchId,
      onEnd: (ended) => {
        this.#watches.delete(ended.watchId);
        signal?.removeEventListener("abort", onAbort);
      },
    });
    if (signal?.aborted) {
      watch.end();
      return watch;
    }
    signal?.addEventListener("abort", onAbort, { once: true });
    const link = this.#navigator.leaderLink;
    if (link !== undefined) {
      this.#reopen(watch, link);
    } else {
      watch.watchId = ++this.#lastWatchId;
      this.#watches.set(watch.watchId, watch);
      this.#navigator.want();
    }
    return watch;
  }

  #reopen(watch: ClientWatch, link: Link): void {
    this.#watches.delete(watch.watchId);
    watch.open(link);
    this.#watches.set(watch.watchId, watch);
  }

  // --- silence ---------------------------------------------------------------------------------------------------------

  /** The link owes an answer from now on, if it did not before. */
  #onAsked(link: Link, nowMs: number): void {
    // The first that it owes: it was not silent before, only unasked.
    if (this.#caller.openCount + this.#sessions.attemptCount === 1) link.askedMs = nowMs;
    if (this.#silenceTimer === undefined) this.#watchSilenceLater();
  }

  #watchSilenceLater(): void {
    this.#silenceTimer = this.#platform.setTimer(this.#limits.silenceMs / 2, () => {
      this.#silenceTimer = undefined;
      this.#checkSilence();
    });
  }

  /**
   * A frozen leader keeps its connections: only its silence tells. The others know of a new leader, once there is one; it is
   * their news that moves us, not the silence.
   */
  #checkSilence(): void {
    if (this.#closing !== undefined || this.#caller.openCount + this.#sessions.attemptCount === 0) return;
    const link = this.#navigator.leaderLink;
    if (link !== undefined) {
      const quietMs = this.#platform.now() - Math.max(link.lastHeardMs, link.askedMs);
      if (quietMs >= this.#limits.deadMs) {
        link.close(conclaveError("TIMEOUT", `${link.address} was silent for ${Math.round(quietMs)} ms.`));
      } else if (quietMs >= this.#limits.silenceMs) {
        this.#navigator.probe();
      }
    }
    if (this.#silenceTimer === undefined) this.#watchSilenceLater();
  }

  // --- the end ---------------------------------------------------------------------------------------------------------

  async #close(): Promise<void> {
    for (const watch of [...this.#watches.values()]) watch.end();
    this.#caller.close();
    await this.#sessions.close();
    await this.#options.stallKeeper?.close();
    this.#caller.stop();
    this.#silenceTimer?.cancel();
    this.#navigator.close();
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw conclaveError("CLOSED", "The client was closed.");
  }
}

function withKeeper({ caps, stallKeeper }: { readonly caps: Caps; readonly stallKeeper?: StallKeeper | undefined }): Caps {
  return stallKeeper === undefined ? caps : { ...caps, stallKeeper: true };
}

type ClientWatchRange = ConstructorParameters<typeof ClientWatch>[0]["range"];

class ClientStore implements Store {
  readonly namespace: string;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly #client: Client;

  constructor(client: Client, namespace: string, platform: Platform) {
    namespacePrefix(namespace);
    this.namespace = namespace;
    this.caps = client.caps;
    this.platform = platform;
    this.#client = client;
  }

  txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    return this.#client.txn(this.namespace, txn, options);
  }

  session(options: SessionOptions = {}): Promise<Session> {
    return this.#client.session(options, false);
  }

  sharedSession(options: SessionOptions = {}): Promise<Session> {
    return this.#client.session(options, true);
  }

  watch(range: KeyRange, options: WatchOptions = {}): AsyncIterable<WatchBatch> {
    return this.#client.watch(this.namespace, range, options);
  }
}

function checkCallOptions({ timeoutMs, consistency }: CallOptions): void {
  if (timeoutMs !== undefined && !(Number.isFinite(timeoutMs) && timeoutMs > 0)) {
    throw conclaveError("INVALID_OPTION", `\`timeoutMs\` must be milliseconds above 0; it is ${timeoutMs}.`);
  }
  if (consistency !== undefined && !["linearizable", "stale", "lease"].includes(consistency)) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`consistency\` must be "linearizable", "stale" or "lease"; it is ${JSON.stringify(consistency)}.`,
    );
  }
}
