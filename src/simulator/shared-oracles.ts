/**
 * What the recipes owe that share something instead of holding it: topic, run-once, membership. As in `recipe-oracles.ts`,
 * time is true time, and a call without a definite answer may have happened.
 */
import type { TopicNews } from "../recipes/topic.ts";
import { must } from "./invariant-violation.ts";

/** What one subscriber was told, from one revision on. */
interface Subscription {
  readonly client: string;
  readonly after: number;
  upTo: number;
  gapUpTo: number;
  readonly seen: Set<number>;
}

/** Messages come in the order of their revisions, each once, none invented; what is left out is covered by a gap that was told. */
export class TopicOracle {
  readonly #sent = new Set<string>();
  /** By revision; those without an answer are missing. */
  readonly #published = new Map<number, string>();
  readonly #subscriptions: Subscription[] = [];

  onPublish(id: string): void {
    this.#sent.add(id);
  }

  onPublished(id: string, revision: number): void {
    const other = this.#published.get(revision) ?? id;
    must(other === id, "TopicOrder", () => `${id} and ${other} are both published at ${revision}`);
    this.#published.set(revision, id);
  }

  /** From now on the client follows, having seen everything up to `after`. */
  subscribe(client: string, after: number): Subscription {
    const subscription = { client, after, upTo: after, gapUpTo: 0, seen: new Set<number>() };
    this.#subscriptions.push(subscription);
    return subscription;
  }

  onNews(subscription: Subscription, news: TopicNews): void {
    const { client, upTo } = subscription;
    must(news.revision > upTo, "TopicOrder", () => `${client} is told of ${news.revision} after ${upTo}`);
    subscription.upTo = news.revision;
    if (news.kind === "gap") {
      subscription.gapUpTo = news.revision;
      return;
    }
    subscription.seen.add(news.revision);
    const { id } = news.payload as { readonly id: string };
    must(this.#sent.has(id), "TopicOrder", () => `${client} is told of ${id}, which nobody published`);
    const known = this.#published.get(news.revision) ?? id;
    must(known === id, "TopicOrder", () => `${client} is told of ${id} at ${news.revision}, where ${known} was published`);
  }

  onEnd(): void {
    for (const { client, after, upTo, gapUpTo, seen } of this.#subscriptions)
      for (const [revision, id] of this.#published)
        must(
          revision <= Math.max(after, gapUpTo) || revision > upTo || seen.has(revision),
          "TopicComplete",
          () => `${client} was told of ${upTo} and never of ${id} at ${revision}, nor of a gap`,
        );
  }
}

/** One runner for a tick; and nobody is turned away from a tick that nobody else asked for. */
export class TickOracle {
  readonly #asked = new Map<string, Set<string>>();
  readonly #ran = new Map<string, string>();

  /** Answers whether it may: a client asks once, because its own slot turns it away as well. */
  onAsk(tick: string, client: string): boolean {
    const asked = this.#asked.get(tick) ?? new Set();
    if (asked.has(client)) return false;
    this.#asked.set(tick, asked.add(client));
    return true;
  }

  onAnswer(tick: string, client: string, took: boolean): void {
    if (!took) {
      const others = [...(this.#asked.get(tick) ?? [])].filter((other) => other !== client);
      must(others.length > 0, "TickOnce", () => `${client} finds tick ${tick} taken, and nobody else asked for it`);
      return;
    }
    const other = this.#ran.get(tick);
    must(other === undefined, "TickOnce", () => `${client} runs tick ${tick}, which ${other} has run`);
    this.#ran.set(tick, client);
  }
}

interface Present {
  readonly id: string;
  readonly token: number;
  readonly alive: boolean;
}

/** Who came and is alive by its own clock is in everybody's view, and who comes later has the higher token. */
export class MembershipOracle {
  #present: Present[] = [];
  #highest = 0;

  /** Answers the floor for `onJoined`. */
  onJoin(): number {
    return this.#highest;
  }

  onJoined(member: Present, floor: number): void {
    must(member.token > floor, "TokensRise", () => `${member.id} came with token ${member.token} after ${floor}`);
    this.#highest = Math.max(this.#highest, member.token);
    this.#present = [...this.#present.filter(({ alive }) => alive), member];
  }

  /** Answers who has to be in a view that is asked for now. */
  onLook(): readonly Present[] {
    return this.#present.filter(({ alive }) => alive);
  }

  onView(due: readonly Present[], ids: readonly string[]): void {
    // Who has left or was lost meanwhile may be there or not.
    for (const { id, alive } of due)
      must(!alive || ids.includes(id), "MembersSeen", () => `${id} is here, and a view shows only [${ids}]`);
  }
}
