/**
 * One member's place at the table, for the life of one session: it looks, acts on what it sees, and waits for news.
 *
 * Intuition: a player who looks at the whole board before each turn and keeps nothing in mind but what lies in his hand.
 * Every step may fail, come late or happen twice; the next look shows what is true.
 *
 *   for each partition                         it is mine to hold            it is not
 *     I hold it                                nothing                       its new owner is ready: stop, then let go
 *     the store says that I hold it, I do not  take it up                    let go
 *     another holds it                         say when I am ready           nothing
 *     nobody holds it                          claim it                      nothing
 *
 * A claim is put only where there is none, under the very table that was read; it is bound to the session, as a lock's key
 * is. So a partition changes hands in one of two ways: the holder stops, then deletes its claim; or the session runs out,
 * which the holder knows by its own clock a third of the TTL earlier (`client/session.ts`).
 */
import { background } from "../base/background.ts";
import { conclaveError, hasCode } from "../base/errors.ts";
import { type LinkedSignal, linkSignal, onAbort } from "../base/link-signal.ts";
import { type Bell, sleep } from "../recipes/bell.ts";
import { insist } from "../recipes/insist.ts";
import type { Compare, Op, Revision, Session, SessionId, Store, Txn } from "../store/store.ts";
import { type Migrate, Migration } from "./migration.ts";
import { nextTable } from "./plan.ts";
import { Shard } from "./shard.ts";
import {
  isWorthAnotherLook,
  type MoveEntry,
  memberKey,
  moveKey,
  ownKey,
  type PartitionsState,
  readState,
  tableKey,
} from "./state.ts";

export interface SeatOptions {
  readonly store: Store;
  readonly session: Session;
  readonly name: string;
  readonly member: string;
  /** Tells this process's writing of the member's key from another's. */
  readonly mark: string;
  readonly count: number;
  readonly movesMax: number;
  readonly drainMs: number;
  readonly weight: () => number;
  readonly isPlanner: () => boolean;
  /** Whether this handle takes part at present, with this seat or a later one. */
  readonly isSeated: () => boolean;
  readonly migrate: Migrate | undefined;
  readonly onError: (error: unknown, partition: number) => void;
  readonly offer: (shard: Shard) => void;
  /** Shards of this process whose work has not let go, also those of an earlier session: not claimed again meanwhile. */
  readonly working: Map<number, Shard>;
  readonly bell: Bell<true>;
}

/** A partition that is to become mine. */
interface Taking {
  readonly partition: number;
  readonly from: string | null;
  readonly link: LinkedSignal;
  isReady: boolean;
  migration: Migration | undefined;
  readonly claimed: Promise<Shard>;
  readonly onClaimed: (shard: Shard) => void;
}

/** Partitions in one transaction: two operations and a compare each stay below every engine's limit. */
const batchSize = 30;
const batchesAtOnce = 8;
/** Changes that come together are looked at together. */
const settleMs = 10;
/** After a step that failed, and between two attempts at a migration. */
const pauseMs = 250;
/** How often an unanswered announcement is looked for after leaving, a third of the TTL apart: over more than one whole TTL. */
const looksForAnnounced = 4;

export class Seat {
  readonly #options: SeatOptions;
  readonly #shards = new Map<number, Shard>();
  readonly #leaving = new Set<number>();
  /** The latest claim of each partition that was taken up here. Each is taken up once. */
  readonly #takenUp = new Map<number, Revision>();
  readonly #takings = new Map<number, Taking>();
  #isRetrying = false;
  /** A put of my member's key has stayed unanswered: it may arrive yet. */
  #isAnnouncedInDoubt = false;

  constructor(options: SeatOptions) {
    this.#options = options;
  }

  /** Until the signal aborts (then it has left in order) or the session is lost. @throws what is no passing trouble */
  async sit(signal: AbortSignal): Promise<void> {
    const { session } = this.#options;
    const link = linkSignal(signal);
    const unfollow = onAbort(session.lost, () => link.abort(session.lost.reason));
    const letGo = session.hold();
    try {
      while (!link.signal.aborted) {
        const state = await this.#look(link.signal);
        this.#checkCount(state);
        await this.#act(state, link.signal);
        await this.#news(state.revision, link.signal);
      }
    } catch (error) {
      if (!link.signal.aborted) {
        await this.#leave();
        throw error;
      }
    } finally {
      unfollow();
      link.unlink();
      letGo();
    }
    await this.#leave();
  }

