/**
 * Where the waist's keys lie in etcd: `prefix`, then the whole key, `conclave/lock/orders\0<place>`. What lies elsewhere is
 * never touched.
 */
import { Entry } from "../../store/entry.ts";
import { type BinaryRange, isRangeOfKey, stripNamespace } from "../../store/key.ts";
import type { KeySpan, KeyValue } from "./messages.ts";

export class EtcdKeys {
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  stored(whole: string): string {
    return this.prefix + whole;
  }

  span(range: BinaryRange): KeySpan {
    if (isRangeOfKey(range)) return { from: this.prefix + range.from, to: undefined };
    return { from: this.prefix + range.from, to: this.prefix + range.to };
  }

  /** With its whole key, as the machine has it. */
  wholeEntry(found: KeyValue): Entry {
    return new Entry({
      binaryKey: found.key.slice(this.prefix.length),
      value: found.value,
      createRevision: found.createRevision,
      modRevision: found.modRevision,
      version: found.version,
      session: found.lease === "0" ? null : found.lease,
    });
  }

  /** As callers see it. */
  entry(found: KeyValue): Entry {
    return new Entry({
      binaryKey: stripNamespace(found.key.slice(this.prefix.length)),
      value: found.value,
      createRevision: found.createRevision,
      modRevision: found.modRevision,
      version: found.version,
      session: found.lease === "0" ? null : found.lease,
    });
  }
}
