/**
 * Judges the locks: tokens rise in the order of grants, and nobody counts as the holder after a later grant.
 *
 * Every time is on the safe side. A grant is dated when the client had it in hand, so it had been given by then; `held` is
 * dated by a look at the clock before the question, so it was said no sooner. A lower token that is held later than a
 * higher one was granted is therefore a fact and no artefact of the measurement: no stop of a process excuses it.
 */
import type { ClientRecord, Violation } from "./evidence.ts";
import type { LockName } from "./journal.ts";

interface Moment {
  readonly client: string;
  readonly token: number;
  readonly atMs: number;
}

/** When a lock had passed on from a token. */
export class Grants {
  /** In the order of tokens, each with the earliest grant among itself and all higher ones. */
  readonly #earliest: readonly { readonly token: number; readonly first: Moment }[];

  constructor(grants: readonly Moment[]) {
    const falling = grants.toSorted((a, b) => b.token - a.token);
    let first = falling[0];
    const earliest = falling.map((grant) => {
      if (first === undefined || grant.atMs < first.atMs) first = grant;
      return { token: grant.token, first };
    });
    this.#earliest = earliest.reverse();
  }

  /** The earliest grant with a higher token: from then on the lock was somebody else's. */
  firstAbove(token: number): Moment | undefined {
    let low = 0;
    let high = this.#earliest.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#earliest[middle]?.token as number) <= token) low = middle + 1;
      else high = middle;
    }
    return this.#earliest[low]?.first;
  }
}

export function grantsOf(clients: readonly ClientRecord[], lock: LockName): Moment[] {
  return clients.flatMap(({ name, events }) =>
    events.flatMap((event) =>
      event.kind === "grant" && event.lock === lock ? [{ client: name, token: event.token, atMs: event.atMs }] : [],
    ),
  );
}

export function judgeHolds(clients: readonly ClientRecord[], lock: LockName): Violation[] {
  const moments = grantsOf(clients, lock);
  const grants = new Grants(moments);
  return [...repeated(moments, lock), ...twoHolders(heldMoments(clients, lock), grants, lock), ...refusedHolders(clients, lock)];
}

function repeated(grants: readonly Moment[], lock: LockName): Violation[] {
  const ownerOf = new Map<number, Moment>();
  return grants.flatMap((grant) => {
    const owner = ownerOf.get(grant.token);
    if (owner === undefined && Number.isSafeInteger(grant.token) && grant.token > 0) {
      ownerOf.set(grant.token, grant);
      return [];
    }
    const text =
      owner === undefined
        ? `lock "${lock}" was granted to client ${grant.client} with ${grant.token}, which is no token`
        : `lock "${lock}" was granted with token ${grant.token} to client ${owner.client} and to client ${grant.client}`;
    return [{ kind: "token-repeated", text }];
  });
}

function twoHolders(held: readonly Moment[], grants: Grants, lock: LockName): Violation[] {
  return held.flatMap(({ client, token, atMs }) => {
    const next = grants.firstAbove(token);
    if (next === undefined || next.atMs >= atMs) return [];
    const sinceMs = (atMs - next.atMs).toFixed(3);
    const text = `lock "${lock}": client ${client} was told that it holds token ${token}, ${sinceMs} ms after client ${next.client} had been granted token ${next.token}`;
    return [{ kind: "two-holders", text }];
  });
}

/** Every moment at which a hold said that it is held. A write to the file stands for the `assertHeld()` before it. */
function heldMoments(clients: readonly ClientRecord[], lock: LockName): Moment[] {
  return clients.flatMap(({ name, events }) => {
    const tokenOf = new Map<string, number>();
    return events.flatMap((event): Moment[] => {
      if (event.kind === "held" && event.lock === lock) return [{ client: name, token: event.token, atMs: event.atMs }];
      if (lock !== "file") return [];
      if (event.kind === "file.begin") tokenOf.set(event.write, event.token);
      if (event.kind !== "file.end" || event.outcome !== "written") return [];
      const token = tokenOf.get(event.write);
      return token === undefined ? [] : [{ client: name, token, atMs: event.assertedAtMs }];
    });
  });
}

function refusedHolders(clients: readonly ClientRecord[], lock: LockName): Violation[] {
  if (lock !== "set") return [];
  return clients.flatMap(({ name, events }) =>
    events.flatMap((event): Violation[] => {
      if (event.kind !== "set.end" || event.stillHeld !== true) return [];
      return [
        {
          kind: "guard-refused-holder",
          text: `client ${name}: the guard of element ${event.element} did not hold, and the hold said afterwards that it is held`,
        },
      ];
    }),
  );
}
