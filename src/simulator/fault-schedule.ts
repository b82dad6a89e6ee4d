/**
 * The adversary: from a seed it decides which kinds of fault this run knows at all, and when each strikes.
 *
 * Every kind can be absent from a run ("swarm testing", Groce et al., ISSTA 2012): a network that always loses hides the
 * bugs that only a clogged one shows. Crashes prefer the leader, because that is where the rare branches are.
 */
import type { Datagrams } from "./datagrams.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";

export interface FaultTarget {
  readonly members: readonly string[];
  leader(): string | undefined;
  isUp(member: string): boolean;
  crash(member: string): void;
  restart(member: string): void;
  pause(member: string, durationMs: number): void;
  /** The connection between two members breaks and comes back: what was in flight is gone. */
  breakLink(from: string, to: string): void;
  slowDisk(member: string, factor: number): void;
}

const kinds = ["crash", "crash-all", "pause", "cut", "one-way", "clog", "isolate", "break", "slow-disk", "network"] as const;
export type FaultKind = (typeof kinds)[number];

/** A blink, a while, and longer than a lease. */
const durationsMs = [
  [5, 100],
  [100, 3_000],
  [100, 3_000],
  [3_000, 9_000],
] as const;

export class FaultSchedule {
  readonly enabled: readonly FaultKind[];
  readonly #queue: EventQueue;
  readonly #random: Random;
  readonly #target: FaultTarget;
  readonly #network: Datagrams;
  readonly #paceMs: number;
  #stopped = false;

  constructor(parts: {
    readonly queue: EventQueue;
    readonly random: Random;
    readonly target: FaultTarget;
    readonly network: Datagrams;
  }) {
    this.#queue = parts.queue;
    this.#random = parts.random;
    this.#target = parts.target;
    this.#network = parts.network;
    this.enabled = kinds.filter((kind) => kind === "crash" || this.#random.chance(0.6));
    this.#paceMs = this.#random.between(300, 2_000);
    this.#shapeNetwork();
    this.#plan();
  }

  /** No further fault; everything broken is mended. */
  heal(): void {
    this.#stopped = true;
    this.#network.faults = { delayMsMin: 0.2, delayMsMean: 1, tailChance: 0, tailMs: 0, lossChance: 0, duplicateChance: 0 };
    for (const from of this.#target.members) {
      this.#target.slowDisk(from, 1);
      for (const to of this.#target.members) this.#network.open(from, to);
      if (!this.#target.isUp(from)) this.#target.restart(from);
    }
  }

  #plan(): void {
    this.#queue.schedule(this.#random.between(0, 2 * this.#paceMs), () => {
      if (this.#stopped) return;
      this.#strike(this.#random.pick(this.enabled));
      this.#plan();
    });
  }

  #strike(kind: FaultKind): void {
    const { members } = this.#target;
    const leader = this.#target.leader();
    const victim = leader !== undefined && this.#random.chance(0.6) ? leader : this.#random.pick(members);
    const other = this.#random.pick(members.filter((member) => member !== victim));
    const [shortest, longest] = this.#random.pick(durationsMs);
    const lastsMs = this.#random.between(shortest, longest);
    switch (kind) {
      case "crash":
        this.#crash(victim, lastsMs);
        break;
      case "crash-all":
        for (const member of members) this.#crash(member, this.#random.between(1, 500));
        break;
      case "pause":
        if (this.#target.isUp(victim)) this.#target.pause(victim, lastsMs);
        break;
      case "cut":
        this.#block(
          [
            [victim, other],
            [other, victim],
          ],
          "cut",
          lastsMs,
        );
        break;
      case "one-way":
        this.#block([[victim, other]], "cut", lastsMs);
        break;
      case "clog":
        this.#block(
          this.#random.chance(0.5)
            ? [[victim, other]]
            : members.filter((member) => member !== victim).map((member) => [member, victim] as const),
          "clog",
          lastsMs,
        );
        break;
      case "isolate":
        this.#block(
          members
            .filter((member) => member !== victim)
            .flatMap(
              (member) =>
                [
                  [member, victim],
                  [victim, member],
                ] as const,
            ),
          "cut",
          lastsMs,
        );
        break;
      case "break":
        this.#target.breakLink(victim, other);
        break;
      case "slow-disk":
        this.#target.slowDisk(victim, this.#random.pick([1, 5, 50]));
        break;
      case "network":
        this.#shapeNetwork();
        break;
    }
  }

  #crash(member: string, downMs: number): void {
    if (!this.#target.isUp(member)) return;
    this.#target.crash(member);
    this.#queue.schedule(downMs, () => {
      if (!this.#target.isUp(member)) this.#target.restart(member);
    });
  }

  #block(pairs: readonly (readonly [string, string])[], how: "cut" | "clog", lastsMs: number): void {
    for (const [from, to] of pairs) this.#network[how](from, to);
    this.#queue.schedule(lastsMs, () => {
      for (const [from, to] of pairs) this.#network.open(from, to);
    });
  }

  #shapeNetwork(): void {
    const lossy = this.#random.chance(0.5);
    const tailed = this.#random.chance(0.5);
    this.#network.faults = {
      delayMsMin: 0.1,
      delayMsMean: this.#random.pick([0.5, 1, 5, 20]),
      tailChance: tailed ? this.#random.between(0, 0.05) : 0,
      tailMs: this.#random.between(50, 3_000),
      lossChance: lossy ? this.#random.between(0, 0.1) : 0,
      duplicateChance: this.#random.chance(0.5) ? this.#random.between(0, 0.1) : 0,
    };
  }
}
