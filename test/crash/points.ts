/**
 * Where a process is killed, stopped, or has its database killed under it: the crash points of `docs/transactions.md`.
 */
import type { Checkpoint } from "../../src/coordinator/options.ts";

export interface CrashPoint {
  readonly id: string;
  readonly what: string;
  /** The step, and the resource where that matters. */
  readonly at: Checkpoint | "working" | "answered";
  readonly resource?: "orders" | "wallet";
  /** The other resource waits before this step, so that one is through and the other is not. */
  readonly hold?: { readonly at: Checkpoint; readonly resource: "orders" | "wallet" };
  /** Not at the step but up to so long after it: while the packet is on its way. */
  readonly afterMsMax?: number;
  /** `both`: one branch in each database. `left`: only PostgreSQL. `agent`: PostgreSQL is the last agent. */
  readonly kind?: "both" | "left" | "agent";
  /** The transfer is refused by MariaDB at its vote. */
  readonly refused?: boolean;
  /** Transfers at one time. */
  readonly together?: number;
  readonly act: Act;
  /** Of an act on the store. */
  readonly members?: "leader" | "majority" | "all";
  /** Of a recoverer's death: how the transaction was left before. */
  readonly leftAt?: Checkpoint;
  /** Of a recoverer's death: the process that left it lives on, asleep, and holds its sessions. */
  readonly leftAsleep?: boolean;
}

/** `restart-*`: as an administrator would. `lose-answer`: the connection ends after the request and before its answer. */
export type Act =
  | "kill"
  | "stop"
  | "kill-postgres"
  | "kill-mariadb"
  | "restart-postgres"
  | "restart-mariadb"
  | "kill-store"
  | "kill-recoverer"
  | "two-recoverers"
  | "lose-answer";

const kill = "kill" as const;

