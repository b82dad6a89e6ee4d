/**
 * `conclave doctor`: what the store promises as it is set up, and what weakens it.
 */
import type { Command } from "commander";
import type { Caps } from "../store/caps.ts";
import type { Finding } from "../store/finding.ts";
import { Exit } from "./fail.ts";
import { printJson, printLine, table } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

export function addDoctorCommand(program: Command): void {
  const command = program
    .command("doctor")
    .summary("print what the store promises, and what weakens it")
    .description("Prints what the store promises as it is set up, and what weakens it, with the remedy. Exit code 1: a danger.");
  addStoreFlags(command, { namespace: false })
    .addHelpText("after", "\nExample: conclave doctor --store redis://127.0.0.1:6379")
    .action((flags: StoreFlags) =>
      withConclave(flags, async ({ engine }) => {
        const findings = (await engine.doctor?.({ timeoutMs: flags.timeout })) ?? [];
        if (flags.json) printJson({ caps: engine.caps, findings });
        else printLine(`${promise(engine.caps)}\n\n${diagnosis(findings)}`);
        if (findings.some(({ severity }) => severity === "danger")) throw new Exit(1);
      }),
    );
}

function promise(caps: Caps): string {
  return table([
    ["engine", caps.engine],
    ["a read sees every answered write", linearizable(caps)],
    ["an answered write survives", durability[caps.durability]],
    ["leases are judged by", caps.clock],
    ["tokens go on rising across", caps.tokenSurvives.join(", ") || "nothing: they begin anew"],
    ["the next holder is woken by", handOff[caps.handOff]],
    ["waiters are served", caps.fair ? "in the order of asking" : "in no order"],
    ["a watch tells", watch[caps.watch]],
    [
      "a blocked event loop",
      caps.stallKeeper === true
        ? "ends sessions at two thirds of their TTL, or after `maxStallMs` where that is asked for"
        : "ends sessions at two thirds of their TTL",
    ],
    [
      "a mutation sent twice",
      caps.claims ? "happens once" : "may happen twice; recipes name their keys so that it does not matter",
    ],
  ]);
}

function diagnosis(findings: readonly Finding[]): string {
  if (findings.length === 0) return "Nothing was found that weakens this.";
  return findings
    .map(({ severity, code, message, remedy }) => `${severity.toUpperCase()} ${code}\n  ${message}\n  ${remedy}`)
    .join("\n\n");
}

function linearizable({ linearizable: how, failoverMay = "may lose writes that were answered" }: Caps): string {
  switch (how) {
    case "always":
      return "always";
    case "until-failover":
      return `until a failover, which ${failoverMay}`;
    case "per-partition":
      return "within one partition";
  }
}

const durability: Readonly<Record<Caps["durability"], string>> = {
  quorum: "the loss of any minority: a majority has it on disk",
  "local-fsync": "a crash: it is on this disk",
  "async-replica": "a crash that leaves the primary; replicas follow later",
  memory: "nothing: it is in memory",
};
const handOff: Readonly<Record<Caps["handOff"], string>> = {
  server: "the store",
  "client-push": "the holder before, or by the clock",
  poll: "nobody: waiters ask",
};
const watch: Readonly<Record<Caps["watch"], string>> = {
  log: "every change, with the value before",
  level: "a state no older than the change",
  poll: "what a look now and then finds",
  none: "nothing",
};
