/**
 * Who leads, and for how long: five cores on a network without chance, whose cables are pulled by hand.
 *
 * The partial partition is that of Howard, "Raft does not guarantee liveness in the face of network faults" (2020): one
 * member reaches everybody, the others reach only that one.
 */
import { expect, test } from "vitest";
import type { Input, Output } from "../core.ts";
import type { PaxosMessage } from "./messages.ts";
import { Paxos } from "./paxos.ts";

const names = ["a", "b", "c", "d", "e"];

interface Place {
  readonly name: string;
  readonly core: Paxos;
  timerMs: number;
  chosen: number;
}

/** Every letter takes a millisecond, every sync is done at once; `isCut` says which cables are pulled. */
class Net {
  nowMs = 0;
  isCut: (from: string, to: string) => boolean = () => false;
  readonly places: readonly Place[];
  #letters: { readonly atMs: number; readonly from: string; readonly to: string; readonly message: PaxosMessage }[] = [];
  #dice = 7;

  constructor() {
    this.places = names.map((name) => ({ name, core: new Paxos(), timerMs: 0, chosen: 0 }));
    for (const place of this.places) {
      const environment = {
        self: place.name,
        configuration: { voters: names, learners: [] },
        nowMs: 0,
        randomUint32: () => {
          this.#dice = (Math.imul(this.#dice, 1_664_525) + 1_013_904_223) >>> 0;
          return this.#dice;
        },
      };
      this.#carry(place, place.core.start(environment, { meta: new Map(), entries: [] }));
    }
  }

  run(durationMs: number): void {
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; this.nowMs++) {
      const due = this.#letters.filter(({ atMs }) => atMs <= this.nowMs);
      this.#letters = this.#letters.filter(({ atMs }) => atMs > this.nowMs);
      for (const { from, to, message } of due) {
        if (!this.isCut(from, to)) this.step(to, { kind: "message", nowMs: this.nowMs, from, message });
      }
      for (const { name, timerMs } of this.places) {
        if (timerMs <= this.nowMs) this.step(name, { kind: "tick", nowMs: this.nowMs });
      }
    }
  }

  step(name: string, input: Input<PaxosMessage>): void {
    const place = this.at(name);
    this.#carry(place, place.core.step(input));
  }

  at(name: string): Place {
    return this.places.find((place) => place.name === name) as Place;
  }

  leaders(): string[] {
    return this.places.filter(({ core }) => core.probe().role === "leader").map(({ name }) => name);
  }

  ballots(): number[] {
    return this.places.map(({ core }) => core.probe().promised);
  }

  #carry(place: Place, outputs: readonly Output<PaxosMessage>[]): void {
    let written = 0;
    for (const output of outputs) {
      if (output.kind === "persist") written = output.sequence;
      else if (output.kind === "send") {
        this.#letters.push({ atMs: this.nowMs + 1, from: place.name, to: output.to, message: output.message });
      } else if (output.kind === "timer") place.timerMs = output.atMs;
      else if (output.kind === "deliver") place.chosen = output.entries.at(-1)?.index ?? place.chosen;
    }
    if (written > 0) this.step(place.name, { kind: "persisted", nowMs: this.nowMs, sequence: written });
  }
}

test("whoever is cut off and comes back duels nobody: the leader keeps its ballot, and nobody promised another", () => {
  const net = new Net();
  net.run(3_000);
  const [leader] = net.leaders();
  const before = net.ballots();
  const lost = names.find((name) => name !== leader) as string;
  net.isCut = (from, to) => from === lost || to === lost;
  net.run(20_000);
  expect(net.at(lost).core.probe().role).toBe("candidate");
  net.isCut = () => false;
  net.run(3_000);
  expect(net.leaders()).toEqual([leader]);
  expect(net.ballots()).toEqual(before);
});

for (const hub of names) {
  test(`a partially connected five-member cluster keeps a leader: all reach ${hub}, and nobody else`, () => {
    const net = new Net();
    net.run(3_000);
    net.isCut = (from, to) => from !== hub && to !== hub;
    net.run(5_000);
    // The old leader may reach one of five only; it lets go, and the hub takes over, for good.
    expect(net.leaders()).toEqual([hub]);
    const ballots = net.ballots();
    net.run(20_000);
    expect(net.leaders()).toEqual([hub]);
    expect(net.ballots()).toEqual(ballots);
    const before = net.at(hub).chosen;
    net.step(hub, { kind: "submit", nowMs: net.nowMs, ticket: 1, payload: Uint8Array.of(1) });
    net.run(500);
    for (const { chosen } of net.places) expect(chosen).toBe(before + 1);
  });
}

test("a leader that dies is followed by another, which proposes again what was open", () => {
  const net = new Net();
  net.run(3_000);
  const [leader] = net.leaders() as [string];
  const [witness] = names.filter((name) => name !== leader) as [string];
  // The value reaches one other member and is not chosen.
  net.isCut = (from, to) => (from === leader && to !== witness) || to === leader;
  net.step(leader, { kind: "submit", nowMs: net.nowMs, ticket: 1, payload: Uint8Array.of(42) });
  net.run(5);
  const slot = net.at(leader).core.probe().lastIndex;
  expect(net.at(witness).core.probe().acceptedAt(slot)?.payload).toEqual(Uint8Array.of(42));
  // Another one dies with the leader, so the three that are left must all answer, the witness with them.
  const gone = [leader, names.filter((name) => name !== leader && name !== witness)[0]];
  net.isCut = (from, to) => gone.includes(from) || gone.includes(to);
  net.run(5_000);
  for (const name of names.filter((each) => !gone.includes(each))) {
    expect(net.at(name).chosen).toBeGreaterThan(slot);
    const held = net.at(name).core.probe().acceptedAt(slot);
    expect(held?.payload).toEqual(Uint8Array.of(42));
    expect(held?.ballot).toBeGreaterThan(held?.term as number);
  }
});
