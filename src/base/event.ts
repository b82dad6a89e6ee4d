/**
 * Everything that happens, as one typed union. Metrics, logs, traces, the simulator and the lab read these events and
 * nothing else. `kind` is a dotted name; the fields are plain data.
 */
export type ConclaveEvent =
  | {
      readonly kind: "role.changed";
      readonly member: string;
      readonly role: string;
      readonly term: number;
      readonly leader: string | undefined;
    }
  | {
      readonly kind: "log.recovered";
      readonly member: string;
      readonly firstIndex: number;
      readonly lastIndex: number;
      readonly repairedBytes: number;
    }
  | {
      readonly kind: "log.synced";
      readonly member: string;
      readonly records: number;
      readonly bytes: number;
      readonly latencyMs: number;
    }
  | { readonly kind: "snapshot.built"; readonly member: string; readonly index: number; readonly bytes: number }
  | { readonly kind: "snapshot.installed"; readonly member: string; readonly index: number; readonly from: string }
  | { readonly kind: "member.halted"; readonly member: string; readonly why: string }
  | { readonly kind: "session.opened"; readonly member: string; readonly session: string; readonly ttlMs: number }
  | { readonly kind: "keeper.down"; readonly why: string }
  | { readonly kind: "session.expired"; readonly member: string; readonly session: string }
  | { readonly kind: "connection.opened"; readonly member: string; readonly remote: string; readonly role: string }
  | { readonly kind: "connection.closed"; readonly member: string; readonly remote: string; readonly why: string }
  | {
      readonly kind: "connection.refused";
      readonly member: string;
      readonly remote: string;
      readonly code: string;
      readonly why: string;
    }
  | { readonly kind: "client.leader"; readonly leader: string }
  | { readonly kind: "client.retry"; readonly request: number; readonly why: string }
  | { readonly kind: "hold.granted"; readonly lock: string; readonly token: number; readonly waitedMs: number }
  | { readonly kind: "hold.lost"; readonly lock: string; readonly token: number; readonly why: string }
  | { readonly kind: "transaction.ended"; readonly gid: string; readonly outcome: string }
  | { readonly kind: "transaction.fenced"; readonly coordinator: string; readonly epoch: number }
  | {
      readonly kind: "transaction.recovered";
      readonly rolledBack: number;
      readonly committed: number;
      readonly heuristics: number;
      readonly left: number;
    }
  | { readonly kind: "transaction.recovery-failed"; readonly why: string }
  | { readonly kind: "transaction.heuristic"; readonly gid: string; readonly outcome: string }
  | { readonly kind: "saga.turned"; readonly gid: string; readonly name: string; readonly turn: string; readonly why: string }
  | { readonly kind: "saga.ended"; readonly gid: string; readonly name: string; readonly outcome: string }
  | { readonly kind: "saga.taken-over"; readonly gid: string; readonly name: string; readonly turn: string }
  | { readonly kind: "saga.attention"; readonly gid: string; readonly name: string; readonly step: string; readonly why: string };
