/**
 * Who is here: members that announce themselves for as long as they live, and everybody's view of them.
 *
 * A member is a key bound to its session, so a crash removes it after its TTL and a farewell at once.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { CallOptions, Revision, Session, SessionId, Store } from "../store/store.ts";
import { lockDefaults } from "./acquirable.ts";
import { insist } from "./insist.ts";
import { decodeMetadata, encodeMetadata } from "./metadata.ts";
import { observeRange } from "./observe.ts";
import { checkName, checkTtlMs, type StoreSource } from "./options.ts";
import { Claim, leaveQueue } from "./place-claim.ts";

export interface MembershipOptions {
  /** How long a silent member still counts. As for a lock. Default 15_000. */
  readonly ttlMs?: number;
}

/** Somebody who is here. */
export interface Member {
  /** Unique among all members that ever were. */
  readonly id: string;
  readonly info: unknown;
  readonly session: SessionId | null;
  /** When it came, in the order of the store. Higher than that of everybody before: it may fence. */
  readonly token: Revision;
}

/** Makes the handle of a group; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createMembership(engine: StoreSource, name: string, options: MembershipOptions = {}): Membership {
  checkName(name, "membership");
  const store = engine.store(`membership/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  return new Membership(store, { name, ttlMs });
}

const everybody = { prefix: "" } as const;

/** @since 0.2.0 */
export class Membership {
  readonly name: string;
  readonly ttlMs: number;
  readonly #store: Store;

  /** Use `createMembership`, which checks the options. */
  constructor(store: Store, { name, ttlMs }: { readonly name: string; readonly ttlMs: number }) {
    this.#store = store;
    this.name = name;
    this.ttlMs = ttlMs;
  }

  /** Announces this process, or one of several members in it. One round trip. `info`: what JSON can carry. */
  async join(info?: unknown, { signal }: { readonly signal?: AbortSignal } = {}): Promise<OwnMember> {
    const value = encodeMetadata(info, "info");
    const link = linkSignal(signal);
    try {
      const session = await this.#store.sharedSession({ ttlMs: this.ttlMs, signal: link.signal });
      const claim = new Claim({ store: this.#store, session, value, signal: link.signal }, { prefix: "" });
      const { revision } = await claim.make(() => this.#store.txn({ then: claim.putOps() }, { signal: link.signal }));
      return new OwnMember(claim, revision, session);
    } finally {
      link.unlink();
    }
  }

  /** Everybody, in the order of coming. One round trip. */
  async members(options?: CallOptions): Promise<readonly Member[]> {
    const { results } = await this.#store.txn({ then: [{ kind: "range", range: everybody, order: "create" }] }, options);
    const [listed] = results;
    return listed?.kind === "range" ? listed.entries.map(memberOf) : [];
  }

  /** Everybody, at once and after every change, until the signal aborts or the loop is left. States may be skipped. */
  async *observe({ signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<readonly Member[], void, void> {
    const link = linkSignal(signal);
    let told = "";
    try {
      for await (const { entries } of observeRange(this.#store, { range: everybody, order: "create", signal: link.signal })) {
        const state = entries.map((entry) => `${entry.key}@${entry.modRevision}`).join();
        if (state === told && told !== "") continue;
        told = state;
        yield entries.map(memberOf);
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.abort();
      link.unlink();
    }
  }
}

/** A member that is announced by this process. @since 0.2.0 */
export class OwnMember implements AsyncDisposable {
  readonly id: string;
  /** See `Member.token`. */
  readonly token: Revision;
  readonly #claim: Claim;
  readonly #letGo: () => void;
  #isGone = false;

  constructor(claim: Claim, token: Revision, session: Session) {
    this.#claim = claim;
    this.id = claim.key;
    this.token = token;
    this.#letGo = session.hold();
  }

  /** Whether it is still announced, by its own clock. */
  get alive(): boolean {
    return !this.#isGone && this.#claim.session.alive;
  }

  /** Aborts when the announcement is lost with its session; join again. */
  get lost(): AbortSignal {
    return this.#claim.session.lost;
  }

  /** Changes what others read. @throws NOT_HOLDER (it has left), SESSION_LOST */
  async update(info: unknown, options: CallOptions = {}): Promise<void> {
    if (this.#isGone) throw conclaveError("NOT_HOLDER", "This member has left.");
    const { store, session, key } = this.#claim;
    const value = encodeMetadata(info, "info");
    const { signal = session.lost } = options;
    const { succeeded } = await insist(
      () =>
        store.txn(
          {
            if: [{ key, target: "exists", is: "equal", to: true }],
            then: [{ kind: "put", key, value, session: session.id }],
          },
          options,
        ),
      { platform: store.platform, signal },
    );
    if (!succeeded) throw conclaveError("SESSION_LOST", "The member's announcement is gone; join again.");
  }

  /** Says farewell: the others see it at once. Idempotent; never rejects. */
  async leave(): Promise<void> {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#letGo();
    await leaveQueue(this.#claim, { inDoubt: this.#claim.inDoubt });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.leave();
  }
}

function memberOf(entry: {
  readonly key: string;
  readonly value: Uint8Array;
  readonly session: SessionId | null;
  readonly createRevision: Revision;
}): Member {
  return { id: entry.key, info: decodeMetadata(entry.value), session: entry.session, token: entry.createRevision };
}
