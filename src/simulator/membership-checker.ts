/**
 * What changes of membership owe, followed from the entries alone: the ghost knows each member's configurations from its
 * puts and truncations, counts majorities by itself, and so does not lean on the code that it judges.
 *
 * ConfigurationInForce: the latest in the log, committed or not (Raft §6). JointSteps: C, then C_old,new, then C_new, and a
 * change of learners only between equal voters. OneChangeAtATime. SnapshotConfiguration: a snapshot carries the one at its index.
 */
import { decodeConfiguration } from "../consensus/configuration.ts";
import type { Configuration, Index, LogEntry, MemberId, Probe, Recovered } from "../consensus/core.ts";
import { must } from "./invariant-violation.ts";

interface Held {
  readonly index: Index;
  readonly configuration: Configuration;
}

const nobody: Configuration = { voters: [], learners: [] };

export class MembershipChecker {
  readonly #initial: Configuration;
  readonly #held = new Map<MemberId, Held[]>();
  /** In force when the step began: what was decided in the step was decided by it. */
  readonly #before = new Map<MemberId, Configuration>();
  /** By member: the two that were last found equal. Configurations are never changed in place, so a look at the pair is enough. */
  readonly #equal = new Map<MemberId, { readonly inForce: Configuration; readonly latest: Configuration }>();
  /** Ascending by index. */
  readonly #chosen: Held[];

  constructor(initial: Configuration) {
    this.#initial = initial;
    this.#chosen = [{ index: 0, configuration: initial }];
  }

  /** Whether those for whom `counts` is true form a quorum of what was in force at the member. */
  isQuorum(decider: MemberId, counts: (member: MemberId) => boolean): boolean {
    const { voters, outgoing } = this.#before.get(decider) as Configuration;
    const isMajority = (of: readonly MemberId[]): boolean => 2 * of.filter(counts).length > of.length;
    return isMajority(voters) && (outgoing === undefined || isMajority(outgoing));
  }

  onRecovered(member: MemberId, recovered: Recovered): void {
    const { snapshot } = recovered;
    let held: Held[] = [{ index: 0, configuration: this.#initial.voters.includes(member) ? this.#initial : nobody }];
    if (snapshot !== undefined) {
      this.#checkSnapshot(member, snapshot);
      held = [snapshot];
    }
    for (const entry of recovered.entries) {
      if (entry.kind === "configuration") held.push({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
    }
    this.#held.set(member, held);
    this.#equal.delete(member);
    this.#before.set(member, (held.at(-1) as Held).configuration);
  }

  onPut(member: MemberId, entry: LogEntry, probe: Probe): void {
    if (entry.kind !== "configuration") return;
    const held = this.#held.get(member) as Held[];
    const configuration = decodeConfiguration(entry.payload);
    if (probe.role === "leader" && entry.term === probe.term) {
      const last = held.at(-1) as Held;
      must(
        last.index <= probe.committedIndex,
        "OneChangeAtATime",
        () => `${member} begins a change at ${entry.index} while that of ${last.index} is not committed`,
      );
      must(
        isStep(last.configuration, configuration),
        "JointSteps",
        () => `${member} goes from ${name(last.configuration)} to ${name(configuration)} at ${entry.index}`,
      );
    }
    held.push({ index: entry.index, configuration });
  }

  onTruncate(member: MemberId, from: Index): void {
    const held = this.#held.get(member) as Held[];
    while ((held.at(-1) as Held).index >= from) held.pop();
  }

  onDelivered(entries: readonly LogEntry[]): void {
    for (const entry of entries) {
      if (entry.kind !== "configuration" || entry.index <= (this.#chosen.at(-1) as Held).index) continue;
      this.#chosen.push({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
    }
  }

  /** The member put a snapshot in the place of its log up to the index. */
  onInstalled(member: MemberId, index: Index, keptTo: Index): void {
    const held = this.#held.get(member) as Held[];
    const kept = held.filter((one) => one.index > index && one.index <= keptTo);
    this.#held.set(member, [this.#chosenAt(index), ...kept]);
  }

  onSnapshotBuilt(member: MemberId, snapshot: Held): void {
    this.#checkSnapshot(member, snapshot);
  }

  afterStep(member: MemberId, probe: Probe): void {
    const { index, configuration } = (this.#held.get(member) as Held[]).at(-1) as Held;
    const equal = this.#equal.get(member);
    if (equal === undefined || equal.inForce !== probe.configuration || equal.latest !== configuration) {
      must(
        name(probe.configuration) === name(configuration),
        "ConfigurationInForce",
        () => `${member} goes by ${name(probe.configuration)}; the latest in its log is ${name(configuration)}`,
      );
      this.#equal.set(member, { inForce: probe.configuration, latest: configuration });
      this.#before.set(member, configuration);
    }
    if (probe.role !== "leader" || index > probe.committedIndex) return;
    must(
      configuration.outgoing !== undefined || configuration.voters.includes(member),
      "LeaderIsVoter",
      () => `${member} leads ${name(configuration)}, which is committed and does not name it`,
    );
  }

  /**
   * In its latest configuration, or in the one before it: until C_new is committed, a member that it leaves out may be the
   * only one whose log is long enough to lead (thesis §4.2.2).
   */
  mayCampaign(member: MemberId): boolean {
    const held = this.#held.get(member) as Held[];
    return held
      .slice(-2)
      .some(({ configuration: { voters, outgoing = [] } }) => voters.includes(member) || outgoing.includes(member));
  }

  #checkSnapshot(member: MemberId, snapshot: Held): void {
    const chosen = this.#chosenAt(snapshot.index);
    must(
      name(snapshot.configuration) === name(chosen.configuration),
      "SnapshotConfiguration",
      () =>
        `${member} has a snapshot at ${snapshot.index} with ${name(snapshot.configuration)} instead of ${name(chosen.configuration)}`,
    );
  }

  #chosenAt(index: Index): Held {
    return this.#chosen.findLast((one) => one.index <= index) as Held;
  }
}

function isStep(from: Configuration, to: Configuration): boolean {
  const isSame = (left: readonly MemberId[] | undefined, right: readonly MemberId[] | undefined): boolean =>
    [...(left ?? [])].sort().join() === [...(right ?? [])].sort().join();
  if (to.learners.some((member) => to.voters.includes(member))) return false;
  if (from.outgoing !== undefined) return to.outgoing === undefined && isSame(to.voters, from.voters);
  if (to.outgoing !== undefined) return isSame(to.outgoing, from.voters);
  return isSame(to.voters, from.voters);
}

function name({ voters, outgoing, learners }: Configuration): string {
  return `[${outgoing === undefined ? "" : `${[...outgoing].sort()} -> `}${[...voters].sort()}${learners.length === 0 ? "" : `; learners ${[...learners].sort()}`}]`;
}
