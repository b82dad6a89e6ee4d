/**
 * Barriers: a gate that somebody closes and opens, and a double one at which a whole party starts and ends together.
 *
 * A gate that was closed for a session opens when that session ends: a crash lets the others go on. Close it without one
 * where they must not.
 *
 * The double barrier, in keys:   members/session/number   bound to the member's session
 *                                started                  put by whoever sees enough members; deleted by the last to leave
 * A member that dies before the start is no longer counted; after it, it counts as having left. Who comes while a round
 * is still leaving waits for the next.
 * Source: ZooKeeper's recipes "Barriers" and "Double Barriers".
 */
import { assert } from "../base/assert.ts";
import type { CallOptions, Revision, Session, Store } from "../store/store.ts";
import { lockDefaults } from "./acquirable.ts";
import { insist } from "./insist.ts";
import { observeRange, untilRange } from "./observe.ts";
import { checkCount, checkName, checkTtlMs, type StoreSource } from "./options.ts";
import { Claim, leaveQueue } from "./place-claim.ts";
import { type WaitOptions, withinWait } from "./wait.ts";

/** Makes the handle of a barrier; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createBarrier(engine: StoreSource, name: string): Barrier {
  checkName(name, "barrier");
  return new Barrier(engine.store(`barrier/${name}`), name);
}

const gate = "closed";

/** A gate. @since 0.2.0 */
export class Barrier {
  readonly name: string;
  readonly #store: Store;

  /** Use `createBarrier`, which checks the name. */
  constructor(store: Store, name: string) {
    this.#store = store;
    this.name = name;
  }

  /** Closes the gate. `session`: it opens when that session ends. Default: it stays closed until somebody opens it. */
  async close({ session, ...options }: CallOptions & { readonly session?: Session } = {}): Promise<void> {
    const bound = session === undefined ? {} : { session: session.id };
    await this.#store.txn({ then: [{ kind: "put", key: gate, value: "", ...bound }] }, options);
  }

  /** Opens the gate: all who wait go through. Idempotent. */
  async open(options?: CallOptions): Promise<void> {
    await this.#store.txn({ then: [{ kind: "delete", range: { key: gate } }] }, options);
  }

  /** Resolves once the gate is open; at once where nobody closed it. @throws WAIT_TIMEOUT, or the signal's reason */
  async wait(options: WaitOptions = {}): Promise<void> {
    await withinWait(this.#store.platform, options, `Barrier ${JSON.stringify(this.name)}`, (signal) =>
      untilRange(this.#store, { range: { key: gate }, signal }, ({ count }) => count === 0),
    );
  }
}

export interface DoubleBarrierOptions {
  /** How many must have come before they start. At least 1. */
  readonly parties: number;
  /** How long a silent member still counts. As for a lock. Default 15_000. */
  readonly ttlMs?: number;
}

/** Makes the handle of a double barrier; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createDoubleBarrier(engine: StoreSource, name: string, options: DoubleBarrierOptions): DoubleBarrier {
  checkName(name, "double barrier");
  checkCount(options.parties, "parties");
  const store = engine.store(`double-barrier/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  return new DoubleBarrier(store, { name, parties: options.parties, ttlMs });
}

const members = { prefix: "members/" } as const;
const started = "started";

/** @since 0.2.0 */
export class DoubleBarrier {
  readonly name: string;
  readonly parties: number;
  readonly ttlMs: number;
  readonly #store: Store;

  /** Use `createDoubleBarrier`, which checks the options. */
  constructor(store: Store, options: { readonly name: string; readonly parties: number; readonly ttlMs: number }) {
    this.#store = store;
    this.name = options.name;
    this.parties = options.parties;
    this.ttlMs = options.ttlMs;
  }

