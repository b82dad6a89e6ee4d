/**
 * The proxies between members, on real sockets: what is held, what is let go, and what is told to whom.
 */
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Network } from "./network.ts";

let network: Network;
let servers: Server[];
/** What b heard, and the sockets that it accepted. */
let heard: string;
let accepted: Socket[];

beforeEach(async () => {
  heard = "";
  accepted = [];
  servers = [];
  const endpoints = [];
  for (const name of ["a", "b"]) {
    const server = createServer((socket) => {
      accepted.push(socket);
      socket
        .on("error", () => undefined)
        .on("data", (chunk) => {
          heard += chunk.toString();
          socket.write(`echo ${chunk.toString()}`);
        });
    });
    servers.push(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    endpoints.push({ name, address: `127.0.0.1:${(server.address() as { port: number }).port}` });
  }
  network = await Network.open(endpoints);
});

afterEach(async () => {
  for (const socket of accepted) socket.destroy();
  await network.close();
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
});

test("bytes pass both ways; a one-way cut holds one direction only, and lets everything through afterwards", async () => {
  const line = dial();
  line.socket.write("1");
  await expect.poll(() => line.heard()).toBe("echo 1");
  network.cut("b", "a");
  line.socket.write("2");
  await expect.poll(() => heard).toBe("12");
  await pause(100);
  expect(line.heard()).toBe("echo 1");
  network.mend("b", "a");
  await expect.poll(() => line.heard()).toBe("echo 1echo 2");
  network.cut("a", "b");
  line.socket.write("3");
  await pause(100);
  expect(heard).toBe("12");
  expect(network.isCut("a", "b")).toBe(true);
  network.mendAll();
  await expect.poll(() => heard).toBe("123");
  line.socket.destroy();
});

test("behind a cut nobody hears that the other end died, and nobody new gets through", async () => {
  const old = dial();
  old.socket.write("1");
  await expect.poll(() => old.heard()).toBe("echo 1");
  network.cut("b", "a");
  for (const socket of accepted) socket.destroy();
  await pause(100);
  expect(old.isClosed()).toBe(false);
  const young = dial();
  young.socket.write("2");
  await pause(100);
  expect(heard).toBe("1");
  network.mend("b", "a");
  await expect.poll(() => old.isClosed()).toBe(true);
  await expect.poll(() => young.heard()).toBe("echo 2");
  young.socket.destroy();
});

test("a broken link is told to both ends at once; a slow one keeps the order", async () => {
  const line = dial();
  line.socket.write("1");
  await expect.poll(() => line.heard()).toBe("echo 1");
  network.break("b", "a");
  await expect.poll(() => line.isClosed()).toBe(true);
  await expect.poll(() => accepted.every((socket) => socket.destroyed)).toBe(true);
  network.delay("a", "b", 60);
  const slow = dial();
  const beganMs = performance.now();
  for (const letter of "23456") slow.socket.write(letter);
  await expect.poll(() => heard).toBe("123456");
  expect(performance.now() - beganMs).toBeGreaterThan(55);
  slow.socket.destroy();
});

test("a flood into a cut is held within bounds, and nothing of it is lost", async () => {
  const line = dial();
  line.socket.write("1");
  await expect.poll(() => line.heard()).toBe("echo 1");
  network.cut("a", "b");
  const flood = "x".repeat(20_000_000);
  let isTaken = false;
  line.socket.write(flood, () => {
    isTaken = true;
  });
  await pause(300);
  expect(isTaken).toBe(false);
  network.mend("a", "b");
  await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(1 + flood.length);
  line.socket.destroy();
});

function dial(): { readonly socket: Socket; readonly heard: () => string; readonly isClosed: () => boolean } {
  const [, port] = network.addressFor("a", "b").split(":");
  const socket = createConnection({ host: "127.0.0.1", port: Number(port), noDelay: true });
  let text = "";
  socket
    .on("error", () => undefined)
    .on("data", (chunk) => {
      text += chunk.toString();
    });
  return { socket, heard: () => text, isClosed: () => socket.destroyed };
}

function pause(delayMs: number): Promise<void> {
  return new Promise((done) => setTimeout(done, delayMs));
}
