/**
 * Ed25519 verification on other threads, many seals in one trip.
 *
 * A verification costs some 70 microseconds, more than everything else that a replica does for a message; the thread that
 * runs the protocol must not pay it. All seals of one turn of the event loop go to a worker in one message, and one byte
 * for each comes back. What was found true is remembered, because requests come back in proposals, and statements in proofs.
 *
 * The worker's code is a string: it must run from the sources (tests) and from the built package alike, and Node 20 reads
 * no TypeScript. It is the only code of the package that does not pass the compiler, so it does one thing.
 */
import { Worker } from "node:worker_threads";
import { conclaveError } from "../../base/errors.ts";
import type { Seal } from "../../consensus/pbft/gate.ts";

const workerSource = `
const { parentPort, workerData } = require("node:worker_threads");
const { createPublicKey, verify } = require("node:crypto");
const keys = workerData.keys.map((key) => createPublicKey({ key: Buffer.from(key), format: "der", type: "spki" }));
const context = Buffer.from(workerData.context);
parentPort.on("message", ({ number, packed }) => {
  const startedMs = performance.now();
  const bytes = Buffer.from(packed);
  const count = bytes.readUInt32LE(0);
  const verdicts = new Uint8Array(count);
  let at = 4;
  for (let index = 0; index < count; index++) {
    const key = bytes.readUInt32LE(at);
    const length = bytes.readUInt32LE(at + 4);
    const signed = Buffer.concat([context, bytes.subarray(at + 8, at + 8 + length)]);
    const signature = bytes.subarray(at + 8 + length, at + 72 + length);
    verdicts[index] = verify(null, signed, keys[key], signature) ? 1 : 0;
    at += 72 + length;
  }
  parentPort.postMessage({ number, verdicts, tookMs: performance.now() - startedMs });
});
`;

const signatureBytes = 64;

export interface VerifierOptions {
  /** By replica's number and client's name. */
  readonly keys: ReadonlyMap<number | string, Uint8Array>;
  readonly context: Uint8Array;
  /** Default 1. */
  readonly threads?: number;
  /** Seals remembered as true. Default 16_384. */
  readonly rememberedMax?: number;
}

interface Waiting {
  readonly seals: readonly Seal[];
  readonly onVerdict: (isTrue: boolean) => void;
}

interface Trip {
  readonly seals: readonly Seal[];
  readonly owners: readonly Waiting[];
}

export class Verifier {
  readonly #workers: readonly Worker[];
  readonly #keyNumbers = new Map<number | string, number>();
  readonly #rememberedMax: number;
  readonly #remembered = new Map<string, Uint8Array>();
  readonly #trips = new Map<number, Trip>();
  #waiting: Waiting[] = [];
  #planned = false;
  #trip = 0;
  #closed = false;
  /** Seals that went to a worker, and the time they took there. */
  readonly stats = { verified: 0, remembered: 0, refused: 0, workerMs: 0 };

  constructor(options: VerifierOptions) {
    const keys: Uint8Array[] = [];
    for (const [owner, key] of options.keys) {
      this.#keyNumbers.set(owner, keys.length);
      keys.push(key);
    }
    this.#rememberedMax = options.rememberedMax ?? 16_384;
    const workerData = { keys, context: options.context };
    this.#workers = Array.from({ length: options.threads ?? 1 }, () => {
      const worker = new Worker(workerSource, { eval: true, workerData });
      worker.unref();
      worker.on("message", (answer: { number: number; verdicts: Uint8Array; tookMs: number }) => this.#onAnswer(answer));
      return worker;
    });
  }

  /** Calls back once, with whether every seal is true; at once where that is known. After `close` never. */
  verify(seals: readonly Seal[], onVerdict: (isTrue: boolean) => void): void {
    const unknown = seals.filter((seal) => !this.#isRemembered(seal));
    this.stats.remembered += seals.length - unknown.length;
    if (unknown.length === 0) {
      onVerdict(true);
      return;
    }
    // A stranger's seal, or one of the wrong length, needs no arithmetic.
    if (unknown.some(({ by, signature }) => !this.#keyNumbers.has(by) || signature.length !== signatureBytes)) {
      this.stats.refused++;
      onVerdict(false);
      return;
    }
    this.#waiting.push({ seals: unknown, onVerdict });
    if (this.#planned) return;
    this.#planned = true;
    setImmediate(() => this.#send());
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#trips.clear();
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #send(): void {
    this.#planned = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (this.#closed) return;
    // One share for each worker; a message's seals stay together.
    const share = Math.ceil(waiting.length / this.#workers.length);
    for (const [at, worker] of this.#workers.entries()) {
      const owners = waiting.slice(at * share, (at + 1) * share);
      if (owners.length === 0) return;
      const seals = owners.flatMap((owner) => owner.seals);
      const number = this.#trip++;
      this.#trips.set(number, { seals, owners });
      const packed = this.#pack(seals);
      worker.postMessage({ number, packed }, [packed]);
    }
  }

  /** `[u32 count]` and for each `[u32 key][u32 length][bytes][64 bytes of signature]`. */
  #pack(seals: readonly Seal[]): ArrayBuffer {
    const total = seals.reduce((sum, { bytes }) => sum + 8 + bytes.length + signatureBytes, 4);
    const packed = new Uint8Array(total);
    const view = new DataView(packed.buffer);
    view.setUint32(0, seals.length, true);
    let at = 4;
    for (const { by, bytes, signature } of seals) {
      view.setUint32(at, this.#keyNumbers.get(by) as number, true);
      view.setUint32(at + 4, bytes.length, true);
      packed.set(bytes, at + 8);
      packed.set(signature, at + 8 + bytes.length);
      at += 8 + bytes.length + signatureBytes;
    }
    return packed.buffer;
  }

  #onAnswer({ number, verdicts, tookMs }: { number: number; verdicts: Uint8Array; tookMs: number }): void {
    const trip = this.#trips.get(number);
    if (trip === undefined) return;
    this.#trips.delete(number);
    this.stats.verified += verdicts.length;
    this.stats.workerMs += tookMs;
    for (const [at, seal] of trip.seals.entries()) if (verdicts[at] === 1) this.#remember(seal);
    let at = 0;
    for (const { seals, onVerdict } of trip.owners) {
      const isTrue = verdicts.subarray(at, at + seals.length).every((verdict) => verdict === 1);
      at += seals.length;
      if (!isTrue) this.stats.refused++;
      onVerdict(isTrue);
    }
  }

  #isRemembered({ by, bytes, signature }: Seal): boolean {
    const known = this.#remembered.get(nameOf(by, signature));
    return known !== undefined && Buffer.compare(known, bytes) === 0;
  }

  #remember({ by, bytes, signature }: Seal): void {
    const name = nameOf(by, signature);
    if (this.#remembered.size >= this.#rememberedMax) {
      for (const oldest of this.#remembered.keys()) {
        this.#remembered.delete(oldest);
        break;
      }
    }
    this.#remembered.set(name, bytes);
  }
}

function nameOf(by: number | string, signature: Uint8Array): string {
  return `${by}:${Buffer.from(signature.buffer, signature.byteOffset, signature.length).toString("latin1")}`;
}

/** Waits for one verdict. @throws PROTOCOL */
export function assertSealed(verifier: Verifier, seals: readonly Seal[]): Promise<void> {
  return new Promise((resolve, reject) => {
    verifier.verify(seals, (isTrue) => {
      if (isTrue) resolve();
      else reject(conclaveError("PROTOCOL", "A signature does not fit."));
    });
  });
}
