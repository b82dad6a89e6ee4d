/**
 * Carries out the faults of a schedule, whoever wrote it: the adversary of `fault-schedule.ts`, or a file.
 */
import { unreachable } from "../base/assert.ts";
import { calmNetwork, type Datagrams } from "./datagrams.ts";
import type { EventQueue } from "./event-queue.ts";
import type { DiskFaultEvent, FaultEvent, LinkPair, Moment } from "./schedule.ts";

type Ambush = Extract<FaultEvent, { do: "ambush" }>;

/** How much slower the disks of the others are while a member is cut off from all but one. */
const ambushDiskFactor = 500;

/** What a world lets be done to its members. */
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
  /** Absent: its members have no real disks. */
  damageDisk?(event: DiskFaultEvent): void;
}

export class FaultPlayer {
  readonly #queue: EventQueue;
  readonly #target: FaultTarget;
  readonly #network: Datagrams;
  #ambushes: readonly Ambush[] = [];

  constructor(parts: { readonly queue: EventQueue; readonly target: FaultTarget; readonly network: Datagrams }) {
    this.#queue = parts.queue;
    this.#target = parts.target;
    this.#network = parts.network;
  }

  play(event: FaultEvent): void {
    switch (event.do) {
      case "crash":
        this.#crash(event.member, event.forMs);
        break;
      case "pause":
        if (this.#target.isUp(event.member)) this.#target.pause(event.member, event.forMs);
        break;
      case "cut":
      case "clog":
        this.#block(event.links, event.do, event.forMs);
        break;
      case "break":
        this.#target.breakLink(event.from, event.to);
        break;
      case "slow-disk":
        this.#slowDisk(event);
        break;
      case "network":
        this.#network.faults = event.faults;
        break;
      case "ambush":
        this.#ambushes = [...this.#ambushes, event];
        break;
      case "bit-flip":
      case "misdirect":
      case "disk-full":
      case "fail-writes":
        this.#target.damageDisk?.(event);
        break;
      default:
        unreachable(event);
    }
  }

  /** The member is at this moment: whoever waits for it there strikes, once. Answers whether somebody did. */
  spot(moment: Moment, member: string): boolean {
    const ambush = this.#ambushes.find(({ at }) => at === moment);
    if (ambush === undefined) return false;
    this.#ambushes = this.#ambushes.filter((one) => one !== ambush);
    const { strike, one, forMs } = ambush;
    // At the end of this moment: the letter of a claim is on its way.
    if (strike === "crash") this.#queue.schedule(0, () => this.#crash(member, forMs));
    else if (strike === "pause") this.#target.pause(member, forMs);
    else {
      const others = this.#target.members.filter((other) => other !== member);
      const cutOff = others.filter((_, index) => index !== one % others.length);
      const links = cutOff.flatMap((other): LinkPair[] => [
        [member, other],
        [other, member],
      ]);
      this.#block(links, "cut", forMs);
      for (const other of cutOff) this.#slowDisk({ do: "slow-disk", member: other, factor: ambushDiskFactor, forMs: 2 * forMs });
    }
    return true;
  }

  /** Everything broken is mended. */
  heal(): void {
    this.#ambushes = [];
    this.#network.faults = calmNetwork;
    for (const from of this.#target.members) {
      this.#target.slowDisk(from, 1);
      for (const to of this.#target.members) this.#network.open(from, to);
      if (!this.#target.isUp(from)) this.#target.restart(from);
    }
  }

  #crash(member: string, downMs: number): void {
    if (!this.#target.isUp(member)) return;
    this.#target.crash(member);
    this.#queue.schedule(downMs, () => {
      if (!this.#target.isUp(member)) this.#target.restart(member);
    });
  }

  #slowDisk({ member, factor, forMs }: Extract<FaultEvent, { do: "slow-disk" }>): void {
    this.#target.slowDisk(member, factor);
    this.#queue.schedule(forMs, () => this.#target.slowDisk(member, 1));
  }

  #block(links: readonly LinkPair[], how: "cut" | "clog", lastsMs: number): void {
    for (const [from, to] of links) this.#network[how](from, to);
    this.#queue.schedule(lastsMs, () => {
      for (const [from, to] of links) this.#network.open(from, to);
    });
  }
}
