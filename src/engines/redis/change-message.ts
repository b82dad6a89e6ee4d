/**
 * What a script publishes: the changes of one revision in one namespace, or that they were too large to tell.
 *
 *     <revision>\n E  then for each key   <key bytes> <old bytes> <new bytes>\n<key><old><new>      (no bytes: absent)
 *     <revision>\n R
 */
import { toBinaryString } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ChangeMessage } from "../../client/feed.ts";
import type { Change } from "../../client/feed-reader.ts";
import { decodeEntry } from "./txn-codec.ts";

const lineFeed = 0x0a;

/** @throws PROTOCOL */
export function decodeChangeMessage(payload: Buffer): ChangeMessage {
  let at = payload.indexOf(lineFeed) + 1;
  const revision = Number(payload.toString("latin1", 0, Math.max(0, at - 1)));
  if (at === 0 || !Number.isSafeInteger(revision)) throw malformed();
  const kind = payload[at++];
  if (kind === 0x52) return { revision, changes: null };
  if (kind !== 0x45) throw malformed();
  const changes: Change[] = [];
  while (at < payload.length) {
    const end = payload.indexOf(lineFeed, at);
    const lengths = payload.toString("latin1", at, Math.max(at, end)).split(" ").map(Number);
    const [key = Number.NaN, old = Number.NaN, now = Number.NaN] = lengths;
    if (end < 0 || !(end + 1 + key + old + now <= payload.length)) throw malformed();
    const keyEnd = end + 1 + key;
    const whole = toBinaryString(payload.subarray(end + 1, keyEnd));
    at = keyEnd + old + now;
    changes.push({
      whole,
      previous: old === 0 ? null : decodeEntry(whole, payload.subarray(keyEnd, keyEnd + old)),
      entry: now === 0 ? null : decodeEntry(whole, payload.subarray(keyEnd + old, at)),
    });
  }
  return { revision, changes };
}

function malformed(): Error {
  return conclaveError("PROTOCOL", "A channel of Conclave carried what no script of Conclave publishes.");
}
