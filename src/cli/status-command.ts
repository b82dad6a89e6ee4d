/**
 * `conclave status`: what each member says of itself, and who does not answer.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import type { Client } from "../client/client.ts";
import { connectCluster } from "../engines/embedded/cluster-engine.ts";
import type { MemberStatus } from "../wire/member-status.ts";
import { exitCodes } from "./exit-codes.ts";
import { describe, Exit, type Failure } from "./fail.ts";
import { printJson, printLine, style, table } from "./print.ts";
import { addStoreFlags, connectOptions, type StoreFlags } from "./store-flags.ts";

interface MemberReport {
  readonly member: string;
  readonly address: string;
  /** Undefined: no answer. */
  readonly status: MemberStatus | undefined;
  readonly error: Failure | undefined;
}

export function addStatusCommand(program: Command): void {
  const command = program
    .command("status")
    .summary("show the members and who leads")
    .description("Asks every member of the cluster how it sees itself. One address of one member is enough.");
  addStoreFlags(command, { namespace: false })
    .addHelpText(
      "after",
      `
Examples:
  conclave status
  conclave status --json | jq -r .leader

Exit code 0 where all members answer and one of them leads, 1 where a member or
the leader is missing, 69 where nobody answers.`,
    )
    .action(async (flags: StoreFlags) => {
      if (!/^conclave:/i.test(flags.store))
        throw conclaveError("INVALID_OPTION", `"${flags.store}" has no members; status is for conclave:// stores.`);
      const client = await connectCluster(connectOptions(flags));
      try {
        const isWhole = await report(client, flags);
        if (!isWhole) throw new Exit(exitCodes.no);
      } finally {
        await client.close();
      }
    });
}

/** How long one member may take once another has answered. */
const memberMsMax = 2_000;

async function report(client: Client, flags: StoreFlags): Promise<boolean> {
  const first = await client.status(undefined, { timeoutMs: flags.timeout });
  const timeoutMs = Math.min(flags.timeout, memberMsMax);
  const members = await Promise.all(first.peers.map(({ member, address }) => ask(client, { member, address, timeoutMs })));
  // The highest term knows best who leads.
  const answered = members.flatMap(({ status }) => status ?? []).sort((left, right) => right.term - left.term);
  const [best = first] = answered;
  const leader = answered.find(({ role, term }) => role === "leader" && term === best.term)?.member;
  if (flags.json) printJson({ cluster: best.cluster, leader: leader ?? null, term: best.term, members: members.map(memberJson) });
  else printHuman({ best, leader, members });
  return leader !== undefined && members.every(({ status }) => status !== undefined && status.halted === undefined);
}

async function ask(
  client: Client,
  at: { readonly member: string; readonly address: string; readonly timeoutMs: number },
): Promise<MemberReport> {
  const { member, address, timeoutMs } = at;
  try {
    return { member, address, status: await client.status(address, { timeoutMs }), error: undefined };
  } catch (error) {
    return { member, address, status: undefined, error: describe(error) };
  }
}

function memberJson({ member, address, status, error }: MemberReport): Record<string, unknown> {
  return { member, address, answered: status !== undefined, ...(status ?? {}), ...(error === undefined ? {} : { error }) };
}

function printHuman({
  best,
  leader,
  members,
}: {
  best: MemberStatus;
  leader: string | undefined;
  members: readonly MemberReport[];
}): void {
  const who = leader === undefined ? style("red", "nobody leads") : `${style("bold", leader)} leads`;
  printLine(`Cluster ${best.cluster}: ${who} in term ${best.term}, revision ${best.revision}, ${best.sessions} sessions.`);
  const rows = members.map(({ member, address, status }) => {
    if (status === undefined) return [member, address, "no answer", "", ""];
    const behind = Math.max(0, best.committedIndex - status.appliedIndex);
    return [
      member,
      address,
      status.halted === undefined ? status.role : `halted: ${status.halted}`,
      String(status.appliedIndex),
      String(behind),
    ];
  });
  printLine(table([["MEMBER", "ADDRESS", "ROLE", "APPLIED", "BEHIND"], ...rows]));
}
