/**
 * What the simulated clients do, and the oracles that judge what they saw.
 *
 * - registers: reads, writes and compare-and-sets; the history goes to the linearizability checker;
 * - locks: acquire, look, add to a guarded set, release; at most one hold may be `held` at any instant of true time, tokens
 *   rise in the order of grants, and the guarded set holds exactly what was acknowledged.
 */
import { hasCode } from "../base/errors.ts";
import type { Client } from "../client/client.ts";
import type { Hold } from "../recipes/hold.ts";
import { createLock } from "../recipes/lock.ts";
import type { Operation } from "../testing/linearizability/operation.ts";
import type { RegisterInput, RegisterOutput } from "../testing/linearizability/register-model.ts";
import type { Coverage } from "./coverage.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

export type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

/** Everything that the clients of a world did, with what they may not contradict. */
export class Observations {
  readonly operations: RegisterOperation[] = [];
  readonly #holds = new Map<string, { readonly hold: Hold; readonly client: string }[]>();
  readonly #lastToken = new Map<string, number>();
  /** Per lock: elements that were acknowledged, and those whose outcome is unknown. */
  readonly added = new Map<string, { readonly sure: Set<string>; readonly maybe: Set<string> }>();
  grants = 0;
  losses = 0;
  readonly #coverage: Coverage;

  constructor(coverage: Coverage) {
    this.#coverage = coverage;
  }

  onLoss(): void {
    this.losses++;
    this.#coverage.hit("a hold is lost");
  }

  onRefusal(): void {
    this.#coverage.hit("a guard refuses");
  }

