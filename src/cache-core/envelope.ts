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
import { keyHash } from "./key-hash.ts";
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
export function sealEnvelope(codec: Codec, { key, envelope }: { readonly key: string; readonly envelope: Envelope }): string {
  const { epoch, since, freshUntil, keepUntil, deltaMs, etag, tags, value } = envelope;
  const more = etag === null && tags.length === 0 ? "" : ` ${JSON.stringify([etag, tags])}`;
  const header = `${since} ${finite(freshUntil)} ${finite(keepUntil)} ${deltaMs} ${encodeURIComponent(epoch)}${more}`;
  const body = `${header}\n${codec.encode(value)}`;
  return `${magic}${seal(codec, key, body)}\n${body}`;
}

/** Undefined: not a value that was stored under this key, or one of another version. */
export function openEnvelope(codec: Codec, { key, text }: { readonly key: string; readonly text: string }): Envelope | undefined {
  const sealEnd = text.indexOf("\n");
  if (!text.startsWith(magic) || sealEnd === -1) return undefined;
  const body = text.slice(sealEnd + 1);
  if (text.slice(magic.length, sealEnd) !== String(seal(codec, key, body))) return undefined;
  const headerEnd = body.indexOf("\n");
  try {
    const header = body.slice(0, headerEnd);
    const [since, freshUntil, keepUntil, deltaMs, epoch] = header.split(" ", 5) as [string, string, string, string, string];
    const moreAt = header.indexOf(" [");
    const [etag, tags] = moreAt === -1 ? [null, noTags] : JSON.parse(header.slice(moreAt + 1));
    return {
      epoch: epoch.includes("%") ? decodeURIComponent(epoch) : epoch,
      since: Number(since),
      freshUntil: infinite(Number(freshUntil)),
      keepUntil: infinite(Number(keepUntil)),
      deltaMs: Number(deltaMs),
      etag,
      tags,
      value: codec.decode(body.slice(headerEnd + 1)),
    };
  } catch {
    // The checksum held and the content does not: written by a codec that this process does not have.
    return undefined;
  }
}

const noTags: readonly string[] = [];

function seal(codec: Codec, key: string, body: string): number {
  return codec.checksum(body, keyHash(key) % 2 ** 32);
}

function finite(time: number): number {
  return Number.isFinite(time) ? Math.round(time) : -1;
}

function infinite(time: number): number {
  return time === -1 ? Number.POSITIVE_INFINITY : time;
}
