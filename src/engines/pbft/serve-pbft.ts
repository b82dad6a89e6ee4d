/**
 * A PBFT replica with an open port: the pure core with Node's disk, sockets, clock and Ed25519 around it.
 *
 * ```
 * frame ─ decode ─ seals ─► other thread ─► core ─┬─ persist ─► log ─► core
 *                                                 ├─ send ─(once `after` is durable)─► peers
 *                                                 └─ reply ─► the client's connections
 * ```
 * Whatever comes in may come from a liar: what cannot be read closes its connection, what bears a false seal is dropped,
 * and each connection may have only so much waiting for verification. All of it is counted in `status().dropped`.
 */
import { hash } from "node:crypto";
import { ByteWriter } from "../../base/byte-codec.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Connection, ConnectionHandler, Timer } from "../../base/ports.ts";
import type { PbftInput, PbftOutput } from "../../consensus/pbft/core.ts";
import type { PbftMessage } from "../../consensus/pbft/messages.ts";
import type { PbftOptions } from "../../consensus/pbft/options.ts";
import { Pbft } from "../../consensus/pbft/pbft.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { CasMachine } from "../../store/cas-machine.ts";
import type { MemberStatus } from "../../wire/member-status.ts";
import { encodePbftMessage } from "../../wire/pbft-messages.ts";
import { lockDirectory } from "../embedded/directory-lock.ts";
import { listen } from "../embedded/listener.ts";
import { NodeDisk } from "../embedded/node-disk.ts";
import { Admission } from "./admission.ts";
import { CellStore } from "./cell-store.ts";
import { type ClusterFile, checkClusterFile } from "./cluster-file.ts";
import { claimOf, encodePbftHello } from "./hello.ts";
import { contextOf, type KeyFile, publicKeyDer, signingKey } from "./keys.ts";
import { PeerLink } from "./peer-link.ts";
import { Verifier } from "./verifier.ts";

export interface ServePbftOptions {
  /** Where votes, certificates and state are kept. */
  readonly directory: string;
  readonly clusterFile: ClusterFile;
  /** This replica's key; its name says which replica it is. */
  readonly key: KeyFile;
  /** Where to listen, `host:port`. Default: its address in the cluster file. */
  readonly listen?: string;
  /** Threads that verify. Default 1. */
  readonly verifyThreads?: number;
  readonly pbft?: Partial<PbftOptions>;
  readonly onEvent?: (event: ConclaveEvent) => void;
  readonly onHalt?: (why: string, error?: unknown) => void;
}

export interface PbftStatus extends MemberStatus {
  readonly view: number;
  readonly stable: number;
  readonly executed: number;
  /** Frames that could not be read, bore a false seal, or came too fast. */
  readonly dropped: { readonly unreadable: number; readonly unsealed: number; readonly flood: number };
  readonly signatures: {
    readonly verified: number;
    readonly remembered: number;
    readonly signed: number;
    readonly verifyMs: number;
    readonly signMs: number;
  };
}

export interface PbftServer extends AsyncDisposable {
  readonly address: string;
  status(): PbftStatus;
  close(): Promise<void>;
}

type Letter = Extract<PbftOutput, { kind: "send" }>;

/** Parts of the replicated state: a fetched part is one message, so a part must stay far below a frame. */
const buckets = 256;
/** Connections that are sent one client's replies; the oldest goes. */
const clientConnectionsMax = 8;

/**
 * @throws INVALID_OPTION, ADDRESS_IN_USE
 * @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED
 */
