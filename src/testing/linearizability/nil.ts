/**
 * The state of an object that holds nothing. Null and undefined are taken: they are how a model says "impossible" and "unknown".
 */

/** Nothing is held here. Prints as `nil`. @since 0.1.0 */
export const nil: unique symbol = Symbol("nil");
