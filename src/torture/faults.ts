/**
 * The kinds of fault that a run knows, by the names of `--faults`.
 */

const faults = {
  kill: "members and clients are killed with SIGKILL, the leader most of all, and now and then all members",
  stop: "members and clients are stopped with SIGSTOP for up to six seconds, clients also by themselves at the worst moments",
  partition: "a member, or half of them, hears nothing of the others and they nothing of it; connectivity that is not transitive",
  "one-way": "what one member says to others, or they to it, does not arrive; the way back is open",
  break: "connections between two members break, at both ends at once",
  "slow-network": "what two members say to each other takes up to a quarter of a second longer",
  "slow-disk": "every write and sync of a member takes up to half a second longer",
  "full-disk": "no write of a member finds space: it must stop, by that name, and come back",
  "failing-disk": "one write of a member fails: it must stop, by that name, and come back",
  corrupt: "a byte in the middle of a stopped member's log is flipped: it must refuse to start, and say where and what to do",
  liar: "pbft only: for a while, every fifth piece of what one member says to the others arrives with a bit flipped",
  clock: "the wall clocks of members jump by up to a year; their monotonic clocks run up to 4 percent fast or slow, always",
} as const;

export type FaultName = keyof typeof faults;

export const faultNames = Object.keys(faults) as readonly FaultName[];
export const faultsDefault: readonly FaultName[] = ["kill", "stop"];

/** Faults that need the proxies between members. */
export const proxyFaults: readonly FaultName[] = ["break", "slow-network", "liar"];
/** Faults of the network between members. */
export const networkFaults: readonly FaultName[] = ["partition", "one-way", ...proxyFaults];
/** Faults that need the members to carry the affliction of `afflict.ts`. */
export const afflictedFaults: readonly FaultName[] = ["slow-disk", "full-disk", "failing-disk", "clock"];

/** `all`, or names separated by commas. @throws Error that says which names there are */
export function parseFaults(text: string, protocol: string): ReadonlySet<FaultName> {
  const isByzantine = protocol === "pbft";
  if (text === "all") return new Set(faultNames.filter((name) => name !== "liar" || isByzantine));
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(name in faults));
  if (unknown !== undefined) throw new Error(`--faults "${unknown}" is none of ${faultNames.join(", ")}, all.`);
  if (names.includes("liar") && !isByzantine) throw new Error("--faults liar needs --protocol pbft: the others do not bear it.");
  return new Set(names as FaultName[]);
}

export function describeFaults(): string {
  return Object.entries(faults)
    .map(([name, means]) => `    ${name.padEnd(14)}${means}`)
    .join("\n");
}
