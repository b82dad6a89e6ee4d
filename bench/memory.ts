/**
 * The memory of members under a long run of overwrites: resident size after 200,000 and after a million writes over 10,000
 * keys of 256 bytes. What may grow is bounded (history, the kept tail of the log, claims), so the second must not exceed the
 * first by more than a tenth.
 *
 *   npm run bench -- memory
 */
import { readFileSync } from "node:fs";
import { connect } from "../src/index.ts";
import { startCluster } from "./cluster.ts";
import { type Figure, machine, rounded, writeFigures } from "./figures.ts";

const keysCount = 10_000;
const value = new Uint8Array(256).fill(118);
// Node's defaults: a larger young generation would only blur the figure.
const cluster = await startCluster([]);
const conclave = await connect(cluster.url);
try {
  const store = conclave.engine.store("bench");
  let written = 0;
  const writeUpTo = async (count: number): Promise<void> => {
    const worker = async (): Promise<void> => {
      while (written < count) {
        const key = `key-${String((written++ * 7) % keysCount).padStart(8, "0")}`;
        await store.txn({ then: [{ kind: "put", key, value }] });
      }
    };
    await Promise.all(Array.from({ length: 512 }, worker));
    // Followers apply with the next heartbeat, and the collector has a moment.
    await new Promise((done) => setTimeout(done, 3_000));
  };
  await writeUpTo(200_000);
  const early = residentMegabytes();
  await writeUpTo(1_000_000);
  const late = residentMegabytes();
  console.log(machine());
  const figures: Figure[] = early.map((before, at) => {
    const after = late[at] as number;
    console.log(
      `member ${at + 1}: ${before.toFixed(0)} MB after 200,000 writes, ${after.toFixed(0)} MB after 1,000,000: ${(after / before).toFixed(3)}x`,
    );
    return {
      case: `resident size of member ${at + 1} after 1,000,000 writes, against after 200,000`,
      ours: rounded(after),
      peer: rounded(before),
      peerName: "the same member after 200,000 writes",
      peerVersion: null,
      ratio: rounded(before / after),
      unit: "MB",
    };
  });
  writeFigures("memory", figures);
} finally {
  await conclave.close();
  await cluster.stop();
}

function residentMegabytes(): number[] {
  return cluster.pids.map((pid) => {
    const pages = Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
    return (pages * 4_096) / 1e6;
  });
}
