/**
 * A database as a participant meets it, with the quirks of two real ones (`research/transactions.md` §4):
 *
 *                          PostgreSQL: "any-session"              MariaDB: "own-session"
 *   not prepared           dies with its session                  the same
 *   prepared               survives session and server            the same
 *   finished by            any session                            the one that prepared it, while it lives; then any
 *   "does not exist"       said of committed and rolled back      also said of one that a living session holds
 *
 * A session is a line: what was sent is executed in order, even after its sender died, and the end of the session comes last.
 */
import type {
  Branch,
  BranchRef,
  Evidence,
  FenceReply,
  FinishReply,
  Outcome,
  Participant,
  Vote,
} from "../coordinator/participant.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";
import type { TransactionsChecker } from "./transactions-checker.ts";

interface Work {
  readonly ref: BranchRef;
  readonly session: DatabaseSession;
  state: "active" | "prepared";
  parts: readonly BranchRef[];
}

interface DatabaseSession {
  readonly id: string;
  readonly client: SimulatedProcess;
  isOpen: boolean;
  /** When the last thing sent so far arrives. */
  lineMs: number;
}

export interface ModelDatabaseParts {
  readonly name: string;
  readonly kind: "any-session" | "own-session";
  readonly queue: EventQueue;
  readonly random: Random;
  readonly checker: TransactionsChecker;
}

export class ModelDatabase {
  readonly name: string;
  /** Markers: the branches that are in, with all the branches of their transactions. */
  readonly committed = new Map<string, readonly BranchRef[]>();
  readonly #fenced = new Set<string>();
  readonly #work = new Map<string, Work>();
  readonly #sessions = new Set<DatabaseSession>();
  readonly #parts: ModelDatabaseParts;
  #sessionCount = 0;
  #downUntilMs = 0;
  #isCalm = false;

  constructor(parts: ModelDatabaseParts) {
    this.name = parts.name;
    this.#parts = parts;
  }

  prepared(): readonly string[] {
    return [...this.#work.values()].flatMap(({ ref, state }) => (state === "prepared" ? [`${this.name}: ${ref.gid}`] : []));
  }

  heal(): void {
    this.#isCalm = true;
    this.#downUntilMs = 0;
  }

  /** The server dies: sessions and what they had not prepared are gone. */
  crash(downMs: number): void {
    this.endSessions();
    this.#downUntilMs = this.#parts.queue.nowMs + downMs;
  }

  endSessions(): void {
    for (const session of [...this.#sessions]) this.#end(session);
  }

  /** The kernel closes the sockets of a dead process: the server reads that after what was sent before. */
  clientDied(client: SimulatedProcess): void {
    const { queue, random } = this.#parts;
    for (const session of this.#sessions) {
      if (session.client !== client) continue;
      session.lineMs = Math.max(session.lineMs, queue.nowMs) + random.between(0, 30);
      queue.schedule(session.lineMs - queue.nowMs, () => this.#end(session));
    }
  }

  participant(client: SimulatedProcess): Participant {
    const ask = <T>(act: () => T, down: T): Promise<T> => this.#ask(client, act, down);
    return {
      finish: (ref, outcome) => ask<FinishReply>(() => this.#finish(ref, outcome, undefined), "unreachable"),
      evidence: (ref) => ask<Evidence>(() => this.#evidence(ref), { state: "unreachable" }),
      fence: (ref) => ask<FenceReply>(() => this.#fence(ref), "unreachable"),
      evict: (ref) =>
        ask(() => {
          const holder = this.#work.get(keyOf(ref))?.session;
          if (holder !== undefined) this.#end(holder);
          return holder !== undefined;
        }, false),
      scan: (domain) =>
        ask<readonly BranchRef[] | "unreachable">(
          () =>
            [...this.#work.values()].flatMap(({ ref, state, session }) =>
              state === "prepared" && ref.gid.startsWith(`cv1.${domain}.`) ? [{ ...ref, owner: session.id }] : [],
            ),
          "unreachable",
        ),
    };
  }

  /** A new session with a branch that has written something. Rejects when the connection is lost. */
  async open(client: SimulatedProcess, ref: BranchRef): Promise<Branch> {
    this.#sessionCount++;
    const session: DatabaseSession = { id: `s${this.#sessionCount}`, client, isOpen: true, lineMs: 0 };
    await this.#say(session, () => {
      this.#sessions.add(session);
      this.#work.set(keyOf(ref), { ref, session, state: "active", parts: [] });
    });
    const isReadOnly = ref.branch !== 0 && this.#parts.random.chance(0.1);
    return {
      ref,
      isReadOnly,
      prepare: (parts) => this.#say(session, () => (isReadOnly ? this.#endReading(ref) : this.#prepare(ref, session, parts))),
      commit: () =>
        this.#say(session, () => this.#closed(session, this.#finish(ref, "commit", session))).catch(() => "unreachable"),
      rollback: () =>
        this.#say(session, () => this.#closed(session, this.#rollback(ref, session))).catch((): FinishReply => {
          // As a driver does with a connection in doubt.
          this.clientDied(client);
          return "unreachable";
        }),
      commitAlone: (parts) => this.#say(session, () => this.#commitAlone(ref, session, parts)).catch((): "unknown" => "unknown"),
    };
  }

  #prepare(
    ref: BranchRef,
    session: DatabaseSession,
    parts: readonly BranchRef[],
  ): { readonly vote: Vote; readonly why?: string } {
    const work = this.#work.get(keyOf(ref));
    if (work === undefined || work.session !== session) return { vote: "no", why: "the branch is gone" };
    const { random } = this.#parts;
    if (this.#fenced.has(keyOf(ref)) || (!this.#isCalm && random.chance(0.04))) {
      this.#work.delete(keyOf(ref));
      return { vote: "no", why: "refused" };
    }
    work.state = "prepared";
    work.parts = parts;
    this.#parts.checker.onPrepared(this.name, ref);
    return { vote: "yes" };
  }

  #endReading(ref: BranchRef): { readonly vote: Vote } {
    this.#work.delete(keyOf(ref));
    return { vote: "read-only" };
  }

  #commitAlone(ref: BranchRef, session: DatabaseSession, parts: readonly BranchRef[]): "done" | "rolled-back" {
    const work = this.#work.get(keyOf(ref));
    if (work === undefined || work.session !== session || this.#fenced.has(keyOf(ref))) {
      this.#work.delete(keyOf(ref));
      return "rolled-back";
    }
    this.#work.delete(keyOf(ref));
    this.committed.set(keyOf(ref), parts);
    this.#parts.checker.onCommittedAlone(this.name, ref);
    return "done";
  }

