/**
 * One transaction, as the work sees it: a handle for each resource, the time that is left, and headers for what it calls.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal, onAbort } from "../base/link-signal.ts";
import type { Epoch } from "../coordinator/epoch.ts";
import type { Branch } from "../coordinator/participant.ts";
import type { Store } from "../store/store.ts";
import { TransactionAborted } from "./errors.ts";
import type { HttpResource, ServiceHandle } from "./http.ts";
import type { Resources } from "./manager.ts";
import { nodeTimers } from "./node-timers.ts";
import type { HandleOf, ResourceBranch, SqlResource } from "./resource.ts";
import { StoreBranch } from "./store-branch.ts";

/** What all transactions of a manager share. Handed on as it is: a copy of it in each transaction's options costs 10 us. */
export interface TransactionShared<R extends Resources> {
  readonly resources: R;
  readonly store: Store;
}

export interface TransactionParts {
  readonly gid: string;
  /** Who may decide it. */
  readonly epoch: Epoch;
  readonly agent: string | undefined;
  /** Of the store's clock. */
  readonly deadlineMs: number;
  readonly traceparent: string | undefined;
  readonly signal: AbortSignal | undefined;
}

export class Transaction<R extends Resources> {
  readonly gid: string;
  readonly deadlineMs: number;
  readonly #shared: TransactionShared<R>;
  readonly #parts: TransactionParts;
  // biome-ignore lint/suspicious/noExplicitAny: each has its resource's handle.
  readonly #branches = new Map<string, ResourceBranch<any>>();
  /** Each Try of a service is one. */
  readonly #serviceBranches: Branch[] = [];
  readonly #services = new Map<string, ServiceHandle>();
  #branchCount = 0;
  readonly #ending = linkSignal(undefined);
  #storeBranch: StoreBranch | undefined;
  #isOver = false;
  #isLate = false;
  #failure: unknown;

  /** Made by `TransactionManager.run`. */
  constructor(shared: TransactionShared<R>, parts: TransactionParts) {
    this.#shared = shared;
    this.#parts = parts;
    this.gid = parts.gid;
    this.deadlineMs = parts.deadlineMs;
  }

  /**
   * The handle of a resource. Nothing is sent before its first statement; a resource that is never used takes no part.
   * `readOnly`, said at its first `on`: the branch leaves no marker, ends with the vote and drops out of the second phase.
   * @throws CLOSED, INVALID_OPTION
   */
  on<Name extends keyof R & string>(name: Name, { readOnly = false }: { readonly readOnly?: boolean } = {}): HandleOf<R[Name]> {
    if (this.#isOver) throw conclaveError("CLOSED", `Transaction ${this.gid} is over.`);
    const resource = this.#shared.resources[name];
    if (resource === undefined) throw conclaveError("INVALID_OPTION", `There is no resource ${JSON.stringify(name)}.`);
    if (resource.kind === "store") {
      if (this.#parts.agent !== undefined)
        throw conclaveError("INVALID_OPTION", "`lastAgent` and the store as a resource exclude one another.");
      this.#storeBranch ??= new StoreBranch(this.#shared.store, resource.namespace);
      return this.#storeBranch as never;
    }
    if (resource.kind === "http") return this.#service(name, resource) as never;
    let branch = this.#branches.get(name);
    if (branch === undefined) {
      const number = name === this.#parts.agent ? 0 : this.#nextBranch();
      const ref = { gid: this.gid, branch: number, resource: name };
      branch = (resource as SqlResource<unknown>).branch(ref, { isReadOnly: readOnly, timeoutMs: this.remainingMs });
      this.#branches.set(name, branch);
    }
    return branch.handle;
  }

  /** Until then the work and the decision must be done. Milliseconds. */
  get remainingMs(): number {
    return Math.max(0, this.deadlineMs - this.#shared.store.platform.now());
  }

  /** Aborts when the time is over or the caller gives up: for what the work calls outside. */
  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  /** For calls to services: the transaction's name and the trace. */
  get headers(): Readonly<Record<string, string>> {
    const { traceparent } = this.#parts;
    const deadlineAtMs = Math.ceil(Date.now() + this.remainingMs);
    return {
      "conclave-tx": this.gid,
      "conclave-tx-deadline": String(deadlineAtMs),
      ...(traceparent === undefined ? {} : { traceparent }),
    };
  }

  /** Runs work inside this transaction: it commits with it, and an error of it forbids the commit even where it is caught. */
  async join<T>(work: (tx: this) => T | Promise<T>): Promise<T> {
    try {
      return await work(this);
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  /** For the manager: the work, or the end of its time. Work that waits for nothing has no time to watch. */
  async race<T>(work: () => T | Promise<T>): Promise<T> {
    const { signal } = this.#parts;
    signal?.throwIfAborted();
    const done = work();
    const value = isPromise(done) ? await this.#inTime(done, signal) : done;
    // Work that waited for nothing may have given up itself.
    signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure;
    return value;
  }

  #inTime<T>(work: PromiseLike<T>, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const end = (reason: unknown): void => {
        this.#ending.abort(reason);
        reject(reason);
      };
      const timer = nodeTimers.after(this.remainingMs, () => {
        this.#isLate = true;
        end(this.#late());
      });
      const unfollow = signal === undefined ? undefined : onAbort(signal, () => end(signal.reason));
      const settle = (): void => {
        timer.cancel();
        unfollow?.();
      };
      work.then(
        (result) => {
          settle();
          resolve(result);
        },
        (error: unknown) => {
          settle();
          reject(error);
        },
      );
    });
  }

  /** For the manager: its time ended the work. A timer may ring a moment before the clock says so. */
  get isLate(): boolean {
    return this.#isLate;
  }

  /** For the manager: no more statements, not even on handles that the work still holds. */
  close(): void {
    this.#isOver = true;
    for (const branch of this.#branches.values()) branch.seal();
    this.#storeBranch?.close();
  }

  /** For the manager: those that take part. */
  used(): {
    readonly branches: readonly Branch[];
    readonly agent: Branch | undefined;
    readonly storeBranch: StoreBranch | undefined;
  } {
    const branches: Branch[] = [];
    let agent: Branch | undefined;
    for (const [name, branch] of this.#branches) {
      if (!branch.isUsed) continue;
      if (name === this.#parts.agent) agent = branch;
      else branches.push(branch);
    }
    branches.push(...this.#serviceBranches);
    return { branches, agent, storeBranch: this.#storeBranch };
  }

  #nextBranch(): number {
    this.#branchCount++;
    return this.#branchCount;
  }

  #service(name: string, resource: HttpResource): ServiceHandle {
    let handle = this.#services.get(name);
    if (handle === undefined) {
      const { epoch, traceparent } = this.#parts;
      handle = resource.handleIn({
        gid: this.gid,
        epoch,
        deadlineMs: this.deadlineMs,
        traceparent,
        remainingMs: () => this.remainingMs,
        signal: this.signal,
        nextBranch: () => this.#nextBranch(),
        checkOpen: () => {
          if (this.#isOver) throw conclaveError("CLOSED", `Transaction ${this.gid} is over.`);
        },
        onBranch: (branch) => this.#serviceBranches.push(branch),
      });
      this.#services.set(name, handle);
    }
    return handle;
  }

  #late(): Error {
    return new TransactionAborted(`Transaction ${this.gid} ran out of time.`, { gid: this.gid, why: "deadline" });
  }
}

function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | null | undefined)?.then === "function";
}
