/**
 * Rules of the papers, one by one, on a single replica that is told what the others say.
 */
import { expect, test } from "vitest";
import type { PbftInput, PbftOutput } from "./core.ts";
import type { PbftMessage, Signed, Statement } from "./messages.ts";
import { Pbft } from "./pbft.ts";
import { faultsTolerated, quorumOf, weakQuorumOf } from "./quorum.ts";
import { encodeBatch, encodeStatement } from "./statements.ts";
import { planNewView } from "./view-change.ts";

function digest(bytes: Uint8Array): string {
  let hash = 17;
  for (const byte of bytes) hash = (Math.imul(hash, 31) + byte) | 0;
  return String.fromCharCode(hash & 255, (hash >>> 8) & 255, (hash >>> 16) & 255, hash >>> 24);
}

function sealed<S extends Statement>(statement: S): Signed<S> {
  return { statement, bytes: encodeStatement(statement), signature: new Uint8Array(0) };
}

/** Replica 1 of 4; replica 0 is the first primary. Everything that it persists is durable when the test says so. */
class Bench {
  readonly core: Pbft;
  outputs: readonly PbftOutput[];
  nowMs = 0;

  constructor() {
    this.core = new Pbft({
      self: 1,
      replicas: 4,
      nowMs: 0,
      crypto: { digest, sign: () => new Uint8Array(0) },
      service: {
        partCount: 1,
        execute: (operation) => operation,
        encodePart: () => new Uint8Array(0),
        installPart: () => undefined,
        takeDirty: () => new Set(),
      },
      options: { checkpointEvery: 4, windowLength: 8, viewChangeTimeoutMs: 100, statusMs: 1_000 },
    });
    this.outputs = this.core.start({ cells: new Map(), snapshot: undefined });
  }

  step(input: Omit<PbftInput, "nowMs">): readonly PbftOutput[] {
    this.outputs = this.core.step({ ...input, nowMs: this.nowMs } as PbftInput);
    return this.outputs;
  }

  hear(message: PbftMessage): readonly PbftOutput[] {
    return this.step({ kind: "message", from: 0, message } as never);
  }

  sent(kind: PbftMessage["kind"]): readonly Extract<PbftOutput, { kind: "send" }>[] {
    return this.outputs.flatMap((output) => (output.kind === "send" && output.message.kind === kind ? [output] : []));
  }

  persists(): readonly number[] {
    return this.outputs.flatMap((output) => (output.kind === "persist" ? [output.sequence] : []));
  }
}

const frame = sealed({ kind: "request", client: "c", lane: 0, timestamp: 1, operations: [Uint8Array.of(1)] } as const);
const d = digest(encodeBatch([frame]));
function prePrepare(
  sequence: number,
  options: { readonly view?: number; readonly replica?: number; readonly digest?: string } = {},
) {
  const { view = 0, replica = 0 } = options;
  return {
    kind: "pre-prepare",
    proposal: sealed({ kind: "pre-prepare", replica, view, sequence, digest: options.digest ?? d } as const),
    batch: [frame],
  } as const;
}
function vote(kind: "prepare" | "commit", replica: number, sequence = 1): PbftMessage {
  return { kind, vote: sealed({ kind, replica, view: 0, sequence, digest: d }) } as PbftMessage;
}

test("quorums: any two share a correct replica, and one exists without the faulty, for every n (OSDI 1999 §3)", () => {
  for (let n = 4; n <= 40; n++) {
    const [f, quorum] = [faultsTolerated(n), quorumOf(n)];
    expect(2 * quorum - n).toBeGreaterThan(f);
    expect(quorum).toBeLessThanOrEqual(n - f);
    expect(weakQuorumOf(n)).toBe(f + 1);
  }
  expect([4, 5, 6, 7].map(quorumOf)).toEqual([3, 4, 4, 5]);
});

test("a backup prepares only the primary's first proposal, in its view and window, with the batch that it names (§4.2)", () => {
  const refused = [
    prePrepare(1, { replica: 2 }),
    prePrepare(1, { view: 1, replica: 1 }),
    prePrepare(0),
    prePrepare(9),
    prePrepare(1, { digest: "else" }),
  ];
  for (const message of refused) {
    const bench = new Bench();
    bench.hear(message);
    expect(bench.sent("prepare"), JSON.stringify(message.proposal.statement)).toEqual([]);
  }
  const bench = new Bench();
  bench.hear(prePrepare(1));
  expect(bench.sent("prepare").length).toBe(1);
  const other = { ...prePrepare(1, { digest: digest(encodeBatch([])) }), batch: [] };
  bench.hear(other);
  expect(bench.sent("prepare")).toEqual([]);
  expect(bench.outputs).toContainEqual({ kind: "notice", notice: { notice: "equivocation", against: 0, view: 0, sequence: 1 } });
});

