/**
 * The nemesis: kills and stops members and clients while the run lasts, and lets loose whoever cuts their network and damages
 * their disks (`network-nemesis.ts`, `disk-nemesis.ts`).
 *
 * Two plans. `mixed`: all the faults that were asked for at once, as drawn by the dice. `kills`: the leader is killed again and again, each time as
 * soon as the cluster is whole again, and nothing else happens; that is how an outage is measured and nothing but it.
 */

import { monotonicMs } from "./clock.ts";
import type { Cluster, Member } from "./cluster.ts";
import type { Dice } from "./dice.ts";
import { type DiskFault, disturbDisks } from "./disk-nemesis.ts";
import type { Incident } from "./evidence.ts";
import { type FaultName, networkFaults } from "./faults.ts";
import type { Fleet } from "./fleet.ts";
import { stopMoments } from "./messages.ts";
import { disturbNetwork } from "./network-nemesis.ts";
import { pause } from "./pause.ts";
import type { Prober } from "./prober.ts";

export type Plan =
  | { readonly kind: "mixed"; readonly killEveryMs: number; readonly faults: readonly FaultName[] }
  | { readonly kind: "kills"; readonly killCount: number };

export interface LeaderKill {
  readonly member: string;
  readonly atMs: number;
  /** Both others ran and were not stopped: the outage that follows is the election's alone. */
  readonly wereOthersUp: boolean;
}

/** A fault, for whoever has to find out what happened. */
export interface FaultLine {
  readonly atMs: number;
  readonly fault:
    | "kill"
    | "start"
    | "stop"
    | "resume"
    | "order"
    | "cut"
    | "mend"
    | "break"
    | "slow"
    | "lie"
    | "readmission"
    | DiskFault;
  readonly target: string;
}

/** What those who disturb have in their hands. */
export interface NemesisParts {
  readonly cluster: Cluster;
  readonly dice: Dice;
  /** Aborts when no new fault is wanted. */
  readonly signal: AbortSignal;
  readonly log: (line: Omit<FaultLine, "atMs">) => void;
  readonly tally: (fault: FaultName | "readmission") => void;
  readonly onIncident: (incident: Incident) => void;
}

export interface NemesisOptions {
  readonly cluster: Cluster;
  readonly fleet: Fleet;
  readonly prober: Prober;
  readonly dice: Dice;
  readonly log: (line: FaultLine) => void;
  readonly onIncident: (incident: Incident) => void;
}

const diskFaults = ["slow-disk", "full-disk", "failing-disk", "corrupt", "clock"] as const satisfies readonly DiskFault[];
const stopMsMin = 200;
const stopMsMax = 6_000;
/** How long the cluster is given to become whole before it is left to the end of the run to complain. */
const wholeMsMax = 30_000;

export class Nemesis {
  readonly leaderKills: LeaderKill[] = [];
  memberKills = 0;
  clientKills = 0;
  memberStops = 0;
  clientStops = 0;
  /** How often each fault of networks, disks and clocks struck. */
  readonly others = new Map<string, number>();
  readonly #options: NemesisOptions;
  readonly #over = new AbortController();

  constructor(options: NemesisOptions) {
    this.#options = options;
  }

