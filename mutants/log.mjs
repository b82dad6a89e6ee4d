// The log on disk: what may be called durable, and what recovery may believe. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "the log confirms what it has not synced",
    file: "log/segments.ts",
    find: "await active.file.write(active.offset, buffers, { durable: true });",
    replace: "await active.file.write(active.offset, buffers, { durable: false });",
    world: "stack",
    source: "NATS: sync every two minutes",
  },
  {
    name: "recovery ends the log at a damaged record that later ones vouch for",
    source: "PAR (FAST 2018): a corrupt middle taken for a torn tail; NATS 2.12, one bit flipped (Jepsen 2025)",
    file: "log/recovery.ts",
    find: "if (record !== undefined && record.syncedUpTo >= number) return { record, offset };",
    replace: "if (record !== undefined && record.syncedUpTo > number + 1e9) return { record, offset };",
    world: "stack",
  },
  {
    name: "recovery forgets the named cells",
    source: "a restart that loses the term and the vote; liferaft keeps neither",
    file: "log/recovery.ts",
    find: "for (const [key, value] of Object.entries(operation.values)) this.meta.set(key, value);",
    replace: 'for (const [key, value] of Object.entries(operation.values)) if (key === "") this.meta.set(key, value);',
    world: "stack",
  },
  {
    name: "a truncation is not replayed",
    source: "an overwritten suffix comes back",
    file: "log/recovery.ts",
    find: "this.#dropFrom(operation.from);\n        return;",
    replace: "return;",
    explained:
      "Equivalent here: the cores truncate only to put another entry at the same index in the same record, and a put of another term drops what stands behind it. It would matter to a core that truncates alone.",
    world: "stack",
  },
  {
    name: "old segments go without regard for what they hold",
    source: "entries above the snapshot removed with the segment",
    file: "log/segments.ts",
    find: "if (oldest === undefined || oldest.lastIndex > index) return;",
    replace: "if (oldest === undefined || index === 0) return;",
    world: "stack",
  },
  {
    name: "an installed snapshot leaves a log that contradicts it",
    source: "Raft Figure 13, step 7",
    file: "log/recovery.ts",
    find: 'if (this.#slots === "sparse" || entry === undefined || entry.term === term) return;',
    replace: 'if (this.#slots === "sparse" || entry !== undefined || term >= 0) return;',
    world: "stack",
  },
];
