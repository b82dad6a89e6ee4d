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

/** Undefined: not a value that was stored under this key, or one of another version. */
export function openEnvelope(
  codec: Codec,
  { keyHash, text }: { readonly keyHash: number; readonly text: string },
): Envelope | undefined {
  const sealEnd = text.indexOf("\n");
  if (!text.startsWith(magic) || sealEnd === -1) return undefined;
  if (numberAt(text, magic.length, sealEnd) !== seal(codec, keyHash, text.slice(sealEnd + 1))) return undefined;
  // By places, not by parts: a list of texts of the header costs as much as the value's own parsing.
  const headerEnd = text.indexOf("\n", sealEnd + 1);
  const sinceEnd = text.indexOf(" ", sealEnd);
  const freshEnd = text.indexOf(" ", sinceEnd + 1);
  const keepEnd = text.indexOf(" ", freshEnd + 1);
  const deltaEnd = text.indexOf(" ", keepEnd + 1);
  if (sinceEnd === -1 || freshEnd === -1 || keepEnd === -1 || deltaEnd === -1 || headerEnd < deltaEnd) return undefined;
  const moreAt = text.indexOf(" ", deltaEnd + 1);
  const epochEnd = moreAt === -1 || moreAt > headerEnd ? headerEnd : moreAt;
  try {
    const [etag, tags] = epochEnd === headerEnd ? nothingMore : JSON.parse(text.slice(epochEnd + 1, headerEnd));
    const epoch = text.slice(deltaEnd + 1, epochEnd);
    const since = numberAt(text, sealEnd + 1, sinceEnd);
    const freshUntil = numberAt(text, sinceEnd + 1, freshEnd);
    const keepUntil = numberAt(text, freshEnd + 1, keepEnd);
    const deltaMs = numberAt(text, keepEnd + 1, deltaEnd);
    // One that is none would be neither above nor below any revision or moment.
    if (Number.isNaN(since + freshUntil + keepUntil + deltaMs)) return undefined;
    return {
      epoch: epoch.includes("%") ? decodeURIComponent(epoch) : epoch,
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
  return codec.checksum(body, keyHash % 2 ** 32);
}

/** The whole number that stands there, or -1; NaN: something else does. */
function numberAt(text: string, from: number, to: number): number {
  if (text.charCodeAt(from) === minus) return to - from === 2 && text.charCodeAt(from + 1) === zero + 1 ? -1 : Number.NaN;
  let number = from < to ? 0 : Number.NaN;
  for (let at = from; at < to; at++) {
    const digit = text.charCodeAt(at) - zero;
    if (digit < 0 || digit > 9) return Number.NaN;
    number = number * 10 + digit;
  }
  return number;
}

const zero = 48;
const minus = 45;

function finite(time: number): number {
  return Number.isFinite(time) ? Math.round(time) : -1;
}

function infinite(time: number): number {
  return time === -1 ? Number.POSITIVE_INFINITY : time;
}
