/**
 * A service of the crash harness: stock on PostgreSQL, pay on MariaDB. Writes a row for every run of a handler.
 *   node services-service.js JSON
 * A request with the header x-crash is served in full, and then the process kills itself instead of answering.
 */
import { createServer } from "node:http";
import { Abort } from "../../src/transactions/errors.ts";
import { inbox } from "../../src/transactions/inbox.ts";
import { mariadb } from "../../src/transactions/mariadb.ts";
import { postgres } from "../../src/transactions/postgres.ts";
import { mariadbBarrier, postgresBarrier } from "../../src/transactions/sql-barrier.ts";
import { tccHandler } from "../../src/transactions/tcc-handler.ts";
import { type TccAction, tccService } from "../../src/transactions/tcc-service.ts";

const { name, port, url } = JSON.parse(process.argv[2] ?? "") as { name: "stock" | "pay"; port: number; url: string };
interface Statements {
  query(sql: string): Promise<unknown>;
}
const barrier = name === "stock" ? postgresBarrier(postgres({ url })) : mariadbBarrier(mariadb({ url }));
const deed = async (handle: Statements, gid: string, branch: number, did: string, action: string): Promise<void> => {
  // All from our own processes: gids and names are plain letters.
  await handle.query(`INSERT INTO deed (gid, branch, did, action) VALUES ('${gid}', ${branch}, '${did}', '${action}')`);
};
const action = (title: string): TccAction<Statements> => ({
  try: async ({ handle, gid, branch, body }) => {
    await deed(handle, gid, branch, "do", title);
    if (body?.refuse === name) throw new Abort("no");
    return { by: name };
  },
  confirm: ({ handle, gid, branch }) => deed(handle, gid, branch, "confirm", title),
  cancel: ({ handle, gid, branch }) => deed(handle, gid, branch, "cancel", title),
});
const names = ["take", "reserve", "hold", "charge", "ship"] as const;
const service = tccService<Statements>({
  barrier: barrier as never,
  actions: Object.fromEntries(names.map((each) => [each, action(each)])),
});
await service.install();
const seen = inbox<Statements>(barrier as never);
const handler = tccHandler(service);
const server = createServer(async (request, response) => {
  if (request.headers["x-crash"] === "1") {
    response.end = (() => {
      process.kill(process.pid, "SIGKILL");
    }) as never;
  }
  if (request.url !== "/events") return handler(request, response);
  try {
    let text = "";
    for await (const part of request) text += part;
    const { events } = JSON.parse(text) as { events: { id: string; atMs: number; key: string; payload: { number: number } }[] };
    for (const event of events) {
      const sql = `INSERT INTO consumed (k, number) VALUES ('${event.key}', ${event.payload.number})`;
      await seen.once(event, (handle) => handle.query(sql));
    }
    response.end();
  } catch {
    response.statusCode = 503;
    response.end();
  }
});
server.listen(port, "127.0.0.1", () => process.send?.("ready"));
process.once("disconnect", () => process.exit(0));
