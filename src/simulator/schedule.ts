/**
 * What happened to a world, as data: the group it began with, every fault and every request with its time. A failing seed
 * is saved as one, reduced to the few events that matter (`shrink.ts`), and replayed on any later version.
 *
 * The file is described in `docs/schedule-format.md`. What an event leaves to chance (how long a letter travels, which part
 * of a write survives) is thrown by `dice`, one stream per link and member, so that taking one event out changes little of
 * what happens elsewhere.
 */
import type { MemberId, MembershipChange, ReadLevel } from "../consensus/core.ts";
import type { NetworkFaults } from "./datagrams.ts";
import type { StackAmbush } from "./stack-ambushes.ts";

export type LinkPair = readonly [from: MemberId, to: MemberId];

export type FaultEvent =
  /** The power of the member fails: any prefix of what was on its way to the disk may have arrived. */
  | { readonly do: "crash"; readonly member: MemberId; readonly forMs: number }
  | { readonly do: "pause"; readonly member: MemberId; readonly forMs: number }
  /** Letters on these links are lost. */
  | { readonly do: "cut"; readonly links: readonly LinkPair[]; readonly forMs: number }
  /** Letters on these links are held and arrive when it ends. */
  | { readonly do: "clog"; readonly links: readonly LinkPair[]; readonly forMs: number }
  /** The connection between the two breaks and comes back. */
  | { readonly do: "break"; readonly from: MemberId; readonly to: MemberId }
  | { readonly do: "slow-disk"; readonly member: MemberId; readonly factor: number; readonly forMs: number }
  | { readonly do: "network"; readonly faults: NetworkFaults }
  /**
   * The next member that comes to this moment is struck there: `crash`; `pause`; `all-but-one`: cut off from everybody except
   * one (by its place among the others), while the disks of the rest are slow. In the core world.
   */
  | {
      readonly do: "ambush";
      readonly at: Moment;
      readonly strike: "crash" | "pause" | "all-but-one";
      readonly one: number;
      readonly forMs: number;
    }
  | DiskFaultEvent;

/**
 * Steps at which a fault counts double. `claim`: the first letter of a bid for a new term, ballot or epoch leaves; `install`: a
 * snapshot of another has been put in place of the log, and the protocol does not know it yet.
 */
export type Moment = "claim" | "install";

/** Only where members have real disks; the core world knows none of them. */
export type DiskFaultEvent =
  /** One bit of a file decays. */
  | { readonly do: "bit-flip"; readonly member: MemberId }
  /** The next durable write lands in another place of its file. */
  | { readonly do: "misdirect"; readonly member: MemberId }
  /** No space is left; the member stops by itself and is started again when there is some. */
  | { readonly do: "disk-full"; readonly member: MemberId; readonly forMs: number }
  /** So many writes and syncs fail, having happened in any part; the member stops by itself and is started again. */
  | { readonly do: "fail-writes"; readonly member: MemberId; readonly count: number; readonly forMs: number };

export type LoadEvent =
  | { readonly do: "submit"; readonly member: MemberId; readonly ticket: number }
  | { readonly do: "read"; readonly member: MemberId; readonly ticket: number; readonly level: ReadLevel }
  /** Somebody asks for a member to be added, promoted or removed. */
  | { readonly do: "change"; readonly member: MemberId; readonly ticket: number; readonly change: MembershipChange }
  /** Somebody asks the leader to hand over. */
  | { readonly do: "transfer"; readonly member: MemberId; readonly ticket: number; readonly to?: MemberId };

/** Only where there are clients and real disks: the stack world. */
export type StackEvent =
  /** The client begins its work. One that never does only has to be served at the end. */
  | { readonly do: "client"; readonly client: string }
  | { readonly do: "client-pause"; readonly client: string; readonly forMs: number }
  /** The member loses its disk, and is started again on an empty one. */
  | { readonly do: "wipe"; readonly member: MemberId; readonly forMs: number };

export type CoreWorldEvent = FaultEvent | LoadEvent;
export type StackWorldEvent = FaultEvent | StackEvent;
export type Timed<Event> = { readonly atMs: number } & Event;
export type TimedEvent = Timed<CoreWorldEvent | StackEvent>;

