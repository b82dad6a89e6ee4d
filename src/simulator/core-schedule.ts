/**
 * A seed of the core world as a schedule, and a schedule as a run of the core world.
 */
import { CoreWorld, type CoreWorldReport, drawSetup } from "./core-world.ts";
import { FaultFilter } from "./fault-filter.ts";
import { protocols, type SimulatedProtocol } from "./protocols.ts";
import type { RunFloors } from "./run-floors.ts";
import { type Schedule, scheduleFormat, scheduleVersion } from "./schedule.ts";
import type { Broken } from "./shrink.ts";

/** What the seed does to a group until it breaks; undefined when it does not. */
export function scheduleOfSeed(
  seed: number,
  {
    protocol,
    floors,
    filter = new FaultFilter(),
  }: { readonly protocol: string; readonly floors: RunFloors; readonly filter?: FaultFilter },
): Schedule | undefined {
  const simulated = protocolOf(protocol);
  const setup = drawSetup(seed, simulated, filter);
  const world = new CoreWorld({ protocol: simulated, setup, dice: seed, records: true });
  const broken = breaks(world, () => world.run(floors, filter));
  if (broken === undefined) return undefined;
  return {
    format: scheduleFormat,
    version: scheduleVersion,
    protocol,
    world: "core",
    dice: seed,
    setup,
    events: world.events,
    healAtMs: world.healedAtMs ?? broken.atMs,
    found: { invariant: broken.invariant, message: broken.message, seed },
  };
}

export function replaySchedule(schedule: Schedule): { readonly report?: CoreWorldReport; readonly broken?: Broken } {
  const { setup, dice } = schedule;
  const world = new CoreWorld({ protocol: protocolOf(schedule.protocol), setup, dice });
  let report: CoreWorldReport | undefined;
  const broken = breaks(world, () => {
    report = world.replay(schedule);
  });
  return { ...(report === undefined ? {} : { report }), ...(broken === undefined ? {} : { broken }) };
}

function breaks(world: CoreWorld, run: () => unknown): Broken | undefined {
  try {
    run();
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
