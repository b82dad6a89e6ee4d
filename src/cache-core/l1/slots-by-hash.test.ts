import { expect, test } from "vitest";
import { SlotsByHash } from "./slots-by-hash.ts";

test("slots by hash are a Map from whole numbers, under any mix of calls and with hashes that share their hooks", () => {
  const slots = new SlotsByHash();
  const model = new Map<number, number>();
  let state = 1;
  const draw = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
  // Sixteen hooks for all of them, the last among them: chains that go around, and members far from their own hook.
  const hashes = Array.from({ length: 400 }, (_, at) => ((at % 16) * 4_095 + (at >> 4) * 2 ** 20 + 0x8000_0000) >>> 0);
  for (let step = 0; step < 60_000; step++) {
    const hash = hashes[draw(step < 30_000 ? 60 : 400)] as number;
    if (draw(5) < 3) {
      const slot = 1 + draw(1_000);
      slots.set(hash, slot);
      model.set(hash, slot);
    } else {
      slots.delete(hash);
      model.delete(hash);
    }
    expect(slots.size).toBe(model.size);
    const asked = hashes[draw(400)] as number;
    expect(slots.get(asked)).toBe(model.get(asked) ?? 0);
    if (step % 10_000 === 9_999) {
      for (const each of hashes) expect(slots.get(each)).toBe(model.get(each) ?? 0);
      slots.clear();
      model.clear();
      for (const each of hashes) expect(slots.get(each)).toBe(0);
    }
  }
});
