/**
 * Cuts, breaks and slows the links between members, one disturbance after another.
 *
 * What it draws leaves a majority connected as often as not, and nobody cut off for ever: the run must get somewhere. The
 * shapes are those that real clusters met: one member alone, two halves, one-way loss (a member that is heard and does not
 * hear, or the other way round), and halves that only one member sees both of (Howard et al., "Examining Raft's behaviour
 * during partial network failures", HAOC 2021; Cloudflare's outage of November 2020 was one).
 */
import type { FaultName } from "./faults.ts";
import type { Cuts } from "./namespaces.ts";
import type { FaultLine, NemesisParts } from "./nemesis.ts";
import type { Network } from "./network.ts";
import { pause } from "./pause.ts";

type Pair = readonly [from: string, to: string];

const forMsMin = 200;
const forMsMax = 8_000;
const pauseMsMin = 200;
const pauseMsMax = 3_000;
const delayMsMax = 250;
const lieShare = 0.2;

/** Until the run is over; then everything that was cut is mended by whoever heals. */
export async function disturbNetwork(parts: NemesisParts & { readonly cuts: Cuts; readonly kinds: readonly FaultName[] }) {
  const { cuts, dice, kinds, signal, tally } = parts;
  while (!signal.aborted) {
    await pause(dice.between(pauseMsMin, pauseMsMax), signal);
    if (signal.aborted) return;
    const kind = dice.pick(kinds);
    const leader = await parts.cluster.leader();
    const names = parts.cluster.members.map(({ name }) => name);
    // Where it hurts: at the leader more often than not.
    const victim = leader !== undefined && dice.chance(0.6) ? leader.name : dice.pick(names);
    const others = shuffled(
      names.filter((name) => name !== victim),
      () => dice.float(),
    );
    const forMs = dice.betweenLogarithmic(forMsMin, forMsMax);
    tally(kind);
    // `options.ts` draws no kind but cuts where there are no proxies.
    const network = cuts as Network;
    if (kind === "break") {
      const broken = others.filter(() => dice.chance(0.5));
      for (const other of broken) network.break(victim, other);
      parts.log(line("break", `${victim} and ${broken.join(", ")}`));
    } else if (kind === "liar") {
      for (const other of others) network.garble(victim, other, lieShare);
      parts.log(line("lie", victim));
      await pause(forMs, signal);
      for (const other of others) network.garble(victim, other, 0);
    } else if (kind === "slow-network") {
      const [other] = others as [string];
      const delayMs = dice.between(5, delayMsMax);
      for (const [from, to] of bothWays([[victim, other]])) network.delay(from, to, delayMs);
      parts.log(line("slow", `${victim} and ${other} by ${Math.round(delayMs)} ms`));
      await pause(forMs, signal);
      for (const [from, to] of bothWays([[victim, other]])) network.delay(from, to, 0);
    } else {
      const pairs =
        kind === "one-way" ? drawOneWay(victim, others, () => dice.float()) : drawPartition(victim, others, () => dice.float());
      for (const [from, to] of pairs) cuts.cut(from, to);
      parts.log(line("cut", pairs.map(([from, to]) => `${from}>${to}`).join(" ")));
      await pause(forMs, signal);
      for (const [from, to] of pairs) cuts.mend(from, to);
      parts.log(line("mend", pairs.map(([from, to]) => `${from}>${to}`).join(" ")));
    }
  }
}

/** The victim is not heard, or does not hear; by one other or by all. */
export function drawOneWay(victim: string, others: readonly string[], float: () => number): readonly Pair[] {
  const isMute = float() < 0.5;
  const whom = float() < 0.5 ? others : others.slice(0, 1);
  return whom.map((other): Pair => (isMute ? [victim, other] : [other, victim]));
}

/** The victim alone, two halves, or two halves that only the victim sees both of. `others` in any order. */
export function drawPartition(victim: string, others: readonly string[], float: () => number): readonly Pair[] {
  const shape = float();
  const half = Math.ceil(others.length / 2);
  const [near, far] = [others.slice(0, half), others.slice(half)];
  if (shape < 0.4) return bothWays(others.map((other): Pair => [victim, other]));
  if (shape < 0.7) return bothWays([victim, ...near].flatMap((one) => far.map((two): Pair => [one, two])));
  return bothWays(near.flatMap((one) => far.map((two): Pair => [one, two])));
}

function bothWays(pairs: readonly Pair[]): readonly Pair[] {
  return pairs.flatMap(([one, two]): Pair[] => [
    [one, two],
    [two, one],
  ]);
}

function shuffled<T>(items: readonly T[], float: () => number): T[] {
  return items
    .map((item) => ({ item, at: float() }))
    .sort((left, right) => left.at - right.at)
    .map(({ item }) => item);
}

function line(fault: FaultLine["fault"], target: string): Omit<FaultLine, "atMs"> {
  return { fault, target };
}