  #look(signal: AbortSignal): Promise<PartitionsState> {
    const { session, store } = this.#options;
    // A look that is lost on the way must not keep this member from seeing for longer than its session may be silent.
    const timeoutMs = session.ttlMs / 3;
    return insist(() => readState(store, { signal, timeoutMs }), { platform: store.platform, signal });
  }

  async #act(state: PartitionsState, signal: AbortSignal): Promise<void> {
    this.#isRetrying = false;
    await this.#announce(state);
    this.#noteBroken(state);
    await this.#adopt(state);
    this.#stopWhatMoves(state);
    await this.#dropTakings(state);
    this.#startTakings(state, signal);
    await this.#ask(state);
    await this.#claim(state);
    await this.#plan(state);
  }

  /** My own key: put where it is missing, and where the weight has changed. One of an earlier process is waited out. */
  async #announce({ members }: PartitionsState): Promise<void> {
    const { member, mark, session, weight } = this.#options;
    const mine = members.find(({ id }) => id === member);
    if (mine !== undefined && mine.session !== session.id) return;
    if (mine !== undefined && mine.mark !== mark) {
      throw conclaveError(
        "INVALID_OPTION",
        `Member ${JSON.stringify(member)} serves "${this.#options.name}" already in this process.`,
      );
    }
    if (mine?.weight === weight()) return;
    const value = JSON.stringify({ weight: weight(), mark });
    const key = memberKey(member);
    const done = await this.#try({
      if: [{ key, target: "session", is: "equal", to: mine === undefined ? null : session.id }],
      then: [{ kind: "put", key, value, session: session.id }],
    });
    if (done === null) this.#isAnnouncedInDoubt = true;
  }

  /** A claim that is gone although the session lives: an operator deleted it. Who works on it must stop. */
  #noteBroken({ revision, claims }: PartitionsState): void {
    for (const [partition, shard] of this.#shards) {
      if (revision < shard.epoch || claims.get(partition)?.token === shard.epoch) continue;
      shard.end("its claim was deleted");
      if (!this.#leaving.has(partition)) this.#forget(partition, shard);
    }
  }

  /**
   * Claims whose answer was lost on the way: mine at the store, unknown here. One that was taken up before is no such: what
   * was read may be older than its deletion, and another may own the partition by now.
   */
  async #adopt(state: PartitionsState): Promise<void> {
    const { member, session } = this.#options;
    const unwanted: number[] = [];
    for (const [partition, claim] of state.claims) {
      if (claim.member !== member || claim.session !== session.id || this.#shards.has(partition)) continue;
      const isNew = claim.token > (this.#takenUp.get(partition) ?? 0);
      if (isNew && state.table?.owners[partition] === member) this.#onClaimed(partition, claim.token);
      else unwanted.push(partition);
    }
    await this.#inBatches(unwanted, (partition) => {
      const token = state.claims.get(partition)?.token ?? 0;
      return { if: claimIs(partition, token), then: [deleteKey(ownKey(partition))] };
    });
  }

  #stopWhatMoves({ table, moves }: PartitionsState): void {
    for (const [partition, shard] of this.#shards) {
      const owner = table?.owners[partition];
      if (this.#leaving.has(partition) || owner === this.#options.member) continue;
      const move = moves.get(partition);
      if (move?.ready !== true || move.member !== owner) continue;
      this.#leaving.add(partition);
      background(this.#letGo(partition, shard, owner), "letting go of a partition");
    }
  }

  /** First it stops, then it lets go: never the other way round. */
  async #letGo(partition: number, shard: Shard, to: string): Promise<void> {
    const { session } = this.#options;
    shard.end(`it moves to ${to}`);
    await shard.released;
    const link = linkSignal(session.lost);
    try {
      const { store } = this.#options;
      const txn: Txn = { if: claimIs(partition, shard.epoch), then: [deleteKey(ownKey(partition))] };
      await insist(() => store.txn(txn, { signal: link.signal }), { platform: store.platform, signal: link.signal });
    } catch (error) {
      // Lost with its session: there is nothing left to delete.
      if (!link.signal.aborted) throw error;
    } finally {
      link.unlink();
      this.#leaving.delete(partition);
      this.#forget(partition, shard);
    }
  }

  async #dropTakings({ table }: PartitionsState): Promise<void> {
    const { member } = this.#options;
    const dropped = [...this.#takings.keys()].filter((partition) => table?.owners[partition] !== member);
    for (const partition of dropped) this.#abandon(partition, "it was assigned to another");
    await this.#inBatches(dropped, (partition) => ({ if: [], then: [deleteKey(moveKey(partition))] }));
  }

  #startTakings({ table, claims }: PartitionsState, signal: AbortSignal): void {
    const { member, migrate, working } = this.#options;
    for (const [partition, owner] of (table?.owners ?? []).entries()) {
      if (owner !== member || this.#takings.has(partition) || this.#shards.has(partition) || working.has(partition)) continue;
      const taking = takingOf(partition, claims.get(partition)?.member ?? null, signal);
      this.#takings.set(partition, taking);
      if (migrate === undefined) taking.isReady = true;
      else background(this.#migrate(taking, migrate), "the migration of a partition");
    }
  }

  /** Runs the hook until it has succeeded; then the shard is served. */
  async #migrate(taking: Taking, migrate: Migrate): Promise<void> {
    const { partition, link } = taking;
    const { bell, offer, onError, store } = this.#options;
    const ask = (): Promise<Shard> => {
      taking.isReady = true;
      bell.ring(true);
      return taking.claimed;
    };
    while (!link.signal.aborted) {
      taking.migration = new Migration({
        partition,
        from: taking.from,
        signal: link.signal,
        ask,
        onProgress: () => bell.ring(true),
      });
      try {
        await migrate(taking.migration);
        const shard = await ask();
        if (this.#takings.get(partition) === taking) this.#takings.delete(partition);
        offer(shard);
        return;
      } catch (error) {
        if (link.signal.aborted) break;
        onError(error, partition);
        await sleep({ platform: store.platform, timeoutMs: pauseMs, signal: link.signal }).catch(() => undefined);
      }
    }
    // Claimed perhaps, never served: nobody works on it.
    this.#shards.get(partition)?.release();
  }

  /** Tells the holders how far I am, and who may stop. */
  async #ask({ claims, moves, tableRevision }: PartitionsState): Promise<void> {
    const { member, session } = this.#options;
    const news = new Map<number, MoveEntry>();
    for (const [partition, { isReady, migration }] of this.#takings) {
      if (this.#shards.has(partition) || (isReady && !claims.has(partition))) continue;
      const move = { member, progress: migration?.progress ?? 0, ready: isReady };
      const told = moves.get(partition);
      if (told?.member === member && told.progress === move.progress && told.ready === isReady) continue;
      news.set(partition, move);
    }
    await this.#inBatches([...news.keys()], (partition) => {
      const value = JSON.stringify(news.get(partition));
      return { if: [tableIs(tableRevision)], then: [{ kind: "put", key: moveKey(partition), value, session: session.id }] };
    });
  }

  async #claim({ claims, tableRevision }: PartitionsState): Promise<void> {
    const { member, session, working } = this.#options;
    const here: Compare = { key: memberKey(member), target: "session", is: "equal", to: session.id };
    const isFree = (partition: number): boolean =>
      !claims.has(partition) && !this.#shards.has(partition) && !working.has(partition);
    const free = [...this.#takings.values()].flatMap(({ partition, isReady }) =>
      isReady && isFree(partition) ? [partition] : [],
    );
    await this.#inBatches(
      free,
      (partition) => ({
        // One that arrives late, after this member has left, finds its key gone and does nothing.
        if: [tableIs(tableRevision), here, { key: ownKey(partition), target: "exists", is: "equal", to: false }],
        then: [{ kind: "put", key: ownKey(partition), value: member, session: session.id }, deleteKey(moveKey(partition))],
      }),
      (partition, revision) => this.#onClaimed(partition, revision),
    );
  }

  #onClaimed(partition: number, epoch: Revision): void {
    const { store, session, name, drainMs, working, offer, migrate, bell } = this.#options;
    const title = `Partition ${partition} of ${JSON.stringify(name)}`;
    const shard = new Shard({ partition, epoch, store, session, title, drainMs });
    this.#shards.set(partition, shard);
    this.#takenUp.set(partition, epoch);
    working.set(partition, shard);
    const noLongerWorking = async (): Promise<void> => {
      await shard.released;
      if (working.get(partition) === shard) working.delete(partition);
      bell.ring(true);
    };
    background(noLongerWorking(), "the work on a partition");
    this.#takings.get(partition)?.onClaimed(shard);
    if (migrate !== undefined && this.#takings.has(partition)) return;
    this.#takings.delete(partition);
    offer(shard);
  }

  async #plan(state: PartitionsState): Promise<void> {
    const { count, isPlanner, movesMax } = this.#options;
    if (!isPlanner()) return;
    const next = nextTable(state, { count, movesMax });
    if (next === null) return;
    // By compare: a planner of the past, or two at once, cannot undo each other's tables.
    await this.#try({ if: [tableIs(state.tableRevision)], then: [{ kind: "put", key: tableKey, value: JSON.stringify(next) }] });
  }

  #checkCount({ table }: PartitionsState): void {
    const { count, name } = this.#options;
    if (table === null || table.owners.length === count) return;
    throw conclaveError(
      "INVALID_OPTION",
      `\`count\` of "${name}" is ${count} here and ${table.owners.length} in the Store, for good: keys would change partitions.`,
    );
  }

  #abandon(partition: number, why: string): void {
    const taking = this.#takings.get(partition);
    this.#takings.delete(partition);
    taking?.link.abort(conclaveError("PARTITION_LOST", `The move of partition ${partition} came to nothing: ${why}.`));
    taking?.link.unlink();
  }

  #forget(partition: number, shard: Shard): void {
    if (this.#shards.get(partition) === shard) this.#shards.delete(partition);
    this.#options.bell.ring(true);
  }

  /** Everything stops; what the session still holds at the store is deleted, so that others need not wait for it to run out. */
  async #leave(): Promise<void> {
    const { session } = this.#options;
    for (const partition of [...this.#takings.keys()]) this.#abandon(partition, "its member leaves");
    for (const shard of this.#shards.values()) shard.end("its member leaves");
    if (!session.alive) return;
    await Promise.all([...this.#shards.values()].map((shard) => shard.released));
    const link = linkSignal(session.lost);
    try {
      await this.#tidyUp(link.signal);
      if (this.#isAnnouncedInDoubt) background(this.#forgetMember(), "leaving partitions");
    } catch (error) {
      // With the session everything goes by itself.
      if (!link.signal.aborted && !isWorthAnotherLook(error)) throw error;
    } finally {
      link.unlink();
    }
  }

  /** One try: the member's key, as far as it is this session's. */
  async #deleteMember(signal: AbortSignal): Promise<void> {
    const { member, session, store } = this.#options;
    const key = memberKey(member);
    await store.txn({ if: [{ key, target: "session", is: "equal", to: session.id }], then: [deleteKey(key)] }, { signal });
  }

  /**
   * A put that was in doubt when I left may arrive after my key was deleted, and the session may go on for others of this
   * process: a member that is not there would be given partitions. So the key is looked for again, for a whole TTL.
   */
  async #forgetMember(): Promise<void> {
    const { isSeated, session, store } = this.#options;
    const { platform } = store;
    const lost = linkSignal(session.lost);
    const { signal } = lost;
    try {
      for (let looks = 1; looks <= looksForAnnounced; looks++) {
        await sleep({ platform, timeoutMs: session.ttlMs / 3, signal, ref: false });
        if (isSeated()) return;
        await insist(() => this.#deleteMember(signal), { platform, signal, ref: false });
      }
    } catch (error) {
      if (!signal.aborted && !hasCode(error, "CLOSED") && !hasCode(error, "SESSION_EXPIRED")) throw error;
    } finally {
      lost.unlink();
    }
  }

  /** The member's key goes first: a claim of mine that is still on its way then comes to nothing. */
  async #tidyUp(signal: AbortSignal): Promise<void> {
    const { member, session, store } = this.#options;
    const retry = { platform: store.platform, signal };
    await insist(() => this.#deleteMember(signal), retry);
    const { claims, moves } = await this.#look(signal);
    const isMine = (entry: { readonly member: string; readonly session: SessionId | null }): boolean =>
      entry.member === member && entry.session === session.id;
    const txns: Txn[] = [
      ...[...claims].flatMap(([partition, claim]) =>
        isMine(claim) ? [{ if: claimIs(partition, claim.token), then: [deleteKey(ownKey(partition))] }] : [],
      ),
      ...[...moves].flatMap(([partition, move]) => (move.member === member ? [{ then: [deleteKey(moveKey(partition))] }] : [])),
    ];
    for (let from = 0; from < txns.length; from += batchSize) {
      const batch = txns.slice(from, from + batchSize);
      const { succeeded } = await insist(() => store.txn(merged(batch), { signal }), retry);
      // A condition failed, of a claim that is gone already: then each for itself.
      if (!succeeded) await Promise.all(batch.map((txn) => insist(() => store.txn(txn, { signal }), retry)));
    }
  }

  /** The same step for many partitions, in as few transactions as the limits allow. A batch whose conditions fail does nothing. */
  async #inBatches(
    partitions: readonly number[],
    txnOf: (partition: number) => Txn,
    onDone?: (partition: number, revision: Revision) => void,
  ): Promise<void> {
    const batches: (readonly number[])[] = [];
    for (let from = 0; from < partitions.length; from += batchSize) batches.push(partitions.slice(from, from + batchSize));
    for (let from = 0; from < batches.length; from += batchesAtOnce) {
      await Promise.all(
        batches.slice(from, from + batchesAtOnce).map(async (batch) => {
          const revision = await this.#try(merged(batch.map(txnOf)));
          if (revision !== null && onDone !== undefined) for (const partition of batch) onDone(partition, revision);
        }),
      );
    }
  }

  /** The revision when it was done; null when it was not, or nobody knows: the next look tells. */
  async #try(txn: Txn): Promise<Revision | null> {
    const { store, session } = this.#options;
    const link = linkSignal(session.lost);
    try {
      const { succeeded, revision } = await store.txn(txn, { signal: link.signal, timeoutMs: session.ttlMs / 3 });
      if (!succeeded) this.#isRetrying = true;
      return succeeded ? revision : null;
    } catch (error) {
      if (!link.signal.aborted && !isWorthAnotherLook(error)) throw error;
      this.#isRetrying = true;
      return null;
    } finally {
      link.unlink();
    }
  }

  /** Sleeps until something has changed, a shard or a migration rings, or it is time to look anyway. */
  async #news(revision: Revision, signal: AbortSignal): Promise<void> {
    const { store, bell, session } = this.#options;
    const { platform } = store;
    const watch = linkSignal(signal);
    try {
      if (store.caps.watch !== "none") background(this.#ringOnChange(revision + 1, watch.signal), "the watch on partitions");
      await bell.wait({ platform, timeoutMs: this.#isRetrying ? pauseMs : session.ttlMs / 3, signal });
    } finally {
      watch.abort();
      watch.unlink();
    }
  }

  async #ringOnChange(from: Revision, signal: AbortSignal): Promise<void> {
    const { store, bell } = this.#options;
    let timeoutMs = settleMs;
    try {
      for await (const _ of store.watch({ prefix: "" }, { from, signal })) break;
    } catch {
      // What is wrong shows in the look that follows.
      timeoutMs = pauseMs;
    }
    await sleep({ platform: store.platform, timeoutMs, signal, ref: false }).catch(() => undefined);
    if (!signal.aborted) bell.ring(true);
  }
}

function takingOf(partition: number, from: string | null, signal: AbortSignal): Taking {
  let onClaimed: (shard: Shard) => void = () => undefined;
  const link = linkSignal(signal);
  const claimed = new Promise<Shard>((resolve, reject) => {
    onClaimed = resolve;
    onAbort(link.signal, () => reject(link.signal.reason));
  });
  // Rejected with nobody waiting when the hook has not asked yet.
  claimed.catch(() => undefined);
  return { partition, from, link, isReady: false, migration: undefined, claimed, onClaimed };
}

function claimIs(partition: number, token: Revision): readonly Compare[] {
  return [{ key: ownKey(partition), target: "createRevision", is: "equal", to: token }];
}

/** Under the very table that was read; 0: there is none. */
function tableIs(revision: Revision): Compare {
  return { key: tableKey, target: "modRevision", is: "equal", to: revision };
}

function deleteKey(key: string): Op {
  return { kind: "delete", range: { key } };
}

function merged(txns: readonly Txn[]): Txn {
  return { if: txns.flatMap((txn) => txn.if ?? []), then: txns.flatMap((txn) => txn.then) };
}
