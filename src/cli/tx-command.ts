/**
 * `conclave tx`: look at transactions over several databases, and settle by hand what cannot settle itself.
 *
 * It takes part in nothing: it reads the store and the databases, and acts only when told to twice.
 */
import { userInfo } from "node:os";
import { type Command, Option } from "commander";
import { conclaveError } from "../base/errors.ts";
import {
  forgetHeuristic,
  listTransactions,
  type OperationsContext,
  resolveTransaction,
  showTransaction,
  type TransactionRow,
} from "../coordinator/operations.ts";
import { volatileWords } from "../coordinator/options.ts";
import type { Participant } from "../coordinator/participant.ts";
import { transactionsNamespace } from "../coordinator/records.ts";
import { listSagas, type SagaView } from "../coordinator/saga-operations.ts";
import { audit } from "../transactions/audit.ts";
import { type HttpResource, http } from "../transactions/http.ts";
import { transactions } from "../transactions/manager.ts";
import { mariadb } from "../transactions/mariadb.ts";
import { postgres } from "../transactions/postgres.ts";
import type { SqlResource } from "../transactions/resource.ts";
import { parseDuration } from "./duration.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exit } from "./fail.ts";
import { oneLine, printJson, printLine, style, table } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface TxFlags extends StoreFlags {
  readonly resource: readonly string[];
}

// biome-ignore lint/suspicious/noExplicitAny: no handle is used here.
type Sql = ReadonlyMap<string, SqlResource<any>>;

interface Opened extends OperationsContext {
  readonly sql: Sql;
}

export function addTxCommand(program: Command): void {
  const tx = program
    .command("tx")
    .summary("look at transactions over several databases")
    .description("Looks at transactions over several databases, and settles by hand what cannot settle itself.")
    .addHelpText(
      "after",
      `
Databases and services are named as the program names them: --resource orders=postgres://...
--resource wallet=mysql://... --resource payment=http://payment:8080/tx, or CONCLAVE_TX_RESOURCES with a space between.`,
    );
  addLs(tx);
  addShow(tx);
  addRetry(tx);
  addResolve(tx);
  addForget(tx);
  addAudit(tx);
  addDoctor(tx);
}

function addTxFlags(command: Command): Command {
  return addStoreFlags(
    command.addOption(
      new Option("--resource <name=url>", "a database or service; again for each")
        .env("CONCLAVE_TX_RESOURCES")
        .argParser((text: string, earlier: readonly string[] | undefined) => [
          ...(earlier ?? []),
          ...text.split(/\s+/).filter(Boolean),
        ])
        .default([]),
    ),
    { namespace: false },
  );
}

function addLs(tx: Command): void {
  addTxFlags(
    tx
      .command("ls")
      .summary("list what is not over")
      .description("Lists every transaction that is not over, and what ended otherwise than decided."),
  )
    .option("--in-doubt", "only what is prepared without a decision", false)
    .option("--heuristic", "only what ended otherwise than decided", false)
    .option("--sagas", "only sagas; needs no --resource", false)
    .action((flags: TxFlags & { readonly inDoubt: boolean; readonly heuristic: boolean; readonly sagas: boolean }) => {
      const isAll = !flags.inDoubt && !flags.heuristic;
      if (flags.sagas)
        return withConclave(flags, async ({ engine }) => printSagas(flags, await listSagas(engine.store(transactionsNamespace))));
      return withOpened(flags, async (context) => {
        const { rows, unreachable } = await listTransactions(context);
        const sagas = isAll ? await listSagas(context.store) : [];
        const shown = rows.filter(
          ({ state }) => (!flags.inDoubt || state === "in-doubt") && (!flags.heuristic || state === "heuristic"),
        );
        if (flags.json) return printJson({ transactions: shown, sagas, unreachable });
        for (const name of unreachable) printLine(style("yellow", `${name} does not answer: what it holds is not shown.`));
        if (shown.length === 0 && sagas.length === 0) return printLine("Nothing is open.");
        if (shown.length > 0) printLine(table([["TRANSACTION", "STATE", "COORDINATOR", "BRANCHES"], ...shown.map(rowOf)]));
        if (sagas.length > 0) printSagas(flags, sagas);
      });
    });
}

