/**
 * Gathers the commands of one turn into the payload of one log entry, copying each command's bytes once.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { batchFormat } from "./batch.ts";

export class BatchWriter {
  readonly #commands = new ByteWriter({ initialBytes: 65_536 });
  readonly #head = new ByteWriter({ initialBytes: 16 });
  #count = 0;

  /** How many commands wait. */
  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#commands.length;
  }

  /** Copies the command. */
  add(command: Uint8Array): void {
    this.#commands.bytes(command);
    this.#count++;
  }

  /** The payload of everything added since the last call. */
  finish(): Uint8Array {
    this.#head.reset();
    this.#head.u8(batchFormat);
    this.#head.varint(this.#count);
    const head = this.#head.view();
    const body = this.#commands.view();
    const payload = new Uint8Array(head.length + body.length);
    payload.set(head);
    payload.set(body, head.length);
    this.#commands.reset();
    this.#count = 0;
    return payload;
  }
}
