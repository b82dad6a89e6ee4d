/**
 * Signals that end a wait: what waits is given up in order (a place in a queue, a watch), then the process ends with 128+n.
 */
import { constants } from "node:os";
import { Exit } from "./fail.ts";

export interface Interrupt {
  /** Aborts on the first signal; its reason is the `Exit`. */
  readonly signal: AbortSignal;
  /** Stops listening. */
  stop(): void;
}

export const endingSignals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const satisfies readonly NodeJS.Signals[];

/** The second signal ends the process at once. */
export function listenForInterrupt(): Interrupt {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(signalExitCode(name));
    controller.abort(new Exit(signalExitCode(name)));
  };
  for (const name of endingSignals) process.on(name, onSignal);
  return {
    signal: controller.signal,
    stop: () => {
      for (const name of endingSignals) process.off(name, onSignal);
    },
  };
}

export function signalExitCode(name: NodeJS.Signals): number {
  return 128 + constants.signals[name];
}
