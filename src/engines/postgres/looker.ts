/**
 * Instead of pushes, where they do not arrive (behind a pooler that lends connections for a transaction): one question for
 * all watched namespaces, again and again, whether their revisions have moved.
 */
import { background } from "../../base/background.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import type { Push, PushHandler } from "../../client/feed.ts";
import type { FunctionCaller } from "./function-caller.ts";

export interface LookerOptions {
  readonly caller: FunctionCaller;
  readonly platform: Platform;
  readonly handler: PushHandler;
  readonly everyMs: number;
}

const callMs = 5_000;

export class Looker implements Push {
  readonly #options: LookerOptions;
  /** The revision that was seen last; undefined: none yet. */
  readonly #seen = new Map<string, number | undefined>();
  #timer: Timer | undefined;
  #isLooking = false;
  #isClosed = false;

  constructor(options: LookerOptions) {
    this.#options = options;
  }

  subscribe(namespace: string): void {
    this.#seen.set(namespace, undefined);
    this.#lookIn(0);
  }

  unsubscribe(namespace: string): void {
    this.#seen.delete(namespace);
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #lookIn(delayMs: number): void {
    if (this.#isClosed || this.#isLooking || this.#seen.size === 0) return;
    this.#timer?.cancel();
    this.#timer = this.#options.platform.setTimer(delayMs, () => {
      this.#isLooking = true;
      const looking = this.#look().finally(() => {
        this.#isLooking = false;
        const { everyMs, platform } = this.#options;
        // A fifth is drawn: processes that began together do not stay together.
        this.#lookIn(everyMs * (0.9 + (platform.randomUint32() / 2 ** 32) * 0.2));
      });
      background(looking, "looking at revisions");
    });
  }

  async #look(): Promise<void> {
    const { caller, handler } = this.#options;
    const asked = [...this.#seen.keys()];
    const revisions = await caller.look(asked, { timeoutMs: callMs }).catch(() => []);
    for (const [index, namespace] of asked.entries()) {
      const [before, revision] = [this.#seen.get(namespace), revisions[index]];
      if (revision === undefined || !this.#seen.has(namespace) || before === revision) continue;
      this.#seen.set(namespace, revision);
      if (before === undefined) handler.onSubscribed(namespace);
      else handler.onMessage(namespace, { revision, changes: null });
    }
  }
}
