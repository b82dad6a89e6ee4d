// Locks: the queue, the guard, the token. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "a waiter takes any departure ahead for its turn",
    file: "recipes/queue-place.ts",
    find: "wake.key === ahead.key && ahead.count === 1 && wake.revision !== null",
    replace: "wake.key === ahead.key && wake.revision !== null",
    world: "stack",
    source: "a waiter that gave up in the middle of the queue",
  },
  {
    name: "a waiter counts the departure of somebody behind it",
    file: "recipes/key-watch.ts",
    find: 'event.kind === "delete" && event.previous.createRevision < createdBefore',
    replace: 'event.kind === "delete"',
    world: "stack",
    source: "a waiter that gave up at the end of the queue",
  },
  {
    name: "the guard compares nothing",
    file: "recipes/place-claim.ts",
    find: 'const compare = { key, target: "createRevision", is: "equal", to: createRevision } as const;',
    replace: 'const compare = { key, target: "createRevision", is: "less", to: Number.MAX_SAFE_INTEGER } as const;',
    world: "stack",
    source: "the half that nobody ships",
  },
];
