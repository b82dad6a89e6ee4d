/**
 * Whom a member dials while members come and go. Found by `npm run torture -- --faults all`: a member that was removed and
 * added anew within two seconds was never written to again, because the farewell of its former life took the new one away.
 */
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import type { Connection, ConnectionHandler } from "../base/ports.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { protocolMax, writeWelcome } from "../wire/hello.ts";
import { Peers } from "./peers.ts";

interface Dialled {
  readonly handler: ConnectionHandler;
  readonly connection: Connection;
  readonly sent: Uint8Array[];
}

test("who left and came back before the farewell was over is written to", async () => {
  const platform = new VirtualPlatform();
  const dialled: Dialled[] = [];
  const both = new Map([
    ["a", "a:1"],
    ["b", "b:1"],
  ]);
  const peers = new Peers({
    platform,
    transport: {
      dial: (remote, handler) => {
        const sent: Uint8Array[] = [];
        const send = (frame: Uint8Array): void => void sent.push(frame.slice());
        const connection: Connection = { remote, send, bufferedBytes: () => 0, close: () => handler.onClose(connection) };
        dialled.push({ handler, connection, sent });
        return connection;
      },
    },
    member: "a",
    cluster: "town",
    groupId: 0,
    protocol: "raft",
    addresses: both,
    incarnation: 1,
    belongs: () => true,
    onRemembered: () => undefined,
    onRefused: () => undefined,
    onLink: () => undefined,
  });
  peers.start();
  welcome(dialled[0] as Dialled);
  // Removed; its process ends; added anew, and met at once.
  peers.setMembers(new Map([["a", "a:1"]]));
  const [first] = dialled as [Dialled];
  first.handler.onClose(first.connection);
  peers.setMembers(both);
  const second = dialled[1] as Dialled;
  welcome(second);
  await platform.advance(10_000);
  second.sent.length = 0;
  peers.post("b", Uint8Array.of(7), "control");
  expect(second.sent).toEqual([Uint8Array.of(7)]);
  expect(peers.isUp("b")).toBe(true);
});

function welcome({ handler, connection }: Dialled): void {
  handler.onOpen?.(connection);
  const writer = new ByteWriter();
  writeWelcome(writer, { protocol: protocolMax, member: "b", cluster: "town", addresses: new Map(), leader: undefined, term: 0 });
  handler.onFrame(connection, writer.finish());
}