export const crashPoints: readonly CrashPoint[] = [
  { id: "C01", what: "begun, nothing sent", at: "begun", act: kill },
  { id: "C02", what: "statements ran in both", at: "working", act: kill },
  {
    id: "C03",
    what: "PostgreSQL prepared, MariaDB not",
    at: "prepared",
    resource: "orders",
    hold: { at: "prepare", resource: "wallet" },
    act: kill,
  },
  {
    id: "C04",
    what: "MariaDB prepared, PostgreSQL not",
    at: "prepared",
    resource: "wallet",
    hold: { at: "prepare", resource: "orders" },
    act: kill,
  },
  { id: "C05", what: "both prepares on their way", at: "prepare", resource: "wallet", afterMsMax: 3, act: kill },
  { id: "C06", what: "all prepared, nothing decided", at: "all-prepared", act: kill },
  { id: "C07", what: "one refused, before the first rollback", at: "refused", refused: true, act: kill },
  { id: "C08", what: "one rolled back", at: "rolled-back", refused: true, act: kill },
  { id: "C09", what: "the decision on its way", at: "deciding", afterMsMax: 4, act: kill },
  { id: "C10", what: "decided, no commit sent", at: "decided", act: kill },
  { id: "C11", what: "PostgreSQL's commit on its way", at: "committing", resource: "orders", afterMsMax: 3, act: kill },
  {
    id: "C12",
    what: "PostgreSQL committed, MariaDB not",
    at: "committed",
    resource: "orders",
    hold: { at: "committing", resource: "wallet" },
    act: kill,
  },
  { id: "C13", what: "both committed, nobody told", at: "all-committed", act: kill },
  { id: "C14", what: "told, not forgotten", at: "answered", act: kill },
  { id: "C15", what: "forgotten", at: "forgotten", act: kill },
  { id: "C16", what: "sixteen decisions at one time", at: "deciding", together: 16, afterMsMax: 6, act: kill },
  { id: "O1", what: "one phase, before the commit", at: "one-phase", kind: "left", act: kill },
  { id: "O2", what: "one phase, the commit on its way", at: "one-phase-sent", kind: "left", afterMsMax: 2, act: kill },
  { id: "O3", what: "one phase, committed", at: "one-phase-done", kind: "left", act: kill },
  { id: "L1", what: "the other prepared, the agent not committed", at: "agent", kind: "agent", act: kill },
  { id: "L2", what: "the agent's commit on its way", at: "agent-sent", kind: "agent", afterMsMax: 2, act: kill },
  { id: "L3", what: "the agent committed, the other not", at: "agent-done", kind: "agent", act: kill },
  {
    id: "Z1",
    what: "zombie: one prepared",
    at: "prepared",
    resource: "orders",
    hold: { at: "prepare", resource: "wallet" },
    act: "stop",
  },
  { id: "Z2", what: "zombie: all prepared", at: "all-prepared", act: "stop" },
  { id: "Z3", what: "zombie: decided", at: "decided", act: "stop" },
  {
    id: "Z4",
    what: "zombie: one committed",
    at: "committed",
    resource: "orders",
    hold: { at: "committing", resource: "wallet" },
    act: "stop",
  },
  {
    id: "R1",
    what: "recoverer dies at its first rollback",
    at: "recovery-rolled-back",
    leftAt: "all-prepared",
    act: "kill-recoverer",
  },
  { id: "R2", what: "recoverer dies at its first commit", at: "recovery-committed", leftAt: "decided", act: "kill-recoverer" },
  { id: "R3", what: "recoverer dies with the proof in hand", at: "recovery-proven", leftAt: "decided", act: "kill-recoverer" },
  {
    id: "R4",
    what: "recoverer dies after it fenced the agent",
    at: "recovery-fenced",
    leftAt: "agent",
    kind: "agent",
    act: "kill-recoverer",
  },
  { id: "D1", what: "PostgreSQL dies while statements run", at: "working", act: "kill-postgres" },
  { id: "D2", what: "PostgreSQL dies after it prepared", at: "prepared", resource: "orders", act: "kill-postgres" },
  { id: "D3", what: "PostgreSQL dies after the decision", at: "decided", act: "kill-postgres" },
  {
    id: "D4",
    what: "PostgreSQL dies during its commit",
    at: "committing",
    resource: "orders",
    afterMsMax: 2,
    act: "kill-postgres",
  },
  { id: "D5", what: "MariaDB dies while statements run", at: "working", act: "kill-mariadb" },
  { id: "D6", what: "MariaDB dies after it prepared", at: "prepared", resource: "wallet", act: "kill-mariadb" },
  { id: "D7", what: "MariaDB dies after the decision", at: "decided", act: "kill-mariadb" },
  { id: "D8", what: "MariaDB dies during its commit", at: "committing", resource: "wallet", afterMsMax: 2, act: "kill-mariadb" },
  { id: "D9a", what: "PostgreSQL is restarted with prepared branches", at: "all-prepared", act: "restart-postgres" },
  { id: "D9b", what: "MariaDB is restarted with prepared branches", at: "all-prepared", act: "restart-mariadb" },
  {
    id: "R5",
    what: "recoverer dies after it ended a sleeper's session",
    at: "recovery-evicted",
    leftAt: "decided",
    leftAsleep: true,
    act: "kill-recoverer",
  },
  { id: "R6a", what: "three recoverers at once, without a decision", at: "all-prepared", act: "two-recoverers" },
  { id: "R6b", what: "three recoverers at once, with a decision", at: "decided", act: "two-recoverers" },
  {
    id: "S1",
    what: "the store's leader dies during the decision",
    at: "deciding",
    afterMsMax: 3,
    act: "kill-store",
    members: "leader",
  },
  {
    id: "S2",
    what: "a majority of the store is gone for 8 s at the decision",
    at: "deciding",
    afterMsMax: 3,
    act: "kill-store",
    members: "majority",
  },
  { id: "S4", what: "the whole store dies with decisions open", at: "decided", act: "kill-store", members: "all" },
  { id: "W1a", what: "PostgreSQL's vote is lost on the way", at: "prepare", resource: "orders", act: "lose-answer" },
  { id: "W1b", what: "MariaDB's vote is lost on the way", at: "prepare", resource: "wallet", act: "lose-answer" },
  { id: "W2a", what: "PostgreSQL's commit is not confirmed", at: "committing", resource: "orders", act: "lose-answer" },
  { id: "W2b", what: "MariaDB's commit is not confirmed", at: "committing", resource: "wallet", act: "lose-answer" },
  {
    id: "W3",
    what: "the last agent's commit is not confirmed",
    at: "agent",
    resource: "orders",
    kind: "agent",
    act: "lose-answer",
  },
  {
    id: "W4",
    what: "a one-phase commit is not confirmed",
    at: "one-phase",
    resource: "orders",
    kind: "left",
    act: "lose-answer",
  },
];
