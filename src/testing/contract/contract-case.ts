/**
 * One case of the contract: a sentence, what it needs, and what it does.
 */
import type { Caps } from "../../store/caps.ts";
import type { Engine } from "../../store/store.ts";
import type { TestBed } from "./test-bed.ts";

export interface ContractCase {
  /** A sentence about behaviour. */
  readonly name: string;
  /** Why this engine need not keep it; undefined: it must. */
  readonly skip?: (caps: Caps) => string | undefined;
  /** Needs a client that can be cut off. */
  readonly isolates?: boolean;
  readonly run: (bed: TestBed) => Promise<void>;
}

/** What a case runs on. */
export interface ContractWorld {
  readonly engine: Engine;
  /** Moves the engine's clock, where it is a virtual one. Left out: cases wait for real. */
  readonly advance?: (ms: number) => Promise<void>;
  /** Another client of the same store that can be cut off from it. Asked for only where the suite's `isolates` is true. */
  readonly isolate?: () => Promise<IsolatedClient>;
  readonly dispose: () => Promise<void> | void;
}

export interface IsolatedClient {
  readonly engine: Engine;
  /** From now on nothing passes between this client and the store. */
  readonly cutOff: () => void;
}
