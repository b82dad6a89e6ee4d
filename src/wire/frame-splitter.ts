/**
 * Cuts a stream of bytes into frames, for transports that have no frames of their own (TCP, Unix sockets).
 *
 *   | u32 length, little-endian | payload: `length` bytes | u32 length | ...
 *
 * A frame that lies within one chunk is handed out as a view of it, without a copy. One that spans chunks is gathered in a
 * buffer that grows with what has arrived, not with what the header claims. Pure: the transport feeds it.
 */
import { conclaveError } from "../base/errors.ts";

/** Bytes of the header before each payload. */
export const frameHeaderBytes = 4;

/** The largest payload that either side takes by default. An answer of `resultBytesMax` fits with room. */
export const frameBytesMaxDefault = 16_777_216;

/** The first allocation for a frame that spans chunks. */
const gatherBytesMin = 16_384;

/** Puts the header of a payload of this length at the place in the buffer. */
export function writeFrameHeader(buffer: Uint8Array, at: number, payloadBytes: number): void {
  buffer[at] = payloadBytes;
  buffer[at + 1] = payloadBytes >>> 8;
  buffer[at + 2] = payloadBytes >>> 16;
  buffer[at + 3] = payloadBytes >>> 24;
}

export class FrameSplitter {
  readonly #frameBytesMax: number;
  readonly #header = new Uint8Array(frameHeaderBytes);
  /** Invariant: below `frameHeaderBytes` only between frames, when nothing is gathered. */
  #headerBytes = 0;
  #payloadBytes = 0;
  /** Null: the payload has not begun. */
  #gathered: Uint8Array | null = null;
  #gatheredBytes = 0;
  #stopped = false;

  constructor(options: { readonly frameBytesMax?: number } = {}) {
    this.#frameBytesMax = options.frameBytesMax ?? frameBytesMaxDefault;
  }

  /** Ignores everything from now on, also the rest of a chunk that is being handled. */
  stop(): void {
    this.#stopped = true;
    this.#gathered = null;
  }

  /**
   * Hands out every frame that the chunk completes. A frame is the receiver's until the call returns.
   * @throws PROTOCOL (a frame above the maximum: the stream cannot be trusted any more; close it)
   */
  push(chunk: Uint8Array, onFrame: (frame: Uint8Array) => void): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#headerBytes < frameHeaderBytes) {
        at = this.#takeHeader(chunk, at);
        if (this.#headerBytes < frameHeaderBytes) return;
        if (this.#payloadBytes === 0) this.#emit(new Uint8Array(0), onFrame);
        continue;
      }
      if (this.#gathered === null && chunk.length - at >= this.#payloadBytes) {
        const end = at + this.#payloadBytes;
        this.#emit(chunk.subarray(at, end), onFrame);
        at = end;
        continue;
      }
      at = this.#gather(chunk, at, onFrame);
    }
  }

  #takeHeader(chunk: Uint8Array, at: number): number {
    while (this.#headerBytes < frameHeaderBytes && at < chunk.length) {
      this.#header[this.#headerBytes++] = chunk[at++] as number;
    }
    if (this.#headerBytes === frameHeaderBytes) {
      const [b0, b1, b2, b3] = this.#header as unknown as [number, number, number, number];
      this.#payloadBytes = (b0 | (b1 << 8) | (b2 << 16) | (b3 << 24)) >>> 0;
      if (this.#payloadBytes > this.#frameBytesMax) {
        const bytes = this.#payloadBytes;
        this.stop();
        throw conclaveError("PROTOCOL", `A frame claims ${bytes} bytes; at most ${this.#frameBytesMax} are taken.`);
      }
    }
    return at;
  }

  #gather(chunk: Uint8Array, at: number, onFrame: (frame: Uint8Array) => void): number {
    const take = Math.min(this.#payloadBytes - this.#gatheredBytes, chunk.length - at);
    const needed = this.#gatheredBytes + take;
    if (this.#gathered === null || this.#gathered.length < needed) {
      const grown = new Uint8Array(Math.min(this.#payloadBytes, Math.max(needed * 2, gatherBytesMin)));
      if (this.#gathered !== null) grown.set(this.#gathered.subarray(0, this.#gatheredBytes));
      this.#gathered = grown;
    }
    this.#gathered.set(chunk.subarray(at, at + take), this.#gatheredBytes);
    this.#gatheredBytes = needed;
    if (needed === this.#payloadBytes) this.#emit(this.#gathered.subarray(0, needed), onFrame);
    return at + take;
  }

  /** The state is that of a new frame before the receiver runs, so that it may stop us or throw. */
  #emit(frame: Uint8Array, onFrame: (frame: Uint8Array) => void): void {
    this.#headerBytes = 0;
    this.#gathered = null;
    this.#gatheredBytes = 0;
    onFrame(frame);
  }
}
