/**
 * Looks for one order of the operations of a key that the model accepts and that never contradicts the clock.
 *
 * Intuition: laying a train of cards. Any open card may come next if the model accepts it; the card whose time runs out first must be
 * laid before the clock passes its end. When no card fits, take the last one back and try another.
 *
 * 1. A read that fits is laid at once: it changes nothing, so no other choice can be better.
 * 2. Otherwise every other required operation that is open is tried, in the order of the invocations.
 * 3. When all of them failed, optional operations are laid, fewest first, and 1–2 are tried behind each.
 * 4. A state that is needed again and cannot be made again is not left (`prospects.ts`, `reachability.ts`).
 * 5. A configuration that was seen before, or is no better than one seen before, is not entered again (`configuration-memo.ts`).
 *
 * Sources: Wing & Gong, "Testing and verifying concurrent objects", JPDC 1993 (the search); Lowe, "Testing for linearizability",
 * Concurrency and Computation 2017 (the memo, the list of calls, just-in-time linearization).
 * The number of configurations is exponential in the concurrency at worst, so the budget is part of the question.
 */

import { clearBit, hasBit, newBits, setBit } from "./bits.ts";
import { type Configuration, ConfigurationMemo } from "./configuration-memo.ts";
import { DancingLists } from "./dancing-lists.ts";
import { type Effects, effectsOf } from "./effects.ts";
import type { Model } from "./model.ts";
import type { Operation } from "./operation.ts";
import { Prospects } from "./prospects.ts";
import { RowStack } from "./row-stack.ts";
import { StateTable } from "./state-table.ts";
import type { Timeline } from "./timeline.ts";
import { hasContradiction } from "./zones.ts";

/** When to give up, and whom not to believe. */
export interface SearchOptions {
  readonly maxSteps: number;
  readonly maxConfigurations: number;
  /** Asked now and then; true ends the search. */
  isOver(): boolean;
  /** The id of a required operation that is to fail at its own place; see `Effects`. */
  readonly suspect?: number;
}

/** What the search came to. */
export type SearchOutcome<S, I, O> =
  | { readonly kind: "placed"; readonly steps: number }
  | { readonly kind: "stopped"; readonly steps: number; readonly why: string; readonly deadEnd: DeadEnd<S, I, O> }
  | { readonly kind: "stuck"; readonly steps: number; readonly deadEnd: DeadEnd<S, I, O> };

/** The farthest point the search reached. */
export interface DeadEnd<S, I, O> {
  /** The longest order found. */
  readonly order: readonly Operation<I, O>[];
  /** Not placed there: first the operation whose time ran out, then the others that were open. */
  readonly unplaced: readonly Operation<I, O>[];
  /** The states the search met while that operation was due, `statesMax` at most. */
  readonly states: readonly S[];
  /** Whether it met more of them. */
  readonly hasMoreStates: boolean;
}

const statesMax = 16;

/** Searches one timeline. */
export function searchTimeline<S, I, O>(
  model: Model<S, I, O>,
  timeline: Timeline<I, O>,
  options: SearchOptions,
): SearchOutcome<S, I, O> {
  return new Search(model, timeline, options).run();
}

/** The cursor of a row nobody has looked at yet. */
const fresh = -1;
/** The cursor of a row that needs no further choice, because a read was placed there (1). */
const closed = -2;

/**
 * The stack has one frame per required operation placed. A frame owns rows: its base row, and above it the rows reached from there by
 * optional operations alone, in the order of their number (3). They are worked through from the base row up.
 */
class Search<S, I, O> {
  readonly #model: Model<S, I, O>;
  readonly #timeline: Timeline<I, O>;
  readonly #options: SearchOptions;
  readonly #states: StateTable<S>;
  readonly #memo: ConfigurationMemo;
  readonly #effects: Effects;
  readonly #prospects: Prospects<S, I, O>;
  /** One list: the required operations not placed, those invoked first before the others. */
  readonly #calls: DancingLists;
  readonly #endOfCalls: number;
  readonly #isPlaced: Uint8Array;

