/**
 * A member's log: every event as one JSON record in the Elastic Common Schema, `event.action` naming what happened and
 * `conclave.*` saying to what.
 *
 * Written in the background: a reader that does not read (a pager, a stopped terminal) must not stop a member. Beyond a
 * bound records are dropped; the last words before an end are flushed.
 */
import { ecsFormat } from "@elastic/ecs-pino-format";
import { type Logger, pino } from "pino";
import type { ConclaveEvent } from "../base/event.ts";
import { describe } from "./fail.ts";
import type { LogLevel } from "./log-level.ts";

/** Characters of records that wait for a slow reader. */
const bufferedMax = 4_194_304;

export interface MemberLog {
  readonly event: (event: ConclaveEvent) => void;
  listening(facts: { readonly address: string; readonly directory: string }): void;
  stopping(signal: string): void;
  stopped(): void;
  halted(why: string, error: unknown): void;
  failure(message: string, error: unknown): void;
}

export function makeLog(options: { readonly level: LogLevel; readonly member: string; readonly cluster: string }): MemberLog {
  const { level, member, cluster } = options;
  const output = pino.destination({ dest: 1, sync: false, maxLength: bufferedMax });
  const logger = pino(
    { ...ecsFormat({ apmIntegration: false, serviceName: "conclave", serviceNodeName: member }), level },
    output,
  );
  const say = (at: LogLevel, action: string, message: string, fields: object = {}): void => {
    logger[at]({ event: { action }, conclave: { member, cluster, ...fields } }, message);
  };
  return {
    event: (event) => logEvent(logger, cluster, event),
    listening: ({ address, directory }) =>
      say("info", "member.listening", `Member ${member} of cluster ${cluster} listens at ${address}: conclave://${address}`, {
        address,
        url: `conclave://${address}`,
        directory,
      }),
    stopping: (signal) => say("info", "member.stopping", `${signal}: closing.`, { signal }),
    stopped: () => say("info", "member.stopped", "Closed."),
    halted: (why, error) =>
      say("fatal", "member.halted", `The member halts: ${why}`, {
        why,
        error: error === undefined ? undefined : describe(error),
      }),
    failure: (message, error) =>
      say("error", "member.failure", message, { error: error === undefined ? undefined : describe(error) }),
  };
}

function logEvent(logger: Logger, cluster: string, event: ConclaveEvent): void {
  // `halted` tells it, with the error.
  if (event.kind === "member.halted") return;
  const level = levelOf(event.kind);
  if (!logger.isLevelEnabled(level)) return;
  const { kind, ...fields } = event;
  logger[level]({ event: { action: kind }, conclave: { cluster, ...fields } }, sentenceOf(event));
}

function levelOf(kind: ConclaveEvent["kind"]): LogLevel {
  switch (kind) {
    // One for every group of writes: too many for a log.
    case "log.synced":
    case "client.retry":
      return "debug";
    case "connection.refused":
    case "hold.lost":
    case "keeper.down":
    case "transaction.fenced":
    case "transaction.recovery-failed":
      return "warn";
    case "transaction.heuristic":
    case "saga.attention":
      return "error";
    default:
      return "info";
  }
}

/** The event in words, for people who read along. */
function sentenceOf(event: ConclaveEvent): string {
  switch (event.kind) {
    case "role.changed":
      return `${event.role} in term ${event.term}${event.leader === undefined ? "" : `, led by ${event.leader}`}`;
    case "log.recovered":
      return event.repairedBytes === 0
        ? `read the log up to ${event.lastIndex}`
        : `read the log up to ${event.lastIndex}; its torn end of ${event.repairedBytes} bytes was cut off`;
    case "log.synced":
      return `${event.records} records, ${event.bytes} bytes on disk in ${event.latencyMs.toFixed(1)} ms`;
    case "snapshot.built":
      return `snapshot at ${event.index}, ${event.bytes} bytes`;
    case "snapshot.installed":
      return `snapshot at ${event.index} received from ${event.from}`;
    case "member.halted":
      return `halted: ${event.why}`;
    case "session.opened":
      return `session ${event.session} opened, ${event.ttlMs} ms`;
    case "session.expired":
      return `session ${event.session} expired`;
    case "keeper.down":
      return `the thread that keeps sessions alive has ended: ${event.why}`;
    case "connection.opened":
      return `${event.role} connected from ${event.remote}`;
    case "connection.closed":
      return `${event.remote} disconnected: ${event.why}`;
    case "connection.refused":
      return `${event.remote} refused: ${event.why}`;
    case "client.leader":
      return `follows ${event.leader}`;
    case "client.retry":
      return `asks again: ${event.why}`;
    case "hold.granted":
      return `lock ${event.lock} granted with token ${event.token} after ${Math.round(event.waitedMs)} ms`;
    case "hold.lost":
      return `lock ${event.lock} lost: ${event.why}`;
    case "transaction.ended":
      return `transaction ${event.gid} ${event.outcome}`;
    case "transaction.fenced":
      return `coordinator ${event.coordinator} lost its epoch ${event.epoch}`;
    case "transaction.recovered":
      return `recovery: ${event.committed} committed, ${event.rolledBack} rolled back, ${event.heuristics} heuristic, ${event.left} left`;
    case "transaction.recovery-failed":
      return `recovery will try again: ${event.why}`;
    case "transaction.heuristic":
      return `transaction ${event.gid} did not end as decided: ${event.outcome}`;
    case "saga.turned":
      return `saga ${event.gid} (${event.name}) turns: ${event.turn}${event.why === "" ? "" : `, because ${event.why}`}`;
    case "saga.ended":
      return `saga ${event.gid} (${event.name}) ${event.outcome}`;
    case "saga.taken-over":
      return `saga ${event.gid} (${event.name}) taken over, turn ${event.turn}`;
    case "saga.attention":
      return `saga ${event.gid} (${event.name}) does not get through ${event.step}: ${event.why}`;
  }
}
