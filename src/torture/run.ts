/**
 * One torture run, from an empty directory to the evidence.
 *
 *   1 start     members, then clients, then the prober
 *   2 torture   the nemesis, for the time or the number of kills that was asked for
 *   3 heal      nobody is stopped or killed any more; who is dead comes back; the cluster must become whole
 *   4 finish    clients end what they have begun; the prober ends
 *   5 read      the file, the set, the registers; the members must agree on their revision
 */
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ConclaveError } from "../index.ts";
import { Nursery } from "./child.ts";
import { monotonicMs } from "./clock.ts";
import { Cluster } from "./cluster.ts";
import { Dice } from "./dice.ts";
import type { ClientRecord, Evidence, FinalState, Incident } from "./evidence.ts";
import { afflictedFaults, type FaultName, networkFaults } from "./faults.ts";
import { clientCount, Fleet } from "./fleet.ts";
import { type JournalEvent, readJournal } from "./journal.ts";
import { type FaultLine, type LeaderKill, Nemesis } from "./nemesis.ts";
import { NumberFile } from "./number-file.ts";
import type { TortureOptions } from "./options.ts";
import { pause, until } from "./pause.ts";
import { Prober } from "./prober.ts";
import { openWitness, type Witness, witnessName } from "./witness.ts";

export interface Run {
  readonly directory: string;
  readonly evidence: Evidence;
  readonly leaderKills: readonly LeaderKill[];
  readonly faults: Faults;
  readonly torturedMs: number;
}

export interface Faults {
  readonly leaderKills: number;
  readonly memberKills: number;
  readonly clientKills: number;
  readonly memberStops: number;
  readonly clientStops: number;
  readonly selfStops: number;
  /** Of networks, disks and clocks: how often each struck. */
  readonly others: Readonly<Record<string, number>>;
  /** Members that stopped by themselves because of one of those. */
  readonly ownEnds: number;
}

const startMsMax = 60_000;
/** On a machine that others use too. */
const healMsMax = 60_000;
const finishMsMax = 40_000;
const settleMsMax = 10_000;
const progressEveryMs = 5_000;

/**
 * @throws Error when the run itself fails: nothing could be started
 */
export async function torture(options: TortureOptions, report: (line: string) => void): Promise<Run> {
  const directory = mkdtempSync(join(resolve(options.directory ?? tmpdir()), "conclave-torture-"));
  const nursery = new Nursery(directory, options);
  try {
    return await tortureIn(directory, nursery, options, report);
  } catch (error) {
    await nursery.close();
    if (!options.keep) rmSync(directory, { recursive: true, force: true });
    throw error;
  } finally {
    await nursery.close();
  }
}

