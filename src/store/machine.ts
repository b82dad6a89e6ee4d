/**
 * The key-value machine: committed batches in, outcomes and events out, the same on every member.
 *
 * Intuition: a notary with a ledger. Whatever the assembly decided is read to them in order; they write it down, number
 * each page, and tell whoever asked what came of it. They own no clock: time is what the minutes say.
 * Source: Schneider, "Implementing fault-tolerant services using the state machine approach", 1990; operations and
 * revisions are those of etcd's v3 store.
 *
 * Deterministic: nothing but the batches decides what it holds and answers. `limits` must therefore be equal on all
 * members. What a member keeps of the past is its own affair, so older states are for `read` alone, never for the log.
 * The caller has checked each command at its door (`decodeCommand(bytes, limits)`, and `commandKindOf` against clients that
 * would expire sessions): here garbage is answered with PROTOCOL, but an unknown *format* throws, and the member must stop.
 */
import { assert, unreachable } from "../base/assert.ts";
import { ByteReader } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import { BatchReader } from "./batch.ts";
import { embeddedLimits, type Limits } from "./caps.ts";
import {
  type Command,
  isClaimBeyondWindow,
  isReadableFormat,
  isReadOnly,
  type ResolvedClaim,
  type ResolvedTxn,
  readCommand,
  readsOlderState,
  type SessionNumber,
} from "./command.ts";
import { digestText, emptyDigest, hashEntry, hashParts, includeHash } from "./digest.ts";
import type { Entry } from "./entry.ts";
import { executeTxn, readOp } from "./execute.ts";
import { type Changes, History } from "./history.ts";
import type { BinaryRange } from "./key.ts";
import { type ErrorOutcome, errorOutcome, type MachineEvent, type Outcome } from "./outcome.ts";
import { allHold, type ResultBudget } from "./query.ts";
import { MachineSnapshot, restoreState } from "./snapshot.ts";
import { revisionMax, type SessionState, State } from "./state.ts";
import type { OpResult, Revision, SessionId } from "./store.ts";
import type { Tree } from "./tree.ts";

export interface MachineOptions {
  /** Equal on all members. Default `embeddedLimits`. */
  readonly limits?: Limits;
  /** Keeps the entries' hash up to date, at two hashes a write, so that `digest` is cheap. Default false. */
  readonly keepsDigest?: boolean;
}

export interface RestoreOptions extends MachineOptions {
  /** Index of the last log entry that the snapshot covers. */
  readonly appliedIndex: number;
  /**
   * Lets the next `initialise` have effect again, so that the revisions of a store that is restored from a backup go on
   * above those that the lost one gave out. Equal on all members. Default false.
   */
  readonly asNew?: boolean;
}

/** A delivered slot of the log. */
export interface AppliedEntry {
  readonly index: number;
  readonly stampMs: number;
}

export interface MachineSession {
  readonly id: SessionId;
  readonly session: SessionNumber;
  readonly ttlMs: number;
  readonly boundKeys: number;
  readonly keptClaims: number;
}

/** Called once for each revision, in order, with all of its events. It must not write. */
export type RevisionListener = (revision: Revision, events: readonly MachineEvent[]) => void;

export class Machine {
  readonly limits: Limits;
  readonly #state: State;
  readonly #history: History;
  readonly #listeners = new Set<RevisionListener>();
  readonly #reader = new ByteReader(new Uint8Array(0));
  /** The present state sealed, for those who keep it: made on demand, dropped by the next write. */
  #sealed: Tree<Entry> | undefined;
  #appliedIndex: number;

