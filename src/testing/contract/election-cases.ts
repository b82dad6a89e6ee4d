/**
 * Elections on the engine.
 */
import { hasCode } from "../../base/errors.ts";
import { createElection, type Leader } from "../../recipes/election.ts";
import { equal, isRising, isTrue, settled } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";
import type { TestProcess } from "./test-bed.ts";

export const electionCases: readonly ContractCase[] = [
  {
    name: "there is one leader per term, in rising terms, and each resigns before the next one leads",
    async run(bed) {
      const name = bed.name();
      let leading = 0;
      const terms: number[] = [];
      const candidates = Array.from({ length: 4 }, (_, index) =>
        createElection(bed.process(), name).lead(
          async (term) => {
            isTrue(++leading === 1 && term.held, "nobody else leads");
            terms.push(term.token);
            await bed.pass(20);
            leading--;
            return index;
          },
          { value: index },
        ),
      );
      const answers = await bed.soon(Promise.all(candidates), "every candidate has led", 30_000);
      equal(answers, [0, 1, 2, 3], "the answers");
      isRising(terms, "the terms");
      equal(await createElection(bed.process(), name).leader(), null, "the leader afterwards");
    },
  },
  {
    name: "observers see who leads, with the term's own token, and what it proclaims",
    async run(bed) {
      const name = bed.name();
      const seen: (Leader | null)[] = [];
      const controller = new AbortController();
      const election = createElection(bed.process(), name);
      const observing = observe(createElection(bed.process(), name).observe({ signal: controller.signal }), seen);
      await bed.until(() => seen.length === 1, "the first look");
      let token = 0;
      let finish = (): void => undefined;
      const leading = election.lead(
        async (term) => {
          token = term.token;
          await bed.until(() => seen.at(-1)?.value === "first", "observers see the leader");
          await term.proclaim({ port: 7400 });
          await new Promise<void>((resolve) => {
            finish = resolve;
          });
        },
        { value: "first" },
      );
      await bed.until(() => JSON.stringify(seen.at(-1)?.value) === '{"port":7400}', "observers see the proclamation");
      isTrue(
        seen.every((leader) => leader === null || leader.token === token),
        "the observed token is that of the term",
      );
      equal((await election.leader())?.token, token, "the token of the leader as read");
      finish();
      await bed.soon(leading, "the end of the term");
      await bed.until(() => seen.at(-1) === null, "observers see that nobody leads");
      controller.abort();
      await bed.soon(observing, "the end of the observation");
    },
  },
  {
    name: "a lost term aborts its signal, waits for the callback, and is followed by another campaign",
    async run(bed) {
      const name = bed.name();
      const process: TestProcess = bed.process();
      const election = createElection(process, name);
      const terms: number[] = [];
      let lost = 0;
      let inside = 0;
      const leading = election.lead(
        async (term) => {
          isTrue(++inside === 1, "the earlier callback has settled");
          terms.push(term.token);
          if (terms.length === 1) {
            await process.end();
            isTrue(term.signal.aborted && !term.held, "the term is lost with its session");
            isTrue(hasCode(term.signal.reason, "LOCK_LOST"), "the reason says so");
            await bed.pass(100);
          }
          inside--;
          return terms.length;
        },
        { onLost: () => lost++ },
      );
      equal(await bed.soon(leading, "the second term"), 2, "the answer");
      equal(lost, 1, "the number of lost terms");
      isRising(terms, "the terms");
    },
  },
  {
    name: "the signal stops a campaign, and in a term lets the callback settle and resigns",
    async run(bed) {
      const name = bed.name();
      const leaderStop = new AbortController();
      let isInTerm = false;
      const leader = createElection(bed.process(), name).lead(
        async (term) => {
          isInTerm = true;
          await new Promise((resolve) => term.signal.addEventListener("abort", resolve));
          return "tidied up";
        },
        { signal: leaderStop.signal },
      );
      await bed.until(() => isInTerm, "the term begins");
      const reason = new Error("enough");
      const waiterStop = new AbortController();
      const waiter = settled(createElection(bed.process(), name).lead(() => "never", { signal: waiterStop.signal }));
      await bed.pass(50);
      waiterStop.abort(reason);
      const outcome = await bed.soon(waiter, "the end of the campaign");
      isTrue(outcome.kind === "error" && outcome.error === reason, "the campaign rejects with the reason");
      leaderStop.abort(reason);
      equal(await bed.soon(leader, "the resignation"), "tidied up", "the answer");
      await bed.until(async () => (await createElection(bed.process(), name).leader()) === null, "nobody leads");
    },
  },
];

async function observe(leaders: AsyncIterable<Leader | null>, seen: (Leader | null)[]): Promise<void> {
  for await (const leader of leaders) seen.push(leader);
}
