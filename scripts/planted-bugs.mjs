// `npm run planted`: plants bugs one at a time into a copy of the source, runs the simulator on each, and prints which
// invariant caught it, with the seed and the steps. A green simulator means something only because these turn it red.
//
//   npm run planted -- [--only NAME] [--seeds N] [--markdown]
//
// The source itself has no switch for any of them: each is a patch on a copy, and a patch that no longer applies is an error.
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: { only: { type: "string" }, seeds: { type: "string", default: "400" }, markdown: { type: "boolean", default: false } },
});

/** `world`: where it is hunted. `source`: who shipped it, or which sentence of the paper it breaks. */
const bugs = [
  {
    name: "vote leaves before it is on disk",
    file: "consensus/raft/raft.ts",
    find: "after: Math.max(after, this.#hardStateSequence), lane",
    put: "after, lane",
    world: "core",
    source: "Raft Figure 2; RedisRaft, DaosRaft (SandTable, EuroSys 2024)",
  },
  {
    name: "half of the voters are a quorum",
    file: "consensus/configuration.ts",
    find: "return count > voters.length / 2;",
    put: "return count >= Math.floor(voters.length / 2);",
    world: "core",
    source: "off by one",
  },
  {
    name: "commits an entry of an earlier term by counting",
    file: "consensus/raft/raft.ts",
    find: "if (index <= this.#committed || this.#log.termAt(index) !== this.#term) return;",
    put: "if (index <= this.#committed) return;",
    world: "core",
    source: "Raft §5.4.2, Figure 8; missed by the thesis' own model",
  },
  {
    name: "acknowledges entries before they are on disk",
    file: "consensus/raft/raft.ts",
    find: 'this.#send(from, reply, "log", this.#logSequence);\n  }\n\n  #truncate',
    put: 'this.#send(from, reply, "log");\n  }\n\n  #truncate',
    world: "core",
    source: "etcd 13766; NATS 2.12 (Jepsen 2025)",
  },
  {
    name: "the leader counts its own disk before it wrote",
    file: "consensus/raft/raft.ts",
    find: "member === this.#self ? this.#durableIndex :",
    put: "member === this.#self ? this.#log.lastIndex :",
    world: "core",
    source: "thesis §10.2.1; etcd 14370 for a cluster of one",
  },
  {
    name: "votes for a candidate with an older log",
    file: "consensus/raft/raft.ts",
    find: "(request.lastTerm === this.#log.lastTerm && request.lastIndex >= this.#log.lastIndex); // Raft §5.4.1",
    put: "request.lastTerm === this.#log.lastTerm;",
    world: "core",
    source: "Raft §5.4.1",
  },
  {
    name: "a read needs no proof of leadership",
    file: "consensus/raft/raft.ts",
    find: "const reads = this.#reads.confirm(confirmed);",
    put: "const reads = this.#reads.confirm(Math.max(confirmed, this.#round));",
    world: "core",
    source: "thesis §6.4; etcd 0.4, Consul (Jepsen 2014)",
  },
  {
    name: "a dropped entry's write vouches for its successor",
    file: "consensus/raft/raft.ts",
    find: "for (const pending of this.#persisting) pending.lastIndex = Math.min(pending.lastIndex, from - 1);",
    put: "",
    world: "core",
    source: "ours: taken out as superfluous, and caught by the 2,000 seeds of CI before it landed",
  },
  {
    name: "a dropped entry vouches for its successor",
    file: "consensus/raft/raft.ts",
    find: "this.#durableIndex = Math.min(this.#durableIndex, from - 1);",
    put: "",
    world: "core",
    source: "the ABA that etcd guards with (index, term) acknowledgements",
  },
  {
    name: "a follower commits beyond what the message proved",
    file: "consensus/raft/raft.ts",
    find: "this.#commitTo(Math.min(message.commitIndex, end));",
    put: "this.#commitTo(Math.min(message.commitIndex, this.#log.lastIndex));",
    world: "core",
    source: "Raft Figure 2, AppendEntries step 5",
  },
  {
    name: "votes twice in a term",
    file: "consensus/raft/raft.ts",
    find: "const free = this.#vote === undefined ? this.#leader === undefined : this.#vote === from;",
    put: "const free = this.#leader === undefined;",
    world: "core",
    source: "Raft §5.2; liferaft 1.0.0",
  },
  {
    name: "an installed snapshot keeps a conflicting suffix",
    file: "consensus/raft/raft.ts",
    find: "if (this.#log.termAt(index) === term) {",
    put: "if (this.#log.termAt(index) !== undefined) {",
    world: "core",
    source: "Raft Figure 13, steps 6 and 7",
  },
  {
    name: "the log confirms what it has not synced",
    file: "log/segments.ts",
    find: "await active.file.write(active.offset, buffers, { durable: true });",
    put: "await active.file.write(active.offset, buffers, { durable: false });",
    world: "stack",
    source: "NATS: sync every two minutes",
  },
  {
    name: "a claim is run again",
    file: "store/machine.ts",
    find: "const first = claims.get(claim.sequence);",
    put: "const first = undefined as Outcome | undefined;",
    world: "stack",
    source: "redis-raft, etcd client retries",
  },
  {
    name: "a keep-alive is confirmed without proof of leadership",
    file: "replica/replica.ts",
    find: "    this.read(\n      {\n        onReady: () => this.#confirm(session, sink, tag),",
    put: "    this.#confirm(session, sink, tag);\n    this.read(\n      {\n        onReady: () => undefined,",
    also: [
      {
        find: 'onRefused: (_, refusal) => sink.onRefused(tag, refusal),\n        onOutcome: () => assert(false, "a read has no outcome"),',
        put: "onRefused: () => undefined,\n        onOutcome: () => undefined,",
      },
    ],
    world: "stack",
    source: "etcd 15247",
  },
  {
    name: "a new leader cuts leases short",
    file: "replica/session-keeper.ts",
    find: "deadlineMs: this.#platform.now() + ttlMs, expiring: false",
    put: "deadlineMs: this.#platform.now() + ttlMs / 4, expiring: false",
    world: "stack",
    source: "etcd 12528",
  },
  {
    name: "a session counts its lease from the answer, for its whole length",
    file: "client/session.ts",
    find: "if (sentMs > this.#confirmedMs) this.#confirmedMs = sentMs;",
    put: "this.#confirmedMs = this.now();",
    also: [{ find: "return this.#confirmedMs + (this.ttlMs * 2) / 3;", put: "return this.#confirmedMs + this.ttlMs * 1.2;" }],
    world: "stack",
    source: "etcd client/v3/lease.go counts from the response",
  },
  {
    name: "a waiter takes any departure ahead for its turn",
    file: "recipes/queue-place.ts",
    find: "wake.key === ahead.key && ahead.sole && wake.revision !== null",
    put: "wake.key === ahead.key && wake.revision !== null",
    world: "stack",
    source: "a waiter that gave up in the middle of the queue",
  },
  {
    name: "the guard compares nothing",
    file: "recipes/queue-place.ts",
    find: 'const compare = { key: this.key, target: "createRevision", is: "equal", to: this.createRevision } as const;',
    put: 'const compare = { key: this.key, target: "createRevision", is: "less", to: Number.MAX_SAFE_INTEGER } as const;',
    world: "stack",
    source: "the half that nobody ships",
  },
  {
    name: "a snapshot forgets the claims",
    file: "store/claims.ts",
    find: "const sequences = [...this.#kept.keys()].sort((left, right) => left - right);",
    put: "const sequences: number[] = [];",
    world: "stack",
    source: "dedup table outside the snapshot (CCF, NSDI 2025)",
  },
];