  /** Empty, or from a restored state. */
  constructor(options: MachineOptions = {}, restored?: { readonly state: State; readonly appliedIndex: number }) {
    this.limits = options.limits ?? embeddedLimits;
    this.#state = restored?.state ?? new State({ keepsDigest: options.keepsDigest ?? false });
    this.#appliedIndex = restored?.appliedIndex ?? 0;
    this.#history = new History({
      revision: this.#state.revision,
      revisionsMax: this.limits.historyRevisions,
      bytesMax: this.limits.historyBytes,
    });
  }

  /** The chunks of a snapshot, in order, cut anywhere. @throws SNAPSHOT_CORRUPT, DIRECTORY_NEWER (a newer format) */
  static restore(chunks: Iterable<Uint8Array>, options: RestoreOptions): Machine {
    const state = restoreState(chunks, { keepsDigest: options.keepsDigest ?? false });
    if (options.asNew === true) state.isInitialised = false;
    return new Machine(options, { state, appliedIndex: options.appliedIndex });
  }

  /** Of the last writing transaction. */
  get revision(): Revision {
    return this.#state.revision;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** Agreed time. Never goes back. */
  get elapsedMs(): number {
    return this.#state.elapsedMs;
  }

  get isInitialised(): boolean {
    return this.#state.isInitialised;
  }

  get entryCount(): number {
    return this.#state.tree.size;
  }

  /** The oldest revision that `atRevision` can read. */
  get oldestRevision(): Revision {
    return this.#history.floor;
  }

  *sessions(): Generator<MachineSession> {
    for (const { id, number, ttlMs, keys, claims } of this.#state.sessions.values()) {
      yield { id, session: number, ttlMs, boundKeys: keys.size, keptClaims: claims.count };
    }
  }

  get sessionCount(): number {
    return this.#state.sessions.size;
  }

  hasSession(session: SessionId | SessionNumber): boolean {
    return this.#state.sessions.has(Number(session));
  }

  /** Undefined when it is not alive. */
  sessionTtlMs(session: SessionId | SessionNumber): number | undefined {
    return this.#state.sessions.get(Number(session))?.ttlMs;
  }

  /**
   * Applies every command of the batch, in order. Outcomes are told by their place in the batch, each after its events.
   * @throws PROTOCOL when the batch or a command has a format that this version does not read: stop the member.
   */
  applyBatch(
    entry: AppliedEntry & { readonly payload: Uint8Array },
    onOutcome?: (position: number, outcome: Outcome) => void,
  ): void {
    this.skip(entry);
    const batch = new BatchReader(entry.payload);
    while (batch.next()) {
      const outcome = this.#applyCommand(batch);
      onOutcome?.(batch.position, outcome);
    }
  }

  /** An entry without commands (a no-op, a configuration) passes: only the index and the time move. */
  skip(entry: AppliedEntry): void {
    assert(entry.index > this.#appliedIndex, "entries are applied in the order of the log, each once");
    this.#appliedIndex = entry.index;
    this.#state.elapsedMs = Math.max(this.#state.elapsedMs, entry.stampMs);
  }

  /** Answers a transaction that only reads, on the present state (and on older ones where it asks for them). */
  read(txn: ResolvedTxn): Outcome {
    if (!isReadOnly(txn)) return errorOutcome("INVALID_OPTION", "A txn that writes must go through the log.");
    const tree = this.#state.tree;
    const succeeded = allHold(txn.compares, tree);
    const budget: ResultBudget = { bytes: this.limits.resultBytesMax };
    const results: OpResult[] = [];
    for (const op of succeeded ? txn.then : txn.else) {
      assert(op.kind === "get" || op.kind === "range", "a read-only txn has no other operations");
      const state = op.kind === "range" && op.atRevision !== null ? this.#stateAt(op.atRevision) : tree;
      if ("kind" in state) return state;
      const result = readOp(op, state, budget, this.limits);
      if (result.kind === "error") return result;
      results.push(result);
    }
    return { kind: "txn", result: { succeeded, revision: this.#state.revision, results } };
  }

  /** The events in the range since the revision (itself included), or that they are no longer kept. */
  changesSince(range: BinaryRange, fromRevision: Revision, maxEvents = Number.MAX_SAFE_INTEGER): Changes {
    return this.#history.changesSince(range, fromRevision, maxEvents);
  }

  /** The present entries of the range, with whole keys: what a resync tells. */
  entriesIn(range: BinaryRange): { readonly revision: Revision; readonly entries: readonly Entry[] } {
    const entries: Entry[] = [];
    this.#state.tree.visit(range.from, range.to, (entry) => {
      entries.push(entry);
      return true;
    });
    return { revision: this.#state.revision, entries };
  }

  /** Calls the listener within `applyBatch`, until the returned function is called. */
  subscribe(listener: RevisionListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Pins the present state: O(sessions), nothing is copied. Its chunks may be drained while later batches apply. */
  snapshot(): MachineSnapshot {
    return new MachineSnapshot(this.#state, this.#present());
  }

  /** Equal on members that applied the same batches, restored or not. Without `keepsDigest` it goes through everything. */
  digest(): string {
    const { revision, lastSession, isInitialised, elapsedMs, sessions, tree } = this.#state;
    let entries = this.#state.entriesDigest;
    if (entries === undefined) {
      entries = emptyDigest();
      const sum = entries;
      tree.visit("", "\xff", (entry) => {
        includeHash(sum, hashEntry(entry), 1);
        return true;
      });
    }
    const people = emptyDigest();
    for (const { number, ttlMs, claims } of sessions.values()) {
      const kept = claims.digest();
      includeHash(people, hashParts(number, ttlMs, kept.high, kept.low), 1);
    }
    return digestText(
      hashParts(revision, lastSession, isInitialised ? 1 : 0, elapsedMs, entries.high, entries.low, people.high, people.low),
    );
  }

  #applyCommand(batch: BatchReader): Outcome {
    assert(
      isReadableFormat(batch.payload, batch.from, batch.to),
      "every command in the log has a format that this version reads",
    );
    this.#reader.reset(batch.payload, batch.from, batch.to);
    let command: Command;
    try {
      command = readCommand(this.#reader);
    } catch (error) {
      if (hasCode(error, "PROTOCOL")) return errorOutcome("PROTOCOL", "The command cannot be read; nothing was done.");
      throw error;
    }
    switch (command.kind) {
      case "txn":
        return this.#applyTxn(command);
      case "open-session":
        return this.#openSession(command.ttlMs);
      case "close-session":
        return this.#endSessions([command.session]);
      case "expire-sessions":
        return this.#endSessions(command.sessions);
      case "initialise":
        return this.#initialise(command.revision);
      default:
        return unreachable(command);
    }
  }

  #applyTxn(txn: ResolvedTxn): Outcome {
    // What a member has kept of the past must not decide what all members hold.
    if (readsOlderState(txn)) return errorOutcome("INVALID_OPTION", "A txn with `atRevision` cannot go through the log.");
    if (txn.claim === null) return this.#execute(txn);
    return this.#applyClaimed(txn, txn.claim);
  }

  #applyClaimed(txn: ResolvedTxn, claim: ResolvedClaim): Outcome {
    const session = this.#state.sessions.get(claim.session);
    if (session === undefined) {
      // An earlier copy may have run while the session lived.
      return errorOutcome("SESSION_EXPIRED", `Session ${claim.session} of claim ${claim.sequence} is not alive.`, false);
    }
    if (isClaimBeyondWindow(claim, this.limits)) return this.#tooManyClaims(claim);
    const claims = this.#state.claimsOf(session);
    if (claim.sequence < claims.floor) {
      const message = `Claim ${claim.sequence} of session ${claim.session} is below ${claims.floor}, the lowest that was still open.`;
      return errorOutcome("CLAIM_TOO_OLD", message, false);
    }
    claims.raiseFloor(claim.lowestOpen);
    const first = claims.get(claim.sequence);
    if (first !== undefined) return first;
    // Kept like any outcome: a second copy of a refused claim must not run when there is room again.
    const outcome = claims.bytes >= this.limits.resultBytesMax ? this.#tooManyClaims(claim) : this.#execute(txn);
    claims.keep(claim.sequence, outcome);
    return outcome;
  }

  #tooManyClaims(claim: ResolvedClaim): Outcome {
    return errorOutcome("BUSY", `Too many mutations of session ${claim.session} wait for their answers.`);
  }

  #execute(txn: ResolvedTxn): Outcome {
    return executeTxn(txn, this.#state, this.limits, this.#onCommit);
  }

  #openSession(ttlMs: number): Outcome {
    const { ttlMsMin, ttlMsMax } = this.limits;
    if (ttlMs < ttlMsMin || ttlMs > ttlMsMax) {
      return errorOutcome("INVALID_OPTION", `ttlMs is ${ttlMs}; ${ttlMsMin} to ${ttlMsMax} are allowed.`);
    }
    if (this.#state.lastSession >= revisionMax) return errorOutcome("REVISION_LIMIT", "No session number is left.");
    const session = this.#state.openSession(ttlMs);
    return { kind: "opened", session: session.id, revision: this.#state.revision };
  }

  /** Each session that is still there ends in a revision of its own, if keys go with it. */
  #endSessions(numbers: readonly SessionNumber[]): Outcome {
    for (const number of numbers) {
      const session = this.#state.sessions.get(number);
      if (session === undefined) continue;
      if (session.keys.size > 0 && this.#state.revision >= revisionMax) {
        return errorOutcome("REVISION_LIMIT", `Session ${number} was not ended: no revision is left.`);
      }
      this.#endSession(session);
    }
    return { kind: "done", revision: this.#state.revision };
  }

  #endSession(session: SessionState): void {
    this.#state.sessions.delete(session.number);
    // Sorted: the order in which they were bound is not part of the state, and a restored member does not know it.
    for (const key of [...session.keys].sort()) this.#state.remove(key);
    const events = this.#state.commit();
    if (events.length > 0) this.#onCommit(events);
  }

  #initialise(revision: Revision): Outcome {
    if (!this.#state.isInitialised) {
      this.#state.isInitialised = true;
      if (revision > this.#state.revision) {
        this.#state.leapTo(revision);
        this.#history.restart(revision);
      }
    }
    return { kind: "done", revision: this.#state.revision };
  }

  readonly #onCommit = (events: readonly MachineEvent[]): void => {
    this.#sealed = undefined;
    const revision = this.#state.revision;
    this.#history.push(events, this.#history.wantsTree(revision) ? this.#present() : undefined);
    for (const listener of this.#listeners) listener(revision, events);
  };

  /** The present state, for good. */
  #present(): Tree<Entry> {
    this.#sealed ??= this.#state.tree.seal();
    return this.#sealed;
  }

  #stateAt(revision: Revision): Tree<Entry> | ErrorOutcome {
    if (revision > this.#state.revision) {
      return errorOutcome("INVALID_OPTION", `atRevision is ${revision}; this member has reached ${this.#state.revision}.`);
    }
    if (revision < this.#history.floor) {
      return errorOutcome("COMPACTED", `Revision ${revision} is older than ${this.#history.floor}, the oldest that is kept.`);
    }
    return this.#history.stateAt(revision, () => this.#present());
  }
}
