/**
 * An ordered map whose old versions stay: a B+tree of binary strings with path copying.
 *
 * Intuition: a book of loose leaves. To change a line, copy the leaf and the index pages above it; whoever holds the old
 * cover page still reads the old book. Copying each time is waste while nobody holds it, so an *edit* writes in place on
 * pages that it made itself, until `seal` hands out a cover and with it gives up every page (Clojure's transients;
 * Hickey 2009). Sealing costs nothing; the first change of a page after it costs a copy of about 32 pointers.
 * Branches count what is below them, so ranks and counts of ranges are O(log n).
 * Not here: iteration while editing (collect first), and any balance promise beyond "merged when under a quarter full".
 */
import { assert } from "../base/assert.ts";

/** Most keys of a leaf and children of a branch. 32: two cache lines of pointers to copy, five compares to search. */
const fanout = 32;
const fillMin = fanout / 4;

/** Pages carry the token of the edit span that made them; only within that span may they change in place. */
type Owner = object;

/** One class for both, so that every access has one shape. A leaf has values, a branch has children. */
class Page<T> {
  owner: Owner;
  /**
   * Leaf: the keys. Branch: `keys[i]` is at most every key below `children[i]` and above every key below
   * `children[i - 1]`; `keys[0]` is never compared, and is the parent's separator for the page where there is one.
   */
  keys: string[];
  values: T[];
  /** Empty on a leaf. */
  children: Page<T>[];
  /** Values at or below this page. */
  size: number;

  constructor(owner: Owner, keys: string[], values: T[], children: Page<T>[], size: number) {
    this.owner = owner;
    this.keys = keys;
    this.values = values;
    this.children = children;
    this.size = size;
  }
}

/** Shared by every page of the other sort; never written. */
const none: never[] = [];

/** Read access. A `Tree` never changes; a `TreeEdit` shows its present state. */
export class Tree<T> {
  protected root: Page<T>;

  /** Empty. Trees with content come from `TreeEdit.seal`. */
  constructor() {
    this.root = new Page<T>({}, [], [], none, 0);
  }

  get size(): number {
    return this.root.size;
  }

  get(key: string): T | undefined {
    let page = this.root;
    while (page.children.length > 0) page = page.children[childAt(page.keys, key)] as Page<T>;
    const at = lowerBound(page.keys, key);
    return page.keys[at] === key ? page.values[at] : undefined;
  }

  /** How many keys are below this one. */
  rank(key: string): number {
    let rank = 0;
    let page = this.root;
    while (page.children.length > 0) {
      const at = childAt(page.keys, key);
      for (let before = 0; before < at; before++) rank += (page.children[before] as Page<T>).size;
      page = page.children[at] as Page<T>;
    }
    return rank + lowerBound(page.keys, key);
  }

  /** How many keys are in `[from, to)`. */
  count(from: string, to: string): number {
    return from < to ? this.rank(to) - this.rank(from) : 0;
  }

  /** Calls for each key in `[from, to)`, upwards, until the visitor answers false. */
  visit(from: string, to: string, visitor: (value: T, key: string) => boolean): void {
    if (from < to) visitUp(this.root, from, to, visitor);
  }

  /** The same downwards. */
  visitDown(from: string, to: string, visitor: (value: T, key: string) => boolean): void {
    if (from < to) visitDown(this.root, from, to, visitor);
  }

  /** Everything, upwards, a leaf's values at a time. Lazy: for a sealed tree only. */
  leaves(): Generator<readonly T[]> {
    return leavesOf(this.root);
  }
}

/** The one writer of a tree. */
export class TreeEdit<T> extends Tree<T> {
  #owner: Owner = {};
  /** What the write under way replaced; out of band so that the recursion returns pages. */
  #replaced: T | undefined;

  constructor(tree?: Tree<T>) {
    super();
    // Pages of the tree carry other owners, so they are copied before they change.
    if (tree !== undefined) this.root = rootOf(tree);
  }

  /** The present state, for good. The edit goes on; it copies what it changes from now on. */
  seal(): Tree<T> {
    this.#owner = {};
    return sealed(this.root);
  }

  /** Answers what was there before. */
  set(key: string, value: T): T | undefined {
    this.#replaced = undefined;
    const root = this.#set(this.root, key, value);
    if (root.keys.length > fanout) {
      const right = this.#splitOff(root, key);
      this.root = new Page(
        this.#owner,
        [root.keys[0] as string, right.keys[0] as string],
        none,
        [root, right],
        root.size + right.size,
      );
    } else {
      this.root = root;
    }
    return this.#replaced;
  }

  /** Answers what was there before. */
  delete(key: string): T | undefined {
    // Looking first keeps a miss from copying a path.
    const present = this.get(key);
    if (present === undefined) return undefined;
    let root = this.#delete(this.root, key);
    while (root.children.length === 1) root = root.children[0] as Page<T>;
    this.root = root;
    return present;
  }

  #own(page: Page<T>): Page<T> {
    if (page.owner === this.#owner) return page;
    const isLeaf = page.children.length === 0;
    return new Page(
      this.#owner,
      page.keys.slice(),
      isLeaf ? page.values.slice() : none,
      isLeaf ? none : page.children.slice(),
      page.size,
    );
  }

