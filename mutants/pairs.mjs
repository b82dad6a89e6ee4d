// Two rules that cover one another, planted away together. Each alone is no bug that anybody could see: the other one stops
// it, and the list that has it says so (`pair`, the name of a row here). What is shown here is that both are needed: with
// the two gone the simulator finds the harm. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "a leader that nobody deposes confirms keep-alives without proof",
    source: "etcd 15247, without the check of the quorum beside it",
    file: "replica/replica.ts",
    find: "    this.read(\n      {\n        onReady: () => this.#confirm(session, sink, tag),",
    replace: "    this.#confirm(session, sink, tag);\n    this.read(\n      {\n        onReady: () => undefined,",
    also: [
      {
        find: 'onRefused: (_, refusal) => sink.onRefused(tag, refusal),\n        onOutcome: () => assert(false, "a read has no outcome"),',
        replace: "onRefused: () => undefined,\n        onOutcome: () => undefined,",
      },
      {
        file: "consensus/raft/raft.ts",
        find: "if (!hasQuorum(this.#configuration, reaches)) {",
        replace: "if (!hasQuorum(this.#configuration, reaches) && this.#nowMs < 0) {",
      },
    ],
    world: "stack",
  },
  {
    name: "a session is confirmed while its end is under way, to a client that counts on every millisecond",
    source: "etcd lessor: renew races with revoke",
    file: "replica/session-keeper.ts",
    find: "if (kept === undefined || kept.expiring) return false;",
    replace: "if (kept === undefined) return false;",
    also: [
      {
        file: "client/session.ts",
        find: "this.confirmedMs + (this.ttlMs * 2) / 3;",
        replace: "this.confirmedMs + this.ttlMs;",
      },
    ],
    world: "stack",
  },
  {
    name: "zab: neither the search nor the leader looks for who knows most",
    source: "DSN'11 §IV.A step l.1.2, and phase 0 as ZooKeeper has it",
    protocol: "zab",
    file: "consensus/zab/zab.ts",
    find: "      if (isAhead(theirs, this.#history())) {",
    replace: "      if (isAhead(theirs, this.#history()) && this.#nowMs < 0) {",
    also: [
      {
        file: "consensus/zab/search.ts",
        find: "  if (isAhead(left, right)) return true;\n  return !isAhead(right, left) && left.leader > right.leader;",
        replace: "  return left.leader > right.leader;",
      },
    ],
  },
  {
    name: "a snapshot is installed over a log that contradicts it, and nobody drops that",
    source: "Raft Figure 13, step 7, at the core and at recovery",
    file: "log/recovery.ts",
    find: 'if (this.#slots === "sparse" || entry === undefined || entry.term === term) return;',
    replace: 'if (this.#slots === "sparse" || entry !== undefined || term >= 0) return;',
    also: [
      {
        file: "consensus/raft/raft.ts",
        find: '      this.#persist({ kind: "truncate", from: index + 1 });\n',
        replace: "",
      },
    ],
    world: "stack",
  },
];
