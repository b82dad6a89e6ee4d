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
];
