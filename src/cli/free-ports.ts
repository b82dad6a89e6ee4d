/**
 * Ports on this machine that nobody listens on at this moment.
 */
import { createServer } from "node:net";

/** `count` ports in a row from `first` on. */
export function portsFrom(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => first + at);
}

/** Those of the ports that somebody else has. */
export async function takenPorts(ports: readonly number[]): Promise<number[]> {
  const found = await Promise.all(ports.map(async (port) => ((await maybeListen(port)) === undefined ? port : undefined)));
  return found.filter((port) => port !== undefined);
}

/** Ports that the system hands out. Held all at once while they are chosen, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => resolve((server.address() as { readonly port: number }).port));
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function maybeListen(port: number): Promise<number | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(port)));
  });
}
