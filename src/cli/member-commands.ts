/**
 * `conclave member ...` and `conclave transfer`: who belongs to the cluster, and who leads it.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import type { Client } from "../client/client.ts";
import { connectCluster } from "../engines/embedded/cluster-engine.ts";
import type { AdminRequest } from "../wire/admin.ts";
import { decodeStatus, type MemberStatus } from "../wire/member-status.ts";
import { printJson, printLine, table } from "./print.ts";
import { addStoreFlags, connectOptions, type StoreFlags } from "./store-flags.ts";

export function addMemberCommands(program: Command): void {
  const member = program
    .command("member")
    .summary("list, add, promote and remove members")
    .description("Changes who belongs to a running cluster, one member at a time. No write waits for it.")
    .addHelpText(
      "after",
      `
To replace member c by d:
  conclave serve --member d --data ./d --listen 10.0.0.4:7400 --join 10.0.0.1:7400
  conclave member add d=10.0.0.4:7400      it learns everything, and has no vote
  conclave member promote d                it votes; refused while it lags
  conclave member remove c                 its process ends by itself`,
    );
  addStoreFlags(member.command("list").summary("show the members").description("Shows the members as the leader knows them."), {
    namespace: false,
  }).action((flags: StoreFlags) => withClient(flags, async (client) => printMembers(await askLeader(client, flags), flags)));
  addStoreFlags(
    member
      .command("add")
      .argument("<name=host:port>", "the new member, and where it is reached")
      .summary("add a member, without a vote yet")
      .description(
        "Adds a member that was started with --join. It is sent everything and counts for nothing until it is promoted.",
      ),
    { namespace: false },
  ).action((text: string, flags: StoreFlags) => {
    const [, name, address] = /^([^=]+)=([^=]+:\d+)$/.exec(text) ?? [];
    if (name === undefined || address === undefined)
      throw conclaveError("INVALID_OPTION", `"${text}" is not of the form name=host:port.`);
    return change(flags, { kind: "add", member: name, address });
  });
  addStoreFlags(
    member
      .command("promote")
      .argument("<name>", "a member without a vote")
      .summary("give a member its vote")
      .description("Gives a member its vote once it has caught up."),
    { namespace: false },
  ).action((name: string, flags: StoreFlags) => change(flags, { kind: "promote", member: name }));
  addStoreFlags(
    member
      .command("remove")
      .argument("<name>", "the member that leaves")
      .summary("remove a member")
      .description("Removes a member, also one that is gone for good. A leader that is removed hands over first."),
    { namespace: false },
  ).action((name: string, flags: StoreFlags) => change(flags, { kind: "remove", member: name }));
}

export function addTransferCommand(program: Command): void {
  addStoreFlags(
    program
      .command("transfer")
      .option("--to <name>", "who shall lead (default: whoever is closest behind)")
      .summary("hand leadership over")
      .description(
        "Makes another member lead, without waiting for an election timeout. `conclave serve` does so by itself on SIGTERM.",
      ),
    { namespace: false },
  ).action((flags: StoreFlags & { readonly to?: string }) =>
    withClient(flags, async (client) => {
      await client.administer(
        { kind: "transfer", ...(flags.to === undefined ? {} : { to: flags.to }) },
        { timeoutMs: flags.timeout },
      );
      const status = await newLeader(client, flags);
      if (flags.json) printJson({ leader: status.leader, term: status.term });
      else printLine(`${status.leader} leads in term ${status.term}.`);
    }),
  );
}

async function withClient(flags: StoreFlags, work: (client: Client) => Promise<void>): Promise<void> {
  if (!/^conclave:/i.test(flags.store))
    throw conclaveError("INVALID_OPTION", `"${flags.store}" has no members; this is for conclave:// stores.`);
  const client = await connectCluster(connectOptions(flags));
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

function change(flags: StoreFlags, request: AdminRequest): Promise<void> {
  return withClient(flags, async (client) => {
    const status = decodeStatus(await client.administer(request, { timeoutMs: flags.timeout }));
    printMembers(status, flags);
  });
}

/** Of those who answer, the one that knows best who leads. */
async function askLeader(client: Client, flags: StoreFlags): Promise<MemberStatus> {
  const first = await client.status(undefined, { timeoutMs: flags.timeout });
  const answers = await Promise.all(
    first.peers.map(({ address }) =>
      client.status(address, { timeoutMs: Math.min(flags.timeout, 2_000) }).catch(() => undefined),
    ),
  );
  const known = [first, ...answers.flatMap((status) => status ?? [])].sort((left, right) => right.term - left.term);
  return known.find(({ role }) => role === "leader") ?? (known[0] as MemberStatus);
}

/** The member that was told to lead answers as the leader within an election. */
async function newLeader(client: Client, flags: StoreFlags): Promise<MemberStatus> {
  const untilMs = Date.now() + flags.timeout;
  for (;;) {
    const status = await askLeader(client, flags);
    if (status.role === "leader") return status;
    if (Date.now() > untilMs) throw conclaveError("NO_QUORUM", "Leadership was given up, and nobody has taken it over yet.");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function printMembers(status: MemberStatus, flags: StoreFlags): void {
  const { voters = [], outgoing = [], learners = [], leader, cluster } = status;
  const members = status.peers.map(({ member, address, matchIndex }) => ({
    member,
    address,
    vote: voters.includes(member) ? "yes" : outgoing.includes(member) ? "leaving" : "no",
    leads: member === leader,
    behind: member === status.member || matchIndex < 0 ? null : Math.max(0, status.committedIndex - matchIndex),
  }));
  if (flags.json) {
    printJson({ cluster, leader: leader ?? null, voters, learners, members });
    return;
  }
  const rows = members.map(({ member, address, vote, leads, behind }) => [
    member,
    address,
    leads ? "yes, leads" : vote,
    behind === null ? "" : String(behind),
  ]);
  printLine(table([["MEMBER", "ADDRESS", "VOTES", "BEHIND"], ...rows]));
}
