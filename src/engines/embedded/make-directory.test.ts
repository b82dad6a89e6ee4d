import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeDirectory } from "./make-directory.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-make-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("it is made with those above it, and one that is there is left", async () => {
  const path = join(folder, "a", "b", "c");
  await makeDirectory(path);
  await makeDirectory(path);
  expect(statSync(path).isDirectory()).toBe(true);
});

test("two that make the same one both succeed", async () => {
  const path = join(folder, "together", "b", "c");
  await Promise.all(Array.from({ length: 8 }, () => makeDirectory(path)));
  expect(statSync(path).isDirectory()).toBe(true);
});

test("a file that stands there, or above it, is an error", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  await expect(makeDirectory(file)).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeDirectory(join(file, "b"))).rejects.toMatchObject({ code: "ENOTDIR" });
});

test.skipIf(process.platform !== "linux")(
  "a file system that takes no directories is an error, and no wait without end",
  async () => {
    await expect(makeDirectory("/proc/conclave/b")).rejects.toMatchObject({ code: "ENOENT" });
  },
);
