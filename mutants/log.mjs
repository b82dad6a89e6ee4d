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
];