  #finish(ref: BranchRef, outcome: Outcome, session: DatabaseSession | undefined): FinishReply {
    const work = this.#work.get(keyOf(ref));
    if (work === undefined || work.state !== "prepared") return "not-found";
    if (this.#parts.kind === "own-session" && work.session.isOpen && work.session !== session) {
      // The server's own words are those of "unknown"; who looks closer sees that it is held, unless the look comes too late.
      return this.#parts.random.chance(0.3) ? "not-found" : "held";
    }
    this.#work.delete(keyOf(ref));
    if (outcome === "commit") {
      this.committed.set(keyOf(ref), work.parts);
      this.#parts.checker.onCommitted(this.name, ref);
    } else this.#parts.checker.onRolledBack(this.name, ref);
    return "done";
  }

  #rollback(ref: BranchRef, session: DatabaseSession): FinishReply {
    const work = this.#work.get(keyOf(ref));
    if (work?.state === "active" && work.session === session) {
      this.#work.delete(keyOf(ref));
      return "done";
    }
    // Its session knows that it never prepared, or was told "no".
    if (work === undefined && !this.committed.has(keyOf(ref))) return "done";
    return this.#finish(ref, "rollback", session);
  }

  #evidence(ref: BranchRef): Evidence {
    if (this.#work.get(keyOf(ref))?.state === "prepared") return { state: "prepared" };
    const parts = this.committed.get(keyOf(ref));
    return parts === undefined ? { state: "absent" } : { state: "committed", parts };
  }

  #fence(ref: BranchRef): FenceReply {
    if (this.committed.has(keyOf(ref))) return "committed";
    if (this.#parts.random.chance(0.1)) return "busy";
    this.#fenced.add(keyOf(ref));
    return "fenced";
  }

  #closed(session: DatabaseSession, reply: FinishReply): FinishReply {
    this.#end(session);
    return reply;
  }

  #end(session: DatabaseSession): void {
    session.isOpen = false;
    this.#sessions.delete(session);
    for (const [key, work] of this.#work) if (work.session === session && work.state === "active") this.#work.delete(key);
  }

  /** A question on a connection of its own. */
  #ask<T>(client: SimulatedProcess, act: () => T, down: T): Promise<T> {
    const { queue } = this.#parts;
    return new Promise((resolve) => {
      if (this.#isLost()) return;
      queue.schedule(this.#delayMs(), () => {
        const answer = queue.nowMs < this.#downUntilMs ? down : act();
        if (!this.#isLost()) queue.schedule(this.#delayMs(), () => client.run(() => resolve(answer)));
      });
    });
  }

  /** On the session, in order. Rejects when the session has ended; never settles when the answer is lost. */
  #say<T>(session: DatabaseSession, act: () => T): Promise<T> {
    const { queue } = this.#parts;
    return new Promise((resolve, reject) => {
      const lost = (): void => session.client.run(() => reject(new Error("Connection lost.")));
      if (!session.client.isAlive) return;
      session.lineMs = Math.max(session.lineMs, queue.nowMs + this.#delayMs());
      queue.schedule(session.lineMs - queue.nowMs, () => {
        if (!session.isOpen || queue.nowMs < this.#downUntilMs) {
          queue.schedule(1, lost);
          return;
        }
        const answer = act();
        if (this.#isLost()) {
          // The line broke after it was executed: the server sees the end a little later.
          queue.schedule(1, lost);
          queue.schedule(this.#delayMs(), () => this.#end(session));
          return;
        }
        queue.schedule(this.#delayMs(), () => session.client.run(() => resolve(answer)));
      });
    });
  }

  #isLost(): boolean {
    return !this.#isCalm && this.#parts.random.chance(0.015);
  }

  #delayMs(): number {
    const { random } = this.#parts;
    if (!this.#isCalm && random.chance(0.02)) return random.between(500, 5_000);
    return random.between(0.2, this.#isCalm ? 3 : 15);
  }
}

function keyOf({ gid, branch }: BranchRef): string {
  return `${gid}/${branch}`;
}
