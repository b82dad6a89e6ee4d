/**
 * What a process knows of invalidations, against a naive model that remembers all of them: it may refuse too much, never too little.
 */
import { expect, test } from "vitest";
import type { CounterState } from "./invalidation.ts";
import { nameSlots } from "./invalidation.ts";
import { InvalidationHistory } from "./invalidation-history.ts";

function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

test("2,000 random streams, merged and cut short: nothing invalidated is ever called valid, and little else refused", () => {
  let asked = 0;
  let refusedInVain = 0;
  for (let seed = 1; seed <= 2_000; seed++) {
    const next = dice(seed);
    const history = new InvalidationHistory();
    const truth: { revision: number; kind: "key" | "tag"; hash: number }[] = [];
    const counters = new Map<string, CounterState>();
    let revision = 100;
    const isMerging = next() < 0.5;
    for (let step = 0; step < 60; step++) {
      const kind = next() < 0.7 ? "key" : "tag";
      // Three slots, five names in each.
      const hash = Math.floor(next() * 3) + nameSlots * Math.floor(next() * 5);
      revision += 1 + Math.floor(next() * 3);
      const name = `${kind}${hash % nameSlots}`;
      const before = counters.get(name);
      const state: CounterState = {
        kind,
        slot: hash % nameSlots,
        version: (before?.version ?? 0) + 1,
        created: before?.created ?? revision,
        revision,
        hashes: [hash],
        prefixes: [],
      };
      counters.set(name, state);
      truth.push({ revision, kind, hash });
      if (isMerging && next() < 0.4) continue;
      if (isMerging) for (const each of counters.values()) history.learn(each);
      else history.learn(state);
      history.completeTo(revision);
      const subject = {
        key: "k",
        life: 0,
        keyHash: Math.floor(next() * 3) + nameSlots * Math.floor(next() * 5),
        tagHashes: [hash],
      };
      const since = 100 + Math.floor(next() * (revision - 99));
      const isHit = truth.some(
        (each) =>
          each.revision > since && (each.kind === "key" ? each.hash === subject.keyHash : subject.tagHashes.includes(each.hash)),
      );
      asked++;
      const isValid = history.isValid(subject, since);
      if (isHit) expect(isValid, `seed ${seed}, step ${step}`).toBe(false);
      else if (!isValid) refusedInVain++;
    }
  }
  expect(refusedInVain / asked).toBeLessThan(0.1);
});

test("prefixes, beyond what is remembered too, and a deleted counter that begins anew", () => {
  const history = new InvalidationHistory();
  const subject = { key: "users/7", life: 0, keyHash: 5, tagHashes: [] };
  for (let at = 0; at < 200; at++) history.learnOwn([{ kind: "prefix", prefix: `p${at}/` }], 1_000 + at);
  expect(history.isValid(subject, 999)).toBe(false);
  expect(history.isValid(subject, 1_199)).toBe(true);
  history.learnOwn([{ kind: "prefix", prefix: "users/" }], 1_300);
  expect(history.isValid(subject, 1_299)).toBe(false);
  expect(history.isValid({ ...subject, key: "user" }, 1_299)).toBe(true);
  const state: CounterState = {
    kind: "key",
    slot: 5,
    version: 7,
    created: 1_400,
    revision: 1_450,
    hashes: [5 + nameSlots],
    prefixes: [],
  };
  history.learn(state);
  expect(history.isValid(subject, 1_449)).toBe(false);
  history.learn({ ...state, version: 1, created: 1_500, revision: 1_500, hashes: [5 + 2 * nameSlots] });
  expect(history.isValid(subject, 1_499)).toBe(false);
  expect(history.isValid(subject, 1_500)).toBe(true);
});
