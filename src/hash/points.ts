/**
 * Points on a ring, sorted, with a table that finds the next one in about one step.
 *
 * Intuition: a dictionary with a thumb index. The first bits of a hash say which page to open; on it stands, on average,
 * one point. Where a weak hash crowds many points onto one page the search falls back to halving.
 * Two nodes on the same place both keep their point; the one whose id sorts first owns it, and when it leaves, the other
 * does: no collision loses a point, and the history of joins and leaves leaves no trace.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";

/** About 100 MB of tables: 16,384 nodes of 256 points. */
const pointsMax = 2 ** 22;
/** Pages with more points than this are searched by halving. */
const stepsMax = 8;
/** Above every rank (2^20), so that place and rank are one exact number that sorts by place, then by rank. */
const rankUnit = 2 ** 20;

export class Points {
  /** Ascending. */
  readonly places: Uint32Array;
  /** By point: whose it is. */
  readonly ranks: Uint16Array | Uint32Array;
  /** `pages[h >>> shift]`: the first point at or after the page's begin. One more entry at the end, for the last page. */
  readonly #pages: Uint32Array;
  readonly #shift: number;

  /** `placesOf[rank]`: the places of that node's points, unsigned 32-bit numbers. @throws INVALID_OPTION (too many) */
  constructor(placesOf: readonly ArrayLike<number>[]) {
    let count = 0;
    for (const places of placesOf) count += places.length;
    if (count > pointsMax) {
      throw conclaveError(
        "INVALID_OPTION",
        `The ring would have ${count} points; ${pointsMax} are allowed. Lower \`virtualNodes\`.`,
      );
    }
    const sorted = new Float64Array(count);
    let at = 0;
    for (const [rank, places] of placesOf.entries()) {
      for (let each = 0; each < places.length; each++) sorted[at++] = (places[each] as number) * rankUnit + rank;
    }
    sorted.sort();
    this.places = new Uint32Array(count);
    this.ranks = placesOf.length <= 2 ** 16 ? new Uint16Array(count) : new Uint32Array(count);
    for (let point = 0; point < count; point++) {
      const packed = sorted[point] as number;
      const place = Math.floor(packed / rankUnit);
      this.places[point] = place;
      this.ranks[point] = packed - place * rankUnit;
    }
    const bits = Math.min(31, Math.max(1, Math.ceil(Math.log2(count + 1))));
    this.#shift = 32 - bits;
    this.#pages = pagesOf(this.places, bits);
  }

  get count(): number {
    return this.places.length;
  }

  get bytes(): number {
    return this.places.byteLength + this.ranks.byteLength + this.#pages.byteLength;
  }

  /** The first point at or after the place; past the last one the ring begins again. The ring must not be empty. */
  successor(place: number): number {
    const { places } = this;
    const page = place >>> this.#shift;
    let low = this.#pages[page] as number;
    let high = this.#pages[page + 1] as number;
    if (high - low > stepsMax) {
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((places[middle] as number) < place) low = middle + 1;
        else high = middle;
      }
    } else {
      while (low < high && (places[low] as number) < place) low++;
    }
    return low === places.length ? 0 : low;
  }
}

function pagesOf(places: Uint32Array, bits: number): Uint32Array {
  assert(bits >= 1 && bits <= 31, "a page number has 1 to 31 bits");
  const pages = new Uint32Array(2 ** bits + 1);
  const shift = 32 - bits;
  let point = 0;
  for (let page = 0; page <= 2 ** bits; page++) {
    while (point < places.length && (places[point] as number) >>> shift < page) point++;
    pages[page] = point;
  }
  return pages;
}
