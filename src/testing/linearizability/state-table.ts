/**
 * Gives every distinct state of a model a small number, so that the search compares numbers and never states.
 *
 * Intuition: a cloakroom. Equal coats get the same ticket, and from then on only tickets change hands.
 * Primitive states are their own identity; every other state is told apart by a text, which costs the making of that text.
 */

import { conclaveError } from "../../base/errors.ts";
import type { Model } from "./model.ts";

/** The states met so far, numbered from 0 in the order they were met. */
export class StateTable<S> {
  readonly #keyOf: ((state: S) => string) | undefined;
  readonly #idByPrimitive = new Map<S, number>();
  readonly #idByKey = new Map<string, number>();
  readonly #states: S[] = [];

  constructor(model: Pick<Model<S, unknown, unknown>, "key">) {
    this.#keyOf = model.key?.bind(model);
  }

  get count(): number {
    return this.#states.length;
  }

  idOf(state: S): number {
    if (this.#keyOf !== undefined) return this.#number(this.#idByKey, this.#keyOf(state), state);
    if (typeof state !== "object" || state === null) return this.#number(this.#idByPrimitive, state, state);
    return this.#number(this.#idByKey, jsonOf(state), state);
  }

  stateOf(id: number): S {
    return this.#states[id] as S;
  }

  #number<K>(ids: Map<K, number>, key: K, state: S): number {
    const known = ids.get(key);
    if (known !== undefined) return known;
    ids.set(key, this.#states.length);
    return this.#states.push(state) - 1;
  }
}

function jsonOf(state: object): string {
  // JSON turns every Map, Set and class with private state into the same "{}": states that differ would be taken for one.
  const prototype: unknown = Object.getPrototypeOf(state);
  if (!Array.isArray(state) && prototype !== Object.prototype && prototype !== null) {
    throw conclaveError(
      "INVALID_OPTION",
      "checkLinearizable: model.key is missing, and JSON cannot tell states of this class apart.",
    );
  }
  return JSON.stringify(state);
}
