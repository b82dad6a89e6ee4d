/**
 * One connection at the door of a replica: who is it, and what of its frames may go further.
 *
 * A hello first, whose seal is checked; what comes meanwhile waits, a little of it. Then each frame is read; if the core still
 * needs it, all its seals are verified on another thread, and only then it is handed on. What waits for its verdict is bounded, in frames and in bytes.
 * Nothing that arrives here throws: a frame that cannot be read closes the connection, a false seal drops the frame.
 */
import { hasCode } from "../../base/errors.ts";
import type { Connection, ConnectionHandler } from "../../base/ports.ts";
import { sealsOf } from "../../consensus/pbft/gate.ts";
import type { PbftMessage } from "../../consensus/pbft/messages.ts";
import { decodePbftMessage } from "../../wire/pbft-messages.ts";
import { claimOf, decodePbftHello, type PbftHello } from "./hello.ts";
import type { Verifier } from "./verifier.ts";

/** Frames of one connection that wait for their verdict, and their bytes. */
const unverifiedMax = 2_048;
const unverifiedBytesMax = 67_108_864;
/** Frames that may come before the hello is verified. */
const earlyMax = 64;

export interface AdmissionOptions {
  readonly cluster: string;
  readonly self: number;
  readonly verifier: Verifier;
  /** Counts what was not let in. */
  readonly dropped: { unreadable: number; unsealed: number; flood: number };
  readonly onProven: (hello: PbftHello, connection: Connection) => void;
  /** Of a message whose seals nobody has looked at. */
  readonly isNeeded: (message: PbftMessage) => boolean;
  readonly onMessage: (from: number | string, message: PbftMessage) => void;
  readonly onRefused: (connection: Connection, error: { readonly code: string; readonly message: string }) => void;
  readonly onGone: (hello: PbftHello, connection: Connection) => void;
}

export class Admission implements ConnectionHandler {
  readonly #options: AdmissionOptions;
  #hello: PbftHello | undefined;
  #early: Uint8Array[] | undefined = [];
  #unverified = 0;
  #unverifiedBytes = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  onFrame(connection: Connection, frame: Uint8Array): void {
    try {
      if (this.#hello === undefined) this.#onHello(connection, frame);
      else if (this.#early === undefined) this.#onLetter(callerOf(this.#hello), frame);
      else if (this.#early.length < earlyMax) this.#early.push(frame.slice());
      else this.#options.dropped.flood++;
    } catch (error) {
      this.#refuse(connection, error);
    }
  }

  onClose(connection: Connection): void {
    if (this.#hello !== undefined) this.#options.onGone(this.#hello, connection);
  }

  #onHello(connection: Connection, frame: Uint8Array): void {
    const { cluster, self, verifier, dropped, onProven } = this.#options;
    const hello = decodePbftHello(frame, cluster);
    this.#hello = hello;
    const by = callerOf(hello);
    verifier.verify([{ by, bytes: claimOf(by, self), signature: hello.signature }], (isTrue) => {
      if (!isTrue) {
        dropped.unsealed++;
        connection.close();
        return;
      }
      const early = this.#early ?? [];
      this.#early = undefined;
      onProven(hello, connection);
      for (const letter of early) this.onFrame(connection, letter);
    });
  }

  #onLetter(from: number | string, frame: Uint8Array): void {
    const { verifier, dropped, isNeeded, onMessage } = this.#options;
    if (this.#unverified >= unverifiedMax || this.#unverifiedBytes > unverifiedBytesMax) {
      dropped.flood++;
      return;
    }
    const message = decodePbftMessage(frame);
    if (!isNeeded(message)) return;
    const { length } = frame;
    this.#unverified++;
    this.#unverifiedBytes += length;
    verifier.verify(sealsOf(message), (isTrue) => {
      this.#unverified--;
      this.#unverifiedBytes -= length;
      if (isTrue) onMessage(from, message);
      else dropped.unsealed++;
    });
  }

  #refuse(connection: Connection, error: unknown): void {
    if (!hasCode(error, "PROTOCOL") && !hasCode(error, "WRONG_CLUSTER") && !hasCode(error, "WRONG_PROTOCOL")) throw error;
    this.#options.dropped.unreadable++;
    this.#options.onRefused(connection, error);
    connection.close();
  }
}

function callerOf(hello: PbftHello): number | string {
  return hello.kind === "replica" ? hello.replica : hello.client;
}
