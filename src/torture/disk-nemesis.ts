/**
 * Afflicts the disks and clocks of members, one at a time: slow, full and failing disks, a wall clock that jumps, a byte of
 * a log that is flipped.
 *
 * A member whose disk is full or fails must stop and say DISK_FULL or DISK_FAILED; one whose log is damaged in its middle
 * must refuse to start with LOG_CORRUPT, the file, the offset and the remedy. Anything else, going on most of all, is an
 * incident. Then the member comes back: with space, or as the protocol allows after a lost disk (`readmission.ts`).
 */

import { healthy } from "./affliction.ts";
import { monotonicMs } from "./clock.ts";
import type { Member } from "./cluster.ts";
import type { FaultName } from "./faults.ts";
import { flipByte } from "./flip-byte.ts";
import type { NemesisParts } from "./nemesis.ts";
import { pause, until } from "./pause.ts";
import { readmit } from "./readmission.ts";

export type DiskFault = Extract<FaultName, "slow-disk" | "full-disk" | "failing-disk" | "corrupt" | "clock">;

const pauseMsMin = 500;
const pauseMsMax = 4_000;
const slowMsMax = 500;
const dayMs = 86_400_000;
/** Of a member that cannot write or read its log, until its process is gone. It writes all the time under load. */
const refusesMsMax = 20_000;

export async function disturbDisks(parts: NemesisParts & { readonly kinds: readonly DiskFault[] }): Promise<void> {
  const { cluster, dice, kinds, signal, tally } = parts;
  while (!signal.aborted) {
    await pause(dice.between(pauseMsMin, pauseMsMax), signal);
    const { awake } = cluster;
    if (signal.aborted || awake.length === 0) continue;
    const kind = dice.pick(kinds);
    const leader = await cluster.leader();
    const member = leader !== undefined && dice.chance(0.4) ? leader : dice.pick(awake);
    if (!cluster.awake.includes(member) || signal.aborted) continue;
    tally(kind);
    parts.log({ fault: kind, target: member.name });
    switch (kind) {
      case "slow-disk":
        cluster.afflict(member.name, { ...healthy, diskDelayMsMax: dice.betweenLogarithmic(5, slowMsMax) });
        await pause(dice.betweenLogarithmic(300, 6_000), signal);
        cluster.afflict(member.name, healthy);
        break;
      case "clock":
        // It stays as it is: nothing may depend on it, so nothing has to be put right.
        cluster.afflict(member.name, {
          ...healthy,
          wallOffsetMs: Math.round(dice.pick([-1, 1]) * dice.betweenLogarithmic(100, 365 * dayMs)),
        });
        break;
      case "full-disk":
        await refuseWrites(parts, member, { isDiskFull: true, code: "DISK_FULL" });
        break;
      case "failing-disk":
        await refuseWrites(parts, member, { isDiskFailing: true, code: "DISK_FAILED" });
        break;
      case "corrupt":
        await damage(parts, member);
        break;
    }
  }
}

/** The member must end by itself; then it gets its disk back and starts anew. */
async function refuseWrites(
  { cluster, dice, onIncident, signal }: NemesisParts,
  member: Member,
  { code, ...how }: { readonly isDiskFull?: boolean; readonly isDiskFailing?: boolean; readonly code: string },
): Promise<void> {
  member.isInHand = true;
  member.mayEndWith = [code];
  const { child } = member;
  cluster.afflict(member.name, { ...healthy, ...how });
  const hasEnded = await endsWithin(child, refusesMsMax);
  if (!hasEnded && !signal.aborted) {
    onIncident({
      kind: "fault-unnoticed",
      text: `member ${member.name} went on ${refusesMsMax} ms after its disk had refused to write`,
    });
  }
  await pause(dice.between(0, 1_500), signal);
  cluster.afflict(member.name, healthy);
  member.mayEndWith = [];
  member.isInHand = false;
  cluster.start(member);
}

/** Killed, damaged, started: it must refuse. Afterwards it comes back by the way that its protocol has. */
async function damage(parts: NemesisParts, member: Member): Promise<void> {
  const { cluster, dice, onIncident } = parts;
  member.isInHand = true;
  member.child?.kill();
  await member.child?.exited;
  const flipped = flipByte(cluster.directoryOf(member), () => dice.float());
  if (flipped !== undefined) {
    member.mayEndWith = ["LOG_CORRUPT"];
    cluster.startInHand(member);
    const { child } = member;
    if (!(await endsWithin(child, refusesMsMax))) {
      onIncident({ kind: "fault-unnoticed", text: `member ${member.name} runs on a log with a flipped byte: ${flipped.where}` });
      child?.kill();
      await child?.exited;
    } else {
      const said = child?.complaints() ?? "";
      const missing = [flipped.file, "offset", "move the directory away"].filter((part) => !said.includes(part));
      if (missing.length > 0)
        onIncident({ kind: "fault-unnoticed", text: `member ${member.name} does not say ${missing.join(", ")}: ${said}` });
    }
    member.mayEndWith = [];
    if (cluster.hasMembership && dice.chance(0.5)) await readmit(parts, member);
    else flipped.restore();
  }
  member.isInHand = false;
  cluster.start(member);
}

async function endsWithin(child: Member["child"], withinMs: number): Promise<boolean> {
  const endMs = monotonicMs() + withinMs;
  return await until(() => child === undefined || !child.isRunning, { withinMs: Math.max(0, endMs - monotonicMs()) });
}