const folder = join(root, "node_modules", ".planted");
const rows = [];
for (const bug of bugs) {
  if (values.only !== undefined && bug.name !== values.only) continue;
  rows.push(hunt(bug));
}
rmSync(folder, { recursive: true, force: true });
if (values.markdown) console.log(toMarkdown(rows));
const survivors = rows.filter((row) => row.invariant === undefined);
console.log(`${rows.length - survivors.length} caught, ${survivors.length} survived`);
process.exitCode = survivors.length === 0 ? 0 : 1;

function hunt(bug) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(root, "src"), join(folder, "src"), {
    recursive: true,
    filter: (path) => !path.endsWith(".test.ts") && !/\/(cli|torture)$/.test(path),
  });
  for (const { file = bug.file, find, put } of [bug, ...(bug.also ?? [])]) {
    const path = join(folder, "src", file);
    const text = readFileSync(path, "utf8");
    if (!text.includes(find)) throw new Error(`The patch "${bug.name}" no longer applies to ${file}: ${find}`);
    writeFileSync(
      path,
      text.replace(find, () => put),
    );
  }
  cpSync(join(root, "tsconfig.json"), join(folder, "tsconfig.json"));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  try {
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  } catch {
    // Windows without the right to link: resolution goes up to the repository's own folder all the same.
  }
  const flags = ["--noEmit", "false", "--outDir", "dist", "--rootDir", "src", "--noUnusedLocals", "false"];
  writeFileSync(join(folder, "tsconfig.build.json"), JSON.stringify({ extends: "./tsconfig.json", include: ["src"] }));
  // A patched copy may leave something unused or ill-typed: what counts is that it was emitted.
  spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json", ...flags], {
    cwd: folder,
    stdio: "ignore",
  });
  const startedMs = Date.now();
  const args = [
    join(folder, "dist/simulator/main.js"),
    "--world",
    bug.world,
    "--seeds",
    values.seeds,
    "--until-failure",
    "--json",
  ];
  let output;
  try {
    output = execFileSync(process.execPath, args, {
      cwd: folder,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 600_000,
    });
  } catch (error) {
    output = error.stdout;
  }
  const { failures, worlds } = JSON.parse(output);
  const first = failures.sort((left, right) => left.seed - right.seed)[0];
  const row = {
    ...bug,
    invariant: first?.invariant,
    seed: first?.seed,
    steps: worlds[bug.world].steps,
    seconds: (Date.now() - startedMs) / 1_000,
  };
  const verdict = first === undefined ? "SURVIVED" : `${first.invariant}, seed ${first.seed}`;
  console.log(`${bug.name}: ${verdict} (${row.steps.toLocaleString("en-US")} clean steps before, ${row.seconds.toFixed(1)} s)`);
  return row;
}

function toMarkdown(found) {
  const head =
    "| bug | who shipped it, or what it breaks | caught by | seed | clean steps before | seconds |\n|---|---|---|---|---|---|";
  const lines = found.map(
    (row) =>
      `| ${row.name} | ${row.source} | ${row.invariant ?? "**survived**"} | ${row.seed ?? ""} | ${row.steps.toLocaleString("en-US")} | ${row.seconds.toFixed(1)} |`,
  );
  return [head, ...lines].join("\n");
}
