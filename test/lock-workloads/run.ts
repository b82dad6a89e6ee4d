/**
 * Jepsen's lock workloads on one engine, from empty servers to a verdict. Clients, journals and judges are torture's.
 *
 *   linearizable lock   who holds, when: tokens rise in the order of grants, nobody counts as holder after a later grant
 *   locked set          a number in an ordinary file, read, thought about and written under a lock: nothing guards it
 *   guarded set         a set in the store, each addition guarded by the hold: nothing may be lost, whoever sleeps
 *
 * and registers beside them. Source: jepsen-io/etcd, src/jepsen/etcd/lock.clj (LinearizableLockClient, LockingSetClient,
 * LockingEtcdSetClient). Where Jepsen asks Knossos for a mutex, which every lost lease breaks, tokens and `held` are judged.
 * The unguarded one may lose an update only to a holder that was stopped after its last look at the clock.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/index.ts";
import { Nursery } from "../../src/torture/child.ts";
import { monotonicMs } from "../../src/torture/clock.ts";
import { Dice } from "../../src/torture/dice.ts";
import type { ClientRecord, FinalState, Incident, Violation, ViolationKind } from "../../src/torture/evidence.ts";
import { clientCount, Fleet } from "../../src/torture/fleet.ts";
import { readJournal } from "../../src/torture/journal.ts";
import { judge, type Verdict } from "../../src/torture/judge.ts";
import { stopMoments } from "../../src/torture/messages.ts";
import { NumberFile } from "../../src/torture/number-file.ts";
import { pause, until } from "../../src/torture/pause.ts";
import { readFinalState } from "../../src/torture/witness.ts";
import type { Rig } from "./rigs.ts";

export interface WorkloadOptions {
  readonly rig: Rig;
  readonly ttlMs: number;
  readonly seed: number;
  readonly durationMs: number;
  readonly keep: boolean;
}

export interface WorkloadResult {
  /** Without what `excused` holds. */
  readonly verdict: Verdict;
  /**
   * What broke, and may: where `caps.linearizable` is not `always`, a failover may end leases that live (etcd before 3.4.31 and
   * 3.5.13), and with them whatever rests on a holder's clock. Tokens, the guarded set and the registers are never excused.
   */
  readonly excused: readonly Violation[];
  readonly faults: Readonly<Record<Fault, number>>;
  /** Kept after a violation, or where that was asked for. */
  readonly directory: string | undefined;
}

/** What rests on leases that last as long as their holders believe. */
const restsOnLeases: ReadonlySet<ViolationKind> = new Set([
  "two-holders",
  "guard-refused-holder",
  "file-write-late",
  "file-update-lost",
]);

type Fault = "client-stop" | "self-stop" | "client-kill" | "server-pause" | "server-kill";

const startMsMax = 60_000;
const finishMsMax = 60_000;
const judgeMsMax = 60_000;
const calmMsMin = 50;
const calmMsMax = 250;
/** Only an addition that comes late shows whether its guard holds: it is asked for as often as the two others. */
const moments = [...stopMoments, "before-addition"] as const;
/** Who is to stay awake of the clients. */
const awakeMin = 1;

