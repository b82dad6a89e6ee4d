/**
 * A child of an AbortSignal that can be let go of.
 *
 * `AbortSignal.any` on a long-lived parent grows without end on Node 20 and 22, so every wait links here and unlinks in its
 * `finally`. All children of one parent share one listener on it, so a thousand waits on one signal are one listener, and
 * Node has nothing to warn of.
 */
import { Bag, type InBag } from "./bag.ts";

export interface LinkedSignal {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
  /** Forgets the parent. Idempotent. */
  unlink(): void;
}

/** Who follows a parent that has not aborted, and the listener that tells them. */
interface Following {
  readonly followers: Followers;
  readonly listener: () => void;
}

interface Follower extends InBag {
  readonly callback: () => void;
}

/** Those who want to be told. */
class Followers extends Bag<Follower> {
  follow(callback: () => void): Follower {
    const follower = { callback, place: -1 };
    this.add(follower);
    return follower;
  }

  /** Everybody hears of it, also after one who throws; then nobody is left. */
  tell(): void {
    tellAll(this.empty());
  }
}

const followings = new WeakMap<AbortSignal, Following>();
/** Who follows a signal that was made here: told without an event, which costs several times as much. */
const links = new WeakMap<AbortSignal, Followers>();

export function linkSignal(parent: AbortSignal | undefined): LinkedSignal {
  return new Link(parent);
}

/** Makes its controller when somebody asks for the signal: most of those that a quick call makes nobody ever asks for. */
class Link implements LinkedSignal {
  readonly unlink: () => void;
  #controller: AbortController | undefined;
  #followers: Followers | undefined;
  #ended: { readonly reason: unknown } | undefined;

  constructor(parent: AbortSignal | undefined) {
    this.unlink = parent === undefined ? doNothing : onAbort(parent, () => this.abort(parent.reason));
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      this.#followers = new Followers();
      links.set(this.#controller.signal, this.#followers);
      if (this.#ended !== undefined) this.#controller.abort(this.#ended.reason);
    }
    return this.#controller.signal;
  }

  abort(reason: unknown = plainAbort()): void {
    if (this.#ended !== undefined) return;
    this.#ended = { reason };
    if (this.#controller === undefined || this.#followers === undefined) return;
    this.#controller.abort(reason);
    this.#followers.tell();
  }
}

let plainReason: unknown;

/** What an abort without a reason has for one; made once, because each would collect the stack of its caller. */
function plainAbort(): unknown {
  plainReason ??= AbortSignal.abort().reason;
  return plainReason;
}

/** Calls back once when the signal aborts, at once when it has; until the returned function is called. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  if (signal.aborted) {
    callback();
    return doNothing;
  }
  const own = links.get(signal);
  if (own !== undefined) {
    const follower = own.follow(callback);
    return () => void own.delete(follower);
  }
  let following = followings.get(signal);
  if (following === undefined) {
    following = follow(signal);
    followings.set(signal, following);
  }
  const { followers, listener } = following;
  const follower = followers.follow(callback);
  return () => {
    if (!followers.delete(follower) || followers.size > 0) return;
    signal.removeEventListener("abort", listener);
    followings.delete(signal);
  };
}

/** Waits for the promise, or rejects with the signal's reason, whichever is first. What was sent stays sent. */
export async function raceSignal<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  return new Promise<T>((resolve, reject) => {
    const forget = onAbort(signal, () => reject(signal.reason));
    promise.then(
      (answer) => {
        forget();
        resolve(answer);
      },
      (error: unknown) => {
        forget();
        reject(error);
      },
    );
  });
}

function follow(signal: AbortSignal): Following {
  const followers = new Followers();
  const listener = (): void => {
    followings.delete(signal);
    followers.tell();
  };
  signal.addEventListener("abort", listener, { once: true });
  return { followers, listener };
}

function tellAll(followers: readonly Follower[]): void {
  for (const [at, { callback }] of followers.entries()) {
    try {
      callback();
    } catch (error) {
      tellAll(followers.slice(at + 1));
      throw error;
    }
  }
}

function doNothing(): void {
  // There was nothing to forget.
}