  /** Invariant: describes the current row of the top frame whenever a step of the search begins. */
  readonly #here: Configuration;
  readonly #rows: RowStack;

  /** The number of required operations placed, and of the top frame. */
  #depth = 0;
  /** By frame: the operation placed to get there, and what `placedBelow` was before. */
  readonly #frameCall: Int32Array;
  readonly #framePlacedBelow: Int32Array;
  readonly #frameBaseRow: Int32Array;
  readonly #frameRow: Int32Array;
  /** By frame: the next operation to try on the current row, or `fresh`, or `closed`. */
  readonly #frameCursor: Int32Array;

  #steps = 0;
  readonly #farthest = { placedBelow: 0, stateIds: new Set<number>() };
  #best: { placedBelow: number; depth: number; order: Operation<I, O>[]; unplaced: Operation<I, O>[] };

  constructor(model: Model<S, I, O>, timeline: Timeline<I, O>, options: SearchOptions) {
    const framesCount = timeline.required.length + 1;
    this.#model = model;
    this.#timeline = timeline;
    this.#options = options;
    this.#states = new StateTable(model);
    this.#here = {
      placedBelow: 0,
      stateId: this.#states.idOf(model.initial),
      mask: newBits(timeline.slotsCount),
      used: newBits(timeline.optional.length),
    };
    this.#memo = new ConfigurationMemo({ mask: this.#here.mask.length, used: this.#here.used.length });
    this.#effects = effectsOf({ model, timeline, states: this.#states, suspect: options.suspect });
    this.#prospects = new Prospects({ model, timeline, effects: this.#effects, states: this.#states });
    this.#calls = new DancingLists(timeline.required.length, [timeline.callOrder]);
    this.#endOfCalls = this.#calls.endOf(0);
    this.#isPlaced = new Uint8Array(timeline.required.length);
    this.#rows = new RowStack(this.#here.used.length);
    this.#frameCall = new Int32Array(framesCount);
    this.#framePlacedBelow = new Int32Array(framesCount);
    this.#frameBaseRow = new Int32Array(framesCount);
    this.#frameRow = new Int32Array(framesCount);
    this.#frameCursor = new Int32Array(framesCount);
    this.#best = { placedBelow: -1, depth: -1, order: [], unplaced: [] };
  }

  run(): SearchOutcome<S, I, O> {
    this.#enter();
    this.#openFrame();
    const isHopeless = hasContradiction(this.#timeline, this.#effects);
    for (let turn = 0; this.#depth < this.#timeline.required.length; turn++) {
      const why = this.#whyStop(turn);
      if (why !== undefined) {
        this.#rememberDeadEnd();
        return { kind: "stopped", steps: this.#steps, why, deadEnd: this.#deadEnd() };
      }
      if (!isHopeless && (this.#placeRead() || this.#placeNextCall() || this.#moveToNextRow())) continue;
      this.#rememberDeadEnd();
      if (this.#depth === 0) return { kind: "stuck", steps: this.#steps, deadEnd: this.#deadEnd() };
      this.#closeFrame();
    }
    return { kind: "placed", steps: this.#steps };
  }

  #whyStop(turn: number): string | undefined {
    const { maxSteps, maxConfigurations } = this.#options;
    if (this.#steps >= maxSteps) return `The search took ${this.#steps} steps (maxSteps).`;
    if (this.#memo.count >= maxConfigurations) return `The search met ${this.#memo.count} configurations (maxConfigurations).`;
    if (turn % 1024 === 1023 && this.#options.isOver()) return "The search ran out of time (timeLimit).";
    return undefined;
  }

  /** 1: places a read that fits, once per row. */
  #placeRead(): boolean {
    if (this.#frameCursor[this.#depth] !== fresh) return false;
    const { required, reads, requiredInvokedAt } = this.#timeline;
    const { stateId } = this.#here;
    const latest = this.#latestInvocation();
    const first = this.#calls.first(0);
    for (let id = first; id !== this.#endOfCalls && (requiredInvokedAt[id] as number) <= latest; id = this.#calls.after(id)) {
      if (reads[id] === 0 || this.#step(stateId, required[id] as Operation<I, O>) === null) continue;
      this.#frameCursor[this.#depth] = closed;
      return this.#place(id, stateId);
    }
    this.#frameCursor[this.#depth] = first;
    return false;
  }

  /** 2: places the next other operation that leads somewhere new. */
  #placeNextCall(): boolean {
    const { required, reads, requiredInvokedAt } = this.#timeline;
    const { stateId } = this.#here;
    const latest = this.#latestInvocation();
    let cursor = this.#frameCursor[this.#depth] as number;
    while (cursor !== closed && cursor !== this.#endOfCalls && (requiredInvokedAt[cursor] as number) <= latest) {
      const call = cursor;
      cursor = this.#calls.after(call);
      if (reads[call] === 1) continue;
      const next = this.#step(stateId, required[call] as Operation<I, O>);
      if (next === null) continue;
      this.#frameCursor[this.#depth] = cursor;
      if (this.#place(call, this.#states.idOf(next))) return true;
    }
    if (cursor !== closed) this.#frameCursor[this.#depth] = this.#endOfCalls;
    return false;
  }

  /** The first return not explained yet: what is invoked later cannot come next. */
  #latestInvocation(): number {
    return this.#timeline.requiredReturnedAt[this.#here.placedBelow] as number;
  }

  #step(stateId: number, operation: Operation<I, O>): S | null {
    this.#steps += 1;
    return this.#model.step(this.#states.stateOf(stateId), operation.input, operation.output);
  }

  /** Opens a frame with `call` placed, or leaves everything as it was and returns false when that leads nowhere (4, 5). */
  #place(call: number, nextStateId: number): boolean {
    const { slots } = this.#timeline;
    const here = this.#here;
    const { placedBelow, stateId, mask } = here;
    this.#calls.lift(call);
    this.#prospects.place(call);
    this.#isPlaced[call] = 1;
    setBit(mask, slots[call] as number);
    // The slots of operations whose return is now explained are free for operations invoked later.
    while (this.#isPlaced[here.placedBelow] === 1) clearBit(mask, slots[here.placedBelow++] as number);
    here.stateId = nextStateId;
    if (!this.#mayLeave(stateId) || !this.#enter()) {
      this.#unplace(call, placedBelow);
      here.stateId = stateId;
      return false;
    }
    this.#depth += 1;
    this.#frameCall[this.#depth] = call;
    this.#framePlacedBelow[this.#depth] = placedBelow;
    this.#openFrame();
    return true;
  }

  #unplace(call: number, placedBelow: number): void {
    const { slots } = this.#timeline;
    const here = this.#here;
    while (here.placedBelow > placedBelow) setBit(here.mask, slots[--here.placedBelow] as number);
    clearBit(here.mask, slots[call] as number);
    this.#isPlaced[call] = 0;
    this.#prospects.unplace(call);
    this.#calls.unlift(call);
  }

  /** 4: whether the state before may be replaced by the one at hand. */
  #mayLeave(stateId: number): boolean {
    return stateId === this.#here.stateId || this.#prospects.mayLeave(stateId, this.#here);
  }

  /** 5: whether the configuration at hand is new. */
  #enter(): boolean {
    if (!this.#memo.add(this.#here)) return false;
    const { placedBelow, stateId } = this.#here;
    const farthest = this.#farthest;
    if (placedBelow > farthest.placedBelow) {
      farthest.placedBelow = placedBelow;
      farthest.stateIds.clear();
    }
    if (placedBelow === farthest.placedBelow && farthest.stateIds.size <= statesMax) farthest.stateIds.add(stateId);
    return true;
  }

  #openFrame(): void {
    this.#frameBaseRow[this.#depth] = this.#rows.count;
    this.#frameRow[this.#depth] = this.#rows.count;
    this.#frameCursor[this.#depth] = fresh;
    this.#pushRow(RowStack.none, RowStack.none);
  }

  #closeFrame(): void {
    this.#rows.dropFrom(this.#frameBaseRow[this.#depth] as number);
    this.#unplace(this.#frameCall[this.#depth] as number, this.#framePlacedBelow[this.#depth] as number);
    this.#depth -= 1;
    this.#loadRow(this.#frameRow[this.#depth] as number);
  }

  /** 3: puts the rows one optional operation away above the others, then turns to the next row of this frame. */
  #moveToNextRow(): boolean {
    if (this.#frameCursor[this.#depth] !== closed) this.#pushOptionalRows();
    const row = (this.#frameRow[this.#depth] as number) + 1;
    if (row === this.#rows.count) return false;
    this.#frameRow[this.#depth] = row;
    this.#frameCursor[this.#depth] = fresh;
    this.#loadRow(row);
    return true;
  }

  #pushOptionalRows(): void {
    const { optional, optionalInvokedAt, twins } = this.#timeline;
    const here = this.#here;
    const { stateId, used } = here;
    const row = this.#frameRow[this.#depth] as number;
    const latest = this.#latestInvocation();
    for (let id = 0; id < optional.length && (optionalInvokedAt[id] as number) <= latest; id++) {
      const twin = twins[id] as number;
      if (hasBit(used, id) || (twin >= 0 && !hasBit(used, twin))) continue;
      const next = this.#step(stateId, optional[id] as Operation<I, O>);
      if (next === null) continue;
      here.stateId = this.#states.idOf(next);
      setBit(used, id);
      if (this.#mayLeave(stateId) && this.#enter()) this.#pushRow(row, id);
      clearBit(used, id);
    }
    here.stateId = stateId;
  }

  #pushRow(parent: number, optional: number): void {
    this.#rows.push({ stateId: this.#here.stateId, parent, optional, used: this.#here.used });
  }

  #loadRow(row: number): void {
    this.#here.stateId = this.#rows.stateIdOf(row);
    this.#rows.copyUsedTo(this.#here.used, row);
  }

  #rememberDeadEnd(): void {
    const { placedBelow } = this.#here;
    const best = this.#best;
    if (placedBelow < best.placedBelow || (placedBelow === best.placedBelow && this.#depth <= best.depth)) return;
    // Optional operations that were tried here and led nowhere explain nothing: the order ends at the base row.
    this.#loadRow(this.#frameBaseRow[this.#depth] as number);
    this.#best = { placedBelow, depth: this.#depth, order: this.#orderSoFar(), unplaced: this.#openAndUnplaced() };
  }

  #orderSoFar(): Operation<I, O>[] {
    const { required, optional } = this.#timeline;
    const backwards: Operation<I, O>[] = [];
    for (let depth = this.#depth; depth > 0; depth--) {
      backwards.push(required[this.#frameCall[depth] as number] as Operation<I, O>);
      for (let row = this.#frameRow[depth - 1] as number; this.#rows.parentOf(row) >= 0; row = this.#rows.parentOf(row)) {
        backwards.push(optional[this.#rows.optionalOf(row)] as Operation<I, O>);
      }
    }
    return backwards.reverse();
  }

  #openAndUnplaced(): Operation<I, O>[] {
    const { required, optional } = this.#timeline;
    const { placedBelow, used } = this.#here;
    const latest = this.#latestInvocation();
    return [
      ...required.filter((operation, id) => id >= placedBelow && this.#isPlaced[id] === 0 && operation.invokedAt <= latest),
      ...optional.filter((operation, id) => !hasBit(used, id) && operation.invokedAt <= latest),
    ];
  }

  #deadEnd(): DeadEnd<S, I, O> {
    const { order, unplaced } = this.#best;
    const states = [...this.#farthest.stateIds].map((id) => this.#states.stateOf(id));
    return { order, unplaced, states: states.slice(0, statesMax), hasMoreStates: states.length > statesMax };
  }
}