  /** The page with the key set: owned, perhaps one over the fanout. */
  #set(shared: Page<T>, key: string, value: T): Page<T> {
    const page = this.#own(shared);
    if (page.children.length === 0) {
      const at = lowerBound(page.keys, key);
      if (page.keys[at] === key) {
        this.#replaced = page.values[at];
        page.values[at] = value;
      } else {
        insertAt(page.keys, at, key);
        insertAt(page.values, at, value);
        page.size++;
      }
      return page;
    }
    const at = childAt(page.keys, key);
    const before = page.children[at] as Page<T>;
    const sizeBefore = before.size;
    const child = this.#set(before, key, value);
    page.children[at] = child;
    page.size += child.size - sizeBefore;
    if (child.keys.length > fanout) {
      const right = this.#splitOff(child, key);
      insertAt(page.keys, at + 1, right.keys[0] as string);
      insertAt(page.children, at + 1, right);
    }
    return page;
  }

  /** Takes the upper half off an owned page. Keys that arrive in order leave full pages behind instead of halves. */
  #splitOff(page: Page<T>, arrived: string): Page<T> {
    const last = page.keys.length - 1;
    const at = (page.keys[last] as string) <= arrived ? last : page.keys.length >>> 1;
    const keys = page.keys.splice(at);
    const isLeaf = page.children.length === 0;
    const values = isLeaf ? page.values.splice(at) : none;
    const children = isLeaf ? none : page.children.splice(at);
    const size = isLeaf ? keys.length : sizeOf(children);
    page.size -= size;
    return new Page(this.#owner, keys, values, children, size);
  }

  /** The page without the key, which is there: owned, perhaps too empty. */
  #delete(shared: Page<T>, key: string): Page<T> {
    const page = this.#own(shared);
    page.size--;
    if (page.children.length === 0) {
      const at = lowerBound(page.keys, key);
      assert(page.keys[at] === key, "a key to delete is where the search found it");
      removeAt(page.keys, at);
      removeAt(page.values, at);
      return page;
    }
    const at = childAt(page.keys, key);
    const child = this.#delete(page.children[at] as Page<T>, key);
    page.children[at] = child;
    if (child.keys.length < fillMin && page.children.length > 1) this.#refill(page, at === 0 ? 0 : at - 1);
    return page;
  }

  /** Joins the children at `at` and `at + 1`, or evens them out where they are too many for one page. */
  #refill(page: Page<T>, at: number): void {
    const left = this.#own(page.children[at] as Page<T>);
    const right = page.children[at + 1] as Page<T>;
    const isLeaf = left.children.length === 0;
    // On a branch, too: the right one's first key is the separator that the parent has for it.
    const keys = left.keys.concat(right.keys);
    const values = isLeaf ? left.values.concat(right.values) : none;
    const children = isLeaf ? none : left.children.concat(right.children);
    const size = left.size + right.size;
    if (keys.length <= fanout) {
      page.children[at] = new Page(this.#owner, keys, values, children, size);
      removeAt(page.children, at + 1);
      removeAt(page.keys, at + 1);
      return;
    }
    const half = keys.length >>> 1;
    const upperKeys = keys.splice(half);
    const upperValues = isLeaf ? values.splice(half) : none;
    const upperChildren = isLeaf ? none : children.splice(half);
    const upperSize = isLeaf ? upperKeys.length : sizeOf(upperChildren);
    page.children[at] = new Page(this.#owner, keys, values, children, size - upperSize);
    page.children[at + 1] = new Page(this.#owner, upperKeys, upperValues, upperChildren, upperSize);
    page.keys[at + 1] = upperKeys[0] as string;
  }
}

function rootOf<T>(tree: Tree<T>): Page<T> {
  return (tree as unknown as { readonly root: Page<T> }).root;
}

function sealed<T>(root: Page<T>): Tree<T> {
  const tree = new Tree<T>();
  (tree as unknown as { root: Page<T> }).root = root;
  return tree;
}

function sizeOf<T>(pages: readonly Page<T>[]): number {
  let size = 0;
  for (const page of pages) size += page.size;
  return size;
}

/** The first index whose key is not below. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The child that holds the key: the last whose separator is not above it. */
function childAt(keys: readonly string[], key: string): number {
  let low = 1;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function visitUp<T>(page: Page<T>, from: string, to: string, visitor: (value: T, key: string) => boolean): boolean {
  if (page.children.length === 0) {
    const { keys, values } = page;
    for (let at = lowerBound(keys, from); at < keys.length; at++) {
      const key = keys[at] as string;
      if (key >= to || !visitor(values[at] as T, key)) return false;
    }
    return true;
  }
  for (let at = childAt(page.keys, from); at < page.children.length; at++) {
    if (!visitUp(page.children[at] as Page<T>, from, to, visitor)) return false;
  }
  return true;
}

function visitDown<T>(page: Page<T>, from: string, to: string, visitor: (value: T, key: string) => boolean): boolean {
  if (page.children.length === 0) {
    const { keys, values } = page;
    for (let at = lowerBound(keys, to) - 1; at >= 0; at--) {
      const key = keys[at] as string;
      if (key < from || !visitor(values[at] as T, key)) return false;
    }
    return true;
  }
  for (let at = childAt(page.keys, to); at >= 0; at--) {
    if (!visitDown(page.children[at] as Page<T>, from, to, visitor)) return false;
  }
  return true;
}

function* leavesOf<T>(page: Page<T>): Generator<readonly T[]> {
  if (page.children.length === 0) {
    if (page.values.length > 0) yield page.values;
    return;
  }
  for (const child of page.children) yield* leavesOf(child);
}

/** For short arrays quicker than `splice`, which makes an array of what it removed. */
function insertAt<T>(list: T[], at: number, item: T): void {
  list.push(item);
  for (let index = list.length - 1; index > at; index--) list[index] = list[index - 1] as T;
  list[at] = item;
}

function removeAt<T>(list: T[], at: number): void {
  for (let index = at + 1; index < list.length; index++) list[index - 1] = list[index] as T;
  list.pop();
}
