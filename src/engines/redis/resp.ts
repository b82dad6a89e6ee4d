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
  readonly isAscii: boolean;
}

export function encodeHead(args: readonly string[]): CommandHead {
  const text = args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join("");
  return { count: args.length, text, isAscii: Buffer.byteLength(text) === text.length };
}

/** Commands on their way into one write. Texts are UTF-8. */
export class Outbox {
  /** Before `#text`. */
  #parts: (string | Uint8Array)[] = [];
  #text = "";
  /** Most commands are plain ASCII, which Node writes at a third of the price of UTF-8. */
  #isAscii = true;

  get isEmpty(): boolean {
    return this.#text === "";
  }

  add(args: readonly Argument[], head?: CommandHead): void {
    let text = `${this.#text}*${args.length + (head?.count ?? 0)}\r\n${head?.text ?? ""}`;
    if (head?.isAscii === false) this.#isAscii = false;
    for (const arg of args) {
      if (typeof arg === "object" && arg.length > 0) {
        this.#parts.push(`${text}$${arg.length}\r\n`, arg);
        text = "\r\n";
      } else {
        const written = typeof arg === "object" ? "" : String(arg);
        const bytes = Buffer.byteLength(written);
        if (bytes !== written.length) this.#isAscii = false;
        text += `$${bytes}\r\n${written}\r\n`;
      }
    }
    this.#text = text;
  }

  /** Everything that was added, for `socket.write`. */
  take(): readonly [string, "latin1" | "utf8"] | readonly [Uint8Array] {
    const [parts, text, isAscii] = [this.#parts, this.#text, this.#isAscii];
    this.#parts = [];
    this.#text = "";
    this.#isAscii = true;
    if (parts.length === 0) return [text, isAscii ? "latin1" : "utf8"];
    parts.push(text);
    return [Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)))];
  }
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
        return integer(this.#buffer, start, end);
      case 0x24:
        return this.#bulk(integer(this.#buffer, start, end));
      case 0x2a:
        return this.#array(integer(this.#buffer, start, end), depth);
      default:
        throw malformed(`a reply that begins with byte ${kind}`);
    }
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

/** Most have one digit or two. */
function integer(bytes: Uint8Array, start: number, end: number): number {
  const isNegative = bytes[start] === 0x2d;
  let number = 0;
  for (let at = isNegative ? start + 1 : start; at < end; at++) {
    const digit = (bytes[at] as number) - 0x30;
    if (!(digit >= 0 && digit <= 9)) throw malformed("an integer that is none");
    number = number * 10 + digit;
  }
  if (!Number.isSafeInteger(number) || end === (isNegative ? start + 1 : start)) throw malformed("an integer beyond 2^53");
  return isNegative ? -number : number;
}

function malformed(what: string): Error {
  return conclaveError("PROTOCOL", `The server sent ${what}, which is no RESP2.`);
}
