// A holder whose event loop is really blocked, as a process of its own, on the built package.
// Takes one argument of JSON: { url, name, lock (LockOptions), blockMs, spins }. Says on standard output, a line of JSON each,
// that it holds, and what the first line after the block sees.
import { setTimeout as pass } from "node:timers/promises";
import { connect } from "../../dist/index.js";

const { url, name, lock, blockMs, spins } = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const conclave = await connect(url);
const hold = await conclave.lock(name, lock).acquire();
say({ kind: "holds", token: hold.token, held: hold.held });
// The line must be out, and the keeper's clock running, before the loop stands still.
await pass(300);
const fromMs = performance.now();
if (spins) while (performance.now() - fromMs < blockMs);
else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs);
const held = hold.held;
const blockedMs = performance.now() - fromMs;
const why = hold.loss === null ? null : `${hold.loss.message} ${hold.loss.cause?.message ?? ""}`;
await pass(50);
say({ kind: "woke", held, heldLater: hold.held, aborted: hold.signal.aborted, blockedMs, why });
await hold.release();
await conclave.close();
