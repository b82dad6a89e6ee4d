import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type BinaryRange, isInRange, rangeOfKey, rangeOfPrefix } from "./key.ts";
import { WatchIndex } from "./watch-index.ts";

const text = fc.array(fc.constantFrom("a", "b", "\xff"), { maxLength: 3 }).map((parts) => `n\0${parts.join("")}`);
const range: fc.Arbitrary<BinaryRange> = fc.oneof(
  text.map(rangeOfKey),
  text.map(rangeOfPrefix),
  fc.tuple(text, text).map(([from, to]) => ({ from, to: to < from ? from : to })),
);

describe("the watch index", () => {
  test("finds exactly the watchers whose range holds the key, while they come and go", () => {
    const step = fc.record({ isAdded: fc.boolean(), range, watcher: fc.nat(5) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.array(text, { minLength: 1, maxLength: 5 }), (steps, keys) => {
        const index = new WatchIndex<number>();
        let naive: { range: BinaryRange; watcher: number }[] = [];
        for (const { isAdded, range: each, watcher } of steps) {
          const others = naive.filter(
            (known) => known.watcher !== watcher || known.range.from !== each.from || known.range.to !== each.to,
          );
          if (isAdded) index.add(each, watcher);
          else index.remove(each, watcher);
          naive = isAdded ? [...others, { range: each, watcher }] : others;
        }
        for (const key of keys) {
          const matched: number[] = [];
          index.match(key, (watcher) => matched.push(watcher));
          const expected = naive.filter((known) => isInRange(known.range, key)).map(({ watcher }) => watcher);
          expect(matched.sort()).toEqual(expected.sort());
        }
        const routed = index.route(keys.map((key) => ({ key })));
        for (let watcher = 0; watcher <= 5; watcher++) {
          const heard = (routed.get(watcher) ?? []).map(({ key }) => key);
          expect(heard).toEqual(
            keys.filter((key) => naive.some((known) => known.watcher === watcher && isInRange(known.range, key))),
          );
        }
      }),
    );
  });
});