export function isLoad(event: CoreWorldEvent): event is LoadEvent {
  return event.do === "submit" || event.do === "read" || event.do === "change" || event.do === "transfer";
}

/** A group as it is formatted. */
export interface Setup {
  readonly voters: readonly MemberId[];
  /** They run from the start and belong to nothing until they are added. */
  readonly spares: readonly MemberId[];
  /** Of the protocol's cores; `makeCore` takes them. */
  readonly limits: Readonly<Record<string, unknown>>;
  /** A member takes a snapshot when so many entries were delivered since the last. */
  readonly snapshotEvery: number;
  /** By member: its monotonic clock shows `offsetMs + rate * true time`. */
  readonly clocks: Readonly<Record<MemberId, { readonly offsetMs: number; readonly rate: number }>>;
}

/** A cluster of whole members with its clients. */
export interface StackSetup {
  /** Of the protocol's cores. */
  readonly limits: Readonly<Record<string, unknown>>;
  readonly segmentBytes: number;
  readonly snapshotEveryBytes: number;
  /** Letters go as datagrams (lost, doubled, out of order) or over connections, as in production. */
  readonly datagrams: boolean;
  /** By member and client: how fast its clock runs. */
  readonly rates: Readonly<Record<string, number>>;
  /** Whether the clients of `shared-workload.ts` are there as well. Default false, as in schedules from before there were any. */
  readonly sharing?: boolean;
  /** A rare case that this run makes on purpose, see `stack-ambushes.ts`. Default: none. */
  readonly ambush?: StackAmbush;
}

export const scheduleFormat = "conclave-schedule";
/** A reader of version 1 would take a stack schedule for one of cores. */
export const scheduleVersions = { core: 1, stack: 2 } as const;

interface ScheduleHead {
  readonly format: typeof scheduleFormat;
  readonly protocol: string;
  readonly dice: number;
  /** When everything broken is mended; the group has to come together after it. */
  readonly healAtMs: number;
  /** What it showed when it was saved, and where it came from. */
  readonly found?: { readonly invariant: string; readonly message: string; readonly seed?: number; readonly mutant?: string };
}

export interface CoreSchedule extends ScheduleHead {
  readonly world: "core";
  readonly version: typeof scheduleVersions.core;
  readonly setup: Setup;
  /** In the order of their times. */
  readonly events: readonly Timed<CoreWorldEvent>[];
}

export interface StackSchedule extends ScheduleHead {
  readonly world: "stack";
  readonly version: typeof scheduleVersions.stack;
  readonly setup: StackSetup;
  readonly events: readonly Timed<StackWorldEvent>[];
}

export type Schedule = CoreSchedule | StackSchedule;

/** @throws Error naming what is wrong with the file */
export function parseSchedule(text: string): Schedule {
  const value = JSON.parse(text) as Partial<Schedule>;
  if (value.format !== scheduleFormat) throw new Error(`This is no schedule: "format" is not "${scheduleFormat}".`);
  const { core, stack } = scheduleVersions;
  if (value.version !== core && value.version !== stack)
    throw new Error(`The schedule is of version ${value.version}; this simulator reads ${core} and ${stack}.`);
  for (const name of ["protocol", "world", "dice", "setup", "events", "healAtMs"] as const)
    if (value[name] === undefined) throw new Error(`The schedule lacks "${name}".`);
  if (value.world === undefined || scheduleVersions[value.world] !== value.version)
    throw new Error(`The schedule is of version ${value.version} and of the world "${value.world}", which do not go together.`);
  return value as Schedule;
}

/** One event a line: a person reads it, and a diff shows what changed. */
export function formatSchedule(schedule: Schedule): string {
  const { events, ...head } = schedule;
  const lines = events.map((event) => `    ${JSON.stringify(event)}`).join(",\n");
  return `${JSON.stringify(head, null, 2).slice(0, -2)},\n  "events": [\n${lines}\n  ]\n}\n`;
}
