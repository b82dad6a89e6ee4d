/**
 * What one process knows of the invalidations: enough to say, of a value and the revision at which its load began, whether
 * it may still be served. Bounded, whatever is invalidated.
 *
 * Intuition: a gatekeeper with a short notebook. Of each slot he remembers the last few names with their revisions; what
 * he had to strike out he remembers as one number, the slot's floor. A value older than the floor is turned away unseen.
 *
 * A value is valid iff no invalidation of its key, its tags or a prefix of its key has a revision above `since`: the
 * revision that the process had seen before the load began, so everything up to it is in the value.
 * Source of the idea: leases of memcache at Facebook (Nishtala et al., NSDI 2013, §3.2.1), with revisions in place of tokens.
 */
import { type CounterState, type Mark, prefixSlots, slotOf } from "./invalidation.ts";

/** What is asked about. */
export interface Subject {
  /** Of the store under which it was loaded: revisions of another one say nothing. */
  readonly life: number;
  readonly key: string;
  readonly keyHash: number;
  readonly tagHashes: readonly number[];
}

/** Invariant: nothing up to `since` has invalidated it, as of the history's count `changes`. */
export interface Checked extends Subject {
  since: number;
  changes: number;
}

interface Counted {
  /** Of the counter; 0: never written, as far as the followed stream has said. */
  version: number;
  created: number;
}

interface Slot extends Counted {
  /** Something up to here was struck out: values from before it are refused. */
  floor: number;
  readonly hashes: number[];
  readonly revisions: number[];
}

/** Remembered per slot before its floor rises. */
const namesMax = 16;
const prefixesMax = 64;

export class InvalidationHistory {
  /** Counts the stores that have stood there. */
  life = 0;
  /** Every invalidation up to here is known. */
  revision = 0;
  /** Counts what was learnt: a value that was checked at this count needs no other check. */
  changes = 0;
  readonly #keys: (Slot | undefined)[] = [];
  readonly #tags: (Slot | undefined)[] = [];
  readonly #prefixSlots = Array.from({ length: prefixSlots }, () => ({ version: 0, created: 0 }));
  #prefixFloor = 0;
  #prefixes: { readonly prefix: string; readonly revision: number }[] = [];

