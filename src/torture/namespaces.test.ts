/**
 * Namespaces on this machine's kernel: packets that are lost in one direction, and nothing that stays behind.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { afterEach, expect, test } from "vitest";
import { Namespaces } from "./namespaces.ts";

const isMissing = !Namespaces.areAvailable();
if (isMissing) console.log("skipped: network namespaces need Linux, root and `ip` (iproute2)");

const children: ChildProcess[] = [];
let open: Namespaces | undefined;

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await open?.close();
  open = undefined;
});

/** In the namespace of `name`; what it printed so far. */
function node(
  network: Namespaces,
  name: string,
  code: string,
): { readonly said: () => string; readonly tell: (text: string) => void } {
  const [command, ...rest] = network.commandOf(name);
  const child = spawn(command, [...rest, process.execPath, "-e", code], { stdio: ["pipe", "pipe", "inherit"] });
  children.push(child);
  let said = "";
  child.stdout.on("data", (chunk) => {
    said += String(chunk);
  });
  return { said: () => said, tell: (text) => child.stdin.write(text) };
}

function listed(): string {
  return execFileSync("ip", ["netns", "list"], { encoding: "utf8" }) + execFileSync("ip", ["-o", "link"], { encoding: "utf8" });
}

test.skipIf(isMissing)(
  "a one-way cut loses what one says and lets the other be heard; mended, what was lost comes after all",
  async () => {
    const network = Namespaces.open(["a", "b"]);
    open = network;
    const b = node(
      network,
      "b",
      `require("node:net").createServer((s) => { s.pipe(process.stdout); process.stdin.pipe(s); }).listen(7000, () => console.log("ready;"))`,
    );
    await expect.poll(b.said, { timeout: 10_000 }).toContain("ready;");
    const a = node(
      network,
      "a",
      `const s = require("node:net").connect(7000, "${network.hostOf("b")}"); process.stdin.pipe(s); s.pipe(process.stdout)`,
    );
    a.tell("one;");
    await expect.poll(b.said, { timeout: 10_000 }).toContain("one;");
    network.cut("a", "b");
    a.tell("two;");
    b.tell("heard;");
    await expect.poll(a.said, { timeout: 10_000 }).toContain("heard;");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(b.said()).not.toContain("two;");
    network.mendAll();
    await expect.poll(b.said, { timeout: 20_000 }).toContain("two;");
  },
  60_000,
);

test.skipIf(isMissing)("nothing stays behind: not of a run that closed, nor of one that was killed", async () => {
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  const bridge = `cv${gone.toString(36)}`;
  Namespaces.open(["a"], gone);
  expect(listed()).toContain(bridge);
  const own = Namespaces.open(["a", "b"]);
  expect(listed()).not.toContain(bridge);
  await own.close();
  expect(listed()).not.toContain(`cv${process.pid.toString(36)}`);
});
