/**
 * Five members of which some pairs do not reach each other: "a Byzantine failure in the real world" (Cloudflare, 2020-11-27),
 * told as a lesson on liveness by Howard and Abraham, "Raft does not guarantee liveness in the face of network faults"
 * (decentralizedthoughts, 2020-12-12), and as the quorum-loss and chained scenarios of Ng et al., "Omni-Paxos", EuroSys 2023, §2.
 * Pre-vote and check-quorum together are what keeps a leader here; without either, these tests fail.
 */
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import type { Input, Output } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import { Raft } from "../consensus/raft/raft.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../wire/raft-messages.ts";
import { Datagrams } from "./datagrams.ts";
import { Dice } from "./dice.ts";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { Random } from "./random.ts";

const names = ["a", "b", "c", "d", "e"] as const;

/** Cores whose disks are instant, over links that are open or not. */
class Town {
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #network: Datagrams;
  readonly #members = new Map<string, { readonly core: Raft; timer: ScheduledEvent | undefined }>();
  #ticket = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#network = new Datagrams(this.#queue, new Dice(seed));
    for (const self of names) {
      const core = new Raft();
      this.#members.set(self, { core, timer: undefined });
      const dice = this.#random.fork();
      const configuration = { voters: names, learners: [] };
      const environment = { self, configuration, nowMs: 0, randomUint32: () => dice.uint32() };
      this.#route(self, core.start(environment, { meta: new Map(), entries: [] }));
    }
  }

  /** Lets so much virtual time pass, with a write at the leader now and then; tells who led at each step. */
  run(forMs: number): { readonly leaders: ReadonlySet<string>; readonly terms: number; readonly committed: number } {
    const untilMs = this.#queue.nowMs + forMs;
    const leaders = new Set<string>();
    const [termBefore, before] = [this.term(), this.committed()];
    let nextMs = this.#queue.nowMs;
    while (this.#queue.nowMs < untilMs) {
      this.#queue.step();
      const leader = this.leader();
      if (leader !== undefined) leaders.add(leader);
      if (leader === undefined || this.#queue.nowMs < nextMs) continue;
      nextMs = this.#queue.nowMs + 50;
      this.#feed(leader, { kind: "submit", nowMs: this.#queue.nowMs, ticket: ++this.#ticket, payload: Uint8Array.of(1) });
    }
    return { leaders, terms: this.term() - termBefore, committed: this.committed() - before };
  }

  /** The one of the highest term. */
  leader(): string | undefined {
    const leading = names.filter((name) => this.#core(name).probe().role === "leader");
    return leading.sort((left, right) => this.#core(right).probe().term - this.#core(left).probe().term)[0];
  }

  term(): number {
    return Math.max(...names.map((name) => this.#core(name).probe().term));
  }

  committed(): number {
    return Math.max(...names.map((name) => this.#core(name).probe().committedIndex));
  }

  cut(left: string, right: string): void {
    this.#network.cut(left, right);
    this.#network.cut(right, left);
    // A connection that carries nothing breaks sooner or later, on both sides.
    this.#feed(left, { kind: "link", nowMs: this.#queue.nowMs, peer: right, up: false });
    this.#feed(right, { kind: "link", nowMs: this.#queue.nowMs, peer: left, up: false });
  }

  #core(name: string): Raft {
    return (this.#members.get(name) as { readonly core: Raft }).core;
  }

  #feed(name: string, input: Input<RaftMessage>): void {
    this.#route(name, this.#core(name).step(input));
  }

  #route(name: string, outputs: readonly Output<RaftMessage>[]): void {
    for (const output of outputs) {
      if (output.kind === "persist") {
        this.#queue.schedule(0.1, () =>
          this.#feed(name, { kind: "persisted", nowMs: this.#queue.nowMs, sequence: output.sequence }),
        );
      } else if (output.kind === "send") {
        const writer = new ByteWriter();
        encodeRaftMessage(writer, output.message);
        const message = decodeRaftMessage(writer.finish());
        // Sent after the disk, which takes the same time for everything.
        this.#queue.schedule(0.2, () =>
          this.#network.send(name, output.to, () =>
            this.#feed(output.to, { kind: "message", nowMs: this.#queue.nowMs, from: name, message }),
          ),
        );
      } else if (output.kind === "timer") {
        const member = this.#members.get(name) as { timer: ScheduledEvent | undefined };
        if (member.timer !== undefined) this.#queue.cancel(member.timer);
        member.timer = this.#queue.schedule(Math.max(0.01, output.atMs - this.#queue.nowMs), () =>
          this.#feed(name, { kind: "tick", nowMs: Math.max(output.atMs, this.#queue.nowMs) }),
        );
      }
    }
  }
}

const seeds = Array.from({ length: 8 }, (_, at) => at + 1);

function founded(seed: number): { readonly town: Town; readonly leader: string; readonly others: readonly string[] } {
  const town = new Town(seed);
  town.run(5_000);
  const leader = town.leader() as string;
  expect(leader).toBeDefined();
  return { town, leader, others: names.filter((name) => name !== leader) };
}

test("a follower that alone does not reach the leader deposes nobody (Cloudflare 2020)", () => {
  for (const seed of seeds) {
    const { town, leader, others } = founded(seed);
    town.cut(leader, others[0] as string);
    const { leaders, terms, committed } = town.run(30_000);
    expect([seed, [...leaders], terms]).toEqual([seed, [leader], 0]);
    expect(committed).toBeGreaterThan(300);
  }
});

test("where only one member reaches a majority, it comes to lead, and stays (quorum loss)", () => {
  for (const seed of seeds) {
    const { town, others } = founded(seed);
    const hub = others[0] as string;
    const spokes = names.filter((name) => name !== hub);
    for (const left of spokes) for (const right of spokes) if (left < right) town.cut(left, right);
    town.run(5_000);
    expect([seed, town.leader()]).toEqual([seed, hub]);
    const { leaders, terms, committed } = town.run(30_000);
    expect([seed, [...leaders], terms]).toEqual([seed, [hub], 0]);
    expect(committed).toBeGreaterThan(300);
  }
});

test("a leader that keeps a majority in a chain of half-open neighbourhoods is left in peace (chained)", () => {
  for (const seed of seeds) {
    const { town, leader, others } = founded(seed);
    const [b, c, d, e] = others as [string, string, string, string];
    // d and e reach only b and c; the leader reaches b and c, which is a majority with itself.
    for (const far of [d, e]) town.cut(leader, far);
    town.cut(d, e);
    const { leaders, terms, committed } = town.run(30_000);
    expect([seed, [...leaders], terms]).toEqual([seed, [leader], 0]);
    expect(committed).toBeGreaterThan(300);
    expect([b, c]).toHaveLength(2);
  }
});
