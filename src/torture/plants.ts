/**
 * Bugs that are planted into a copy of the built product, for runs on real processes: edits of the built text, so the product
 * itself has no switch for them. An edit that no longer fits exactly once is an error: the code has moved on, and the plant must
 * follow (`plants.test.ts`).
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Edit {
  /** What is wrong then. */
  readonly means: string;
  /** In `dist`. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export const plants = {
  "everybody-is-first": {
    means: "whoever joins a queue has the turn",
    file: "recipes/queue-place.js",
    find: "return this.#standing.ahead === null ? this.#granted(this.#standing.revision) : null;",
    replace: "return this.#granted(this.#standing.revision);",
  },
  "guard-always-holds": {
    means: "a late holder's txn is let in",
    file: "recipes/place-claim.js",
    find: `const compare = { key, target: "createRevision", is: "equal", to: createRevision };`,
    replace: `const compare = { key, target: "createRevision", is: "less", to: Number.MAX_SAFE_INTEGER };`,
  },
  "held-ignores-the-clock": {
    means: "a holder that slept believes that it holds until somebody tells it otherwise",
    file: "client/session.js",
    find: "return isInTime && !this.#lost.signal.aborted;",
    replace: "return !this.#lost.signal.aborted;",
  },
  "token-always-one": {
    means: "tokens do not rise",
    file: "recipes/hold.js",
    find: "this.token = options.token;",
    replace: "this.token = 1;",
  },
  "lease-too-short": {
    means: "the leader lets a lock pass on before its holder stops by its own clock",
    file: "replica/session-keeper.js",
    find: "kept.deadlineMs = this.#platform.now() + kept.ttlMs;",
    replace: "kept.deadlineMs = this.#platform.now() + kept.ttlMs * 0.3;",
  },
  "commit-without-a-majority": {
    means: "the leader answers when its own disk has it",
    file: "consensus/raft/raft.js",
    find: "const index = quorumReached(this.#configuration, (member) => member === this.#self ? this.#durableIndex : (this.#progress.get(member)?.match ?? 0));",
    replace: "const index = this.#durableIndex;",
  },
  "claims-forgotten": {
    means: "a mutation that is said twice happens twice",
    file: "store/machine.js",
    find: "if (first !== undefined)\n            return first;",
    replace: "",
  },
} satisfies Record<string, Edit>;

export type PlantName = keyof typeof plants;

/** Into the product built in the folder. @throws Error unless it fits exactly once */
export function plant(name: PlantName, folder: string): void {
  const { file, find, replace } = plants[name];
  const path = join(folder, file);
  const parts = readFileSync(path, "utf8").split(find);
  if (parts.length !== 2)
    throw new Error(
      `"${name}" fits ${parts.length - 1} times into ${path}; it must fit once. The code has moved on: correct the plant.`,
    );
  writeFileSync(path, parts.join(replace));
}
