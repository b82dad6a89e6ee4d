/**
 * A child of an AbortSignal that can be let go of.
 *
 * `AbortSignal.any` on a long-lived parent grows without end on Node 20 and 22, so every wait links here and unlinks in its
 * `finally`. All children of one parent share one listener on it, so a thousand waits on one signal are one listener, and
 * Node has nothing to warn of.
 */
export interface LinkedSignal {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
  /** Forgets the parent. Idempotent. */
  unlink(): void;
}

/** Who follows a parent that has not aborted, and the listener that tells them. */
interface Following {
  readonly followers: Set<() => void>;
  readonly listener: () => void;
}

const followings = new WeakMap<AbortSignal, Following>();
/** Who follows a signal that was made here: told without an event, which costs several times as much. */
const links = new WeakMap<AbortSignal, Set<() => void>>();

export function linkSignal(parent: AbortSignal | undefined): LinkedSignal {
  return new Link(parent);
}

/** Makes its controller when somebody asks for the signal: most of those that a quick call makes nobody ever asks for. */
class Link implements LinkedSignal {
  readonly unlink: () => void;
  #controller: AbortController | undefined;
  readonly #followers = new Set<() => void>();
  #ended: { readonly reason: unknown } | undefined;

  constructor(parent: AbortSignal | undefined) {
    this.unlink = parent === undefined ? doNothing : onAbort(parent, () => this.abort(parent.reason));
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      links.set(this.#controller.signal, this.#followers);
      if (this.#ended !== undefined) this.#controller.abort(this.#ended.reason);
    }
    return this.#controller.signal;
  }

  abort(reason: unknown = plainAbort()): void {
    if (this.#ended !== undefined) return;
    this.#ended = { reason };
    if (this.#controller === undefined) return;
    this.#controller.abort(reason);
    const told = [...this.#followers];
    this.#followers.clear();
    tellAll(told);
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
    const each = (): void => callback();
    own.add(each);
    return () => void own.delete(each);
  }
  let following = followings.get(signal);
  if (following === undefined) {
    following = follow(signal);
    followings.set(signal, following);
  }
  const { followers, listener } = following;
  const follower = (): void => callback();
  followers.add(follower);
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
  const followers = new Set<() => void>();
  const listener = (): void => {
    followings.delete(signal);
    const told = [...followers];
    followers.clear();
    tellAll(told);
  };
  signal.addEventListener("abort", listener, { once: true });
  return { followers, listener };
}

/** Everybody hears of it, also after one who throws. */
function tellAll(followers: readonly (() => void)[]): void {
  for (const [at, follower] of followers.entries()) {
    try {
      follower();
    } catch (error) {
      tellAll(followers.slice(at + 1));
      throw error;
    }
  }
}

function doNothing(): void {
  // There was nothing to forget.
}
