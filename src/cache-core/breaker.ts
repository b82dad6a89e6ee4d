/**
 * Stops asking the dead.
 *
 *   closed --(failuresMax in a row)--> open --(breakerMs)--> half-open: one call is let through --> closed, or open again
 *
 * Source of the states: Nygard, "Release It!", 2nd ed., 2018, ch. 5, "Circuit Breaker". Pure: the caller's clock, no timer.
 */
export interface BreakerOptions {
  readonly now: () => number;
  readonly breakerMs: number;
  readonly onOpen: (failures: number, why: string) => void;
  readonly onClosed: () => void;
}

type State =
  | { readonly kind: "closed"; readonly failures: number }
  | { readonly kind: "open"; readonly untilMs: number }
  | { readonly kind: "half-open" };

const failuresMax = 3;

export class Breaker {
  readonly #options: BreakerOptions;
  #state: State = { kind: "closed", failures: 0 };

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#state.kind === "open" && this.#options.now() < this.#state.untilMs;
  }

  /** Who is let through says how it ended. */
  mayCall(): boolean {
    const state = this.#state;
    switch (state.kind) {
      case "closed":
        return true;
      case "half-open":
        return false;
      case "open":
        if (this.#options.now() < state.untilMs) return false;
        this.#state = { kind: "half-open" };
        return true;
    }
  }

  onSuccess(): void {
    const state = this.#state;
    if (state.kind === "closed" && state.failures === 0) return;
    // A late answer of before does not close what a later silence has opened.
    if (state.kind === "open") return;
    this.#state = { kind: "closed", failures: 0 };
    if (state.kind === "half-open") this.#options.onClosed();
  }

  onFailure(why: string): void {
    const { now, breakerMs, onOpen } = this.#options;
    const state = this.#state;
    if (state.kind === "open") return;
    const failures = state.kind === "half-open" ? failuresMax : state.failures + 1;
    if (failures < failuresMax) {
      this.#state = { kind: "closed", failures };
      return;
    }
    this.#state = { kind: "open", untilMs: now() + breakerMs };
    if (state.kind === "closed") onOpen(failures, why);
  }
}
