/**
 * The adversary: from its dice it decides which kinds of fault this run knows at all, and when each strikes.
 *
 * Every kind can be absent from a run ("swarm testing", Groce et al., ISSTA 2012): a network that always loses hides the
 * bugs that only a clogged one shows. Crashes prefer the leader, because that is where the rare branches are. What it
 * decides is an event with nothing left open but what `dice` throws, so that a run can be written down and replayed.
 */
import type { EventQueue } from "./event-queue.ts";
import { diskFaults, FaultFilter, scheduledFaults } from "./fault-filter.ts";
import type { FaultTarget } from "./fault-player.ts";
import type { Random } from "./random.ts";
import type { FaultEvent, LinkPair } from "./schedule.ts";

export type FaultKind = (typeof scheduledFaults)[number] | (typeof diskFaults)[number];

/** A blink, a while, and longer than a lease. */
const durationsMs = [
  [5, 100],
  [100, 3_000],
  [100, 3_000],
  [3_000, 9_000],
] as const;

/** What each strike of an ambush consists of. */
const strikeKinds = { crash: ["crash"], pause: ["pause"], "all-but-one": ["cut", "slow-disk"] } as const;

export class FaultSchedule {
  readonly enabled: readonly FaultKind[];
  readonly #queue: EventQueue;
  readonly #random: Random;
  readonly #target: FaultTarget;
  readonly #strike: (event: FaultEvent) => void;
  readonly #filter: FaultFilter;
  readonly #paceMs: number;
  #stopped = false;