  isValid(subject: Subject, since: number): boolean {
    if (subject.life !== this.life) return false;
    if (!slotAllows(this.#keys[slotOf(subject.keyHash)], subject.keyHash, since)) return false;
    for (const hash of subject.tagHashes) if (!slotAllows(this.#tags[slotOf(hash)], hash, since)) return false;
    if (this.#prefixFloor > since) return false;
    for (const { prefix, revision } of this.#prefixes) if (revision > since && subject.key.startsWith(prefix)) return false;
    return true;
  }

  /** Whether what was loaded and checked up to `since` is valid now; if so, that it was checked now is written down. */
  confirm(checked: Checked): boolean {
    if (!this.isValid(checked, checked.since)) return false;
    if (this.revision > checked.since) checked.since = this.revision;
    checked.changes = this.changes;
    return true;
  }

  /** A counter as the store tells it, by an event or in a resync. Told twice is told once. */
  learn(state: CounterState): void {
    const { kind } = state;
    if (kind === "prefix") this.#learnPrefix(state);
    else this.#learnNames({ ...state, kind });
  }

  /** Our own, by the store's answer: the stream will tell it later. */
  learnOwn(marks: readonly Mark[], revision: number): void {
    for (const mark of marks) {
      if (mark.kind === "prefix") this.#addPrefix(mark.prefix, revision);
      else addName(this.#slot(mark.kind, slotOf(mark.hash)), mark.hash, revision);
    }
    this.changes++;
  }

  /** The stream has told everything up to here. */
  completeTo(revision: number): void {
    this.revision = Math.max(this.revision, revision);
  }

  /** Something was invalidated up to here and nobody can say what: everything. */
  learnUnknown(revision: number): void {
    this.#prefixFloor = Math.max(this.#prefixFloor, revision);
    this.changes++;
  }

  /** Another store stands there: what was known means nothing, and no value from before its `revision` is valid. */
  startAnew(revision: number): void {
    this.#keys.length = 0;
    this.#tags.length = 0;
    for (const slot of this.#prefixSlots) Object.assign(slot, { version: 0, created: 0 });
    this.#prefixes = [];
    this.#prefixFloor = revision;
    this.revision = revision;
    this.life++;
    this.changes++;
  }

  #learnNames(state: CounterState & { readonly kind: "key" | "tag" }): void {
    const slot = this.#slot(state.kind, state.slot);
    const step = stepOf(slot, state);
    if (step === "old") return;
    if (step === "next" && state.hashes.length > 0) for (const hash of state.hashes) addName(slot, hash, state.revision);
    else raiseFloor(slot, state.revision);
    this.changes++;
  }

  #learnPrefix(state: CounterState): void {
    const step = stepOf(this.#prefixSlots[state.slot] as Counted, state);
    if (step === "old") return;
    if (step === "next" && state.prefixes.length > 0)
      for (const prefix of state.prefixes) this.#addPrefix(prefix, state.revision);
    else this.#prefixFloor = Math.max(this.#prefixFloor, state.revision);
    this.changes++;
  }

  #addPrefix(prefix: string, revision: number): void {
    if (prefix === "") {
      this.#prefixFloor = Math.max(this.#prefixFloor, revision);
    } else {
      this.#prefixes.push({ prefix, revision });
    }
    if (this.#prefixes.length <= prefixesMax) return;
    const oldest = this.#prefixes.reduce((least, each) => (each.revision < least.revision ? each : least));
    this.#prefixFloor = Math.max(this.#prefixFloor, oldest.revision);
    this.#prefixes = this.#prefixes.filter((each) => each.revision > this.#prefixFloor);
  }

  #slot(kind: "key" | "tag", index: number): Slot {
    const slots = kind === "key" ? this.#keys : this.#tags;
    let slot = slots[index];
    if (slot === undefined) {
      slot = { version: 0, created: 0, floor: 0, hashes: [], revisions: [] };
      slots[index] = slot;
    }
    return slot;
  }
}

/** How this state follows the one that was known. `next`: nothing between them was missed. */
function stepOf(slot: Counted, { version, created }: CounterState): "old" | "next" | "gap" {
  const isSame = slot.created === created;
  if (isSame ? version <= slot.version : created < slot.created) return "old";
  const isNext = isSame ? version === slot.version + 1 : slot.version === 0 && version === 1;
  slot.version = version;
  slot.created = created;
  return isNext ? "next" : "gap";
}

function slotAllows(slot: Slot | undefined, hash: number, since: number): boolean {
  if (slot === undefined) return true;
  if (slot.floor > since) return false;
  const { hashes, revisions } = slot;
  for (let at = 0; at < hashes.length; at++) if (hashes[at] === hash && (revisions[at] as number) > since) return false;
  return true;
}

function addName(slot: Slot, hash: number, revision: number): void {
  const { hashes, revisions } = slot;
  const at = hashes.indexOf(hash);
  if (at !== -1) {
    revisions[at] = Math.max(revisions[at] as number, revision);
    return;
  }
  hashes.push(hash);
  revisions.push(revision);
  if (hashes.length <= namesMax) return;
  let oldest = 0;
  for (let each = 1; each < revisions.length; each++) {
    if ((revisions[each] as number) < (revisions[oldest] as number)) oldest = each;
  }
  slot.floor = Math.max(slot.floor, revisions[oldest] as number);
  hashes.splice(oldest, 1);
  revisions.splice(oldest, 1);
}

/** What the slot remembers is of no use below the floor. */
function raiseFloor(slot: Slot, revision: number): void {
  slot.floor = Math.max(slot.floor, revision);
  for (let at = slot.hashes.length - 1; at >= 0; at--) {
    if ((slot.revisions[at] as number) > slot.floor) continue;
    slot.hashes.splice(at, 1);
    slot.revisions.splice(at, 1);
  }
}
