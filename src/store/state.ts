/**
 * What the machine is made of between two commands: the tree, the sessions and the revision, and a pen to change them.
 *
 * A transaction writes straight into the tree and notes each change as the event that will be told anyway; those notes are
 * also the way back when a later operation fails. So a refused transaction leaves nothing, and an accepted one costs no
 * second copy.
 */
import { assert } from "../base/assert.ts";
import { ByteSlab } from "../base/byte-slab.ts";
import { ClaimTable } from "./claims.ts";
import type { SessionNumber } from "./command.ts";
import { type Digest, emptyDigest, hashEntry, includeHash } from "./digest.ts";
import { Entry } from "./entry.ts";
import { undo } from "./history.ts";
import type { MachineEvent } from "./outcome.ts";
import type { Revision, SessionId } from "./store.ts";
import { TreeEdit } from "./tree.ts";

export interface SessionState {
  readonly number: SessionNumber;
  readonly id: SessionId;
  readonly ttlMs: number;
  /** Whole keys bound to it. Invariant: exactly the entries whose `session` is this one. */
  readonly keys: Set<string>;
  claims: ClaimTable;
  /** A snapshot reads the table: clone it before the next change. */
  areClaimsPinned: boolean;
}

const noEvents: readonly MachineEvent[] = [];

export const revisionMax: Revision = Number.MAX_SAFE_INTEGER;

export class State {
  readonly tree = new TreeEdit<Entry>();
  readonly sessions = new Map<SessionNumber, SessionState>();
  /** Of the last committed write. Moves only in `commit` and `leapTo`. */
  revision: Revision = 0;
  /** Session numbers are dense from here, never used twice. */
  lastSession: SessionNumber = 0;
  isInitialised = false;
  /** Agreed time; never goes back. */
  elapsedMs = 0;
  /** The sum over all entries; undefined where nobody wants it kept up to date. */
  readonly entriesDigest: Digest | undefined;
  readonly #events: MachineEvent[] = [];
  readonly #slab = new ByteSlab();

  constructor(options: { readonly keepsDigest: boolean }) {
    this.entriesDigest = options.keepsDigest ? emptyDigest() : undefined;
  }

  openSession(ttlMs: number): SessionState {
    this.lastSession++;
    return this.addSession({ number: this.lastSession, ttlMs, claims: new ClaimTable() });
  }

  addSession(fields: Pick<SessionState, "number" | "ttlMs" | "claims">): SessionState {
    const session = { ...fields, id: String(fields.number), keys: new Set<string>(), areClaimsPinned: false };
    this.sessions.set(session.number, session);
    return session;
  }

  /** The session's claims, to change. */
  claimsOf(session: SessionState): ClaimTable {
    if (session.areClaimsPinned) {
      session.claims = session.claims.clone();
      session.areClaimsPinned = false;
    }
    return session.claims;
  }

  /** Copies the value. The caller has checked that the session lives and that a revision is left. */
  put(key: string, value: Uint8Array, session: SessionId | null): Entry | null {
    const previous = this.tree.get(key) ?? null;
    const revision = this.revision + 1;
    const entry = new Entry({
      // One string per key, however often it is written.
      binaryKey: previous === null ? key : previous.binaryKey,
      value: this.#slab.copy(value),
      createRevision: previous === null ? revision : previous.createRevision,
      modRevision: revision,
      version: previous === null ? 1 : previous.version + 1,
      session,
    });
    this.tree.set(entry.binaryKey, entry);
    this.#note({ revision, key: entry.binaryKey, entry, previous });
    return previous;
  }

  /** The caller has checked that a revision is left. */
  remove(key: string): Entry {
    const previous = this.tree.delete(key);
    assert(previous !== undefined, "what is removed is there");
    this.#note({ revision: this.revision + 1, key: previous.binaryKey, entry: null, previous });
    return previous;
  }

  /** Puts an entry of a snapshot where it was. Its value is copied. */
  restoreEntry(entry: Entry): void {
    const kept = new Entry({ ...entry, value: this.#slab.copy(entry.value) });
    this.tree.set(kept.binaryKey, kept);
    this.#index(kept.binaryKey, null, kept);
  }

  /** The changes since the last commit, now under one revision of their own. Empty: nothing was written. */
  commit(): readonly MachineEvent[] {
    if (this.#events.length === 0) return noEvents;
    assert(this.revision < revisionMax, "a revision is left");
    this.revision++;
    // A copy of just its size: a list that grew by `push` has room for 17, and the history keeps thousands.
    const events = this.#events.slice();
    this.#events.length = 0;
    return events;
  }

  /** Takes back every change since the last commit. */
  rollback(): void {
    const events = this.#events.slice();
    this.#events.length = 0;
    for (let at = events.length - 1; at >= 0; at--) {
      const event = events[at] as MachineEvent;
      undo(this.tree, event);
      this.#index(event.key, event.entry, event.previous);
    }
  }

  leapTo(revision: Revision): void {
    assert(this.#events.length === 0 && revision >= this.revision, "the revision leaps ahead, between transactions");
    this.revision = revision;
    this.lastSession = Math.max(this.lastSession, revision);
  }

  #note(event: MachineEvent): void {
    this.#events.push(event);
    this.#index(event.key, event.previous, event.entry);
  }

  /** What is derived from entries follows every change of them: bound keys and the digest. */
  #index(key: string, before: Entry | null, after: Entry | null): void {
    const sessionBefore = before === null ? null : before.session;
    const sessionAfter = after === null ? null : after.session;
    if (sessionBefore !== sessionAfter) {
      // A session that is ending has left the table already.
      if (sessionBefore !== null) this.sessions.get(Number(sessionBefore))?.keys.delete(key);
      if (sessionAfter !== null) this.sessions.get(Number(sessionAfter))?.keys.add(key);
    }
    if (this.entriesDigest === undefined) return;
    if (before !== null) includeHash(this.entriesDigest, hashEntry(before), -1);
    if (after !== null) includeHash(this.entriesDigest, hashEntry(after), 1);
  }
}