export async function runWorkloads({ durationMs, keep, rig, seed, ttlMs }: WorkloadOptions): Promise<WorkloadResult> {
  const directory = mkdtempSync(join(tmpdir(), "conclave-lock-workloads-"));
  const numberPath = join(directory, "number");
  NumberFile.create(numberPath);
  const nursery = new Nursery(directory, { keep: true });
  const incidents: Incident[] = [];
  const dice = new Dice(seed);
  const fleet = new Fleet({
    nursery,
    url: rig.url,
    directory,
    ttlMs,
    dice: dice.fork(),
    onIncident: (incident) => incidents.push(incident),
  });
  const faults = { "client-stop": 0, "self-stop": 0, "client-kill": 0, "server-pause": 0, "server-kill": 0 };
  const startedAtMs = monotonicMs();
  let final: FinalState | undefined;
  try {
    fleet.startAll();
    if (!(await until(() => fleet.areAllReady, { withinMs: startMsMax })))
      throw new Error(`The clients did not start. ${fleet.all.map(({ child }) => child.logTail()).join("\n")}`);
    await haunt({ rig, fleet, dice: dice.fork(), ttlMs, untilMs: monotonicMs() + durationMs, faults });
    for (const { name } of await fleet.finish(finishMsMax))
      incidents.push({ kind: "client-stuck", text: `client ${name} had not ended ${finishMsMax} ms after it was asked to` });
    faults["self-stop"] = fleet.selfStops;
    final = await readFinal(rig.url, numberPath, incidents);
  } finally {
    await nursery.close();
  }
  const clients = fleet.all.map(({ child, incarnation, name, slot }): ClientRecord => {
    const events = readJournal(join(directory, `client-${name}.jsonl`));
    return { name, slot, incarnation, events, stops: child.stops, killedAtMs: child.killedAtMs };
  });
  const verdict = judge(
    { ttlMs, startedAtMs, clientCount, clients, probes: [], final, incidents },
    { timeLimit: { now: monotonicMs, maxMs: judgeMsMax } },
  );
  const isExcused = ({ kind }: Violation): boolean => !rig.keepsLeases && restsOnLeases.has(kind);
  const violations = verdict.violations.filter((violation) => !isExcused(violation));
  const isKept = keep || violations.length > 0;
  if (!isKept) rmSync(directory, { recursive: true, force: true });
  return {
    verdict: { ...verdict, violations },
    excused: verdict.violations.filter(isExcused),
    faults,
    directory: isKept ? directory : undefined,
  };
}

interface Haunting {
  readonly rig: Rig;
  readonly fleet: Fleet;
  readonly dice: Dice;
  readonly ttlMs: number;
  readonly untilMs: number;
  readonly faults: Record<Fault, number>;
}

/** Clients and servers are haunted side by side; resolves when all is healed. */
async function haunt(haunting: Haunting): Promise<void> {
  const own = (): Haunting => ({ ...haunting, dice: haunting.dice.fork() });
  await Promise.all([hauntClients(own()), hauntServers(own())]);
}

/** Some of the clients sleep at any time; those that stop themselves do so under a lock, and for longer than it lasts. */
async function hauntClients({ dice, faults, fleet, ttlMs, untilMs }: Haunting): Promise<void> {
  const asleep: Promise<void>[] = [];
  const lengthMs = (): number => dice.between(ttlMs / 4, 2 * ttlMs);
  while (monotonicMs() < untilMs) {
    await pause(dice.between(calmMsMin, calmMsMax));
    if (fleet.awake.length <= awakeMin) continue;
    const target = dice.pick(fleet.awake);
    const what = dice.float();
    if (what < 0.6)
      fleet.order(target, { kind: "stop-at", moment: dice.pick(moments), forMs: dice.between(1.2 * ttlMs, 2 * ttlMs) });
    else if (what < 0.9) {
      faults["client-stop"]++;
      target.child.stop();
      asleep.push(pause(lengthMs()).then(() => target.child.resume()));
    } else {
      faults["client-kill"]++;
      target.child.kill();
      fleet.start(target.slot);
    }
  }
  await Promise.all(asleep);
}

async function hauntServers({ dice, faults, rig, ttlMs, untilMs }: Haunting): Promise<void> {
  while (monotonicMs() < untilMs) {
    await pause(dice.between(ttlMs, 3 * ttlMs));
    if (dice.chance(0.6)) {
      faults["server-pause"]++;
      const wake = await rig.pause();
      await pause(dice.between(ttlMs / 5, 1.6 * ttlMs));
      await wake();
    } else {
      faults["server-kill"]++;
      const restart = await rig.kill();
      await pause(dice.between(0, ttlMs / 2));
      await restart();
    }
  }
}

/** Undefined, and an incident, when the healed servers do not answer. */
async function readFinal(url: string, numberPath: string, incidents: Incident[]): Promise<FinalState | undefined> {
  try {
    await using conclave = await connect({ url, timeoutMs: 30_000 });
    return await readFinalState(conclave, numberPath);
  } catch (error) {
    incidents.push({ kind: "no-recovery", text: `the final state could not be read: ${String(error)}` });
    return undefined;
  }
}
