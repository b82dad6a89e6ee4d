/**
 * The steps from one configuration to the next, and why some are refused.
 *
 * ```
 *   add m (learner)    C            -> C + learner m                          one entry: nobody's vote changes
 *   promote m          C            -> joint: C's voters and C's voters + m   -> C_new
 *   remove voter m     C            -> joint: C's voters and C's voters - m   -> C_new
 * ```
 * Every change of voters goes through a joint configuration, in which the old and the new voters must both agree (Raft §6,
 * thesis §4.3). The single-server change of thesis §4.1 is left out on purpose: it needs a rule that its first publication
 * lacked, and it cannot swap a member.
 */
import { assert } from "../base/assert.ts";
import type { Configuration, MemberId, MembershipChange, RejectReason } from "./core.ts";

export type PlannedChange = { readonly configuration: Configuration } | { readonly refused: RejectReason };

/** The configuration to propose next: final for learners, joint for voters. `current` must not be joint. */
export function planChange(current: Configuration, change: MembershipChange): PlannedChange {
  assert(current.outgoing === undefined, "one change at a time");
  const { member } = change;
  const isVoter = current.voters.includes(member);
  const isLearner = current.learners.includes(member);
  switch (change.kind) {
    case "add":
      if (isVoter || isLearner) return { refused: "member-exists" };
      return { configuration: withAddress({ ...current, learners: [...current.learners, member].sort() }, change) };
    case "promote":
      if (isVoter) return { refused: "already-voter" };
      if (!isLearner) return { refused: "member-unknown" };
      return {
        configuration: {
          ...current,
          voters: [...current.voters, member].sort(),
          outgoing: current.voters,
          learners: current.learners.filter((other) => other !== member),
        },
      };
    case "remove":
      if (isLearner) {
        return {
          configuration: withoutAddress({ ...current, learners: current.learners.filter((other) => other !== member) }, member),
        };
      }
      if (!isVoter) return { refused: "member-unknown" };
      if (current.voters.length === 1) return { refused: "last-voter" };
      return {
        configuration: { ...current, voters: current.voters.filter((other) => other !== member), outgoing: current.voters },
      };
  }
}

/** C_new of a joint configuration: the incoming voters alone, and only the addresses that are still needed. */
export function leaveJoint(joint: Configuration): Configuration {
  assert(joint.outgoing !== undefined, "only a joint configuration is left");
  const { outgoing, ...rest } = joint;
  const gone = outgoing.filter((member) => !rest.voters.includes(member) && !rest.learners.includes(member));
  return gone.reduce(withoutAddress, rest);
}

function withAddress(configuration: Configuration, at: { readonly member: MemberId; readonly address?: string }): Configuration {
  if (at.address === undefined) return configuration;
  return { ...configuration, addresses: { ...configuration.addresses, [at.member]: at.address } };
}

function withoutAddress(configuration: Configuration, member: MemberId): Configuration {
  if (configuration.addresses?.[member] === undefined) return configuration;
  const addresses = Object.entries(configuration.addresses).filter(([other]) => other !== member);
  return { ...configuration, addresses: Object.fromEntries(addresses) };
}
