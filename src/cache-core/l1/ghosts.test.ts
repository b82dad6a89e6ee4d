import { expect, test } from "vitest";
import { Ghosts } from "./ghosts.ts";

test("ghosts are what a Set that drops its first item is, under any mix of calls", () => {
  const ghosts = new Ghosts();
  const model = new Set<number>();
  let state = 1;
  const draw = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
  for (let step = 0; step < 8_000; step++) {
    const hash = draw(200);
    switch (draw(4)) {
      case 0:
        expect(ghosts.delete(hash)).toBe(model.delete(hash));
        break;
      case 1:
        ghosts.deleteOldest();
        for (const oldest of model) {
          model.delete(oldest);
          break;
        }
        break;
      default:
        ghosts.add(hash);
        model.add(hash);
    }
    expect(ghosts.size).toBe(model.size);
    if (step % 2_000 === 1_999) {
      ghosts.clear();
      model.clear();
    }
  }
});
