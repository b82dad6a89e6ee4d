/**
 * RESP2, the protocol of Redis and Valkey: commands out, replies in.
 *
 *     command   *<count>\r\n  then for each argument  $<bytes>\r\n<argument>\r\n
 *     reply     +text\r\n | -error\r\n | :integer\r\n | $<bytes>\r\n<bytes>\r\n | *<count>\r\n<replies>
 *
 * Bulk strings come back as bytes, because a value is bytes. The second version of the protocol is spoken by every server
 * and proxy there is, and has everything that scripts need; what it lacks (pushes between replies) a second connection has.
 * Source: redis.io/docs/latest/develop/reference/protocol-spec. Believes nothing: a malformed reply is PROTOCOL.
 */
import { conclaveError } from "../../base/errors.ts";

export type Argument = string | Uint8Array | number;

export type Reply = string | number | null | Buffer | RespError | readonly Reply[];

/** What the server answered with a minus sign. A value, because inside an array it is one. */
export class RespError {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }

  /** The first word, by which servers and clients tell errors apart: MOVED, NOSCRIPT, NOAUTH, ERR. */
  get word(): string {
    return /^\S*/.exec(this.message)?.[0] ?? "";
  }
}

/** A bulk string longer than this is nothing that was asked for. */
const bulkBytesMax = 536_870_912;
const depthMax = 16;

/** The first arguments of a command that is sent often, encoded once. */
export interface CommandHead {
  readonly count: number;
  readonly text: string;
}

export function encodeHead(args: readonly string[]): CommandHead {
  return { count: args.length, text: args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join("") };
}

/** The bytes of one command. Texts are UTF-8. */
export function encodeCommand(args: readonly Argument[], head?: CommandHead): (string | Uint8Array)[] {
  const parts: (string | Uint8Array)[] = [];
  let text = `*${args.length + (head?.count ?? 0)}\r\n${head?.text ?? ""}`;
  for (const arg of args) {
    if (typeof arg === "object" && arg.length > 0) {
      parts.push(`${text}$${arg.length}\r\n`, arg);
      text = "\r\n";
    } else {
      const written = typeof arg === "object" ? "" : String(arg);
      text += `$${Buffer.byteLength(written)}\r\n${written}\r\n`;
    }
  }
  parts.push(text);
  return parts;
}

/** Replies out of a stream of bytes that is cut anywhere. */
export class ReplyParser {
  readonly #onReply: (reply: Reply) => void;
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Not worth trying before this many bytes are there: spares a large reply from being parsed once per chunk. */
  #neededBytes = 0;

  constructor(onReply: (reply: Reply) => void) {
    this.#onReply = onReply;
  }

  /** @throws PROTOCOL */
  push(chunk: Buffer): void {
    this.#buffer = this.#at === this.#buffer.length ? chunk : Buffer.concat([this.#buffer.subarray(this.#at), chunk]);
    this.#at = 0;
    while (this.#at < this.#buffer.length && this.#buffer.length >= this.#neededBytes) {
      const start = this.#at;
      const reply = this.#read(0);
      if (reply === undefined) {
        this.#at = start;
        // The next chunk is joined to what begins here.
        this.#neededBytes = Math.max(0, this.#neededBytes - start);
        return;
      }
      this.#neededBytes = 0;
      this.#onReply(reply);
    }
  }

  /** Undefined: not all of it is there yet. */
  #read(depth: number): Reply | undefined {
    const end = this.#buffer.indexOf("\r\n", this.#at, "latin1");
    if (end < 0) return undefined;
    const kind = this.#buffer[this.#at];
    const start = this.#at + 1;
    this.#at = end + 2;
    switch (kind) {
      case 0x2b:
        return this.#buffer.toString("utf8", start, end);
      case 0x2d:
        return new RespError(this.#buffer.toString("utf8", start, end));
      case 0x3a:
        return this.#integer(start, end);
      case 0x24:
        return this.#bulk(this.#integer(start, end));
      case 0x2a:
        return this.#array(this.#integer(start, end), depth);
      default:
        throw malformed(`a reply that begins with byte ${kind}`);
    }
  }

  #integer(start: number, end: number): number {
    const number = Number(this.#buffer.toString("latin1", start, end));
    if (!Number.isSafeInteger(number)) throw malformed("an integer beyond 2^53, or none");
    return number;
  }

  #bulk(bytes: number): Buffer | null | undefined {
    if (bytes === -1) return null;
    if (bytes < 0 || bytes > bulkBytesMax) throw malformed(`a bulk string of ${bytes} bytes`);
    const end = this.#at + bytes;
    if (this.#buffer.length < end + 2) {
      this.#neededBytes = end + 2;
      return undefined;
    }
    const bulk = this.#buffer.subarray(this.#at, end);
    this.#at = end + 2;
    return bulk;
  }

  #array(count: number, depth: number): readonly Reply[] | null | undefined {
    if (count === -1) return null;
    if (count < 0 || depth === depthMax) throw malformed("an array of no count, or too deep");
    const replies: Reply[] = [];
    while (replies.length < count) {
      const reply = this.#read(depth + 1);
      if (reply === undefined) return undefined;
      replies.push(reply);
    }
    return replies;
  }
}

function malformed(what: string): Error {
  return conclaveError("PROTOCOL", `The server sent ${what}, which is no RESP2.`);
}