  /** Resolves when the plan is done, or after `end` once everything that was begun is brought to its end. */
  async run(plan: Plan): Promise<void> {
    const { dice } = this.#options;
    if (plan.kind === "kills") return this.#killBackToBack(plan.killCount, dice.fork());
    const has = (fault: FaultName): boolean => plan.faults.includes(fault);
    const parts = (): NemesisParts => this.#partsFor(dice.fork());
    const { cuts } = this.#options.cluster;
    const ofNetwork = networkFaults.filter(has);
    const ofDisks = diskFaults.filter(has);
    await Promise.all([
      ...(has("kill") ? [this.#killMembers(plan.killEveryMs, dice.fork()), this.#killClients(dice.fork())] : []),
      ...(has("stop") ? [this.#stopProcesses(dice.fork())] : []),
      // The worst moments are those of holders, and there are none where there are no locks.
      ...(has("stop") && this.#options.cluster.hasLocks ? [this.#orderSelfStops(dice.fork())] : []),
      ...(cuts === undefined || ofNetwork.length === 0 ? [] : [disturbNetwork({ ...parts(), cuts, kinds: ofNetwork })]),
      ...(ofDisks.length === 0 ? [] : [disturbDisks({ ...parts(), kinds: ofDisks })]),
    ]);
  }

  #partsFor(dice: Dice): NemesisParts {
    const { cluster, onIncident, log } = this.#options;
    return {
      cluster,
      dice,
      signal: this.#over.signal,
      log: (line) => log({ atMs: monotonicMs(), ...line }),
      tally: (fault) => this.others.set(fault, (this.others.get(fault) ?? 0) + 1),
      onIncident,
    };
  }

  /** No new fault from now on; who is stopped goes on, who is dead comes back. */
  end(): void {
    this.#over.abort();
  }

  get #isOver(): boolean {
    return this.#over.signal.aborted;
  }

  async #killBackToBack(killCount: number, dice: Dice): Promise<void> {
    const { cluster, prober } = this.#options;
    const { signal } = this.#over;
    while (this.leaderKills.length < killCount && !this.#isOver) {
      if (!(await cluster.becomesWhole(wholeMsMax, signal))) return;
      await pause(dice.between(50, 400), signal);
      const leader = await cluster.leader();
      if (leader === undefined || this.#isOver) continue;
      const { atMs } = this.#killLeader(leader);
      while (prober.firstAckAfter(atMs) === undefined && monotonicMs() - atMs < wholeMsMax && !this.#isOver)
        await pause(20, signal);
      await pause(dice.between(0, 200), signal);
      this.#start(leader);
    }
  }

  async #killMembers(killEveryMs: number, dice: Dice): Promise<void> {
    const { cluster } = this.#options;
    const { signal } = this.#over;
    const restarts = new Set<Promise<void>>();
    for (;;) {
      await pause(killEveryMs * dice.between(0.6, 1.4), signal);
      if (this.#isOver) break;
      const leader = await cluster.leader();
      if (dice.chance(0.15) && leader !== undefined && !this.#isOver) {
        await this.#killAll(leader, dice);
        continue;
      }
      // Now and then somebody else: a follower, or the leader that is stopped and cannot say so.
      const others = cluster.members.filter((member) => member !== leader && !member.isInHand && member.child?.isRunning);
      const takesLeader = dice.chance(0.8);
      const victim = takesLeader || others.length === 0 ? leader : dice.pick(others);
      const restartMs = dice.betweenLogarithmic(50, 3_000);
      if (victim === undefined || victim.isInHand || this.#isOver) continue;
      if (victim === leader) this.#killLeader(victim);
      else this.#killOther(victim);
      const restart = pause(restartMs, signal)
        .then(() => victim.child?.exited)
        .then(() => this.#start(victim))
        .finally(() => restarts.delete(restart));
      restarts.add(restart);
    }
    await Promise.all(restarts);
  }

  /**
   * First the followers, in a moment the leader, and the leader comes back last. What it acknowledged in the moment when it
   * was alone is lost with it: so it must not have acknowledged anything.
   */
  async #killAll(leader: Member, dice: Dice): Promise<void> {
    const { cluster } = this.#options;
    const { signal } = this.#over;
    const followers = cluster.members.filter((member) => member !== leader && !member.isInHand && member.child?.isRunning);
    for (const follower of followers) this.#killOther(follower);
    await pause(dice.between(50, 350), signal);
    if (leader.isInHand) return followers.forEach((follower) => void follower.child?.exited.then(() => this.#start(follower)));
    this.#killLeader(leader);
    for (const { child } of [leader, ...followers]) await child?.exited;
    for (const member of followers) this.#start(member);
    await pause(dice.between(500, 2_500), signal);
    this.#start(leader);
  }

  #killLeader(leader: Member): LeaderKill {
    const { cluster } = this.#options;
    const kill = { member: leader.name, atMs: monotonicMs(), wereOthersUp: cluster.awake.length === cluster.members.length };
    leader.child?.kill();
    this.leaderKills.push(kill);
    this.#log("kill", `leader ${leader.name}`);
    return kill;
  }

  #killOther(member: Member): void {
    member.child?.kill();
    this.memberKills++;
    this.#log("kill", `member ${member.name}`);
  }

  #start(member: Member): void {
    this.#options.cluster.start(member);
    this.#log("start", `member ${member.name}`);
  }

  #log(fault: FaultLine["fault"], target: string): void {
    this.#options.log({ atMs: monotonicMs(), fault, target });
  }

  async #killClients(dice: Dice): Promise<void> {
    const { fleet } = this.#options;
    const { signal } = this.#over;
    for (;;) {
      await pause(dice.between(5_000, 15_000), signal);
      if (this.#isOver) return;
      const { awake } = fleet;
      if (awake.length === 0) continue;
      const victim = dice.pick(awake);
      victim.child.kill();
      this.clientKills++;
      this.#log("kill", `client ${victim.name}`);
      await pause(dice.between(0, 1_500), signal);
      await victim.child.exited;
      // Without a successor at the end: its journal says all that is to be said.
      if (!this.#isOver) fleet.start(victim.slot);
    }
  }

  async #stopProcesses(dice: Dice): Promise<void> {
    const { cluster, fleet } = this.#options;
    const { signal } = this.#over;
    const stops = new Set<Promise<void>>();
    for (;;) {
      await pause(dice.between(300, 3_000), signal);
      if (this.#isOver) break;
      const takesMember = dice.chance(0.25);
      const lengthMs = dice.betweenLogarithmic(stopMsMin, stopMsMax);
      // One stopped member at a time: two would only tell that a minority does not serve.
      const isOneStopped = cluster.members.some(({ child }) => child?.isStopped);
      const victims = takesMember ? (isOneStopped ? [] : cluster.awake) : fleet.awake;
      if (victims.length === 0) continue;
      const { child, name } = dice.pick<Member | Fleet["all"][number]>(victims);
      if (child === undefined) continue;
      child.stop();
      this.#log("stop", name);
      if (takesMember) this.memberStops++;
      else this.clientStops++;
      const stop = pause(lengthMs, signal).then(() => {
        child.resume();
        this.#log("resume", name);
        stops.delete(stop);
      });
      stops.add(stop);
    }
    await Promise.all(stops);
  }

  async #orderSelfStops(dice: Dice): Promise<void> {
    const { fleet } = this.#options;
    const { signal } = this.#over;
    for (;;) {
      await pause(dice.between(2_000, 6_000), signal);
      if (this.#isOver) return;
      const { awake } = fleet;
      if (awake.length === 0) continue;
      const moment = dice.pick(stopMoments);
      // Longer than a lease more often than not: a shorter stop hurts nobody.
      const target = dice.pick(awake);
      this.#log("order", target.name);
      fleet.order(target, { kind: "stop-at", moment, forMs: dice.between(stopMsMin, stopMsMax) });
    }
  }
}