export async function servePbft(options: ServePbftOptions): Promise<PbftServer> {
  const clusterFile = checkClusterFile(options.clusterFile);
  const self = clusterFile.replicas.findIndex(({ name }) => name === options.key.name);
  const own = clusterFile.replicas[self];
  if (own === undefined) throw conclaveError("INVALID_OPTION", `The cluster file names no replica "${options.key.name}".`);
  if (own.publicKey !== options.key.publicKey) {
    throw conclaveError("INVALID_OPTION", `The key file of "${own.name}" is not the one that the cluster file knows it by.`);
  }
  const lock = await lockDirectory(options.directory);
  try {
    const host = await PbftHost.open(options, self, () => lock.release());
    return host;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

class PbftHost implements PbftServer {
  readonly #options: ServePbftOptions;
  readonly #self: number;
  readonly #name: string;
  readonly #verifier: Verifier;
  readonly #writer = new ByteWriter();
  readonly #links = new Map<number, PeerLink>();
  readonly #clients = new Map<string, Connection[]>();
  readonly #dropped = { unreadable: 0, unsealed: 0, flood: 0 };
  readonly #startedMs = nodePlatform.now();
  #core!: Pbft;
  #store!: CellStore;
  #listener: Awaited<ReturnType<typeof listen>> | undefined;
  #release: () => Promise<void>;
  #durable = 0;
  #waiting: Letter[] = [];
  #timer: Timer | undefined;
  #halted: string | undefined;
  #closing: Promise<void> | undefined;
  #signed = 0;
  #signMs = 0;
  #syncs = 0;
  #letters = 0;
  address = "";

  private constructor(options: ServePbftOptions, self: number, release: () => Promise<void>) {
    this.#options = options;
    this.#self = self;
    this.#release = release;
    const { replicas, clients, cluster } = options.clusterFile;
    this.#name = (replicas[self] as { name: string }).name;
    const keys = new Map<number | string, Uint8Array>();
    for (const [number, { name, publicKey }] of replicas.entries()) keys.set(number, publicKeyDer(publicKey, name));
    for (const { name, publicKey } of clients) keys.set(name, publicKeyDer(publicKey, name));
    this.#verifier = new Verifier({ keys, context: contextOf(cluster), threads: options.verifyThreads ?? 1 });
  }

  static async open(options: ServePbftOptions, self: number, release: () => Promise<void>): Promise<PbftHost> {
    const host = new PbftHost(options, self, release);
    try {
      await host.#open();
      return host;
    } catch (error) {
      await host.#verifier.close();
      await host.#listener?.close();
      throw error;
    }
  }

  status(): PbftStatus {
    const { view, stable, executed, active, primary } = this.#core.probe();
    const { replicas, cluster } = this.#options.clusterFile;
    const { verified, remembered, workerMs } = this.#verifier.stats;
    return {
      member: this.#name,
      cluster,
      protocol: "pbft",
      role: !active ? "candidate" : primary === this.#self ? "leader" : "follower",
      term: view,
      leader: active ? replicas[primary]?.name : undefined,
      committedIndex: executed,
      appliedIndex: executed,
      lastIndex: executed,
      revision: executed,
      sessions: 0,
      syncs: this.#syncs,
      letters: this.#letters,
      elapsedMs: nodePlatform.now() - this.#startedMs,
      peers: [],
      halted: this.#halted,
      view,
      stable,
      executed,
      dropped: { ...this.#dropped },
      signatures: { verified, remembered, signed: this.#signed, verifyMs: workerMs, signMs: this.#signMs },
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#timer?.cancel();
    for (const link of this.#links.values()) link.close();
    await this.#listener?.close();
    await this.#store.close();
    await this.#verifier.close();
    await this.#release();
  }

  async #open(): Promise<void> {
    const { clusterFile, key, directory, onEvent, pbft } = this.#options;
    const { replicas, cluster } = clusterFile;
    const signer = signingKey(key, cluster);
    const crypto = {
      digest: sha256,
      sign: (bytes: Uint8Array): Uint8Array => {
        const startedMs = performance.now();
        const signature = signer.sign(bytes);
        this.#signMs += performance.now() - startedMs;
        this.#signed++;
        return signature;
      },
    };
    let accept: ((connection: Connection) => ConnectionHandler) | undefined;
    // The port first: a replica that nobody can reach must not take part.
    this.#listener = await listen({
      address: this.#options.listen ?? (replicas[this.#self] as { address: string }).address,
      accept: (connection) => {
        if (accept !== undefined) return accept(connection);
        connection.close();
        return { onFrame: () => undefined, onClose: () => undefined };
      },
      status: () => this.status(),
    });
    this.address = `${this.#listener.host}:${this.#listener.port}`;
    this.#core = new Pbft({
      self: this.#self,
      replicas: replicas.length,
      nowMs: nodePlatform.now(),
      crypto,
      service: new CasMachine(buckets),
      ...(pbft === undefined ? {} : { options: pbft }),
    });
    const { store, recovered } = await CellStore.open({
      disk: await NodeDisk.open(directory),
      member: this.#name,
      cluster,
      incarnation: () => nodePlatform.randomUint32(),
      digest: sha256,
      ...(onEvent === undefined ? {} : { telemetry: { emit: onEvent } }),
      onDurable: (sequence) => {
        this.#durable = sequence;
        this.#syncs++;
        this.#feed({ kind: "persisted", nowMs: nodePlatform.now(), sequence });
      },
      onFailed: (error) => this.#halt("its disk failed", error),
    });
    this.#store = store;
    for (const [number, { address }] of replicas.entries()) {
      if (number === this.#self) continue;
      const signature = signer.sign(claimOf(this.#self, number));
      const hello = encodePbftHello({ kind: "replica", cluster, replica: this.#self, signature });
      this.#links.set(number, new PeerLink({ address, hello, onFrame: () => undefined }));
    }
    accept = () => this.#accept();
    this.#route(this.#core.start(recovered));
  }

  // ---------------------------------------------------------------------------------------------- frames

  #accept(): ConnectionHandler {
    return new Admission({
      cluster: this.#options.clusterFile.cluster,
      self: this.#self,
      verifier: this.#verifier,
      dropped: this.#dropped,
      onProven: (hello, connection) => {
        if (hello.kind === "client") this.#welcome(hello.client, connection);
      },
      isNeeded: (message) => this.#core.needs(message),
      onMessage: (from, message) => this.#feed({ kind: "message", nowMs: nodePlatform.now(), from, message }),
      onRefused: ({ remote }, { code, message: why }) =>
        this.#options.onEvent?.({ kind: "connection.refused", member: this.#name, remote, code, why }),
      onGone: (hello, connection) => {
        if (hello.kind === "client") this.#forget(hello.client, connection);
      },
    });
  }

  #welcome(client: string, connection: Connection): void {
    const connections = this.#clients.get(client) ?? [];
    connections.push(connection);
    if (connections.length > clientConnectionsMax) connections.shift()?.close();
    this.#clients.set(client, connections);
  }

  #forget(client: string, connection: Connection): void {
    const left = (this.#clients.get(client) ?? []).filter((known) => known !== connection);
    if (left.length === 0) this.#clients.delete(client);
    else this.#clients.set(client, left);
  }

  // ---------------------------------------------------------------------------------------------- the core

  #feed(input: PbftInput): void {
    if (this.#halted !== undefined || this.#closing !== undefined) return;
    try {
      this.#route(this.#core.step(input));
    } catch (error) {
      this.#halt("an invariant is broken", error);
    }
  }

  #route(outputs: readonly PbftOutput[]): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          this.#store.persist(output.sequence, output.changes);
          break;
        case "send":
          this.#waiting.push(output);
          break;
        case "reply":
          for (const connection of this.#clients.get(output.client) ?? []) {
            connection.send(this.#encode({ kind: "reply", reply: output.reply }));
          }
          break;
        case "timer":
          this.#timer?.cancel();
          this.#timer = nodePlatform.setTimer(output.atMs - nodePlatform.now(), () =>
            this.#feed({ kind: "tick", nowMs: nodePlatform.now() }),
          );
          break;
        case "save-snapshot": {
          const { snapshot } = output;
          this.#store.saveSnapshot(snapshot, () =>
            this.#feed({ kind: "snapshot-saved", nowMs: nodePlatform.now(), sequence: snapshot.sequence }),
          );
          break;
        }
        case "notice":
          this.#tell(output.notice);
          break;
        case "halt":
          this.#halt(output.why);
          break;
        case "executed":
          break;
      }
    }
    this.#post();
  }

  #tell(notice: Extract<PbftOutput, { kind: "notice" }>["notice"]): void {
    if (notice.notice !== "view-entered" && notice.notice !== "view-change-started") return;
    const { role, leader } = this.status();
    this.#options.onEvent?.({ kind: "role.changed", member: this.#name, role, term: notice.view, leader });
  }

  /** What waits for the disk stays; the rest leaves, in order. */
  #post(): void {
    if (this.#waiting.length === 0) return;
    const waiting: Letter[] = [];
    for (const letter of this.#waiting) {
      if (letter.after > this.#durable) {
        waiting.push(letter);
        continue;
      }
      const frame = this.#encode(letter.message);
      for (const to of letter.to) this.#links.get(to)?.send(frame);
      this.#letters += letter.to.length;
    }
    this.#waiting = waiting;
  }

  #encode(message: PbftMessage): Uint8Array {
    this.#writer.reset();
    encodePbftMessage(this.#writer, message);
    return this.#writer.finish();
  }

  #halt(why: string, error?: unknown): void {
    if (this.#halted !== undefined) return;
    this.#halted = why;
    this.#timer?.cancel();
    for (const link of this.#links.values()) link.close();
    this.#options.onEvent?.({ kind: "member.halted", member: this.#name, why });
    this.#options.onHalt?.(why, error);
  }
}

/** SHA-256, one character per byte. */
export function sha256(bytes: Uint8Array): string {
  return hash("sha256", bytes, "binary");
}
