/**
 * The independent judge of services, sagas and outboxes. Services write a row for every run of a handler, beside their barrier and
 * without any uniqueness; it reads those rows with the drivers, the journals of the victims, and the keys of the store.
 *
 *   K1  a Try, a Confirm and a Cancel run once each at most; the last two only after the first, and never both
 *   K2  a transaction is confirmed by all services and in its database, or by none; what was answered is true; nothing hangs
 *   K3  a saga is done in all its steps, or not at its pivot and undone in all that were done; what was answered is true
 *   K4  the store holds no decision, member, saga or heuristic outcome any more; nothing is prepared
 *   K5  an event was worked on exactly once if its transaction committed, and never else; none waits
 *   K6  events of one key were worked on in order
 */
export interface Deed {
  readonly gid: string;
  readonly branch: number;
  readonly did: "do" | "confirm" | "cancel";
  readonly action: string;
}

export interface ServiceLine {
  readonly kind: "tcc" | "saga" | "outbox";
  readonly said: "began" | "committed" | "aborted" | "completed" | "compensated" | "unknown";
  readonly gid: string;
  /** Said where it began: a saga without a pivot, which may be undone in every step. */
  readonly plain?: boolean;
}

export interface Facts {
  readonly deeds: readonly Deed[];
  /** Rows of the database that commit with a transaction, with the number of their event. */
  readonly ordered: readonly { readonly gid: string; readonly key: string; readonly number: number }[];
  /** In the order of work. */
  readonly consumed: readonly { readonly key: string; readonly number: number }[];
  readonly waiting: number;
  readonly prepared: number;
  readonly keys: readonly string[];
  readonly lines: readonly ServiceLine[];
}

const sagaSteps = ["reserve", "hold", "charge", "ship"] as const;

export function judgeServices(facts: Facts): readonly string[] {
  const violations: string[] = [];
  const must = (holds: boolean, text: string): void => {
    if (!holds) violations.push(text);
  };
  const runs = new Map<string, Map<string, number>>();
  const byGid = new Map<string, Deed[]>();
  for (const deed of facts.deeds) {
    const key = `${deed.gid}/${deed.branch}`;
    const counts = runs.get(key) ?? new Map<string, number>();
    counts.set(deed.did, (counts.get(deed.did) ?? 0) + 1);
    runs.set(key, counts);
    byGid.set(deed.gid, [...(byGid.get(deed.gid) ?? []), deed]);
  }
  for (const [key, counts] of runs) {
    for (const [did, count] of counts) must(count === 1, `K1: ${key} ${did} ran ${count} times`);
    must(counts.has("do"), `K1: ${key} was settled and never tried`);
    must(!(counts.has("confirm") && counts.has("cancel")), `K1: ${key} was confirmed and cancelled`);
  }
  const kinds = new Map(facts.lines.map(({ gid, kind }) => [gid, kind]));
  const ordered = new Set(facts.ordered.map(({ gid }) => gid));
  for (const [gid, kind] of kinds) {
    const deeds = byGid.get(gid) ?? [];
    const said = facts.lines.filter((line) => line.gid === gid).map((line) => line.said);
    if (kind === "tcc") judgeTransaction(gid, deeds, said, ordered.has(gid), must);
    const isPlain = facts.lines.some((line) => line.gid === gid && line.plain === true);
    if (kind === "saga") judgeSaga(gid, deeds, { said, isPlain }, must);
    if (kind === "outbox") {
      must(!said.includes("committed") || ordered.has(gid), `K2: ${gid} was answered "committed" and is not in the database`);
      must(!said.includes("aborted") || !ordered.has(gid), `K2: ${gid} was answered "aborted" and is in the database`);
    }
  }
  for (const gid of byGid.keys()) must(kinds.has(gid), `K2: ${gid} was worked on and nobody began it`);
  const left = facts.keys.filter((key) => /^[dmshk]\//.test(key));
  must(left.length === 0, `K4: in the store: ${left.join(", ")}`);
  must(facts.prepared === 0, `K4: ${facts.prepared} branches are prepared`);
  must(facts.waiting === 0, `K5: ${facts.waiting} events wait`);
  const told = new Map<string, number>();
  const last = new Map<string, number>();
  for (const { key, number } of facts.consumed) {
    const event = `${key} ${number}`;
    told.set(event, (told.get(event) ?? 0) + 1);
    must((last.get(key) ?? 0) < number, `K6: event ${event} was worked on after ${last.get(key)}`);
    last.set(key, Math.max(last.get(key) ?? 0, number));
  }
  for (const { key, number } of facts.ordered) {
    const event = `${key} ${number}`;
    must(told.get(event) === 1, `K5: event ${event} was worked on ${told.get(event) ?? 0} times`);
    told.delete(event);
  }
  for (const event of told.keys()) must(false, `K5: event ${event} was told and its transaction is not in`);
  return violations;
}

type Must = (holds: boolean, text: string) => void;

function judgeTransaction(gid: string, deeds: readonly Deed[], said: readonly string[], isIn: boolean, must: Must): void {
  const count = (did: Deed["did"]): number => deeds.filter((deed) => deed.did === did).length;
  const [tried, confirmed, cancelled] = [count("do"), count("confirm"), count("cancel")];
  must(
    confirmed === (isIn ? 2 : 0),
    `K2: ${gid} is ${isIn ? "" : "not "}in its database and confirmed by ${confirmed} of 2 services`,
  );
  must(tried === confirmed + cancelled, `K2: ${gid} hangs: ${tried} tried, ${confirmed} confirmed, ${cancelled} cancelled`);
  must(!said.includes("committed") || isIn, `K2: ${gid} was answered "committed" and is not`);
  must(!said.includes("aborted") || !isIn, `K2: ${gid} was answered "aborted" and is committed`);
}

function judgeSaga(
  gid: string,
  deeds: readonly Deed[],
  { said, isPlain }: { readonly said: readonly string[]; readonly isPlain: boolean },
  must: Must,
): void {
  const done = new Set(deeds.filter(({ did }) => did === "do").map(({ action }) => action));
  const undone = new Set(deeds.filter(({ did }) => did === "cancel").map(({ action }) => action));
  const isWhole = sagaSteps.every((step) => done.has(step)) && undone.size === 0;
  const isPastPivot = !isPlain && (done.has("charge") || done.has("ship"));
  const isUndone = !isPastPivot && [...done].every((step) => undone.has(step));
  must(isWhole || isUndone, `K3: ${gid} did ${[...done].join(", ")} and undid ${[...undone].join(", ")}`);
  must(!said.includes("completed") || isWhole, `K3: ${gid} was answered "completed" and is not`);
  must(!said.includes("compensated") || (isUndone && !isWhole), `K3: ${gid} was answered "compensated" and is not`);
  must(!deeds.some(({ did }) => did === "confirm"), `K3: ${gid} is a saga and was confirmed`);
}
