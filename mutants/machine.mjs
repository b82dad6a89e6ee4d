// The state machine: claims, revisions, leases, snapshots. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "a claim is run again",
    file: "store/machine.ts",
    find: "const first = claims.get(claim.sequence);",
    replace: "const first = undefined as Outcome | undefined;",
    world: "stack",
    source: "redis-raft, etcd client retries",
  },
  {
    name: "a snapshot forgets the claims",
    file: "store/claims.ts",
    find: "const sequences = [...this.#kept.keys()].sort((left, right) => left - right);",
    replace: "const sequences: number[] = [];",
    world: "stack",
    source: "dedup table outside the snapshot (CCF, NSDI 2025)",
  },
  {
    name: "agreed time goes back with the entry's stamp",
    source: "Date.now() inside apply, in another dress",
    file: "store/machine.ts",
    find: "this.#state.elapsedMs = Math.max(this.#state.elapsedMs, entry.stampMs);",
    replace: "this.#state.elapsedMs = entry.stampMs - (entry.index % 2);",
    world: "stack",
  },
  {
    name: "a claim of a dead session is run",
    source: "a retry that outlives its session's memory",
    file: "store/machine.ts",
    find: "if (session === undefined) {\n      // An earlier copy may have run while the session lived.",
    replace:
      "if (session === undefined) return this.#execute(txn);\n    if (session === undefined) {\n      // An earlier copy may have run while the session lived.",
    world: "stack",
  },
  {
    name: "a claim is remembered only when it succeeds",
    source: "dedup of successes only: the failed compare-and-set is tried again (redis-raft)",
    file: "store/machine.ts",
    find: "claims.keep(claim.sequence, outcome);",
    replace:
      'if (outcome.kind === "txn" && outcome.result.succeeded && outcome.result.results.length > 1) claims.keep(claim.sequence, outcome);',
    world: "stack",
  },
  {
    name: "a key stays bound to the session that it was taken from",
    file: "store/state.ts",
    find: "if (sessionBefore !== null) this.sessions.get(Number(sessionBefore))?.keys.delete(key);",
    replace: "",
    world: "stack",
    source: "etcd lease attach: the old lease's end deletes a key that was given to another",
  },
];
