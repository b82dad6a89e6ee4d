/**
 * A value on its way through L2, with all that another process needs to judge it.
 *
 *   c2 <checksum> \n <since> <freshUntil> <keepUntil> <delta> <epoch> [<more>] \n <value>
 *
 * `since` is the revision before the load: the Store's counters say whether the value still stands. The two times are of
 * L2's own clock, -1 for never. `more` is JSON of etag and tags, where there are any: what most values lack costs no parsing.
 * The checksum covers everything after it and begins from the key's hash, so bytes that were stored elsewhere or otherwise
 * are a miss.
 */
import type { Codec } from "./l2.ts";

export interface Envelope {
  readonly epoch: string;
  readonly since: number;
  /** Of L2's clock. Infinity: for ever. */
  readonly freshUntil: number;
  /** The end of the grace. */
  readonly keepUntil: number;
  /** How long the load took: what early refresh reckons with. */
  readonly deltaMs: number;
  readonly etag: string | null;
  readonly tags: readonly string[];
  readonly value: unknown;
}

const magic = "c2 ";

/** @throws NOT_SERIALIZABLE */
export function sealEnvelope(
  codec: Codec,
  { keyHash, envelope }: { readonly keyHash: number; readonly envelope: Envelope },
): string {
  const { epoch, since, freshUntil, keepUntil, deltaMs, etag, tags, value } = envelope;
  const more = etag === null && tags.length === 0 ? "" : ` ${JSON.stringify([etag, tags])}`;
  const header = `${since} ${finite(freshUntil)} ${finite(keepUntil)} ${deltaMs} ${encodeURIComponent(epoch)}${more}`;
  const body = `${header}\n${codec.encode(value)}`;
  return `${magic}${seal(codec, keyHash, body)}\n${body}`;
}

/**
 * Undefined: not a value that was stored under this key, or one of another version. `epoch`: the one that it probably carries;
 * then no text is made of what stands there.
 */
export function openEnvelope(
  codec: Codec,
  { keyHash, text, epoch: present }: { readonly keyHash: number; readonly text: string; readonly epoch?: string | undefined },
): Envelope | undefined {
  if (!text.startsWith(magic)) return undefined;
  // In one pass: a list of texts of the header, or a search for each of its ends, costs as much as the value's own parsing.
  const header = new Header(text);
  const sum = header.number(newLine);
  if (Number.isNaN(sum) || sum !== seal(codec, keyHash, text.slice(header.at))) return undefined;
  const since = header.number(space);
  const freshUntil = header.number(space);
  const keepUntil = header.number(space);
  const deltaMs = header.number(space);
  // One that is none would be neither above nor below any revision or moment.
  if (Number.isNaN(since + freshUntil + keepUntil + deltaMs)) return undefined;
  const isPresent = present !== undefined && header.isNext(present);
  const epoch = isPresent ? present : header.word();
  const headerEnd = text.charCodeAt(header.at) === newLine ? header.at : text.indexOf("\n", header.at);
  if (headerEnd === -1) return undefined;
  try {
    const [etag, tags] = header.at === headerEnd ? nothingMore : JSON.parse(text.slice(header.at, headerEnd));
    return {
      epoch: !isPresent && epoch.includes("%") ? decodeURIComponent(epoch) : epoch,
      since,
      freshUntil: infinite(freshUntil),
      keepUntil: infinite(keepUntil),
      deltaMs,
      etag,
      tags,
      value: codec.decode(text.slice(headerEnd + 1)),
    };
  } catch {
    // The checksum held and the content does not: written by a codec that this process does not have.
    return undefined;
  }
}

const nothingMore: readonly [null, readonly string[]] = [null, []];

function seal(codec: Codec, keyHash: number, body: string): number {
  return codec.checksum(body, keyHash >>> 0);
}

/** Where the header has been read up to. */
class Header {
  readonly #text: string;
  at = magic.length;

  constructor(text: string) {
    this.#text = text;
  }

  /** The whole number, or -1, that stands before the next `end`, which is read with it; NaN: something else stands there. */
  number(end: number): number {
    const text = this.#text;
    const isMinus = text.charCodeAt(this.at) === minus;
    const from = isMinus ? this.at + 1 : this.at;
    let number = 0;
    let at = from;
    for (; at < text.length; at++) {
      const digit = text.charCodeAt(at) - zero;
      if (digit < 0 || digit > 9) break;
      number = number * 10 + digit;
    }
    if (at === from || text.charCodeAt(at) !== end || (isMinus && !(number === 1 && at === from + 1))) {
      return Number.NaN;
    }
    this.at = at + 1;
    return isMinus ? -1 : number;
  }

  /** Whether this word stands there, as it is; if so it is read. One with a percent sign stands there encoded. */
  isNext(word: string): boolean {
    const text = this.#text;
    const end = this.at + word.length;
    if (!text.startsWith(word, this.at) || word.includes("%")) return false;
    const unit = text.charCodeAt(end);
    if (unit !== space && unit !== newLine) return false;
    this.at = end;
    return true;
  }

  /** What stands before the next space or new line. */
  word(): string {
    const text = this.#text;
    const from = this.at;
    for (; this.at < text.length; this.at++) {
      const unit = text.charCodeAt(this.at);
      if (unit === space || unit === newLine) break;
    }
    return text.slice(from, this.at);
  }
}

const newLine = 10;
const space = 32;
const minus = 45;
const zero = 48;

function finite(time: number): number {
  return Number.isFinite(time) ? Math.round(time) : -1;
}

function infinite(time: number): number {
  return time === -1 ? Number.POSITIVE_INFINITY : time;
}
