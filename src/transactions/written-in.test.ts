import { expect, test } from "vitest";
import { writtenIn } from "./written-in.ts";

test("values stand in the text as literals without a type", () => {
  expect(writtenIn("UPDATE account SET balance = balance - $1 WHERE id = $2", [-10, "k7"])).toBe(
    "UPDATE account SET balance = balance -  '-10' WHERE id =  'k7'",
  );
  expect(writtenIn(" insert into t values ($2, $1, $2, $3)", [null, 5n, true])).toBe(
    " insert into t values ( '5',  NULL,  '5',  'true')",
  );
  expect(writtenIn("UPDATE t SET a = u&$1", [1])).toBe("UPDATE t SET a = u& '1'");
  expect(writtenIn("DELETE FROM t WHERE id = 1")).toBe("DELETE FROM t WHERE id = 1");
  expect(
    writtenIn("UPDATE t SET a = $10, b = $1, c = $2, d = $3, e = $4, f = $5, g = $6, h = $7, i = $8, j = $9", [..."abcdefghij"]),
  ).toContain("a =  'j', b =  'a',");
});

test.each([
  ["another kind of statement", "SELECT pay($1)", [1]],
  ["a WITH", "WITH t AS (SELECT $1) DELETE FROM u", [1]],
  ["a query in it", "INSERT INTO t SELECT a FROM u ORDER BY $1", [1]],
  ["two statements", "UPDATE t SET a = $1; DELETE FROM t", [1]],
  ["a string, in which $1 is no value", "UPDATE t SET a = '$1' WHERE id = $1", [1]],
  ["a name in quotes", 'UPDATE "a$1" SET a = $1', [1]],
  ["a comment at the end", "UPDATE t SET a = $1 -- done", [1]],
  ["a comment in it", "UPDATE t SET a = /* $1 */ $1", [1]],
  ["a NUL, at which the wire ends the text", "UPDATE t SET a = $1\0", [1]],
  ["a string in dollars", "UPDATE t SET a = $$x$$, b = $1", [1]],
  ["a string in named dollars", "UPDATE t SET a = $q$x$q$, b = $1", [1]],
  ["a name with a dollar", "UPDATE t SET a$1 = $1", [1]],
  ["a name that begins where the number ends", "UPDATE t SET a = $1x", [1]],
  ["literals that would become one", "UPDATE t SET a = $1\n$2", [1, 2]],
  ["a value too many", "UPDATE t SET a = $1", [1, 2]],
  ["a value too few", "UPDATE t SET a = $1, b = $2", [1]],
  ["a number left out", "UPDATE t SET a = $2", [1, 2]],
  ["a quote in a value", "UPDATE t SET a = $1", ["x', b = 'y"]],
  ["a backslash in a value", "UPDATE t SET a = $1", ["\\"]],
  ["a letter beyond ASCII", "UPDATE t SET a = $1", ["é"]],
  ["a line break", "UPDATE t SET a = $1", ["a\nb"]],
  ["a NUL", "UPDATE t SET a = $1", ["a\0"]],
  ["a date", "UPDATE t SET a = $1", [new Date()]],
  ["bytes", "UPDATE t SET a = $1", [Buffer.from("a")]],
  ["a list", "UPDATE t SET a = $1", [[1]]],
  ["an object", "UPDATE t SET a = $1", [{ a: 1 }]],
  ["nothing", "UPDATE t SET a = $1", [undefined]],
])("%s travels as it is", (_, text, values) => {
  expect(writtenIn(text, values)).toBeNull();
});