  /** At the instant at which a client learns that it holds. */
  onGrant(lock: string, client: string, hold: Hold): void {
    this.grants++;
    const others = (this.#holds.get(lock) ?? []).filter((other) => other.hold.held);
    if (hold.held && others.length > 0) {
      const [other] = others;
      throw new InvariantViolation(
        "LockExclusion",
        `${client} holds "${lock}" with token ${hold.token} while ${other?.client} holds it with ${other?.hold.token}`,
      );
    }
    const last = this.#lastToken.get(lock) ?? 0;
    // A grant that is noticed late (its process slept) is judged by its place, not by the moment.
    if (hold.held && hold.token <= last) {
      throw new InvariantViolation("TokensRise", `${client} was granted "${lock}" with token ${hold.token} after token ${last}`);
    }
    this.#lastToken.set(lock, Math.max(last, hold.token));
    others.push({ hold, client });
    this.#holds.set(lock, others);
  }

  elementsOf(lock: string): { readonly sure: Set<string>; readonly maybe: Set<string> } {
    let elements = this.added.get(lock);
    if (elements === undefined) {
      elements = { sure: new Set(), maybe: new Set() };
      this.added.set(lock, elements);
    }
    return elements;
  }
}

export interface WorkloadParts {
  readonly client: Client;
  readonly process: SimulatedProcess;
  readonly random: Random;
  readonly observations: Observations;
  readonly number: number;
  readonly nowMs: () => number;
  readonly isStopped: () => boolean;
}

const registers = ["x", "y", "z"];
const locks = ["orders", "a/b 🔒"];

/** Runs until the world says stop; answers when the last operation is over. */
export async function runRegisters(parts: WorkloadParts): Promise<void> {
  const store = parts.client.store("registers");
  for (let count = 0; !parts.isStopped(); count++) {
    const key = parts.random.pick(registers);
    const value = `${parts.number}.${count}`;
    const invokedAt = parts.nowMs();
    const [input, run] = plan(parts.random, key, value);
    const record = (output: RegisterOutput | undefined, returnedAt: number | undefined): void => {
      parts.observations.operations.push({ process: parts.number, key, input, output, invokedAt, returnedAt });
    };
    try {
      record(await run(store), parts.nowMs());
    } catch (error) {
      // Unknown stays open for ever; what surely did not happen is no operation at all.
      if (!isDefinite(error)) record(undefined, undefined);
    }
    await sleep(parts.process, parts.random.between(0, 40));
  }
}

function plan(
  random: Random,
  key: string,
  value: string,
): [RegisterInput, (store: ReturnType<Client["store"]>) => Promise<RegisterOutput>] {
  const dice = random.float();
  if (dice < 0.4) {
    return [
      { f: "read" },
      async (store) => {
        const { results } = await store.txn({ then: [{ kind: "get", key }] }, { timeoutMs: 3_000 });
        const entry = results[0]?.kind === "get" ? results[0].entry : null;
        return { f: "read", value: entry === null ? null : entry.text };
      },
    ];
  }
  if (dice < 0.8) {
    return [
      { f: "write", value },
      async (store) => {
        await store.txn({ then: [{ kind: "put", key, value }] }, { timeoutMs: 3_000 });
        return { f: "write" };
      },
    ];
  }
  const from = `${random.integer(0, 2)}.${random.integer(0, 20)}`;
  return [
    { f: "cas", from, to: value },
    async (store) => {
      const { succeeded } = await store.txn(
        { if: [{ key, target: "value", is: "equal", to: from }], then: [{ kind: "put", key, value }] },
        { timeoutMs: 3_000 },
      );
      return { f: "cas", swapped: succeeded };
    },
  ];
}

export async function runLocks(parts: WorkloadParts): Promise<void> {
  const { client, observations, random, process } = parts;
  for (let count = 0; !parts.isStopped(); count++) {
    const name = random.pick(locks);
    const lock = createLock(client, name, { ttlMs: 2_000 });
    try {
      const hold = await lock.acquire({ waitMs: random.between(500, 6_000) });
      observations.onGrant(name, process.name, hold);
      // Now and then long enough for a leader to be cut off, replaced and forgotten meanwhile.
      await sleep(process, random.chance(0.1) ? random.between(500, 6_000) : random.between(0, 60));
      await addGuarded(parts, { name, hold, element: `${parts.number}.${count}` });
      if (!hold.held) observations.onLoss();
      await hold.release();
    } catch (error) {
      if (error instanceof InvariantViolation) throw error;
      // Busy, lost, unreachable: the next round tries again.
      await sleep(process, random.between(0, 200));
    }
  }
}

/** Adds to the set under the guard: the resource itself refuses whoever no longer holds. */
async function addGuarded(
  parts: WorkloadParts,
  what: { readonly name: string; readonly hold: Hold; readonly element: string },
): Promise<void> {
  const elements = parts.observations.elementsOf(what.name);
  const store = parts.client.store("sets");
  elements.maybe.add(what.element);
  try {
    const { succeeded } = await store.txn(
      { if: [what.hold.guard()], then: [{ kind: "put", key: `${what.name}/${what.element}`, value: String(what.hold.token) }] },
      { timeoutMs: 3_000 },
    );
    elements.maybe.delete(what.element);
    if (succeeded) elements.sure.add(what.element);
    else parts.observations.onRefusal();
  } catch (error) {
    if (isDefinite(error)) elements.maybe.delete(what.element);
    throw error;
  }
}

/** After the faults: every acknowledged element is there, in the order of tokens, and nothing that nobody added. */
export async function judgeSets(client: Client, observations: Observations): Promise<void> {
  for (const [name, { sure, maybe }] of observations.added) {
    // A straggler's last addition may be answered while the set is being read (stack seed 159).
    const before = [...sure];
    const { results } = await client
      .store("sets")
      .txn({ then: [{ kind: "range", range: { prefix: `${name}/` }, order: "create" }] });
    const entries = results[0]?.kind === "range" ? results[0].entries : [];
    const present = new Set(entries.map((entry) => entry.key.slice(name.length + 1)));
    for (const element of before) {
      if (!present.has(element)) throw new InvariantViolation("AckedIsDurable", `the guarded set "${name}" lost ${element}`);
    }
    for (const element of present) {
      if (!sure.has(element) && !maybe.has(element))
        throw new InvariantViolation("GuardRefuses", `the guarded set "${name}" holds ${element}, which was refused`);
    }
    for (let at = 1; at < entries.length; at++) {
      const [before, after] = [Number(entries[at - 1]?.text), Number(entries[at]?.text)];
      if (after <= before)
        throw new InvariantViolation("FencedExclusion", `the set "${name}" took token ${after} after token ${before}`);
    }
  }
}

/**
 * After the faults: a claimed addition is said again when its session has ended. What told that it ran went with the session,
 * so it must be refused; that the machine does so where it is decided is DeadClaimsRefused (`claim-judge.ts`).
 */
export async function judgeClaims(client: Client): Promise<void> {
  const store = client.store("claims");
  const session = await store.session({ ttlMs: 2_000 });
  const claim = { session: session.id, sequence: 1, lowestOpen: 1 };
  const add = () => store.txn({ then: [{ kind: "add", key: "once", delta: 1 }], claim });
  await add();
  await session.close();
  await add().catch((error: unknown) => {
    if (!hasCode(error, "SESSION_EXPIRED")) throw error;
  });
  const { results } = await store.txn({ then: [{ kind: "get", key: "once" }] });
  const sum = results[0]?.kind === "get" ? results[0].entry?.text : undefined;
  must(sum === "1", "ClaimOnce", () => `one claimed addition of 1, said twice, made ${sum}`);
}

export function sleep(process: SimulatedProcess, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    process.platform.setTimer(delayMs, resolve);
  });
}

export function isDefinite(error: unknown): boolean {
  return (error as { definite?: boolean }).definite === true || hasCode(error, "CLOSED");
}
