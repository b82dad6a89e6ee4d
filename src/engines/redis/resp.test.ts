import fc from "fast-check";
import { expect, test } from "vitest";
import { type Argument, type CommandHead, encodeHead, Outbox, type Reply, ReplyParser, RespError } from "./resp.ts";

function parse(chunks: readonly Buffer[]): Reply[] {
  const replies: Reply[] = [];
  const parser = new ReplyParser((reply) => replies.push(reply));
  for (const chunk of chunks) parser.push(chunk);
  return replies;
}

function bytesOf(...commands: readonly (readonly [readonly Argument[], CommandHead?])[]): string {
  const outbox = new Outbox();
  for (const [args, head] of commands) outbox.add(args, head);
  const [bytes, encoding] = outbox.take();
  expect(outbox.isEmpty).toBe(true);
  return (typeof bytes === "string" ? Buffer.from(bytes, encoding) : Buffer.from(bytes)).toString("latin1");
}

test("a command is an array of bulk strings, texts as UTF-8 and bytes as they are", () => {
  expect(bytesOf([["GET", Uint8Array.of(0, 255), "é", 7]])).toBe(
    "*4\r\n$3\r\nGET\r\n$2\r\n\x00\xff\r\n$2\r\n\xc3\xa9\r\n$1\r\n7\r\n",
  );
});

test("a command with a head is the same command", () => {
  const [first, rest] = [
    ["EVALSHA", "é", "2"],
    ["", new Uint8Array(0), Uint8Array.of(13, 10), -1],
  ] as const;
  expect(bytesOf([rest, encodeHead(first)])).toBe(bytesOf([[...first, ...rest]]));
  expect(bytesOf([[...first, ...rest]])).toBe(
    "*7\r\n$7\r\nEVALSHA\r\n$2\r\n\xc3\xa9\r\n$1\r\n2\r\n$0\r\n\r\n$0\r\n\r\n$2\r\n\r\n\r\n$2\r\n-1\r\n",
  );
});

test("commands of one write stand one after the other, whatever their letters are", () => {
  const each = [["PING"], ["GET", "é"], ["SET", "a", Uint8Array.of(200)], ["DEL", "b"]] as const;
  expect(bytesOf(...each.map((args) => [args] as const))).toBe(each.map((args) => bytesOf([args])).join(""));
  // A head that is not plain, before arguments that are.
  expect(bytesOf([["a"], encodeHead(["é"])])).toBe("*2\r\n$2\r\n\xc3\xa9\r\n$1\r\na\r\n");
  expect(bytesOf(...each.slice(0, 1).map((args) => [args] as const))).toBe("*1\r\n$4\r\nPING\r\n");
});

test("every kind of reply is read, however the bytes are cut", () => {
  const text = "+OK\r\n-ERR no\r\n:-42\r\n$-1\r\n*3\r\n$5\r\na\r\nbc\r\n:1\r\n*1\r\n$0\r\n\r\n*0\r\n";
  const whole = Buffer.from(text, "latin1");
  const expected = parse([whole]);
  expect(expected).toEqual(["OK", new RespError("ERR no"), -42, null, [Buffer.from("a\r\nbc"), 1, [Buffer.alloc(0)]], []]);
  fc.assert(
    fc.property(fc.array(fc.nat(whole.length), { maxLength: 8 }), (cuts) => {
      const at = [0, ...cuts.sort((left, right) => left - right), whole.length];
      const chunks = at.slice(1).map((end, index) => whole.subarray(at[index], end));
      expect(parse(chunks)).toEqual(expected);
    }),
  );
});

test("what is no RESP is refused instead of guessed at", () => {
  for (const garbage of [
    "HTTP/1.1 400 Bad Request\r\n",
    ":1.5\r\n",
    ":\r\n",
    ":-\r\n",
    ":9007199254740992\r\n",
    "$-7\r\n",
    `${"*1\r\n".repeat(40)}`,
  ]) {
    expect(() => parse([Buffer.from(garbage)])).toThrow(/no RESP2/);
  }
});
