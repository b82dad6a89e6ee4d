/**
 * One key of a key-value store with get, put and append; the checker takes a whole store apart by `Operation.key`.
 *
 * Appends are the sharpest probe of the three: the value carries the order of all writes before it, so a lost or doubled one shows.
 * Source: the key-value test of MIT 6.824 and Porcupine (github.com/anishathalye/porcupine).
 * An absent key reads as null, and appending to it is putting.
 */

import type { Model } from "./model.ts";
import { nil } from "./nil.ts";

/** A request about one key. @since 0.1.0 */
export type KeyValueInput =
  | { readonly f: "get" }
  | { readonly f: "put"; readonly value: string }
  | { readonly f: "append"; readonly value: string };

/** The answer about one key; `f` is that of the request. @since 0.1.0 */
export type KeyValueOutput =
  | { readonly f: "get"; readonly value: string | null }
  | { readonly f: "put" }
  | { readonly f: "append" };

/** The value of the key, or `nil`. @since 0.1.0 */
export type KeyValueState = string | typeof nil;

/**
 * One key of a store, absent at first.
 *
 * @since 0.1.0
 */
export const keyValueModel: Model<KeyValueState, KeyValueInput, KeyValueOutput> = {
  initial: nil,

  step(state, input, output) {
    if (output !== undefined && output.f !== input.f) return null;
    switch (input.f) {
      case "get":
        return output?.f === "get" && (output.value ?? nil) !== state ? null : state;
      case "put":
        return input.value;
      case "append":
        return state === nil ? input.value : state + input.value;
    }
  },

  hint(input, output) {
    switch (input.f) {
      case "get":
        return output?.f === "get" ? { isRead: true, from: output.value ?? nil } : { isRead: true };
      case "put":
        return { to: input.value };
      case "append":
        return {};
    }
  },

  canBecome(state, later) {
    return state === nil || (later !== nil && later.startsWith(state));
  },
};
