import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createElection, type Term } from "./election.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  const served: string[] = [];
  const terms = new Map<string, { readonly term: Term; readonly end: () => void }>();
  /** A candidate on a process of its own, which stays in its term until it is told to end. */
  const candidate = (name: string, priority?: number): { readonly twin: LocalEngine; readonly leading: Promise<void> } => {
    const twin = engine.twin();
    const leading = createElection(twin, "e", { ttlMs: 3_000 }).lead(
      (term) =>
        new Promise<void>((resolve) => {
          served.push(name);
          terms.set(name, { term, end: resolve });
          term.signal.addEventListener("abort", () => resolve());
        }),
      { value: name, ...(priority === undefined ? {} : { priority }) },
    );
    leading.catch(() => undefined);
    return { twin, leading };
  };
  return { platform, engine, served, terms, candidate };
}

describe("an election with priorities", () => {
  test("is won by the most important who waits, whoever came first", async () => {
    const { platform, served, terms, candidate, engine } = world();
    candidate("first", 0);
    await platform.advance(50);
    for (const [name, priority] of [
      ["low", 1],
      ["high", 9],
      ["middle", 5],
    ] as const)
      candidate(name, priority);
    await platform.advance(200);
    expect(served).toEqual(["first"]);
    expect((await createElection(engine, "e").candidates()).map(({ value }) => value)).toEqual(["high", "middle", "low"]);
    for (const name of ["first", "high", "middle", "low"]) {
      terms.get(name)?.end();
      await platform.advance(200);
    }
    expect(served).toEqual(["first", "high", "middle", "low"]);
    expect(await createElection(engine, "e").candidates()).toEqual([]);
  });

  test("goes on without an important one that died", async () => {
    const { platform, served, terms, candidate } = world();
    candidate("first", 0);
    await platform.advance(50);
    const { twin } = candidate("high", 9);
    candidate("low", 1);
    await platform.advance(200);
    twin.cutOff();
    await platform.advance(4_000);
    terms.get("first")?.end();
    await platform.advance(1_000);
    expect(served).toEqual(["first", "low"]);
  });

  test("is handed over to the one whom the leader names, whoever is more important", async () => {
    const { platform, served, terms, candidate, engine } = world();
    candidate("first", 0);
    await platform.advance(50);
    candidate("high", 9);
    candidate("chosen", 1);
    await platform.advance(200);
    const { term, end } = terms.get("first") as { term: Term; end: () => void };
    const id = (await createElection(engine, "e").candidates()).find(({ value }) => value === "chosen")?.id ?? "";
    const transferring = term.transferTo(id);
    await platform.advance(500);
    await transferring;
    end();
    await platform.advance(500);
    expect(served).toEqual(["first", "chosen"]);
    terms.get("chosen")?.end();
    await platform.advance(500);
    expect(served).toEqual(["first", "chosen", "high"]);
    await expect(term.transferTo("nobody")).rejects.toMatchObject({ code: "NOT_HOLDER" });
  });

  test("takes back a choice whose candidate does not stand ready", async () => {
    const { platform, served, terms, candidate, engine } = world();
    candidate("first", 0);
    await platform.advance(50);
    const { twin } = candidate("chosen", 1);
    candidate("other", 0);
    await platform.advance(200);
    const { term, end } = terms.get("first") as { term: Term; end: () => void };
    await expect(term.transferTo("nobody")).rejects.toMatchObject({ code: "INVALID_OPTION" });
    const id = (await createElection(engine, "e").candidates()).find(({ value }) => value === "chosen")?.id ?? "";
    twin.cutOff();
    const transferring = term.transferTo(id, { waitMs: 20 }).catch((error: unknown) => error);
    await platform.advance(4_000);
    // It stood in the line before it was cut off: either answer is true of that moment.
    const outcome = await transferring;
    if (outcome !== undefined) expect(outcome).toMatchObject({ code: "WAIT_TIMEOUT" });
    end();
    await platform.advance(4_000);
    expect(served).toEqual(["first", "other"]);
  });

  test("lets a choice stand that a leader without a connection cannot take back, and nothing fails for it", async () => {
    const { platform, terms, candidate, engine } = world();
    const { twin } = candidate("first", 0);
    await platform.advance(50);
    candidate("high", 9);
    const { twin: unready } = candidate("chosen", 1);
    await platform.advance(200);
    const { term } = terms.get("first") as { term: Term };
    const id = (await createElection(engine, "e").candidates()).find(({ value }) => value === "chosen")?.id ?? "";
    unready.cutOff();
    const transferring = term.transferTo(id, { waitMs: 300 }).catch((error: unknown) => error);
    await platform.advance(100);
    twin.cutOff();
    // The call that would take it back ends without an answer; a failure that nobody hears would fail this run.
    await platform.advance(30_000);
    expect(await transferring).toMatchObject({ code: "WAIT_TIMEOUT" });
  });
});
