/**
 * Writes the values of a statement into its text, so that it travels in one text with what follows it: PostgreSQL wakes its
 * client once for such a text, and once for each statement that has values beside it.
 *
 * A value becomes a literal in quotes, whose type the server finds as it finds that of a parameter. Only where a reader needs no
 * grammar to see that nothing else can happen: one INSERT, UPDATE or DELETE without quotes, comments, semicolons and SELECT (which
 * sorts by a constant where it is a parameter, and not where it is a literal), each value null, a boolean, a number, or printable
 * ASCII without quote and backslash. Everything else travels as it is.
 */

interface Plain {
  readonly pieces: readonly string[];
  /** Of the value after each piece but the last, from 0. */
  readonly places: readonly number[];
  readonly count: number;
}

/** Texts come from code, not from input: a program has a few dozen. Whoever makes more starts over. */
const textsMax = 500;
const texts = new Map<string, Plain | null>();

const changes = /^\s*(?:insert|update|delete)\s/i;
/** Strings, names in quotes, more than one statement, comments, queries; a NUL, which ends a text on the wire, and all that follows. */
const beyond = /['"\\;\0]|--|\/\*|\bselect\b/i;
const plainText = /^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/;

/** Null where the statement and its values must travel apart. */
export function writtenIn(text: string, values: readonly unknown[] = []): string | null {
  const plain = plainOf(text);
  if (plain === null || plain.count !== values.length) return null;
  const { pieces, places } = plain;
  let written = pieces[0] as string;
  for (const [at, place] of places.entries()) {
    const literal = literalOf(values[place]);
    if (literal === null) return null;
    // After a space: `u&` and a quote begin a string of their own kind.
    written += ` ${literal}${pieces[at + 1] as string}`;
  }
  return written;
}

function plainOf(text: string): Plain | null {
  let plain = texts.get(text);
  if (plain === undefined) {
    plain = read(text);
    if (texts.size >= textsMax) texts.clear();
    texts.set(text, plain);
  }
  return plain;
}

function read(text: string): Plain | null {
  if (!changes.test(text) || beyond.test(text)) return null;
  const places: number[] = [];
  // A `$` elsewhere is part of a name, or opens a string.
  const pieces = text.split(/(?<![\w$\x80-\uffff])\$([1-9]\d{0,4})(?![\w$\x80-\uffff])/);
  const between = pieces.filter((_, at) => at % 2 === 0);
  for (let at = 1; at < pieces.length; at += 2) places.push(Number(pieces[at]) - 1);
  // Between two values something must stand: two literals that only a line break divides are one.
  if (between.some((piece, at) => piece.includes("$") || (at > 0 && at < between.length - 1 && piece.trim() === ""))) return null;
  const used = new Set(places);
  const count = used.size === 0 ? 0 : Math.max(...used) + 1;
  // A number that is left out is an error, which the server shall say.
  return used.size === count ? { pieces: between, places, count } : null;
}

function literalOf(value: unknown): string | null {
  switch (typeof value) {
    case "number":
    case "bigint":
    case "boolean":
      return `'${value}'`;
    case "string":
      return plainText.test(value) ? `'${value}'` : null;
    default:
      return value === null ? "NULL" : null;
  }
}
