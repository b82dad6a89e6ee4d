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

export function linkSignal(parent: AbortSignal | undefined): LinkedSignal {
  const controller = new AbortController();
  const abort = (reason?: unknown): void => controller.abort(reason);
  const unfollow = parent === undefined ? doNothing : onAbort(parent, () => abort(parent.reason));
  return { signal: controller.signal, abort, unlink: unfollow };
}

/** Calls back once when the signal aborts, at once when it has; until the returned function is called. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  if (signal.aborted) {
    callback();
    return doNothing;
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
    promise.then(resolve, reject).finally(forget);
  });
}

function follow(signal: AbortSignal): Following {
  const followers = new Set<() => void>();
  const listener = (): void => {
    followings.delete(signal);
    for (const follower of [...followers]) follower();
    followers.clear();
  };
  signal.addEventListener("abort", listener, { once: true });
  return { followers, listener };
}

function doNothing(): void {
  // There was nothing to forget.
}
