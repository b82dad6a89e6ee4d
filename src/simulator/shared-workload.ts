/**
 * Clients that use the recipes which `recipe-workload.ts` leaves out: several locks at once, a lock that is barged into, an
 * election with priorities and transfers, a configuration value, a topic, once per tick, and membership. In the same manner:
 * all of them at one recipe at a time, each judged by a model (`recipe-oracles.ts`, `shared-oracles.ts`).
 */
import type { Client } from "../client/client.ts";
import { createConfig } from "../recipes/config.ts";
import { createElection, type Election, type Term } from "../recipes/election.ts";
import { createLock } from "../recipes/lock.ts";
import { createLockSet } from "../recipes/lock-set.ts";
import { createMembership } from "../recipes/membership.ts";
import { createRunOnce } from "../recipes/run-once.ts";
import { createTopic } from "../recipes/topic.ts";
import type { Coverage } from "./coverage.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { CounterOracle, electionRule, exclusiveRule, GrantOracle } from "./recipe-oracles.ts";
import { count, type RecipeParts, within, workFor } from "./recipe-workload.ts";
import { MembershipOracle, TickOracle, TopicOracle } from "./shared-oracles.ts";
import { sleep } from "./workload.ts";

const kinds = ["lock-set", "barging", "transfer", "config", "topic", "tick", "membership"] as const;
type Kind = (typeof kinds)[number];

/** Clients that share this work. */
export const sharedClientCount = 3;
const ttlMs = 2_000;
const epochMs = 4_000;
/** Locks of which a client wants two at once. */
const setNames = ["north", "east", "south"] as const;
const tickMs = 400;
/** Fewer than a late subscriber misses, and no fewer than are published in `tookDownMs`. */
const topicKeep = 20;
const tookDownMs = 1_000;

/** What all clients of a world report to. */
export class SharedOracles {
  readonly coverage: Coverage;
  /** With which recipe the first epoch begins. */
  readonly first: number;
  readonly sets = new Map(setNames.map((name) => [name as string, new GrantOracle(exclusiveRule("SetExclusion"))]));
  readonly barging = new GrantOracle(exclusiveRule("BargeExclusion"));
  readonly chair = new GrantOracle(electionRule);
  readonly config = new CounterOracle("Config");
  readonly topic = new TopicOracle();
  readonly tick = new TickOracle();
  readonly membership = new MembershipOracle();

  constructor(coverage: Coverage, first: number) {
    this.coverage = coverage;
    this.first = first;
  }
}

type SharedParts = Omit<RecipeParts, "oracles"> & { readonly oracles: SharedOracles };

/** Runs until the world says stop. */
export async function runShared(parts: SharedParts): Promise<void> {
  const { process, random, oracles } = parts;
  for (let round = 0; !parts.isStopped(); round++) {
    const epoch = Math.floor(parts.nowMs() / epochMs);
    try {
      await act(parts, kinds[(epoch + oracles.first) % kinds.length] as Kind, `${process.name}.${round}`);
    } catch (error) {
      if (error instanceof InvariantViolation) throw error;
      // Lost, busy, unreachable: the next round tries again.
    }
    await sleep(process, random.between(0, 60));
  }
}

async function act(parts: SharedParts, kind: Kind, id: string): Promise<void> {
  const { client, process, random, oracles } = parts;
  switch (kind) {
    case "lock-set":
      await holdTwo(parts);
      break;
    case "barging": {
      const lock = createLock(client, "door", { ttlMs, fairness: "barging" });
      const hold = await lock.acquire({ waitMs: random.between(200, 3_000) });
      oracles.barging.onGrant({ client: process.name, hold, weight: 1 });
      await workFor(parts);
      await hold.release();
      break;
    }
    case "transfer": {
      const chair = createElection(client, "chair", { ttlMs });
      const lead = async (term: Term): Promise<void> => {
        oracles.chair.onGrant({ client: process.name, hold: term, weight: 1 });
        await workFor(parts);
        if (random.chance(0.5)) await handOver(parts, chair, term);
      };
      const priority = random.integer(0, 2);
      await within(parts, random.between(200, 3_000), (signal) => chair.lead(lead, { signal, rerun: false, priority }));
      break;
    }
    case "config":
      await count(oracles.config, () => turn(client));
      break;
    case "topic":
      if (random.chance(0.8)) await publish(parts, id);
      else await subscribe(parts);
      break;
    case "tick": {
      const tick = String(Math.floor(parts.nowMs() / tickMs));
      if (!oracles.tick.onAsk(tick, process.name)) break;
      oracles.tick.onAnswer(tick, process.name, await createRunOnce(client, "chime").take(tick, { timeoutMs: 3_000 }));
      break;
    }
    case "membership":
      await visit(parts);
      break;
  }
}

