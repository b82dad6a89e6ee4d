/**
 * Where the waist's keys lie in ZooKeeper: a node for each namespace, its keys below it.
 *
 *     /conclave/lock%2Forders/8123%2F1        namespace "lock/orders", key "8123/1"
 *     /conclave/~s/...                        a node for each session of ours; `~` begins no name of anybody else
 *
 * Letters, digits and a few signs stand for themselves, every other byte is %XX: `/` parts nodes, and ZooKeeper refuses
 * control characters, `.` and `..`.
 */
import { type BinaryRange, namespaceOf, stripNamespace } from "../../store/key.ts";

const plain = /^[A-Za-z0-9_@=+,:-]$/;
const table = Array.from({ length: 256 }, (_, byte) => {
  const letter = String.fromCharCode(byte);
  return plain.test(letter) ? letter : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
});

/** One character per byte, both ways. */
export function nodeName(binary: string): string {
  let name = "";
  for (let at = 0; at < binary.length; at++) name += table[binary.charCodeAt(at)];
  return name;
}

/** Undefined: no name of ours. */
export function binaryOfName(name: string): string | undefined {
  if (!/^(?:[A-Za-z0-9_@=+,:-]|%[0-9A-F]{2})*$/.test(name)) return undefined;
  return name.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

export class ZkPaths {
  readonly root: string;
  readonly sessions: string;

  constructor(root: string) {
    this.root = root;
    this.sessions = `${root}/~s`;
  }

  /** `namespace`: binary. The empty one has a name too. */
  namespace(namespace: string): string {
    return `${this.root}/n${nodeName(namespace)}`;
  }

  key(whole: string): string {
    return `${this.namespace(namespaceOf(whole))}/${nodeName(stripNamespace(whole))}`;
  }

  session(number: number): string {
    return `${this.sessions}/${number}`;
  }

  /** The namespace and, below it, the whole key that an event tells of. */
  parse(path: string): { readonly namespace: string; readonly whole: string | undefined } | undefined {
    if (!path.startsWith(`${this.root}/n`)) return undefined;
    const [first = "", second] = path.slice(this.root.length + 2).split("/");
    const namespace = binaryOfName(first);
    const key = second === undefined ? undefined : binaryOfName(second);
    if (namespace === undefined) return undefined;
    return { namespace, whole: key === undefined ? undefined : `${namespace}\0${key}` };
  }
}

/** A range lies in one namespace. */
export function namespaceOfRange(range: BinaryRange): string {
  return namespaceOf(range.from);
}
