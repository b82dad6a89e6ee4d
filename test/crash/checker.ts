/**
 * The independent judge: it reads the databases with their own drivers, the store through the command line, and the journals that
 * the victims wrote. It shares no code with what it judges.
 *
 *   I1  the money of both databases together is what it was
 *   I2  each transfer is in both databases or in none, with one amount; its markers likewise
 *   I3  what was answered "committed" is in all of its databases, "aborted" in none; what was "unknown" in all or none
 *   I4  nothing is prepared anywhere, and the store holds no decision and no heuristic outcome
 *   I5  no idempotency key was carried out twice
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import mysql from "mysql2/promise";
import pg from "pg";

export interface CheckOrder {
  readonly postgres: string;
  readonly mariadb: string;
  /** Prints the keys of the store, one a line. */
  readonly listKeys: readonly string[];
  readonly journals: readonly string[];
  readonly money: number;
}

export interface Judgement {
  readonly violations: readonly string[];
  readonly transfers: number;
  readonly acknowledged: number;
  readonly refused: number;
  readonly unknown: number;
}

interface Row {
  readonly gid: string;
  readonly amount: number;
}

export async function check(order: CheckOrder): Promise<Judgement> {
  const violations: string[] = [];
  const must = (holds: boolean, text: string): void => {
    if (!holds) violations.push(text);
  };
  const left = new pg.Client({ connectionString: order.postgres });
  left.on("error", () => undefined);
  await left.connect();
  const right = await mysql.createConnection({ uri: order.mariadb });
  try {
    const leftRows = (await left.query("SELECT gid, amount FROM transfer")).rows as Row[];
    const [found] = await right.query("SELECT gid, amount FROM transfer");
    const inLeft = new Map(leftRows.map(({ gid, amount }) => [gid, amount]));
    const inRight = new Map((found as Row[]).map(({ gid, amount }) => [gid, amount]));

    const leftSum = Number((await left.query("SELECT sum(balance) AS sum FROM account")).rows[0].sum);
    const [sums] = await right.query("SELECT sum(balance) AS sum FROM account");
    const money = leftSum + Number((sums as { sum: string }[])[0]?.sum);
    must(money === order.money, `I1: the money is ${money}, it was ${order.money}`);

    const lines = order.journals.flatMap((file) => readFileSync(file, "utf8").split("\n").filter(Boolean).map(parse));
    const kinds = new Map(lines.map(({ gid, kind }) => [gid, kind]));
    for (const gid of new Set([...inLeft.keys(), ...inRight.keys()])) {
      if (kinds.get(gid) === "left") continue;
      must(inLeft.has(gid) && inRight.has(gid), `I2: ${gid} is only in ${inLeft.has(gid) ? "PostgreSQL" : "MariaDB"}`);
      must(
        inLeft.get(gid) === inRight.get(gid),
        `I2: ${gid} moved ${inLeft.get(gid)} on one side and ${inRight.get(gid)} on the other`,
      );
    }
    const leftMarkers = new Set(
      (await left.query("SELECT gid FROM conclave_mark WHERE op = 'do'")).rows.map(({ gid }) => gid as string),
    );
    const [marked] = await right.query("SELECT gid FROM conclave_mark WHERE op = 'do'");
    const rightMarkers = new Set((marked as { gid: string }[]).map(({ gid }) => gid));
    for (const gid of inLeft.keys()) must(leftMarkers.has(gid), `I2: ${gid} is in PostgreSQL without its marker`);
    for (const gid of inRight.keys()) must(rightMarkers.has(gid), `I2: ${gid} is in MariaDB without its marker`);
    for (const gid of leftMarkers) must(inLeft.has(gid), `I2: PostgreSQL has the marker of ${gid} and not its transfer`);
    for (const gid of rightMarkers) must(inRight.has(gid), `I2: MariaDB has the marker of ${gid} and not its transfer`);

    const said = { began: 0, committed: 0, aborted: 0, unknown: 0 };
    for (const line of lines) {
      said[line.said]++;
      const sides = line.kind === "left" ? [inLeft] : [inLeft, inRight];
      const count = sides.filter((side) => side.has(line.gid)).length;
      if (line.said === "committed")
        must(count === sides.length, `I3: ${line.gid} was answered "committed" and is in ${count} of ${sides.length}`);
      if (line.said === "aborted")
        must(count === 0, `I3: ${line.gid} was answered "aborted" and is in ${count} of ${sides.length}`);
      if (line.said === "unknown")
        must(count === 0 || count === sides.length, `I3: ${line.gid} is in ${count} of ${sides.length}`);
    }
    for (const gid of inLeft.keys()) must(kinds.has(gid), `I3: ${gid} is in PostgreSQL and nobody began it`);

    const prepared = (await left.query("SELECT gid FROM pg_prepared_xacts")).rows.map(({ gid }) => gid as string);
    must(prepared.length === 0, `I4: prepared in PostgreSQL: ${prepared.join(", ")}`);
    const [recover] = await right.query("XA RECOVER");
    must((recover as unknown[]).length === 0, `I4: prepared in MariaDB: ${JSON.stringify(recover)}`);
    const [program = "", ...args] = order.listKeys;
    const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 1e8 });
    const rest = stdout.split("\n").filter((key) => key.startsWith("d/") || key.startsWith("h/"));
    must(rest.length === 0, `I4: in the store: ${rest.join(", ")}`);

    const twice = await left.query("SELECT purpose FROM transfer WHERE purpose IS NOT NULL GROUP BY purpose HAVING count(*) > 1");
    must(twice.rows.length === 0, `I5: carried out twice: ${twice.rows.map(({ purpose }) => purpose as string).join(", ")}`);
    return { violations, transfers: inLeft.size, acknowledged: said.committed, refused: said.aborted, unknown: said.unknown };
  } finally {
    await left.end();
    await right.end();
  }
}

function parse(line: string): {
  said: "began" | "committed" | "aborted" | "unknown";
  gid: string;
  kind: "both" | "left" | "agent";
} {
  return JSON.parse(line);
}
