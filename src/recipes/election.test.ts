import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createElection, type Leader, type Term } from "./election.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  return { platform, engine };
}

/** A callback that stays in its term until told, or until the signal says so. */
function stay() {
  const terms: Term[] = [];
  let finish: (answer: string) => void = () => undefined;
  const callback = (term: Term): Promise<string> => {
    terms.push(term);
    return new Promise((resolve) => {
      finish = resolve;
    });
  };
  return { terms, callback, finish: (answer: string) => finish(answer) };
}

describe("an election", () => {
  test("leads in two round trips when nobody else does, and resigns in one", async () => {
    const { engine } = world();
    const rounds = await createElection(engine, "jobs").lead(() => engine.txnCount);
    expect(rounds).toBe(2);
    expect(engine.txnCount).toBe(3);
  });

  test("does not lead again before the callback of the lost term has settled", async () => {
    const { engine, platform } = world();
    const { terms, callback, finish } = stay();
    const losses: unknown[] = [];
    const leading = createElection(engine, "jobs", { ttlMs: 3_000 }).lead(callback, { onLost: (loss) => losses.push(loss) });
    await platform.settle();
    engine.cutOff();
    await platform.advance(2_000);
    expect(terms[0]?.signal.aborted).toBe(true);
    engine.heal();
    await platform.advance(60_000);
    expect(terms).toHaveLength(1);
    finish("late");
    await platform.advance(100);
    expect(terms).toHaveLength(2);
    expect(terms[1]?.token).toBeGreaterThan(terms[0]?.token ?? 0);
    expect(losses).toMatchObject([{ code: "LOCK_LOST" }]);
    finish("done");
    expect(await leading).toBe("done");
  });

  test("with `rerun: false` rejects with the loss, and the callback's error as its cause", async () => {
    const { engine, platform } = world();
    const leading = createElection(engine, "jobs").lead(
      async (term) => {
        await new Promise((resolve) => term.signal.addEventListener("abort", resolve));
        throw new Error("aborted work");
      },
      { rerun: false },
    );
    const outcome = leading.catch((error: unknown) => error);
    await platform.settle();
    engine.cutOff();
    await platform.advance(20_000);
    expect(await outcome).toMatchObject({ code: "LOCK_LOST", cause: { message: "aborted work" } });
  });

  test("rejects with what the callback throws in a term that was not lost, having resigned", async () => {
    const { engine } = world();
    const election = createElection(engine, "jobs");
    const error = new Error("mine");
    await expect(election.lead(() => Promise.reject(error))).rejects.toBe(error);
    expect(await election.leader()).toBeNull();
  });

  test("refuses a second `lead` on the same handle, and takes the next one afterwards", async () => {
    const { engine, platform } = world();
    const { callback, finish } = stay();
    const election = createElection(engine, "jobs");
    const first = election.lead(callback);
    await platform.settle();
    await expect(election.lead(() => 1)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    finish("done");
    await first;
    expect(await election.lead(() => 2)).toBe(2);
  });

  test("a term whose key an operator deleted is lost, and says so at the next proclamation at the latest", async () => {
    const { engine, platform } = world();
    const { terms, callback, finish } = stay();
    void createElection(engine, "jobs").lead(callback);
    await platform.settle();
    await engine.store("election/jobs").txn({ then: [{ kind: "delete", range: { prefix: "" } }] });
    await platform.settle();
    expect(terms[0]?.held).toBe(false);
    await expect(terms[0]?.proclaim("x")).rejects.toMatchObject({ code: "LOCK_LOST" });
    finish("");
    await platform.settle();
    expect(terms).toHaveLength(2);
  });

  test("tells observers of a leader only once it has announced itself, and of each change", async () => {
    const { engine, platform } = world();
    const election = createElection(engine, "jobs");
    const seen: (Leader | null)[] = [];
    const controller = new AbortController();
    const observing = (async () => {
      for await (const leader of election.observe({ signal: controller.signal })) seen.push(leader);
    })();
    const first = stay();
    const second = stay();
    const leading = createElection(engine, "jobs").lead(first.callback, { value: "a" });
    await platform.advance(50);
    const next = createElection(engine.twin(), "jobs").lead(second.callback, { value: "b" });
    await platform.advance(50);
    await first.terms[0]?.proclaim("a2");
    await platform.advance(50);
    first.finish("");
    await leading;
    await platform.advance(50);
    expect(seen.map((leader) => leader?.value ?? null)).toEqual([null, "a", "a2", "b"]);
    expect(seen.map((leader) => leader?.token)).toEqual([
      undefined,
      first.terms[0]?.token,
      first.terms[0]?.token,
      second.terms[0]?.token,
    ]);
    second.finish("");
    await next;
    await platform.advance(50);
    expect(seen.at(-1)).toBeNull();
    controller.abort();
    await observing;
  });

  test("who has the turn and has not announced itself counts as no leader", async () => {
    const { engine, platform } = world();
    const first = stay();
    const cut = engine.twin();
    const election = createElection(engine, "jobs");
    const leading = election.lead(first.callback, { value: "a" });
    await platform.settle();
    void createElection(cut, "jobs").lead(() => "b", { value: "b" });
    await platform.settle();
    cut.cutOff();
    first.finish("");
    await leading;
    expect(await engine.store("election/jobs").txn({ then: [{ kind: "range", range: { prefix: "" } }] })).toMatchObject({
      results: [{ count: 1 }],
    });
    expect(await election.leader()).toBeNull();
  });

  test("campaigns again when a campaign ends with its session", async () => {
    const { engine, platform } = world();
    const first = stay();
    const cut = engine.twin();
    const leading = createElection(engine, "jobs").lead(first.callback);
    await platform.settle();
    const waiting = createElection(cut, "jobs").lead(() => "led");
    await platform.settle();
    cut.cutOff();
    await platform.advance(30_000);
    cut.heal();
    first.finish("");
    await leading;
    await platform.advance(15_000);
    expect(await waiting).toBe("led");
  });

  test("the guard of a term refuses a leader of the past", async () => {
    const { engine } = world();
    const term = await createElection(engine, "jobs").lead((present) => present);
    expect(
      (await engine.store("data").txn({ if: [term.guard()], then: [{ kind: "put", key: "a", value: "1" }] })).succeeded,
    ).toBe(false);
    expect(() => term.assertHeld()).toThrow(expect.objectContaining({ code: "NOT_HOLDER" }));
    expect(term.signal.reason).toMatchObject({ code: "NOT_HOLDER" });
  });

  test("a leader that stops observing leaves no watch and no timer behind", async () => {
    const { engine, platform } = world();
    for await (const leader of createElection(engine, "jobs").observe()) {
      expect(leader).toBeNull();
      break;
    }
    await platform.settle();
    expect(platform.pending).toEqual({ timers: 0, refs: 0 });
  });
});
