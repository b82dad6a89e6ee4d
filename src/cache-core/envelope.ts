/**
 * A value on its way through L2, with all that another process needs to judge it.
 *
 *   c1 <checksum> \n [epoch, since, freshUntil, keepUntil, delta, etag, tags] \n <value>
 *
 * `since` is the revision before the load: the Store's counters say whether the value still stands. The two times are of
 * L2's own clock, -1 for never. The checksum covers everything after it and the key, so bytes that were stored elsewhere
 * or otherwise are a miss.
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

const magic = "c1 ";

/** @throws NOT_SERIALIZABLE */
export function sealEnvelope(codec: Codec, { key, envelope }: { readonly key: string; readonly envelope: Envelope }): string {
  const { epoch, since, freshUntil, keepUntil, deltaMs, etag, tags, value } = envelope;
  const header = JSON.stringify([epoch, since, finite(freshUntil), finite(keepUntil), deltaMs, etag, tags]);
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
    const [epoch, since, freshUntil, keepUntil, deltaMs, etag, tags] = JSON.parse(body.slice(0, headerEnd));
    const value = codec.decode(body.slice(headerEnd + 1));
    return { epoch, since, freshUntil: infinite(freshUntil), keepUntil: infinite(keepUntil), deltaMs, etag, tags, value };
  } catch {
    // The checksum held and the content does not: written by a codec that this process does not have.
    return undefined;
  }
}

function seal(codec: Codec, key: string, body: string): number {
  return codec.checksum(body, codec.checksum(key, 0));
}

function finite(time: number): number {
  return Number.isFinite(time) ? Math.round(time) : -1;
}

function infinite(time: number): number {
  return time === -1 ? Number.POSITIVE_INFINITY : time;
}
