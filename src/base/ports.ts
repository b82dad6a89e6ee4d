/**
 * The ports: everything that a pure room may know of the outside world.
 *
 * Intuition: a pure room is a chess player in a closed room. Moves, the clock and the dice are handed in through a
 * hatch; whether a real host, the simulator or a browser tab stands behind the hatch cannot be told from inside.
 * Every time is a monotonic millisecond count; only `wallMs` is the calendar, and nothing may be decided by it.
 */

/** Time, timers and dice. Implemented by the Node host, the simulator and (later) the browser lab. */
export interface Platform {
  /** Monotonic milliseconds, fractions allowed. Never goes back; may jump ahead after a pause. */
  now(): number;
  /** Calendar milliseconds since 1970. Used once, to start the revision of a new store. */
  wallMs(): number;
  /** Calls back once, not before `delayMs`. A `ref` timer keeps the process alive; the default does not. */
  setTimer(delayMs: number, callback: () => void, options?: { readonly ref?: boolean }): Timer;
  /** Runs the callback soon, after the input that is being handled: where a batch is closed. */
  defer(callback: () => void): void;
  /** A uniform unsigned 32-bit number. */
  randomUint32(): number;
  /** A value that follows a call through everything it awaits. Left out: the host has none. */
  contextVariable?<T>(): ContextVariable<T>;
}

/** What TC39's AsyncContext.Variable will be. */
export interface ContextVariable<T> {
  get(): T | undefined;
  run<R>(value: T, act: () => R): R;
}

export interface Timer {
  /** Idempotent. After it returns the callback will not run. */
  cancel(): void;
}

/**
 * A directory of files with explicit durability. One directory belongs to one member.
 * Rejections are final: the log stops its member on the first failed write (it never retries a failed sync).
 */
export interface Disk {
  /** Names of the files, in no order. */
  list(): Promise<readonly string[]>;
  /** Opens a file for reading and writing; `create` makes an empty one where none is. */
  open(name: string, options?: { readonly create?: boolean }): Promise<DiskFile>;
  /** Atomic replace. Durable once resolved, provided that the file's bytes were. */
  rename(from: string, to: string): Promise<void>;
  /** Durable once resolved. Removing what is absent is no error. */
  remove(name: string): Promise<void>;
}

export interface DiskFile {
  readonly name: string;
  sizeBytes(): Promise<number>;
  /** Up to `lengthBytes`; fewer at the end of the file. */
  read(offset: number, lengthBytes: number): Promise<Uint8Array>;
  /**
   * Writes all bytes at the offset or rejects. With `durable` the bytes, and the file's size and name, survive a power
   * cut once resolved. Without it they may vanish, in any part, until `sync`.
   * The buffers belong to the disk until the promise settles.
   */
  write(offset: number, bytes: readonly Uint8Array[], options: { readonly durable: boolean }): Promise<void>;
  /** Everything written so far is durable once resolved. */
  sync(): Promise<void>;
  /** Makes the file at least this long, filled with zeros, so that later writes do not move its end. */
  preallocate(sizeBytes: number): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Frames over connections. Framing lives behind the port: one `send` is one `onFrame` on the other side. */
export interface Transport {
  /** Starts connecting and returns at once; `onClose` reports a refusal too. */
  dial(address: string, handler: ConnectionHandler): Connection;
}

export interface Connection {
  /** For messages and logs: the address of the other side. */
  readonly remote: string;
  /** Queues a frame. Frames arrive in order or the connection closes. Ignored after close. */
  send(frame: Uint8Array): void;
  /** Bytes queued here and not yet taken by the other side. The sender bounds itself by it. */
  bufferedBytes(): number;
  /** Idempotent. `onClose` follows unless it was already called. */
  close(): void;
}

export interface ConnectionHandler {
  onOpen?(connection: Connection): void;
  /** The bytes are the receiver's until the call returns; what is kept longer must be copied. */
  onFrame(connection: Connection, frame: Uint8Array): void;
  onClose(connection: Connection, error?: Error): void;
}

/** Where every room tells what happens; metrics, logs, traces, the simulator and the lab listen. */
export interface Telemetry<E> {
  emit(event: E): void;
}

/** CRC-32 (IEEE 802.3) of the bytes, continuing from `seed`. A host may hand in a faster equal one. */
export type Checksum = (bytes: Uint8Array, seed?: number) => number;
