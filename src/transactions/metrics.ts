/**
 * Figures of transactions, sagas and outboxes as Prometheus reads them (text format 0.0.4). Bounded: no label grows with use.
 *
 * Alert on `conclave_tx_in_doubt_oldest_seconds` above 60, `conclave_saga_needs_attention` above 0 and
 * `conclave_outbox_lag_seconds` above 30: each says that something waits for a resource, a service or a person.
 */
import type { TransactionManager } from "./manager.ts";
import type { OutboxRelay } from "./outbox-relay.ts";
import type { SagaRunner } from "./saga-manager.ts";

export interface MetricSources {
  // biome-ignore lint/suspicious/noExplicitAny: its resources do not matter here.
  readonly transactions?: TransactionManager<any>;
  readonly sagas?: SagaRunner;
  /** By the outbox's name. */
  readonly relays?: Readonly<Record<string, OutboxRelay>>;
}

/** The text of a scrape. @since 0.2.0 */
export function transactionMetrics({ transactions, sagas, relays = {} }: MetricSources): string {
  const lines: string[] = [];
  const metric = (name: string, type: "counter" | "gauge", help: string, rows: readonly (readonly [string, number])[]): void => {
    if (rows.length === 0) return;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [labels, value] of rows) lines.push(`${name}${labels} ${value}`);
  };
  if (transactions !== undefined) {
    const figures = transactions.figures;
    const outcomes = (["committed", "aborted", "unknown", "fenced"] as const).map(
      (name) => [`{outcome="${name}"}`, figures[name]] as const,
    );
    metric("conclave_tx_total", "counter", "Transactions by outcome.", outcomes);
    metric("conclave_tx_in_flight", "gauge", "Transactions that this process minds.", [["", figures.inFlight]]);
    metric("conclave_tx_in_doubt", "gauge", "Decided or doubtful, and not finished everywhere.", [["", figures.inDoubt]]);
    const oldest = [["", figures.oldestInDoubtMs / 1_000]] as const;
    metric("conclave_tx_in_doubt_oldest_seconds", "gauge", "Age of the oldest of those.", oldest);
  }
  if (sagas !== undefined) {
    const figures = sagas.figures;
    const outcomes = (["completed", "compensated"] as const).map((name) => [`{outcome="${name}"}`, figures[name]] as const);
    metric("conclave_saga_total", "counter", "Sagas by outcome.", outcomes);
    metric("conclave_saga_taken_over_total", "counter", "Sagas of others that were carried on here.", [["", figures.takenOver]]);
    metric("conclave_saga_running", "gauge", "Sagas that run in this process.", [["", figures.running]]);
    metric("conclave_saga_oldest_seconds", "gauge", "Age of the oldest of those.", [["", figures.oldestRunningMs / 1_000]]);
    metric("conclave_saga_needs_attention", "gauge", "Steps that do not get through.", [["", figures.needsAttention]]);
  }
  // Names of outboxes are plain letters: nothing to escape.
  const named = Object.entries(relays).map(([name, relay]) => [`{outbox="${name}"}`, relay.figures] as const);
  const column = (pick: (figures: OutboxRelay["figures"]) => number) =>
    named.map(([label, figures]) => [label, pick(figures)] as const);
  metric(
    "conclave_outbox_published_total",
    "counter",
    "Events that a sink took.",
    column(({ published }) => published),
  );
  metric(
    "conclave_outbox_failures_total",
    "counter",
    "Rounds that failed.",
    column(({ failures }) => failures),
  );
  metric(
    "conclave_outbox_relaying",
    "gauge",
    "Whether this process relays.",
    column(({ isRelaying }) => (isRelaying ? 1 : 0)),
  );
  metric(
    "conclave_outbox_lag_seconds",
    "gauge",
    "Age of the first event that waits.",
    column(({ lagMs }) => lagMs / 1_000),
  );
  return `${lines.join("\n")}\n`;
}