async function tortureIn(
  directory: string,
  nursery: Nursery,
  options: TortureOptions,
  report: (line: string) => void,
): Promise<Run> {
  const { memberCount, plan, protocol, seed, ttlMs } = options;
  const dice = new Dice(seed);
  const incidents: Incident[] = [];
  const onIncident = (incident: Incident): void => {
    incidents.push(incident);
    report(`${incident.kind}: ${incident.text}`);
  };

  // 1
  const numberPath = join(directory, "number");
  NumberFile.create(numberPath);
  const faults: readonly FaultName[] = plan.kind === "mixed" ? plan.faults : [];
  const cluster = await Cluster.open({
    nursery,
    directory,
    protocol,
    memberCount,
    clientNames: [...Array.from({ length: clientCount }, (_, slot) => slotName(slot)), witnessName],
    network: faults.some((fault) => networkFaults.includes(fault)) ? options.network : undefined,
    hasAfflictions: faults.some((fault) => afflictedFaults.includes(fault)),
    hasDrift: faults.includes("clock"),
    dice: dice.fork(),
    onIncident,
  });
  const startedAtMs = monotonicMs();
  cluster.startAll();
  if (!(await cluster.becomesWhole(startMsMax))) throw new Error(`The cluster did not start. ${cluster.logTails()}`);
  const { pbft } = cluster;
  const pbftAccess = (slot: number) => (pbft as NonNullable<typeof pbft>).access(slotName(slot));
  const fleet = new Fleet({
    nursery,
    url: cluster.url,
    directory,
    ttlMs,
    ...(pbft === undefined ? {} : { pbftAccess }),
    dice: dice.fork(),
    onIncident,
  });
  fleet.startAll();
  if (!(await until(() => fleet.areAllReady, { withinMs: startMsMax }))) throw new Error("The clients did not start.");
  const witness = await openWitness(cluster, numberPath);
  const prober = new Prober(witness.write);

  // 2
  const faultsPath = join(directory, "faults.jsonl");
  const log = (line: FaultLine): void => appendFileSync(faultsPath, `${JSON.stringify(line)}\n`);
  const nemesis = new Nemesis({ cluster, fleet, prober, dice: dice.fork(), log, onIncident });
  const torturedFromMs = monotonicMs();
  const progress = setInterval(() => report(progressOf({ fleet, nemesis, startedAtMs: torturedFromMs })), progressEveryMs);
  const isDone = nemesis.run(plan);
  await Promise.race([isDone, pause(options.durationMs)]);
  const torturedMs = monotonicMs() - torturedFromMs;

  // 3
  nemesis.end();
  await isDone;
  cluster.cuts?.mendAll();
  for (const { child } of [...cluster.members, ...fleet.all]) child?.resume();
  cluster.startAll();
  if (!(await cluster.becomesWhole(healMsMax))) {
    const statuses = JSON.stringify(await cluster.statuses());
    onIncident({
      kind: "no-recovery",
      text: `${healMsMax} ms after the last fault the members are not whole again: ${statuses}`,
    });
  }

  // 4
  clearInterval(progress);
  for (const { name } of await fleet.finish(finishMsMax)) {
    onIncident({ kind: "client-stuck", text: `client ${name} had not ended ${finishMsMax} ms after it was asked to` });
  }
  await prober.stop();

  // 5
  const final = await readFinalState(witness, onIncident);
  const revisions = await cluster.settledRevisions(settleMsMax);
  // A replica of PBFT that missed something gets it with the next checkpoint: only more requests can tell.
  const isBehind = pbft !== undefined && !(await cluster.catchesUp(Math.max(...revisions), witness.write));
  if (pbft === undefined ? new Set(revisions).size !== 1 || revisions.length < cluster.members.length : isBehind) {
    onIncident({ kind: "members-differ", text: `at rest the members are at the revisions ${revisions.join(", ")}` });
  }
  await witness.close();
  for (const { child } of cluster.members) child?.allowEnd();
  await nursery.close();
  await cluster.close();

  const clients = fleet.all.map((client): ClientRecord => {
    const { name, slot, incarnation, child } = client;
    const events = journalOf(join(directory, `client-${name}.jsonl`));
    return { name, slot, incarnation, events, stops: child.stops, killedAtMs: child.killedAtMs };
  });
  const { leaderKills, memberKills, clientKills, memberStops, clientStops, others } = nemesis;
  return {
    directory,
    evidence: { ttlMs, startedAtMs, clientCount, clients, probes: prober.probes, final, incidents },
    leaderKills,
    faults: {
      leaderKills: leaderKills.length,
      memberKills,
      clientKills,
      memberStops,
      clientStops,
      selfStops: fleet.selfStops,
      others: Object.fromEntries(others),
      ownEnds: cluster.expectedEnds,
    },
    torturedMs,
  };
}

function progressOf({
  fleet,
  nemesis,
  startedAtMs,
}: {
  readonly fleet: Fleet;
  readonly nemesis: Nemesis;
  readonly startedAtMs: number;
}): string {
  const { grants, operations } = fleet.progress;
  const { clientKills, clientStops, leaderKills, memberKills, memberStops } = nemesis;
  const seconds = Math.round((monotonicMs() - startedAtMs) / 1_000);
  const kills = leaderKills.length + memberKills + clientKills;
  const stops = clientStops + memberStops + fleet.selfStops;
  return `${seconds} s: ${operations} operations, ${grants} grants, ${kills} kills (${leaderKills.length} of the leader), ${stops} stops`;
}

/** Undefined, and an incident, when the healed cluster does not answer. */
async function readFinalState(witness: Witness, onIncident: (incident: Incident) => void): Promise<FinalState | undefined> {
  try {
    return await witness.readFinal();
  } catch (error) {
    if (!(error instanceof ConclaveError)) throw error;
    onIncident({ kind: "no-recovery", text: `the final state could not be read: ${error.message}` });
    return undefined;
  }
}

/** Empty for a client that was killed before it could begin one. */
function journalOf(path: string): JournalEvent[] {
  try {
    return readJournal(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** In a Byzantine cluster each incarnation of a slot goes by the slot's key. */
function slotName(slot: number): string {
  return `client-${slot}`;
}
