/**
 * Promises that nobody awaits, made visible: a failure is reported instead of vanishing.
 */
let report: (name: string, error: unknown) => void = (name, error) => {
  // The last resort: an unhandled rejection with a name, which every host shows.
  throw new Error(`Background work "${name}" failed.`, { cause: error });
};

/** Lets the promise run and reports its failure under the name. */
export function background(promise: Promise<unknown>, name: string): void {
  promise.catch((error: unknown) => report(name, error));
}

/** The host decides where failures go. */
export function onBackgroundFailure(handler: (name: string, error: unknown) => void): void {
  report = handler;
}
