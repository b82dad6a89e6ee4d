/**
 * The runner's own eyes on the cluster: it writes the prober's values while the run lasts, and reads what stands there at
 * the end. One for stores with locks, one for a Byzantine cluster, which has registers and probes alone.
 */
import { type Conclave, connect, connectPbft, type Entry } from "../index.ts";
import { cellNamespace, probeNamespace, textOf } from "./cell-work.ts";
import { monotonicMs } from "./clock.ts";
import { type Cluster, clusterName } from "./cluster.ts";
import type { FinalState } from "./evidence.ts";
import { NumberFile } from "./number-file.ts";
import { type ProbeWrite, probeKey } from "./prober.ts";
import { registerPrefix } from "./register-work.ts";
import { setPrefix } from "./set-work.ts";

export interface Witness {
  readonly write: ProbeWrite;
  /** When nobody writes any more. */
  readFinal(): Promise<FinalState>;
  close(): Promise<void>;
}

/** Of clients of a Byzantine cluster. */
export const witnessName = "witness";

const readMsMax = 30_000;
/** Entries of one answer when a range is read. */
const pageSize = 2_000;

export async function openWitness(cluster: Cluster, numberPath: string): Promise<Witness> {
  if (cluster.pbft !== undefined) return byzantineWitness(cluster.pbft.access(witnessName), numberPath);
  const conclave = await connect({ url: cluster.url, cluster: clusterName });
  return {
    write: (value, options) => conclave.store().put(probeKey, value, options),
    readFinal: () => readFinalState(conclave, numberPath),
    close: () => conclave.close(),
  };
}

/** What a run left in a store with locks. When nobody writes any more. */
export async function readFinalState(conclave: Conclave, numberPath: string): Promise<FinalState> {
  const file = new NumberFile(numberPath).read();
  const set = (await readAll(conclave, setPrefix)).map((entry) => ({
    element: entry.key.slice(setPrefix.length),
    token: Number(entry.text),
    createRevision: entry.createRevision,
  }));
  const readFromMs = monotonicMs();
  const registers = new Map(
    (await readAll(conclave, registerPrefix)).map((entry) => [entry.key.slice(registerPrefix.length), entry.text]),
  );
  const readToMs = monotonicMs();
  const probe = await conclave.store().getText(probeKey, { timeoutMs: readMsMax });
  return { file, set, registers, probe, readFromMs, readToMs };
}

/** In pages: nobody writes any more. */
async function readAll(conclave: Conclave, prefix: string): Promise<Entry[]> {
  const found: Entry[] = [];
  // The byte after every UTF-8 text that begins with the prefix.
  const to = new Uint8Array([...new TextEncoder().encode(prefix), 0xff]);
  for (let from = prefix; ; ) {
    const { entries, more } = await conclave.store().range({ from, to }, { limit: pageSize, timeoutMs: readMsMax });
    found.push(...entries);
    const last = entries.at(-1);
    if (!more || last === undefined) return found;
    from = `${last.key}\0`;
  }
}

/** Each probe has a key of its own there: who compares and sets cannot write one key many times at once. */
function byzantineWitness(access: Parameters<typeof connectPbft>[0], numberPath: string): Witness {
  const connection = connectPbft(access);
  const [cells, probes] = [connection.cas(cellNamespace), connection.cas(probeNamespace)];
  let highest = -1;
  return {
    write: (value, options) => {
      if (Number(value) > highest) highest = Number(value);
      return probes.compareAndSet({ key: value, expected: null, value }, options);
    },
    readFinal: async () => {
      const readFromMs = monotonicMs();
      const found = await cells.range({ prefix: "" }, { timeoutMs: readMsMax });
      const readToMs = monotonicMs();
      let probe: string | null = null;
      for (let at = highest; at >= 0 && probe === null; at--) {
        const entry = await probes.get(String(at), { timeoutMs: readMsMax });
        if (entry !== null) probe = textOf(entry.value);
      }
      const registers = new Map(found.map(({ key, value }) => [key, textOf(value)]));
      return { file: new NumberFile(numberPath).read(), set: [], registers, probe, readFromMs, readToMs };
    },
    close: () => connection.close(),
  };
}