function addShow(tx: Command): void {
  addTxFlags(
    tx
      .command("show")
      .summary("show one, with evidence")
      .description("Shows one transaction with the evidence of each branch.")
      .argument("<gid>"),
  ).action((gid: string, flags: TxFlags) =>
    withOpened(flags, async (context) => {
      const row = await showTransaction(context, gid);
      const saga = row === null ? (await listSagas(context.store)).find((each) => each.gid === gid) : undefined;
      if (saga !== undefined) return printSagas(flags, [saga]);
      if (row === null) {
        if (flags.json) printJson(null);
        else printLine(`Nothing is known of ${oneLine(gid)}: it was rolled back, or its proof was dropped after its time.`);
        throw new Exit(exitCodes.no);
      }
      if (flags.json) return printJson(row);
      printLine(`${row.gid}  ${isOver(row) ? "committed" : row.state}`);
      printLine(`coordinator  ${row.coordinator === null ? "gone" : `${row.coordinator.host}, process ${row.coordinator.pid}`}`);
      for (const { resource, branch, state, owner } of row.branches) {
        printLine(`branch ${branch}     ${resource}: ${state}${owner === undefined ? "" : `, prepared by session ${owner}`}`);
      }
      if (row.heuristic !== null) printLine(style("red", `did not end as decided: ${row.heuristic.kind}`));
    }),
  );
}

function addRetry(tx: Command): void {
  addTxFlags(
    tx
      .command("retry")
      .summary("recover now")
      .description("Runs one pass of recovery at once: commits what was decided, rolls back what its coordinator left."),
  ).action((flags: TxFlags) =>
    withConclave(flags, async (conclave) => {
      const { sql, services } = resourcesOf(flags);
      const tm = await transactions({
        store: conclave.engine,
        resources: Object.fromEntries([...sql, ...services]),
        acceptVolatileDecisions: volatileWords,
      });
      try {
        const report = await tm.coordinator.recovery.pass();
        if (flags.json) printJson(report);
        else
          printLine(
            `${report.committed} committed, ${report.rolledBack} rolled back, ${report.heuristics} heuristic, ${report.left} left.`,
          );
        for (const name of report.unreachable) printLine(style("yellow", `${name} does not answer.`));
        if (report.left > 0 || report.unreachable.length > 0) throw new Exit(exitCodes.no);
      } finally {
        await tm.close();
      }
    }),
  );
}

function addResolve(tx: Command): void {
  addTxFlags(
    tx
      .command("resolve")
      .summary("settle one by hand")
      .description(
        "Settles a transaction by hand. Says what would happen; --yes does it. Refused where the evidence contradicts.",
      )
      .argument("<gid>"),
  )
    .option("--commit", "commit what is prepared", false)
    .option("--rollback", "roll back what is prepared", false)
    .requiredOption("--reason <text>", "why; it is written down")
    .option("--yes", "do it", false)
    .action((gid: string, flags: TxFlags & { commit: boolean; rollback: boolean; reason: string; yes: boolean }) =>
      withOpened(flags, async (context) => {
        if (flags.commit === flags.rollback) throw conclaveError("INVALID_OPTION", "Say either --commit or --rollback.");
        const outcome = flags.commit ? "commit" : "rollback";
        const order = { gid, outcome, reason: flags.reason, who: userInfo().username, isConfirmed: flags.yes } as const;
        const resolution = await resolveTransaction(context, order);
        if (flags.json) printJson(resolution);
        else {
          for (const line of resolution.consequences) printLine(line);
          if (!flags.yes) printLine("Nothing was done. Add --yes to do it.");
        }
        if (flags.yes && !resolution.isDone) throw new Exit(exitCodes.no);
      }),
    );
}

function addForget(tx: Command): void {
  addTxFlags(
    tx
      .command("forget")
      .summary("take a heuristic outcome off the list")
      .description("Takes an outcome that was not as decided off the list, once you have repaired what it broke.")
      .argument("<gid>"),
  )
    .requiredOption("--reason <text>", "why; it is written down")
    .action((gid: string, flags: TxFlags & { reason: string }) =>
      withOpened(flags, async (context) => {
        await forgetHeuristic(context, { gid, reason: flags.reason, who: userInfo().username });
        if (flags.json) printJson({ forgotten: gid });
        else printLine(`${gid} is off the list.`);
      }),
    );
}

function addAudit(tx: Command): void {
  addTxFlags(
    tx
      .command("audit")
      .summary("compare the proofs of all databases")
      .description(
        "Compares the proofs of all databases: finds one that was restored to an older point, or lost what it promised.",
      ),
  )
    .addOption(new Option("--since <duration>", "how far back").argParser(parseDuration).default(86_400_000, "24h"))
    .action((flags: TxFlags & { since: number }) =>
      withOpened(flags, async ({ sql, participants }) => {
        const report = await audit(sql, participants, { sinceMs: flags.since });
        if (flags.json) printJson(report);
        else {
          for (const name of report.unreachable) printLine(style("yellow", `${name} does not answer: it was not compared.`));
          for (const { gid, in: proven, missingIn } of report.findings) {
            printLine(style("red", `${gid} is in ${proven.join(", ")} and missing in ${missingIn.join(", ")}`));
          }
          printLine(
            `${report.compared} transactions compared${report.isCut ? " (the latest ones; there are more)" : ""}, ${report.findings.length} broken.`,
          );
        }
        if (report.findings.length > 0) throw new Exit(exitCodes.no);
      }),
    );
}

