import { expect, test } from "vitest";
import { parseMembers } from "./serve-command.ts";

test("members are read with their addresses, IPv6 too", () => {
  expect([...parseMembers("a=127.0.0.1:7400, b=[::1]:7401,c=db.example:1")]).toEqual([
    ["a", "127.0.0.1:7400"],
    ["b", "[::1]:7401"],
    ["c", "db.example:1"],
  ]);
});

test("what names no member, no port, or one member twice is refused", () => {
  for (const text of ["", "a", "a=", "a=host", "=host:1", "a=h:1,,b=h:2", "a=h:1,a=h:2"]) {
    expect(() => parseMembers(text), text).toThrow(/--members/);
  }
});