  constructor(parts: {
    readonly queue: EventQueue;
    readonly random: Random;
    readonly target: FaultTarget;
    readonly strike: (event: FaultEvent) => void;
    /** Default: everything, as the seed draws. */
    readonly filter?: FaultFilter;
    /** Dice of their own, so that a seed without ambushes is what it was before there were any. Absent: this world has none. */
    readonly ambushes?: Random;
  }) {
    this.#queue = parts.queue;
    this.#random = parts.random;
    this.#target = parts.target;
    this.#strike = parts.strike;
    this.#filter = parts.filter ?? new FaultFilter();
    const possible: readonly FaultKind[] =
      parts.target.damageDisk === undefined ? scheduledFaults : [...scheduledFaults, ...diskFaults];
    const drawn = possible.filter((kind) => kind === "crash" || this.#random.chance(0.6));
    this.enabled = this.#filter.choose(possible, drawn);
    this.#paceMs = this.#random.between(300, 2_000);
    const network = this.#network();
    if (this.#filter.allows("network")) this.#strike(network);
    if (this.enabled.length > 0) this.#plan();
    if (parts.ambushes !== undefined && this.#filter.has("ambush", parts.ambushes.chance(0.4))) this.#planAmbush(parts.ambushes);
  }

  stop(): void {
    this.#stopped = true;
  }

  #plan(): void {
    this.#queue.schedule(this.#random.between(0, 2 * this.#paceMs), () => {
      if (this.#stopped) return;
      for (const event of this.#draw(this.#random.pick(this.enabled))) this.#strike(event);
      this.#plan();
    });
  }

  /** A leader is struck where it counts: in the middle of its bid, or between a snapshot and what belongs to it. */
  #planAmbush(random: Random): void {
    this.#queue.schedule(random.between(0, 4 * this.#paceMs), () => {
      if (this.#stopped) return;
      this.#planAmbush(random);
      if (random.chance(0.3)) {
        if (!this.#filter.rulesOut("crash") && !this.#filter.rulesOut("cut")) this.#forget(random);
        return;
      }
      const at = random.pick(["claim", "claim", "install"] as const);
      const strike = at === "install" ? "crash" : random.pick(["crash", "pause", "all-but-one", "all-but-one"] as const);
      if (strikeKinds[strike].some((kind) => this.#filter.rulesOut(kind))) return;
      this.#strike({ do: "ambush", at, strike, one: random.integer(0, 5), forMs: random.between(10, 3_000) });
    });
  }

  /**
   * The leader loses sight of all but one member, and a moment later of that one, too, which restarts just then: whatever it
   * had promised to that leader without writing it down, the others ask it for the contrary while the promise still stands.
   */
  #forget(random: Random): void {
    const leader = this.#target.leader();
    if (leader === undefined) return;
    const others = this.#target.members.filter((member) => member !== leader);
    const last = random.pick(others);
    const linksTo = (members: readonly string[]): readonly LinkPair[] =>
      bothWays(members.map((member) => [leader, member] as const));
    this.#strike({ do: "cut", links: linksTo(others.filter((member) => member !== last)), forMs: 2_000 });
    const downMs = random.between(1, 40);
    this.#queue.schedule(random.between(50, 500), () => {
      if (this.#stopped) return;
      this.#strike({ do: "cut", links: linksTo([last]), forMs: 1_500 });
      this.#strike({ do: "crash", member: last, forMs: downMs });
    });
  }

  #draw(kind: FaultKind): readonly FaultEvent[] {
    const { members } = this.#target;
    const leader = this.#target.leader();
    const isBiased = leader !== undefined && this.#random.chance(0.6) && this.#filter.allows("leader-bias");
    const victim = isBiased ? leader : this.#random.pick(members);
    const others = members.filter((member) => member !== victim);
    const other = this.#random.pick(others);
    const [shortest, longest] = this.#random.pick(durationsMs);
    const forMs = this.#random.between(shortest, longest);
    switch (kind) {
      case "crash":
        return [{ do: "crash", member: victim, forMs }];
      case "crash-all":
        return members.map((member) => ({ do: "crash", member, forMs: this.#random.between(1, 500) }));
      case "pause":
        return [{ do: "pause", member: victim, forMs }];
      case "cut":
        return [{ do: "cut", links: bothWays([[victim, other]]), forMs }];
      case "one-way":
        return [{ do: "cut", links: [[victim, other]], forMs }];
      case "clog": {
        const links: readonly LinkPair[] = this.#random.chance(0.5)
          ? [[victim, other]]
          : others.map((member) => [member, victim] as const);
        return [{ do: "clog", links, forMs }];
      }
      case "swizzle":
        // FoundationDB's swizzle-clogging: links stop together and come back one by one, in another order.
        return others.map((member) => ({ do: "clog", links: bothWays([[victim, member]]), forMs: forMs * this.#random.float() }));
      case "isolate":
        return [{ do: "cut", links: bothWays(others.map((member) => [member, victim] as const)), forMs }];
      case "sever":
        // As above, and the others are told at once: a router that rejects, a namespace that went. What trusts a broken
        // connection to mean a dead process is wrong here.
        return [
          { do: "cut", links: bothWays(others.map((member) => [member, victim] as const)), forMs },
          ...others.map((member) => ({ do: "break", from: member, to: victim }) as const),
        ];
      case "partial":
        return [{ do: "cut", links: this.#partial(victim, others), forMs }];
      case "break":
        return [{ do: "break", from: victim, to: other }];
      case "slow-disk":
        return [{ do: "slow-disk", member: victim, factor: this.#random.pick([5, 50, 500]), forMs }];
      case "forsake":
        // Cut off with a disk that lags: writes of what the others will overrule are still under way when it hears of it.
        return [
          { do: "slow-disk", member: victim, factor: this.#random.pick([50, 500, 2_000]), forMs: 2 * forMs },
          { do: "cut", links: bothWays(others.map((member) => [member, victim] as const)), forMs },
        ];
      case "network":
        return [this.#network()];
      case "bit-flip":
      case "misdirect":
        return [{ do: kind, member: victim }];
      case "disk-full":
        return [{ do: kind, member: victim, forMs }];
      case "fail-writes":
        return [{ do: kind, member: victim, count: this.#random.integer(1, 3), forMs }];
    }
  }

  /** Connectivity that is not transitive: two halves that only the victim sees both of, or any set of pairs (Howard et al. 2021). */
  #partial(victim: string, others: readonly string[]): readonly LinkPair[] {
    const half = this.#random.integer(1, Math.max(1, others.length - 1));
    const bridge = this.#random.chance(0.5);
    const [left, right] = [others.slice(0, half), others.slice(half)];
    if (bridge) return bothWays(left.flatMap((one) => right.map((two) => [one, two] as const)));
    const everyone = [victim, ...others];
    const pairs = everyone.flatMap((one, at) => everyone.slice(at + 1).map((two) => [one, two] as const));
    return bothWays(pairs.filter(() => this.#random.chance(0.5)));
  }

  #network(): FaultEvent {
    const lossy = this.#random.chance(0.5);
    const tailed = this.#random.chance(0.5);
    return {
      do: "network",
      faults: {
        delayMsMin: 0.1,
        delayMsMean: this.#random.pick([0.5, 1, 5, 20]),
        tailChance: tailed ? this.#random.between(0, 0.05) : 0,
        tailMs: this.#random.between(50, 3_000),
        lossChance: lossy ? this.#random.between(0, 0.1) : 0,
        duplicateChance: this.#random.chance(0.5) ? this.#random.between(0, 0.1) : 0,
      },
    };
  }
}

function bothWays(pairs: readonly LinkPair[]): readonly LinkPair[] {
  return pairs.flatMap(([one, two]) => [
    [one, two],
    [two, one],
  ]);
}
