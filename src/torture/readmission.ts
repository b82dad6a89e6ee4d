/**
 * A member whose disk is lost comes back as documented (docs/protocol/raft.md): it is removed, its directory thrown away, and
 * it joins anew, first without a vote. Only for protocols whose members come and go.
 *
 * The operator here has bad luck: leaders die and links are cut while he works, so each step is asked for until it is done,
 * as a person would; a change that has happened already is refused by a code, which is as good as done.
 */
import { rmSync } from "node:fs";
import { hasCode } from "../base/errors.ts";
import { connectCluster } from "../engines/embedded/cluster-engine.ts";
import type { AdminRequest } from "../wire/admin.ts";
import { decodeStatus, type MemberStatus } from "../wire/member-status.ts";
import { clusterName, type Member } from "./cluster.ts";
import type { NemesisParts } from "./nemesis.ts";
import { until } from "./pause.ts";

const stepMsMax = 60_000;
const callMsMax = 3_000;

export async function readmit({ cluster, log, onIncident, tally }: NemesisParts, member: Member): Promise<void> {
  const others = cluster.members.filter((other) => other !== member).map(({ address }) => address);
  const client = await connectCluster({ url: `conclave://${others.join(",")}`, cluster: clusterName });
  let last: unknown;
  const step = async (request: AdminRequest, isDone: (status: MemberStatus) => boolean): Promise<boolean> => {
    const done = await until(
      async () => {
        try {
          return isDone(decodeStatus(await client.administer(request, { timeoutMs: callMsMax })));
        } catch (error) {
          last = error;
          return hasCode(error, request.kind === "remove" ? "MEMBER_UNKNOWN" : "MEMBER_EXISTS");
        }
      },
      { withinMs: stepMsMax, everyMs: 200 },
    );
    if (!done) onIncident({ kind: "no-recovery", text: `"${request.kind} ${member.name}" was not done: ${String(last)}` });
    return done;
  };
  const { name, address } = member;
  try {
    if (!(await step({ kind: "remove", member: name }, ({ voters = [] }) => !voters.includes(name)))) return;
    rmSync(cluster.directoryOf(member), { recursive: true, force: true });
    cluster.startToJoin(member, others);
    const isKnown = ({ voters = [], learners = [] }: MemberStatus): boolean => voters.includes(name) || learners.includes(name);
    if (!(await step({ kind: "add", member: name, address }, isKnown))) return;
    if (!(await step({ kind: "promote", member: name }, ({ voters = [] }) => voters.includes(name)))) return;
    tally("readmission");
    log({ fault: "readmission", target: name });
  } finally {
    await client.close();
    // The next start is one of the founders': it knows the others by its own links again.
    member.child?.kill();
    await member.child?.exited;
  }
}
