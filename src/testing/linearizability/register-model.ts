/**
 * One register with read, write and compare-and-swap: the object of most Jepsen tests.
 *
 * Source: the `cas-register` model of Knossos (github.com/jepsen-io/knossos).
 * The unset register reads as null, which Jepsen prints as `nil`. A compare-and-swap that reports a mismatch is an observation:
 * it took place and saw some other value.
 * Give every write a value of its own where you can: the checker is then fast at any concurrency.
 */

import type { Model } from "./model.ts";
import { nil } from "./nil.ts";

/** What a register can hold. Null means unset. @since 0.1.0 */
export type RegisterValue = string | number | boolean | null;

/** A request to a register. @since 0.1.0 */
export type RegisterInput =
  | { readonly f: "read" }
  | { readonly f: "write"; readonly value: RegisterValue }
  | { readonly f: "cas"; readonly from: RegisterValue; readonly to: RegisterValue };

/** The answer of a register; `f` is that of the request. @since 0.1.0 */
export type RegisterOutput =
  | { readonly f: "read"; readonly value: RegisterValue }
  | { readonly f: "write" }
  | { readonly f: "cas"; readonly swapped: boolean };

/** The value held, or `nil`. @since 0.1.0 */
export type RegisterState = Exclude<RegisterValue, null> | typeof nil;

/**
 * A register, unset at first. For another start value: `{ ...registerModel, initial: 0 }`.
 *
 * @since 0.1.0
 */
export const registerModel: Model<RegisterState, RegisterInput, RegisterOutput> = {
  initial: nil,

  step(state, input, output) {
    if (output !== undefined && output.f !== input.f) return null;
    switch (input.f) {
      case "read":
        return output?.f === "read" && (output.value ?? nil) !== state ? null : state;
      case "write":
        return input.value ?? nil;
      case "cas": {
        const matches = (input.from ?? nil) === state;
        if (output?.f === "cas" && output.swapped !== matches) return null;
        return matches ? (input.to ?? nil) : state;
      }
    }
  },

  hint(input, output) {
    switch (input.f) {
      case "read":
        return output?.f === "read" ? { isRead: true, from: output.value ?? nil } : { isRead: true };
      case "write":
        return { to: input.value ?? nil };
      case "cas":
        if (output?.f !== "cas") return { maybeTo: input.to ?? nil };
        return output.swapped ? { from: input.from ?? nil, to: input.to ?? nil } : { isRead: true };
    }
  },
};
