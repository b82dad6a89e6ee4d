/**
 * What a case works with: namespaces of its own, time that can be waited for, processes with sessions of their own.
 */
import { linkSignal } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import type { Caps } from "../../store/caps.ts";
import type { Entry } from "../../store/entry.ts";
import type {
  CallOptions,
  Engine,
  KeyRange,
  Revision,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchEvent,
  WatchOptions,
} from "../../store/store.ts";
import type { ContractWorld, IsolatedClient } from "./contract-case.ts";

/** How long anything that must happen may take. */
const patienceMs = 10_000;

export class TestBed {
  readonly engine: Engine;
  readonly caps: Caps;
  readonly platform: Platform;
  readonly #world: ContractWorld;
  readonly #name: string;
  readonly #closing: (() => Promise<void>)[] = [];
  #names = 0;

  constructor(world: ContractWorld) {
    this.#world = world;
    this.engine = world.engine;
    this.caps = world.engine.caps;
    this.platform = world.engine.store("contract").platform;
    this.#name = `contract-${this.platform.wallMs().toString(36)}-${this.platform.randomUint32().toString(36)}`;
  }

  /** A name that nobody has used. */
  name(): string {
    return `${this.#name}-${++this.#names}`;
  }

  /** An empty store. */
  store(): Store {
    return this.engine.store(this.name());
  }

  /** A process on the engine, with sessions of its own; they are closed after the case. */
  process(engine: Engine = this.engine): TestProcess {
    const made = new TestProcess(engine);
    this.#closing.push(() => made.end());
    return made;
  }

  async isolate(): Promise<IsolatedClient> {
    const client = await this.#world.isolate?.();
    if (client === undefined) throw new Error("The suite was told that clients can be cut off; this world has no `isolate`.");
    this.#closing.push(() => client.engine.close());
    return client;
  }

  /** A watch that collects; ended after the case. */
  watch(store: Store, range: KeyRange, options: WatchOptions = {}): WatchReader {
    const reader = new WatchReader(store, range, options);
    this.#closing.push(async () => reader.end());
    return reader;
  }

  /** Lets the engine's time pass. */
  async pass(ms: number): Promise<void> {
    if (this.#world.advance !== undefined) return this.#world.advance(ms);
    await new Promise<void>((resolve) => void this.platform.setTimer(ms, resolve, { ref: true }));
  }

  /** The promise's value, which must come within the time. */
  async soon<T>(promise: Promise<T>, what: string, ms = patienceMs): Promise<T> {
    let isSettled = false;
    const settle = (): void => {
      isSettled = true;
    };
    promise.then(settle, settle);
    await this.until(() => isSettled, what, ms);
    return promise;
  }

  /** Waits until it is so, which must be within the time. */
  async until(isSo: () => boolean | Promise<boolean>, what: string, ms = patienceMs): Promise<void> {
    const startedAt = this.platform.now();
    for (let stepMs = 1; !(await isSo()); stepMs = Math.min(stepMs * 2, 50)) {
      if (this.platform.now() - startedAt > ms) throw new Error(`Expected within ${ms} ms: ${what}.`);
      await this.pass(stepMs);
    }
  }

  async dispose(): Promise<void> {
    for (const close of this.#closing.reverse()) await close();
    await this.#world.dispose();
  }
}

/** A source of stores whose shared sessions are its own, as those of another process would be. */
export class TestProcess {
  readonly #engine: Engine;
  readonly #sessions = new Map<number, Promise<Session>>();
  /** Transactions asked of the engine: its round trips. */
  txnCount = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  store(namespace: string): Store {
    return new ProcessStore(this, this.#engine.store(namespace));
  }

  async sharedSession(store: Store, { ttlMs = 15_000, ...options }: SessionOptions): Promise<Session> {
    const known = await this.#sessions.get(ttlMs);
    if (known?.alive) return known;
    const opening = store.session({ ttlMs, ...options });
    this.#sessions.set(ttlMs, opening);
    return opening;
  }

  /** As at the end of a process: its sessions are closed. */
  async end(): Promise<void> {
    for (const session of this.#sessions.values()) await (await session).close();
    this.#sessions.clear();
  }
}

class ProcessStore implements Store {
  readonly #process: TestProcess;
  readonly #store: Store;

  constructor(process: TestProcess, store: Store) {
    this.#process = process;
    this.#store = store;
  }

  get namespace(): string {
    return this.#store.namespace;
  }
  get caps(): Caps {
    return this.#store.caps;
  }
  get platform(): Platform {
    return this.#store.platform;
  }
  txn(txn: Txn, options?: CallOptions): Promise<TxnResult> {
    this.#process.txnCount++;
    return this.#store.txn(txn, options);
  }
  session(options?: SessionOptions): Promise<Session> {
    return this.#store.session(options);
  }
  sharedSession(options: SessionOptions = {}): Promise<Session> {
    return this.#process.sharedSession(this.#store, options);
  }
  watch(range: KeyRange, options?: WatchOptions): AsyncIterable<WatchBatch> {
    return this.#store.watch(range, options);
  }
}

/** Reads a watch to its end and keeps the events, and the state that follows from what it was told. */
export class WatchReader {
  readonly events: WatchEvent[] = [];
  readonly batches: WatchBatch[] = [];
  /** Text of each value by key, as told so far. */
  readonly state = new Map<string, string>();
  /** Of the last batch. */
  revision: Revision = 0;
  failure: unknown;
  isOver = false;
  readonly #link = linkSignal(undefined);

  constructor(store: Store, range: KeyRange, options: WatchOptions) {
    const batches = store.watch(range, { ...options, signal: this.#link.signal });
    this.#read(batches).catch((error: unknown) => {
      this.failure = error;
      this.isOver = true;
    });
  }

  end(): void {
    this.#link.abort();
  }

  async #read(batches: AsyncIterable<WatchBatch>): Promise<void> {
    for await (const batch of batches) {
      this.batches.push(batch);
      this.revision = batch.revision;
      if (batch.kind === "resync") this.#replace(batch.entries);
      else for (const event of batch.events) this.#follow(event);
    }
    this.isOver = true;
  }

  #replace(entries: readonly Entry[]): void {
    this.state.clear();
    for (const entry of entries) this.state.set(entry.key, entry.text);
  }

  #follow(event: WatchEvent): void {
    this.events.push(event);
    if (event.kind === "put") this.state.set(event.key, event.entry.text);
    else this.state.delete(event.key);
  }
}
