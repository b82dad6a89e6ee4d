import { expect, test } from "vitest";
import { DancingLists } from "./dancing-lists.ts";

test("ids leave and come back in their places, list by list", () => {
  const lists = new DancingLists(6, [[3, 0, 5], [], [1, 2]]);
  expect([idsOf(lists, 0), idsOf(lists, 1), idsOf(lists, 2)]).toEqual([[3, 0, 5], [], [1, 2]]);
  lists.lift(0);
  lists.lift(3);
  lists.lift(1);
  expect([idsOf(lists, 0), idsOf(lists, 2)]).toEqual([[5], [2]]);
  lists.unlift(1);
  lists.unlift(3);
  expect(idsOf(lists, 0)).toEqual([3, 5]);
  lists.unlift(0);
  expect([idsOf(lists, 0), idsOf(lists, 2)]).toEqual([
    [3, 0, 5],
    [1, 2],
  ]);
});

test("an id that is in no list may be lifted too, and nothing happens", () => {
  const lists = new DancingLists(6, [[3, 0, 5]]);
  lists.lift(4);
  lists.unlift(4);
  expect(idsOf(lists, 0)).toEqual([3, 0, 5]);
});

function idsOf(lists: DancingLists, list: number): number[] {
  const ids: number[] = [];
  for (let id = lists.first(list); id !== lists.endOf(list); id = lists.after(id)) ids.push(id);
  return ids;
}
