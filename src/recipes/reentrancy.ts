/**
 * Re-entrancy, for those who ask for it: a `run` inside a `run` of the same lock goes on under the hold that is there.
 *
 * Intuition: a guest with the key in the pocket need not ring. "The same caller" is whatever was called, and awaited or not,
 * from inside the outer function: it is followed by the host's context variable (Node: AsyncLocalStorage), not by a thread.
 * Two tasks started side by side inside the outer function are both inside, so they do not exclude each other.
 *
 * The outer `run` waits for the inner ones before it releases, also for those that nobody awaits: none of them outlives
 * its hold. Source: TC39 AsyncContext; Redisson counts by thread id instead, which goes wrong in its own asynchronous API.
 */
import { conclaveError } from "../base/errors.ts";
import type { ContextVariable, Platform } from "../base/ports.ts";
import type { Hold } from "./hold.ts";

/** One `run` that is under way, and those around it. */
interface Frame {
  readonly engine: object;
  readonly title: string;
  readonly hold: Hold;
  readonly inner: Set<Promise<unknown>>;
  readonly outer: Frame | undefined;
}

const variables = new WeakMap<Platform, ContextVariable<Frame>>();

export class Reentrancy {
  readonly #engine: object;
  readonly #title: string;
  readonly #frames: ContextVariable<Frame>;

  /** @throws UNSUPPORTED where the host has no context variables */
  constructor(options: { readonly engine: object; readonly title: string; readonly platform: Platform }) {
    this.#engine = options.engine;
    this.#title = options.title;
    this.#frames = framesOf(options.platform);
  }

  /** The hold that this call is already under; undefined: none that still stands. */
  get current(): Hold | undefined {
    const frame = this.#find();
    return frame?.hold.held === true ? frame.hold : undefined;
  }

  /** Calls as the outermost: what it calls finds the hold. Settles once everything inside has settled. */
  async outermost<T>(hold: Hold, work: (hold: Hold) => T | Promise<T>): Promise<T> {
    const inner = new Set<Promise<unknown>>();
    const frame: Frame = { engine: this.#engine, title: this.#title, hold, inner, outer: this.#frames.get() };
    try {
      return await this.#frames.run(frame, async () => work(hold));
    } finally {
      while (inner.size > 0) await Promise.allSettled([...inner]);
    }
  }

  /** Calls under the hold that is there. */
  async within<T>(work: () => Promise<T>): Promise<T> {
    const frame = this.#find();
    const call = work();
    frame?.inner.add(call);
    try {
      return await call;
    } finally {
      frame?.inner.delete(call);
    }
  }

  #find(): Frame | undefined {
    let frame = this.#frames.get();
    while (frame !== undefined && !(frame.engine === this.#engine && frame.title === this.#title)) frame = frame.outer;
    return frame;
  }
}

function framesOf(platform: Platform): ContextVariable<Frame> {
  let variable = variables.get(platform);
  if (variable === undefined) {
    variable = platform.contextVariable?.<Frame>();
    if (variable === undefined) throw conclaveError("UNSUPPORTED", "`reentrant` needs a host with context variables.");
    variables.set(platform, variable);
  }
  return variable;
}
