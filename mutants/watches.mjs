// Watches: what is told, in which order, and from where it goes on. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "a watch that comes back begins at the present",
    file: "replica/watch-hub.ts",
    find: "this.#next = from ?? present + 1;",
    replace: "this.#next = present + 1;",
    world: "stack",
    source: "etcd robustness: Resumable",
  },
  {
    name: "a watch tells one revision twice",
    file: "client/watch.ts",
    find: "this.#next = batch.revision + 1;\n    const waiter",
    replace: "this.#next = batch.revision;\n    const waiter",
    world: "stack",
    source: "etcd robustness: Unique",
  },
  {
    name: "a watch does not hear that the machine was replaced",
    file: "replica/watch-hub.ts",
    find: "for (const watch of this.#watches) watch.onGap();",
    replace: "",
    world: "stack",
    source: "etcd 15220: events lost at a compacted revision",
  },
  {
    name: "catching up skips what lies between two batches",
    file: "replica/watch-hub.ts",
    find: "this.#next = Math.max(this.#next, job.revision + 1);",
    replace: "this.#next = Math.max(this.#next, job.revision + 1, this.#hub.machine.revision + (job.items.length > 3 ? 1 : 0));",
    world: "stack",
    source: "etcd robustness: Reliable",
  },
  {
    name: "an event forgets what stood there before",
    file: "store/outcome.ts",
    find: 'const previous = readEntryOrNull(reader, "stripped");\n  if (entry !== null) return { kind: "put", revision, key: entry.key, entry, previous };',
    replace:
      'const previous = readEntryOrNull(reader, "stripped");\n  if (entry !== null) return { kind: "put", revision, key: entry.key, entry, previous: null };',
    world: "stack",
    source: "etcd robustness: PrevKV",
  },
];
