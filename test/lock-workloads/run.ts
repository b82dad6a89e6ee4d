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
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/index.ts";
import { Nursery } from "../../src/torture/child.ts";
import { monotonicMs } from "../../src/torture/clock.ts";
import { Dice } from "../../src/torture/dice.ts";
import type { ClientRecord, FinalState, Incident } from "../../src/torture/evidence.ts";
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
  readonly verdict: Verdict;
  readonly faults: Readonly<Record<Fault, number>>;
  /** Kept after a violation, or where that was asked for. */
  readonly directory: string | undefined;
}

type Fault = "client-stop" | "self-stop" | "client-kill" | "server-pause" | "server-kill";

const startMsMax = 60_000;
const finishMsMax = 60_000;
const judgeMsMax = 60_000;
const calmMsMin = 200;
const calmMsMax = 700;

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
    await haunt({ rig, fleet, dice: dice.fork(), ttlMs, untilMs: monotonicMs() + durationMs, faults, directory });
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
  const isKept = keep || verdict.violations.length > 0;
  if (!isKept) rmSync(directory, { recursive: true, force: true });
  return { verdict, faults, directory: isKept ? directory : undefined };
}

interface Haunting {
  readonly rig: Rig;
  readonly fleet: Fleet;
  readonly dice: Dice;
  readonly ttlMs: number;
  readonly untilMs: number;
  readonly faults: Record<Fault, number>;
  readonly directory: string;
}

/** One fault after another; resolves when all is healed. */
async function haunt({ dice, directory, faults, fleet, rig, ttlMs, untilMs }: Haunting): Promise<void> {
  const asleep: Promise<void>[] = [];
  const lengthMs = (): number => dice.between(ttlMs / 5, 1.6 * ttlMs);
  while (monotonicMs() < untilMs) {
    await pause(dice.between(calmMsMin, calmMsMax));
    const [fault, act] = choose(dice.float());
    appendFileSync(join(directory, "faults.jsonl"), `${JSON.stringify({ fault, atMs: monotonicMs() })}\n`);
    await act();
  }
  await Promise.all(asleep);

  function choose(what: number): readonly [Fault, () => Promise<void> | void] {
    const { awake } = fleet;
    const target = awake.length > 2 ? dice.pick(awake) : undefined;
    if (target !== undefined && what < 0.35)
      return [
        "client-stop",
        () => {
          faults["client-stop"]++;
          target.child.stop();
          asleep.push(pause(lengthMs()).then(() => target.child.resume()));
        },
      ];
    if (target !== undefined && what < 0.6)
      return ["self-stop", () => fleet.order(target, { kind: "stop-at", moment: dice.pick(stopMoments), forMs: lengthMs() })];
    if (target !== undefined && what < 0.7)
      return [
        "client-kill",
        () => {
          faults["client-kill"]++;
          target.child.kill();
          fleet.start(target.slot);
        },
      ];
    if (what < 0.88)
      return [
        "server-pause",
        async () => {
          faults["server-pause"]++;
          const wake = await rig.pause();
          await pause(lengthMs());
          await wake();
        },
      ];
    return [
      "server-kill",
      async () => {
        faults["server-kill"]++;
        const restart = await rig.kill();
        await pause(dice.between(0, ttlMs / 2));
        await restart();
      },
    ];
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
