/**
 * A queue's join and leave by their own requests, without the way through a txn: what a lock does all day.
 *
 *   join    multi: create the node, set the namespace's     1 round trip; its answer counts the nodes there: alone, or not
 *   leave   delete the node                                 1 round trip, one operation
 *
 * The list of those ahead is asked for only where somebody is: who joins a queue that had others the last time is left to the
 * txn, which reads the list in the same round trip.
 *
 * Why a leave need not set the namespace's node as every other write does (`steps.ts`): a node that goes with a session may be
 * gone at any moment by the end of that session, which sets nothing either. So whoever writes by what it has read of such
 * a node checks the node itself, and a list is read again when children came or went.
 */
import { isAscii, utf8Encode } from "../../base/bytes.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import type { CallOptions, Joined, NativeRecipes, SessionId, Store } from "../../store/store.ts";
import { nodeName } from "./paths.ts";
import { codes, multi, remove } from "./protocol.ts";
import { anyVersion, blindCreate, bump } from "./steps.ts";
import { behindAWrite, checkConflict, didAll, timeoutMsDefault, type ZkTxnParts } from "./zk-txn.ts";

/** What contenders say about themselves is short. */
const valueLengthMax = 8_192;

export interface ZkQueueOptions {
  readonly store: Store;
  /** Binary. */
  readonly namespace: string;
  readonly txns: ZkTxnParts;
  readonly processHold: ProcessHold;
}

export class ZkQueue implements NativeRecipes {
  readonly #options: ZkQueueOptions;
  readonly #path: string;

  constructor(options: ZkQueueOptions) {
    this.#options = options;
    this.#path = options.txns.paths.namespace(options.namespace);
  }

  async joinQueue(
    { key, value, session }: { readonly key: string; readonly value: string; readonly session: SessionId },
    options: CallOptions,
  ): Promise<Joined | null> {
    const { signal, timeoutMs = timeoutMsDefault } = options;
    const { namespace, processHold, txns } = this.#options;
    const { acl, guesses, known, paths, platform, sessions } = txns;
    const client = sessions.clientOf(Number(session));
    if (client === undefined || !isPlain(key) || value.length > valueLengthMax) return null;
    // Nobody has made its node, or others were there: the txn does that, or asks who they are, in the same round trip.
    if (!known.has(namespace) || guesses.of(namespace).length > 0) return null;
    const whole = `${namespace}\0${key}`;
    sessions.noteBound(Number(session), whole);
    const untilMs = platform.now() + timeoutMs;
    processHold.retain();
    try {
      const own = blindCreate({ key: whole, value: utf8Encode(value), session }, { acl, paths });
      const [written] = await client.call([multi([own, bump(namespace, paths)])], { timeoutMs, signal });
      if (!didAll(written)) {
        checkConflict(written);
        known.delete(namespace);
        return null;
      }
      if (written.value?.at(-1)?.stat?.childCount === 1) return { revision: written.zxid, ahead: null };
      const restMs = Math.max(1, untilMs - platform.now());
      return await this.#standing({ key, createRevision: written.zxid }, { ...options, timeoutMs: restMs });
    } finally {
      processHold.release();
    }
  }

  async leaveQueue(key: string, { signal, timeoutMs = timeoutMsDefault }: CallOptions): Promise<true | null> {
    const { namespace, processHold, txns } = this.#options;
    const { sessions } = txns;
    const whole = `${namespace}\0${key}`;
    const session = sessions.bindingOf(whole);
    const client = session === undefined ? undefined : sessions.clientOf(session);
    if (client === undefined || !isPlain(key)) return null;
    processHold.retain();
    try {
      const [reply] = await client.call([remove(`${this.#path}/${nodeName(key)}`, anyVersion)], { timeoutMs, signal });
      if (reply.code !== codes.ok) return null;
      sessions.noteGone(whole);
      return true;
    } finally {
      processHold.release();
    }
  }

  /** Who is ahead now. Null: the key is gone already, and the txn may put it anew. @throws never definite: the key was put */
  async #standing(
    { key, createRevision: createdBefore }: { readonly key: string; readonly createRevision: number },
    call: CallOptions,
  ): Promise<Joined | null> {
    const range = { prefix: "" };
    const older = { kind: "range", range, order: "create", descending: true, limit: 1, keysOnly: true, createdBefore } as const;
    const txn = { then: [{ kind: "get", key } as const, older] };
    const { results, revision } = await behindAWrite(() => this.#options.store.txn(txn, call));
    const [mine, ahead] = results;
    if (mine?.kind !== "get" || mine.entry?.createRevision !== createdBefore || ahead?.kind !== "range") return null;
    const [first] = ahead.entries;
    return { revision, ahead: first === undefined ? null : { key: first.keyBytes, count: ahead.count } };
  }
}

/** As recipes make them. */
function isPlain(key: string): boolean {
  return key !== "" && isAscii(key);
}
