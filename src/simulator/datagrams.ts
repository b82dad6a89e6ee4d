/**
 * A network of datagrams between members: delay with a heavy tail, loss, duplication, reordering, one-way cuts, and
 * clogged links that hold what was sent and release it later, long after the world has moved on.
 *
 * Source of the fault list: `research/consensus.md` §7; held and released messages found what loss and delay did not.
 */
import type { Dice } from "./dice.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";

export interface NetworkFaults {
  readonly delayMsMin: number;
  readonly delayMsMean: number;
  /** Share of messages delayed by up to `tailMs`. */
  readonly tailChance: number;
  readonly tailMs: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
}

export const calmNetwork: NetworkFaults = {
  delayMsMin: 0.2,
  delayMsMean: 1,
  tailChance: 0,
  tailMs: 0,
  lossChance: 0,
  duplicateChance: 0,
};

interface Link {
  readonly random: Random;
  /** Dropped at once. */
  cut: boolean;
  /** Held back until the link is released. */
  clogged: boolean;
  held: (() => void)[];
}

export class Datagrams {
  faults: NetworkFaults = calmNetwork;
  readonly #queue: EventQueue;
  readonly #dice: Dice;
  /** By sender, then by receiver. */
  readonly #links = new Map<string, Map<string, Link>>();

  constructor(queue: EventQueue, dice: Dice) {
    this.#queue = queue;
    this.#dice = dice;
  }

  send(from: string, to: string, deliver: () => void): void {
    const link = this.#link(from, to);
    if (link.cut || link.random.chance(this.faults.lossChance)) return;
    if (link.clogged) {
      if (link.held.length < 1_000) link.held.push(deliver);
      return;
    }
    this.#queue.schedule(this.#delayMs(link), deliver);
    if (link.random.chance(this.faults.duplicateChance)) this.#queue.schedule(this.#delayMs(link), deliver);
  }

  /** One direction only. */
  cut(from: string, to: string): void {
    this.#link(from, to).cut = true;
  }

  clog(from: string, to: string): void {
    this.#link(from, to).clogged = true;
  }

  isOpen(from: string, to: string): boolean {
    const link = this.#link(from, to);
    return !link.cut && !link.clogged;
  }

  /** Opens the direction; what was held arrives now. */
  open(from: string, to: string): void {
    const link = this.#link(from, to);
    link.cut = false;
    link.clogged = false;
    const { held } = link;
    link.held = [];
    for (const deliver of held) this.#queue.schedule(this.#delayMs(link), deliver);
  }

  /** One trip of a stream: a lost packet costs a retransmission instead of the message. */
  streamDelayMs(from: string, to: string): number {
    const link = this.#link(from, to);
    return this.#delayMs(link) + (link.random.chance(this.faults.lossChance) ? 200 : 0);
  }

  #delayMs({ random }: Link): number {
    const { delayMsMin, delayMsMean, tailChance, tailMs } = this.faults;
    if (random.chance(tailChance)) return random.between(0, tailMs);
    return delayMsMin - Math.log(1 - random.float()) * (delayMsMean - delayMsMin);
  }

  #link(from: string, to: string): Link {
    let links = this.#links.get(from);
    if (links === undefined) {
      links = new Map();
      this.#links.set(from, links);
    }
    let link = links.get(to);
    if (link === undefined) {
      link = { random: this.#dice.stream(`link ${from}>${to}`), cut: false, clogged: false, held: [] };
      links.set(to, link);
    }
    return link;
  }
}
