/**
 * Loaded into a member of the torture run before the product (`node --import`): its disk and its clocks are no longer what
 * the product believes. The product has no switch for any of this.
 *
 * What holds at the moment stands in the file that the environment variable names, written by the runner (`affliction.ts`)
 * and read here every few milliseconds. Functions of `node:fs` are replaced before anybody imports them.
 *
 * A full disk refuses every write here, not only one that grows a file: a file system that copies on write does that. The
 * rate of the monotonic clock is set for the life of the process; timers keep to it.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { type Affliction, afflictionPathVariable, afflictionRateVariable, readAffliction } from "./affliction.ts";

type Callback = (error: NodeJS.ErrnoException | null, ...rest: unknown[]) => void;

const lookEveryMs = 20;
const path = process.env[afflictionPathVariable];
const rate = Number(process.env[afflictionRateVariable] ?? 1);
const realSetTimeout = globalThis.setTimeout;

if (path !== undefined) afflict(path);

function afflict(file: string): void {
  let now: Affliction = readAffliction(file);
  // A real interval: whatever happens to the clocks, the runner is heard.
  setInterval(() => {
    now = readAffliction(file);
  }, lookEveryMs).unref();
  const faultOf = (): NodeJS.ErrnoException | undefined => {
    if (now.isDiskFull) return Object.assign(new Error("ENOSPC: no space left on device, torture"), { code: "ENOSPC" });
    if (now.isDiskFailing) return Object.assign(new Error("EIO: i/o error, torture"), { code: "EIO" });
    return undefined;
  };
  afflictDisk(faultOf, () => now.diskDelayMsMax);
  afflictWallClock(() => now.wallOffsetMs);
  if (rate !== 1) afflictMonotonicClock();
}

/** All that `node-disk.ts` writes with ends in a callback, which comes late or with an error. */
function afflictDisk(faultOf: () => NodeJS.ErrnoException | undefined, delayMsMax: () => number): void {
  const functions = fs as unknown as Record<string, (...args: unknown[]) => void>;
  for (const name of ["writev", "fsync", "fdatasync"]) {
    const real = functions[name] as (...args: unknown[]) => void;
    functions[name] = (...args) => {
      const callback = args.at(-1) as Callback;
      const fault = faultOf();
      if (fault !== undefined) {
        setImmediate(() => callback(fault));
        return;
      }
      const late: Callback = (...answer) => {
        const delayMs = delayMsMax() * Math.random();
        if (delayMs === 0) callback(...answer);
        else realSetTimeout(() => callback(...answer), delayMs);
      };
      real(...args.slice(0, -1), late);
    };
  }
  syncBuiltinESMExports();
}

function afflictWallClock(offsetMs: () => number): void {
  const RealDate = globalThis.Date;
  globalThis.Date = class extends RealDate {
    constructor(...args: unknown[]) {
      super(...((args.length === 0 ? [RealDate.now() + offsetMs()] : args) as [number]));
    }

    static override now(): number {
      return RealDate.now() + offsetMs();
    }
  } as DateConstructor;
}

function afflictMonotonicClock(): void {
  const realNow = performance.now.bind(performance);
  const startMs = realNow();
  performance.now = () => startMs + (realNow() - startMs) * rate;
  globalThis.setTimeout = Object.assign(
    (callback: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]) =>
      realSetTimeout(callback, delayMs / rate, ...args),
    realSetTimeout,
  ) as typeof setTimeout;
}
