/**
 * What changed lately, so that a watch can resume and an older state can be read.
 *
 *     floor |  r+1  r+2  r+3 ...  present          each revision: its events;   every 1,024th: also a sealed tree
 *
 * An older state is the next kept tree after it with the events in between undone: at most 1,023 steps, about a
 * millisecond. A tree at every revision would make each write copy a path of pages and keep it, kilobytes a write, for a
 * read that is rare.
 * Local to the member: a restored one starts with nothing, so nothing that goes through the log may depend on it.
 */
import type { Entry } from "./entry.ts";
import { type BinaryRange, isInRange } from "./key.ts";
import type { MachineEvent } from "./outcome.ts";
import type { Revision } from "./store.ts";
import { type Tree, TreeEdit } from "./tree.ts";

/** Revisions from one kept tree to the next. */
export const treeEvery = 1_024;

export type Changes =
  /** Complete from the revision that was asked for up to this one. */
  | { readonly kind: "changes"; readonly revision: Revision; readonly events: readonly MachineEvent[] }
  /** Too old: read the present state and go on after it. */
  | { readonly kind: "resync"; readonly revision: Revision };

export class History {
  /** Invariant: the revisions from `#floor + 1` to the present are kept, without a gap. */
  #floor: Revision;
  /** Each revision's events, from `#head` on; what lies before it was dropped and is cut off now and then. */
  #events: (readonly MachineEvent[] | undefined)[] = [];
  /** The bytes of each, beside it: counting them again when they go would fetch what nobody has touched for long. */
  #sizes: number[] = [];
  #head = 0;
  #bytes = 0;
  /** States after some of the revisions kept, ascending. */
  readonly #trees = new Map<Revision, Tree<Entry>>();
  readonly #revisionsMax: number;
  readonly #bytesMax: number;

  constructor(options: { readonly revision: Revision; readonly revisionsMax: number; readonly bytesMax: number }) {
    this.#floor = options.revision;
    this.#revisionsMax = options.revisionsMax;
    this.#bytesMax = options.bytesMax;
  }

  /** The oldest revision whose state can be read. */
  get floor(): Revision {
    return this.#floor;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the state after this revision is to be sealed and handed to `push`. */
  wantsTree(revision: Revision): boolean {
    return revision % treeEvery === 0;
  }

  push(events: readonly MachineEvent[], tree: Tree<Entry> | undefined): void {
    const bytes = bytesOf(events);
    this.#events.push(events);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    if (tree !== undefined) this.#trees.set(this.#floor + this.#count(), tree);
    while (this.#count() > this.#revisionsMax || (this.#bytes > this.#bytesMax && this.#count() > 0)) this.#dropOldest();
  }

  /** A leap of the counter: nothing before it can be told. */
  restart(revision: Revision): void {
    this.#floor = revision;
    this.#events = [];
    this.#sizes = [];
    this.#trees.clear();
    this.#head = 0;
    this.#bytes = 0;
  }

  /**
   * Events in the range from `fromRevision` on. Stops after the revision that reaches `maxEvents`, never inside one.
   */
  changesSince(range: BinaryRange, fromRevision: Revision, maxEvents: number): Changes {
    const present = this.#floor + this.#count();
    if (fromRevision <= this.#floor) return { kind: "resync", revision: present };
    const events: MachineEvent[] = [];
    for (let revision = fromRevision; revision <= present; revision++) {
      for (const event of this.#eventsOf(revision)) if (isInRange(range, event.key)) events.push(event);
      if (events.length >= maxEvents) return { kind: "changes", revision, events };
    }
    return { kind: "changes", revision: present, events };
  }

  /** The state after the revision, which lies between the floor and the present. `present` is the state of now. */
  stateAt(revision: Revision, present: () => Tree<Entry>): Tree<Entry> {
    let above = this.#floor + this.#count();
    let tree: Tree<Entry> | undefined;
    for (const [kept, state] of this.#trees) {
      if (kept < revision) continue;
      above = kept;
      tree = state;
      break;
    }
    tree ??= present();
    if (above === revision) return tree;
    const edit = new TreeEdit(tree);
    for (; above > revision; above--) {
      const events = this.#eventsOf(above);
      for (let at = events.length - 1; at >= 0; at--) undo(edit, events[at] as MachineEvent);
    }
    return edit.seal();
  }

  #count(): number {
    return this.#events.length - this.#head;
  }

  #eventsOf(revision: Revision): readonly MachineEvent[] {
    return this.#events[this.#head + (revision - this.#floor) - 1] as readonly MachineEvent[];
  }

  #dropOldest(): void {
    this.#bytes -= this.#sizes[this.#head] as number;
    this.#events[this.#head] = undefined;
    this.#head++;
    this.#floor++;
    if (this.#floor % treeEvery === 0) this.#trees.delete(this.#floor);
    if (this.#head >= 1_024 && this.#head * 2 >= this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#sizes = this.#sizes.slice(this.#head);
      this.#head = 0;
    }
  }
}

/** Takes one event back. */
export function undo(edit: TreeEdit<Entry>, event: MachineEvent): void {
  if (event.previous === null) edit.delete(event.key);
  else edit.set(event.key, event.previous);
}

/** Counts what was replaced too: nothing else may be keeping it. */
function bytesOf(events: readonly MachineEvent[]): number {
  let bytes = 0;
  for (const { key, entry, previous } of events) {
    bytes += key.length + (entry === null ? 0 : entry.value.length) + (previous === null ? 0 : previous.value.length);
  }
  return bytes;
}