test("a vote waits for its persist, and one's own counts only once it is durable", () => {
  const bench = new Bench();
  bench.hear(prePrepare(1));
  const [saved] = bench.persists() as [number];
  expect(bench.sent("prepare")[0]?.after).toBe(saved);
  bench.hear(vote("prepare", 2));
  expect(bench.sent("commit")).toEqual([]);
  bench.step({ kind: "persisted", sequence: saved } as never);
  expect(bench.sent("commit").length).toBe(1);
  expect(bench.sent("commit")[0]?.after).toBeGreaterThan(saved);
});

test("prepared takes a quorum with the pre-prepare; a replica's second vote and the primary's prepare do not count (§4.2)", () => {
  const bench = new Bench();
  bench.hear(prePrepare(1));
  bench.hear(vote("prepare", 0));
  bench.hear(vote("prepare", 2));
  bench.hear(vote("prepare", 2));
  bench.step({ kind: "tick" } as never);
  expect(bench.sent("commit")).toEqual([]);
  bench.step({ kind: "persisted", sequence: 1 } as never);
  expect(bench.sent("commit").length).toBe(1);
});

test("commits of a quorum execute, and the client is answered; its request runs once (§4.1, §4.2)", () => {
  const bench = new Bench();
  bench.hear(prePrepare(1));
  bench.hear(vote("prepare", 2));
  bench.step({ kind: "persisted", sequence: 1 } as never);
  bench.step({ kind: "persisted", sequence: 2 } as never);
  bench.hear(vote("commit", 2));
  expect(bench.core.executed).toBe(0);
  bench.hear(vote("commit", 3));
  expect(bench.core.executed).toBe(1);
  expect(bench.outputs.some((output) => output.kind === "reply")).toBe(true);
  bench.hear({ kind: "request", frame });
  expect(bench.outputs.filter((output) => output.kind === "reply").length).toBe(1);
  expect(bench.outputs.some((output) => output.kind === "executed")).toBe(false);
});

test("a request that does not execute in time is a reason to leave the view; so are f + 1 who leave it (§4.4, §4.5.2)", () => {
  const bench = new Bench();
  bench.hear({ kind: "request", frame });
  bench.nowMs = 99;
  bench.step({ kind: "tick" } as never);
  expect(bench.sent("view-change")).toEqual([]);
  bench.nowMs = 101;
  bench.step({ kind: "tick" } as never);
  expect(bench.sent("view-change").length).toBe(1);

  const calm = new Bench();
  const leaves = (replica: number, view: number): PbftMessage => ({
    kind: "view-change",
    viewChange: sealed({ kind: "view-change", replica, view, stable: 0, checkpoints: [], prepared: [] }),
  });
  calm.hear(leaves(2, 7));
  expect(calm.core.view).toBe(0);
  calm.hear(leaves(3, 5));
  expect(calm.core.view).toBe(5);
});

test("a new view proposes the digest of the highest certificate, and the null request in the gaps (§4.4)", () => {
  const certificate = (view: number, sequence: number, what: string) => ({
    proposal: sealed({ kind: "pre-prepare", replica: view % 4, view, sequence, digest: what } as const),
    prepares: [],
  });
  const change = (replica: number, prepared: readonly ReturnType<typeof certificate>[]) => ({
    kind: "view-change" as const,
    replica,
    view: 6,
    stable: 4,
    checkpoints: [],
    prepared,
  });
  const plan = planNewView(
    [change(0, [certificate(2, 5, "old")]), change(1, [certificate(4, 5, "new"), certificate(1, 7, "alone")]), change(2, [])],
    "null",
  );
  expect(plan).toMatchObject({ stable: 4, digests: ["new", "null", "alone"] });
});

test("a timer that the host fires too early is set again", () => {
  const bench = new Bench();
  bench.nowMs = 0.5;
  bench.step({ kind: "tick" } as never);
  expect(bench.outputs.some((output) => output.kind === "timer")).toBe(true);
});