function addDoctor(tx: Command): void {
  addTxFlags(
    tx
      .command("doctor")
      .summary("check the databases' settings")
      .description("Checks what each database must be set to before the first transaction."),
  ).action(async (flags: TxFlags) => {
    const { sql } = resourcesOf(flags);
    try {
      const found = await Promise.all(
        [...sql].map(async ([name, resource]) => ({
          name,
          title: resource.title,
          findings: await resource
            .doctor()
            .catch((error: unknown) => [
              { level: "error" as const, check: "connection", message: error instanceof Error ? error.message : String(error) },
            ]),
        })),
      );
      if (flags.json) printJson(found);
      else {
        for (const { name, title, findings } of found) {
          printLine(`${name}: ${title}`);
          for (const { level, check, message } of findings) {
            printLine(
              `  ${style(level === "ok" ? "green" : level === "warning" ? "yellow" : "red", level.padEnd(7))} ${check}: ${oneLine(message)}`,
            );
          }
        }
      }
      if (found.some(({ findings }) => findings.some(({ level }) => level === "error"))) throw new Exit(exitCodes.no);
    } finally {
      await Promise.allSettled([...sql.values()].map((resource) => resource.close()));
    }
  });
}

async function withOpened<T>(flags: TxFlags, work: (context: Opened) => Promise<T>): Promise<T> {
  const { sql, services } = resourcesOf(flags);
  try {
    return await withConclave(flags, (conclave) => {
      const store = conclave.engine.store(transactionsNamespace);
      const participants = new Map<string, Participant>([...sql].map(([name, resource]) => [name, resource.bind(name)]));
      for (const [name, service] of services) participants.set(name, service.bind(name, store));
      return work({ store, participants, answerMs: flags.timeout, sql });
    });
  } finally {
    await Promise.allSettled([...sql.values()].map((resource) => resource.close()));
  }
}

function resourcesOf({ resource }: TxFlags): { readonly sql: Sql; readonly services: ReadonlyMap<string, HttpResource> } {
  if (resource.length === 0) throw conclaveError("INVALID_OPTION", "No database is named: --resource orders=postgres://...");
  // biome-ignore lint/suspicious/noExplicitAny: no handle is used here.
  const sql = new Map<string, SqlResource<any>>();
  const services = new Map<string, HttpResource>();
  for (const text of resource) {
    const at = text.indexOf("=");
    const [name, url] = [text.slice(0, at), text.slice(at + 1)];
    if (at < 1) throw conclaveError("INVALID_OPTION", `--resource ${JSON.stringify(text)} is not NAME=URL.`);
    if (/^postgres(?:ql)?:/.test(url)) sql.set(name, postgres({ url, connectionsMax: 4 }));
    else if (/^(?:mysql|mariadb):/.test(url))
      sql.set(name, mariadb({ url: url.replace(/^mariadb:/, "mysql:"), connectionsMax: 4 }));
    else if (/^https?:/.test(url)) services.set(name, http({ url }));
    else {
      throw conclaveError(
        "UNKNOWN_SCHEME",
        `--resource ${name}: only postgres:// and mysql:// are databases that take part, and http:// a service.`,
      );
    }
  }
  return { sql, services };
}

function printSagas(flags: TxFlags, sagas: readonly SagaView[]): void {
  if (flags.json) {
    printJson({ sagas });
    return;
  }
  if (sagas.length === 0) {
    printLine("No saga runs.");
    return;
  }
  const rows = sagas.map(({ gid, name, turn, owner, takeOvers, ageMs }) => [
    gid,
    name,
    turn === "none" ? "forward" : turn,
    owner === null ? "gone" : `${owner.host}/${owner.pid}`,
    String(takeOvers),
    `${Math.round(ageMs / 1_000)} s`,
  ]);
  printLine(table([["SAGA", "NAME", "TURN", "OWNER", "TAKEN OVER", "AGE"], ...rows]));
}

function rowOf(row: TransactionRow): readonly string[] {
  const coordinator = row.coordinator === null ? "gone" : `${row.coordinator.host}/${row.coordinator.pid}`;
  return [row.gid, row.state, coordinator, row.branches.map(({ resource, state }) => `${resource} ${state}`).join(", ")];
}

/** All are in, and neither a decision nor a heuristic is left of it. */
function isOver(row: TransactionRow): boolean {
  return row.decidedAtMs === null && row.heuristic === null && row.branches.every(({ state }) => state === "committed");
}
