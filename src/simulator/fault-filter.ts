/**
 * Which kinds of fault a run may know: `npm run sim -- --faults crash,cut` lets in these alone, in every seed;
 * `--no-faults clog` takes some out and leaves the rest to the seed's own draw.
 *
 * A class that is always on hides others: a network that loses everything hides what only a clogged one shows. Without either
 * option a seed throws the same dice as ever. The names stand in `docs/verification.md` and in `--help`.
 */

/** Events of the fault schedule, in every world. */
export const scheduledFaults = [
  "crash",
  "crash-all",
  "pause",
  "cut",
  "one-way",
  "clog",
  "swizzle",
  "isolate",
  "sever",
  "partial",
  "break",
  "slow-disk",
  "forsake",
  "network",
] as const;
/** Events that need members with real disks: the stack world. */
export const diskFaults = ["bit-flip", "misdirect", "disk-full", "fail-writes"] as const;
/** What a run is like from its beginning. */
export const conditions = ["drift", "tiny-limits", "leader-bias", "ambush", "wipe", "client-pause"] as const;
/** What a lying replica may be up to (PBFT). */
export const misdeeds = [
  "silent",
  "slow-primary",
  "equivocate",
  "vote-for-all",
  "selective",
  "replay",
  "mutate",
  "false-proof",
  "false-state",
  "false-reply",
  "false-checkpoint",
  "leap",
  "usurp",
  "forge",
] as const;
export type Misdeed = (typeof misdeeds)[number];

const classes = [...scheduledFaults, ...diskFaults, ...conditions, ...misdeeds, "twin"] as const;
export type FaultClass = (typeof classes)[number];

/** As data: it travels to the processes that run the seeds. */
export interface FaultChoice {
  /** Undefined: all of them, each as the seed draws. */
  readonly only?: readonly FaultClass[];
  readonly without?: readonly FaultClass[];
}

export class FaultFilter {
  readonly #only: ReadonlySet<string> | undefined;
  readonly #without: ReadonlySet<string>;

  constructor({ only, without = [] }: FaultChoice = {}) {
    this.#only = only === undefined ? undefined : new Set(only);
    this.#without = new Set(without);
  }

  /** Whether this class may strike at all. */
  allows(name: FaultClass): boolean {
    return (this.#only === undefined || this.#only.has(name)) && !this.#without.has(name);
  }

  /** Whether it was taken out by name: what strikes in another's service must not bring it back. */
  rulesOut(name: FaultClass): boolean {
    return this.#without.has(name);
  }

  /** Of what is possible, what this run knows: what was asked for by name, or what the seed drew and nobody ruled out. */
  choose<T extends FaultClass>(possible: readonly T[], drawn: readonly T[]): readonly T[] {
    return (this.#only === undefined ? drawn : possible).filter((name) => this.allows(name));
  }

  /** The same for one condition, drawn or not. */
  has(name: FaultClass, isDrawn: boolean): boolean {
    return (this.#only === undefined ? isDrawn : true) && this.allows(name);
  }
}

/** @throws Error that says which names there are */
export function parseFaultClasses(option: string, text: string): readonly FaultClass[] {
  if (text === "none" || text === "") return [];
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !classes.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`${option} "${unknown}" is none of ${classes.join(", ")}, none.`);
  return names as FaultClass[];
}

export const faultClassHelp = `  --faults NAMES  only these kinds of fault, in every seed; "none" for none
  --no-faults NAMES  all but these. Kinds, separated by commas:
                    ${scheduledFaults.join(", ")}
                  where members have disks (stack): ${diskFaults.join(", ")}, wipe
                  from the beginning: drift, tiny-limits, leader-bias, ambush, client-pause (stack)
                  liars (pbft): ${misdeeds.join(", ")}, twin`;
