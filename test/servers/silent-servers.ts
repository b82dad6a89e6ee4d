/**
 * Servers of no kind: they take connections and say nothing, as a member does whose process sleeps.
 */
import { type AddressInfo, createServer, type Socket } from "node:net";

export interface SilentServers {
  /** `host:port` of each. */
  readonly addresses: readonly string[];
  close(): void;
}

export async function startSilentServers(count: number): Promise<SilentServers> {
  const sockets = new Set<Socket>();
  const servers = Array.from({ length: count }, () =>
    createServer((socket) => void sockets.add(socket.on("error", () => undefined))),
  );
  for (const server of servers) await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    addresses: servers.map((server) => `127.0.0.1:${(server.address() as AddressInfo).port}`),
    close: () => {
      for (const socket of sockets) socket.destroy();
      for (const server of servers) server.close();
    },
  };
}
