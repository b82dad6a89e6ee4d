/**
 * Which locks are in use: the names that somebody holds or waits for. For operators; nothing is promised about a moment.
 */
import { conclaveError } from "../base/errors.ts";
import type { CallOptions, Engine } from "../store/store.ts";

export interface LockNamesOptions extends CallOptions {
  /** Only names that begin so. Default: all. */
  readonly prefix?: string;
  /** Default `lock`. */
  readonly kind?: "lock" | "rwlock";
}

const pageSize = 100;

/** In the order of their bytes, read a hundred at a time. @throws UNSUPPORTED (the engine lists no namespaces) */
export async function* lockNames(
  engine: Pick<Engine, "namespaces" | "caps">,
  { prefix = "", kind = "lock", ...options }: LockNamesOptions = {},
): AsyncGenerator<string, void, void> {
  if (engine.namespaces === undefined) throw conclaveError("UNSUPPORTED", `${engine.caps.engine} does not list its locks.`);
  let after: string | undefined;
  for (;;) {
    const paging = after === undefined ? {} : { after };
    const page = await engine.namespaces({ ...options, prefix: `${kind}/${prefix}`, limit: pageSize, ...paging });
    for (const namespace of page) yield namespace.slice(kind.length + 1);
    after = page.at(-1);
    if (page.length < pageSize) return;
  }
}
