/**
 * A process that stops itself with SIGSTOP at the worst moments; see `StopMoment`.
 *
 * A stop from outside hits such a gap of microseconds once in a blue moon; a pause of a garbage collector, a hypervisor or
 * a laptop lid does not ask. The runner orders a stop, and the client obeys when it next comes to the moment that was named.
 * The runner is told before, and wakes the process again and again until it hears that it runs.
 */
import { type Interval, monotonicMs } from "./clock.ts";
import type { FromClient, StopMoment, ToClient } from "./messages.ts";

type Order = Extract<ToClient, { readonly kind: "stop-at" }>;

export class SelfStop {
  readonly #tell: (message: FromClient) => void;
  #order: Order | undefined;

  constructor(tell: (message: FromClient) => void) {
    this.#tell = tell;
  }

  order(order: Order): void {
    this.#order = order;
  }

  /** Announces the stop if one is ordered for this moment; what it answers does the rest when the moment has come. */
  prepare(moment: StopMoment): (() => Interval) | undefined {
    const order = this.#order;
    if (order === undefined || order.moment !== moment) return undefined;
    this.#order = undefined;
    this.#tell({ kind: "stopping", forMs: order.forMs });
    return () => {
      const fromMs = monotonicMs();
      process.kill(process.pid, "SIGSTOP");
      return { fromMs, toMs: monotonicMs() };
    };
  }

  /** Stops here and now, if that is ordered. */
  stopAt(moment: StopMoment): void {
    const stopNow = this.prepare(moment);
    if (stopNow === undefined) return;
    stopNow();
    this.done();
  }

  /** To be called after a `prepare` that gave something, whether the stop took place or not. */
  done(): void {
    this.#tell({ kind: "resumed" });
  }
}
