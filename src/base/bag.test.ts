import fc from "fast-check";
import { expect, test } from "vitest";
import { Bag, type InBag } from "./bag.ts";

test("holds what a set holds, whoever comes and goes", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9)), (steps) => {
      const items = Array.from({ length: 10 }, (): InBag => ({ place: -1 }));
      const [bag, set] = [new Bag<InBag>(), new Set<InBag>()];
      for (const step of steps) {
        const item = items[step] as InBag;
        if (set.has(item)) expect([bag.delete(item), set.delete(item)]).toEqual([true, true]);
        else {
          expect(bag.delete(item)).toBe(false);
          bag.add(item);
          set.add(item);
        }
        expect(bag.size).toBe(set.size);
        for (const [place, each] of bag.all.entries()) expect([set.has(each), each.place]).toEqual([true, place]);
      }
      expect(new Set(bag.empty())).toEqual(set);
      expect([bag.size, items.every(({ place }) => place === -1)]).toEqual([0, true]);
    }),
  );
});
