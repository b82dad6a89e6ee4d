// Two rules that cover one another, planted away together. Each alone is no bug that anybody could see: the other one stops
// it, and the list that has it says so (`pair`, the name of a row here). What is shown here is that both are needed: with
// the two gone the simulator finds the harm. The first half is a row of another list, by its name; the second stands
// here. See `scripts/mutants.mjs` for the fields.
import log from "./log.mjs";
import sessions from "./sessions.mjs";
import zab from "./zab.mjs";

const singles = new Map([...sessions, ...zab, ...log].map((row) => [row.name, row]));

/** A row with a second change beside its own, under another name. */
function withSecond(single, { name, source, also }) {
  const { harmless, pair, ...row } = singles.get(single);
  return { ...row, name, source, also: [...(row.also ?? []), ...also] };
}

export default [
  withSecond("a keep-alive is confirmed without proof of leadership", {
    name: "a leader that nobody deposes confirms keep-alives without proof",
    source: "etcd 15247, without the check of the quorum beside it",
    also: [
      {
        file: "consensus/raft/raft.ts",
        find: "if (!hasQuorum(this.#configuration, reaches)) {",
        replace: "if (!hasQuorum(this.#configuration, reaches) && this.#nowMs < 0) {",
      },
    ],
  }),
  withSecond("zab: the leader leads with less than its quorum knows", {
    name: "zab: neither the search nor the leader looks for who knows most",
    source: "DSN'11 §IV.A step l.1.2, and phase 0 as ZooKeeper has it",
    also: [
      {
        file: "consensus/zab/search.ts",
        find: "  if (isAhead(left, right)) return true;\n  return !isAhead(right, left) && left.leader > right.leader;",
        replace: "  return left.leader > right.leader;",
      },
    ],
  }),
  withSecond("an installed snapshot leaves a log that contradicts it", {
    name: "a snapshot is installed over a log that contradicts it, and nobody drops that",
    source: "Raft Figure 13, step 7, at the core and at recovery",
    also: [
      {
        file: "consensus/raft/raft.ts",
        find: '      this.#persist({ kind: "truncate", from: index + 1 });\n',
        replace: "",
      },
    ],
  }),
];
