/**
 * Connections between two uses, without the trip through their pool: its timers, listeners and promises cost more than the wait.
 *
 * Intuition: the tools on the bench. What was used a moment ago lies at hand; what nobody took up for a second goes back into the
 * cupboard, which has its own rules for what lies there long. The pool counts all of them as handed out.
 */
export interface AtHandOptions<T> {
  /** Whether somebody waits in the pool: then nothing is kept from it. */
  readonly isWaitedFor: () => boolean;
  readonly giveBack: (each: T) => void;
}

const sweepEveryMs = 1_000;

export class AtHand<T> {
  readonly #options: AtHandOptions<T>;
  /** The last one laid down is the first one taken: the others grow idle at the bottom. */
  readonly #all: T[] = [];
  /** So many lay here all the time since the last sweep. */
  #untouched = 0;
  #sweeping: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: AtHandOptions<T>) {
    this.#options = options;
  }

  take(): T | undefined {
    const each = this.#all.pop();
    if (this.#all.length < this.#untouched) this.#untouched = this.#all.length;
    return each;
  }

  lay(each: T): void {
    if (this.#isClosed || this.#options.isWaitedFor()) {
      this.#options.giveBack(each);
      return;
    }
    this.#all.push(each);
    if (this.#sweeping === undefined) this.#sweepLater();
  }

  /** Whether it lay here: it is not given out any more, and is the caller's to end. */
  remove(each: T): boolean {
    const at = this.#all.indexOf(each);
    if (at === -1) return false;
    this.#all.splice(at, 1);
    if (this.#all.length < this.#untouched) this.#untouched = this.#all.length;
    return true;
  }

  /** All go back, and so does whatever is laid down later. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#sweeping);
    for (const each of this.#all.splice(0)) this.#options.giveBack(each);
  }

  #sweepLater(): void {
    this.#untouched = this.#all.length;
    this.#sweeping = setTimeout(() => {
      this.#sweeping = undefined;
      for (const each of this.#all.splice(0, this.#untouched)) this.#options.giveBack(each);
      if (this.#all.length > 0) this.#sweepLater();
    }, sweepEveryMs);
    this.#sweeping.unref();
  }
}
