/**
 * What must be verified before a message may enter the core: every signature in it, also those inside the proofs.
 *
 * Intuition: a porter who looks at every seal. Inside, nobody doubts a seal again; what the sealed statements *say* is
 * judged by the core. So the core stays synchronous, the host verifies on other threads, and the simulator's seals are
 * symbols that only their owner can mint.
 * A statement by a replica or client that does not exist is refused here as well.
 */
import type { Batch, Checkpoint, PbftMessage, PreparedCertificate, Signed, Statement, ViewChange } from "./messages.ts";

/** One seal to check: `by` is a replica's number or a client's name. */
export interface Seal {
  readonly by: number | string;
  readonly bytes: Uint8Array;
  readonly signature: Uint8Array;
}

/** Every seal of the message, outermost first. */
export function sealsOf(message: PbftMessage): readonly Seal[] {
  const seals: Seal[] = [];
  switch (message.kind) {
    case "request":
      add(seals, message.frame);
      break;
    case "pre-prepare":
      add(seals, message.proposal);
      addBatch(seals, message.batch);
      break;
    case "prepare":
    case "commit":
      add(seals, message.vote);
      break;
    case "checkpoint":
      add(seals, message.checkpoint);
      break;
    case "stable":
      addCheckpoints(seals, message.checkpoints);
      break;
    case "view-change":
      addViewChange(seals, message.viewChange);
      break;
    case "new-view":
      add(seals, message.newView);
      for (const viewChange of message.newView.statement.viewChanges) addViewChange(seals, viewChange);
      for (const proposal of message.newView.statement.proposals) add(seals, proposal);
      break;
    case "batch":
      addBatch(seals, message.batch);
      break;
    case "reply":
      add(seals, message.reply);
      break;
    case "status":
    case "fetch-batch":
    case "fetch-parts":
    case "parts":
    case "fetch-part":
    case "part":
      break;
  }
  return seals;
}

function add(seals: Seal[], { statement, bytes, signature }: Signed<Statement>): void {
  seals.push({ by: statement.kind === "request" ? statement.client : statement.replica, bytes, signature });
}

function addBatch(seals: Seal[], batch: Batch): void {
  for (const frame of batch) add(seals, frame);
}

function addCheckpoints(seals: Seal[], checkpoints: readonly Signed<Checkpoint>[]): void {
  for (const checkpoint of checkpoints) add(seals, checkpoint);
}

function addViewChange(seals: Seal[], viewChange: Signed<ViewChange>): void {
  add(seals, viewChange);
  addCheckpoints(seals, viewChange.statement.checkpoints);
  for (const certificate of viewChange.statement.prepared) addCertificate(seals, certificate);
}

function addCertificate(seals: Seal[], certificate: PreparedCertificate): void {
  add(seals, certificate.proposal);
  for (const prepare of certificate.prepares) add(seals, prepare);
}
