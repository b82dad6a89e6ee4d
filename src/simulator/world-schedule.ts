/**
 * A seed of an agreement's world as a schedule, and a schedule as a run of that world.
 */
import { CoreWorld, drawSetup } from "./core-world.ts";
import { FaultFilter } from "./fault-filter.ts";
import { protocols, type SimulatedProtocol } from "./protocols.ts";
import type { RunFloors } from "./run-floors.ts";
import { type Schedule, scheduleFormat, scheduleVersions } from "./schedule.ts";
import type { Broken } from "./shrink.ts";
import { drawStackSetup, World } from "./world.ts";

type Drain = () => Promise<void>;

/** What the seed does to a group until it breaks; undefined when it does not. */
export async function scheduleOfSeed(
  seed: number,
  parts: {
    readonly protocol: string;
    readonly world: Schedule["world"];
    readonly floors: RunFloors;
    readonly drain: Drain;
    readonly filter?: FaultFilter;
  },
): Promise<Schedule | undefined> {
  const { floors, drain, filter = new FaultFilter() } = parts;
  const protocol = protocolOf(parts.protocol);
  const headOf = (broken: Broken, healedAtMs: number | undefined) => ({
    format: scheduleFormat as typeof scheduleFormat,
    protocol: parts.protocol,
    dice: seed,
    healAtMs: healedAtMs ?? broken.atMs,
    found: { invariant: broken.invariant, message: broken.message, seed },
  });
  if (parts.world === "core") {
    const setup = drawSetup(seed, protocol, filter);
    const world = new CoreWorld({ protocol, setup, dice: seed, records: true });
    const broken = await breaks(world, () => world.run(floors, filter));
    if (broken === undefined) return undefined;
    const { events, healedAtMs } = world;
    return { ...headOf(broken, healedAtMs), world: "core", version: scheduleVersions.core, setup, events };
  }
  const setup = drawStackSetup(seed, protocol, filter);
  const world = new World(seed, { protocol, setup, drain, filter, records: true });
  const broken = await breaks(world, () => world.run(floors));
  if (broken === undefined) return undefined;
  const { events, healedAtMs } = world;
  return { ...headOf(broken, healedAtMs), world: "stack", version: scheduleVersions.stack, setup, events };
}

export async function replaySchedule(
  schedule: Schedule,
  drain: Drain,
): Promise<{ readonly report?: { readonly traceHash: number }; readonly broken?: Broken }> {
  const protocol = protocolOf(schedule.protocol);
  const { dice } = schedule;
  let report: { readonly traceHash: number } | undefined;
  let broken: Broken | undefined;
  if (schedule.world === "core") {
    const world = new CoreWorld({ protocol, setup: schedule.setup, dice });
    broken = await breaks(world, () => {
      report = world.replay(schedule);
    });
  } else {
    const world = new World(dice, { protocol, setup: schedule.setup, drain });
    broken = await breaks(world, async () => {
      report = await world.replay(schedule);
    });
  }
  return { ...(report === undefined ? {} : { report }), ...(broken === undefined ? {} : { broken }) };
}

async function breaks(world: { readonly nowMs: number }, run: () => unknown): Promise<Broken | undefined> {
  try {
    await run();
    return undefined;
  } catch (error) {
    const { name, message, invariant } = error as Error & { invariant?: string };
    return { invariant: invariant ?? name, message, atMs: world.nowMs };
  }
}

function protocolOf(name: string): SimulatedProtocol<unknown> {
  const protocol = protocols[name];
  if (protocol === undefined) throw new Error(`No world runs the protocol "${name}" from a schedule.`);
  return protocol;
}