  /**
   * Waits until enough have come; answers with the way out. A wait that ends otherwise takes its member back.
   * @throws WAIT_TIMEOUT, SESSION_EXPIRED, or the signal's reason
   */
  async enter(options: WaitOptions = {}): Promise<DoubleBarrierMember> {
    const title = `Double barrier ${JSON.stringify(this.name)}`;
    return withinWait(this.#store.platform, options, title, async (signal) => {
      const session = await this.#store.sharedSession({ ttlMs: this.ttlMs, signal });
      const claim = await this.#join(session, signal);
      const letGo = session.hold();
      try {
        for await (const { entries } of observeRange(this.#store, { range: { prefix: "" }, keysOnly: true, signal })) {
          const start = entries.find(({ key }) => key === started);
          // It came while I was in, and stays until I have left: it is my round's.
          if (start !== undefined) return new DoubleBarrierMember({ claim, round: start.createRevision, letGo, title });
          const present = entries.filter(({ key }) => key.startsWith(members.prefix)).length;
          if (present >= this.parties) await this.#start(claim, signal);
        }
      } catch (error) {
        letGo();
        await leaveQueue(claim, { inDoubt: claim.inDoubt });
        throw error;
      }
      throw new Error("unreachable: the loop above has no end");
    });
  }

  /** Takes a place once no earlier round is under way. */
  async #join(session: Session, signal: AbortSignal): Promise<Claim> {
    const claim = new Claim({ store: this.#store, session, value: "", signal }, members);
    for (;;) {
      const { succeeded } = await claim.make(() =>
        this.#store.txn(
          { if: [{ key: started, target: "exists", is: "equal", to: false }], then: claim.putOps(), else: [] },
          { signal },
        ),
      );
      if (succeeded) return claim;
      // An attempt without an answer may have joined the round that has since begun.
      if (claim.inDoubt && (await this.#isMember(claim, signal))) return claim;
      for await (const { entries } of observeRange(this.#store, { range: { prefix: "" }, keysOnly: true, signal })) {
        if (!entries.some(({ key }) => key === started)) break;
        // A round whose members all died has nobody to end it.
        if (entries.length === 1) await endRound(this.#store, signal);
      }
    }
  }

  async #isMember({ key }: Claim, signal: AbortSignal): Promise<boolean> {
    const { platform } = this.#store;
    const { results } = await insist(() => this.#store.txn({ then: [{ kind: "get", key }] }, { signal }), { platform, signal });
    const [found] = results;
    assert(found?.kind === "get", "a get is answered with an entry or null");
    return found.entry !== null;
  }

  /** While I am in: a start that arrives late must not begin a round of nobody. */
  async #start({ key }: Claim, signal: AbortSignal): Promise<void> {
    const { platform } = this.#store;
    const txn = {
      if: [
        { key, target: "exists", is: "equal", to: true },
        { key: started, target: "exists", is: "equal", to: false },
      ],
      then: [{ kind: "put", key: started, value: "" }],
    } as const;
    await insist(() => this.#store.txn(txn, { signal }), { platform, signal });
  }
}

/** Once nobody is in any more. */
async function endRound(store: Store, signal: AbortSignal): Promise<void> {
  const txn = {
    if: [{ range: members, target: "createRevision", is: "less", to: 1 }],
    then: [{ kind: "delete", range: { key: started } }],
  } as const;
  await insist(() => store.txn(txn, { signal }), { platform: store.platform, signal });
}

/** Somebody inside a double barrier. @since 0.2.0 */
export class DoubleBarrierMember {
  readonly #parts: MemberParts;

  constructor(parts: MemberParts) {
    this.#parts = parts;
  }

  /** Whether this member still counts, by its own clock. */
  get alive(): boolean {
    return this.#parts.claim.session.alive;
  }

  /** Leaves, and waits until all others have left. @throws WAIT_TIMEOUT (this member has left), or the signal's reason */
  async leave(options: WaitOptions = {}): Promise<void> {
    const { claim, letGo, round, title } = this.#parts;
    const { store } = claim;
    letGo();
    await leaveQueue(claim, { inDoubt: claim.inDoubt });
    await withinWait(store.platform, options, title, async (signal) => {
      for await (const { entries } of observeRange(store, { range: { prefix: "" }, keysOnly: true, signal })) {
        const start = entries.find(({ key }) => key === started);
        // Somebody faster ended the round; those who are in now are in the next.
        if (start?.createRevision !== round) return;
        if (entries.length === 1) await endRound(store, signal);
      }
    });
  }
}

interface MemberParts {
  readonly claim: Claim;
  /** When the round began. */
  readonly round: Revision;
  readonly letGo: () => void;
  readonly title: string;
}