async function holdTwo(parts: SharedParts): Promise<void> {
  const { client, process, random, oracles } = parts;
  const spared = random.pick(setNames);
  const wanted = setNames.filter((name) => name !== spared);
  const set = createLockSet(client, wanted, { ttlMs });
  const holds = await set.acquire({ waitMs: random.between(200, 3_000) });
  for (const [index, name] of set.names.entries()) {
    const hold = holds.holds[index];
    if (hold !== undefined) oracles.sets.get(name)?.onGrant({ client: process.name, hold, weight: 1 });
  }
  await workFor(parts);
  await holds.release();
}

/** To any other candidate; that there is none, or that it goes away, is no failure. */
async function handOver({ oracles }: SharedParts, election: Election, term: Term): Promise<void> {
  try {
    const [candidate] = await election.candidates({ timeoutMs: 500 });
    if (candidate === undefined) return;
    await term.transferTo(candidate.id, { waitMs: 500 });
    oracles.coverage.hit("leadership is handed over by name");
  } catch {
    // The term ends all the same.
  }
}

/** One more than it was: a change that overwrote somebody else's would be missing. */
async function turn(client: Client): Promise<number> {
  const { value } = await createConfig<number>(client, "dial").update((old = 0) => old + 1, { timeoutMs: 3_000 });
  return value as number;
}

async function publish({ client, oracles, nowMs }: SharedParts, id: string): Promise<void> {
  const sentMs = nowMs();
  oracles.topic.onPublish(id);
  const revision = await createTopic(client, "news", { keep: topicKeep }).publish({ id }, { timeoutMs: 3_000 });
  // A message that was sent again, and had been taken down by then, is answered with the revision of that moment.
  if (nowMs() < sentMs + tookDownMs) oracles.topic.onPublished(id, revision);
}

/** From the present on, or from the first message of all, which the board has let go long since. */
async function subscribe(parts: SharedParts): Promise<void> {
  const { client, process, random, oracles } = parts;
  const topic = createTopic(client, "news", { keep: topicKeep });
  const after = random.chance(0.5) ? 0 : await present(client);
  const subscription = oracles.topic.subscribe(process.name, after);
  await within(parts, random.between(100, 1_000), async (signal) => {
    for await (const news of topic.subscribe({ after, signal })) {
      oracles.topic.onNews(subscription, news);
      if (news.kind === "gap") oracles.coverage.hit("a subscriber is told of a gap");
      // Slow now and then, so that the board moves on meanwhile.
      if (random.chance(0.1)) await sleep(process, random.between(50, 500));
    }
  });
}

async function present(client: Client): Promise<number> {
  const { revision } = await client.store("registers").txn({ then: [{ kind: "get", key: "x" }] }, { timeoutMs: 3_000 });
  return revision;
}

async function visit(parts: SharedParts): Promise<void> {
  const { client, random, oracles } = parts;
  const crew = createMembership(client, "crew", { ttlMs });
  const floor = oracles.membership.onJoin();
  const own = await within(parts, 3_000, (signal) => crew.join({}, { signal }));
  oracles.membership.onJoined(own, floor);
  for (let looks = random.integer(1, 3); looks > 0; looks--) {
    await workFor(parts);
    const due = oracles.membership.onLook();
    const members = await crew.members({ timeoutMs: 3_000 });
    const ids = members.map(({ id }) => id);
    oracles.membership.onView(due, ids);
  }
  await own.leave();
}

/** After the faults: the value was raised exactly as often as was answered, and nobody missed a message unawares. */
export async function judgeShared(client: Client, oracles: SharedOracles): Promise<void> {
  oracles.config.onEnd((await createConfig<number>(client, "dial").get()).value ?? 0);
  oracles.topic.onEnd();
}
