/**
 * Locks on the engine: the same recipe everywhere, and what it needs of the waist.
 */
import { hasCode } from "../../base/errors.ts";
import type { LockTimeout } from "../../recipes/campaign.ts";
import type { Hold } from "../../recipes/hold.ts";
import { KeyValue } from "../../recipes/key-value.ts";
import { createLock, type Lock, type LockOptions } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { equal, isRising, isTrue, rejects, settled } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";
import type { TestBed, TestProcess } from "./test-bed.ts";

export const lockCases: readonly ContractCase[] = [
  {
    name: "a free lock costs one round trip, and its release another",
    async run(bed) {
      const process = bed.process();
      const hold = await lockOf(process, bed.name()).acquire();
      equal(process.txnCount, 1, "the round trips of the acquisition");
      isTrue(hold.held && !hold.signal.aborted && hold.deadline > bed.platform.now(), "it is held");
      await hold.release();
      await hold.release();
      equal(process.txnCount, 2, "the round trips with the release");
      isTrue(!hold.held && hold.loss === null, "it is released, not lost");
      await rejects(async () => hold.assertHeld(), "NOT_HOLDER", "a look at a released hold");
    },
  },
  {
    name: "one holder at a time: many tasks of several processes lose no increment of an unguarded counter",
    async run(bed) {
      const name = bed.name();
      const processes = [bed.process(), bed.process(), bed.process()];
      const values = new KeyValue(bed.store());
      let inside = 0;
      const increment = (process: TestProcess) =>
        lockOf(process, name).run(async () => {
          isTrue(++inside === 1, "nobody else is inside");
          const count = Number((await values.getText("n")) ?? 0);
          await values.put("n", String(count + 1));
          inside--;
        });
      const tasks = Array.from({ length: 24 }, (_, index) => increment(processes[index % 3] as TestProcess));
      await bed.soon(Promise.all(tasks), "every task had its turn", 60_000);
      equal(await values.getText("n"), "24", "the counter");
    },
  },
  {
    name: "waiters are served in the order in which they came, with rising tokens",
    skip: (caps) => (caps.fair ? undefined : "this engine does not serve in order"),
    async run(bed) {
      const name = bed.name();
      const holder = await lockOf(bed.process(), name).acquire();
      const served: number[] = [];
      const tokens = [holder.token];
      const waiters: Promise<void>[] = [];
      for (let index = 0; index < 6; index++) {
        const waiter = lockOf(bed.process(), name).run((hold) => {
          served.push(index);
          tokens.push(hold.token);
        });
        waiters.push(waiter);
        await queued(bed, name, index + 2);
      }
      await holder.release();
      await bed.soon(Promise.all(waiters), "every waiter is served");
      equal(served, [0, 1, 2, 3, 4, 5], "the order of service");
      isRising(tokens, "the tokens");
    },
  },
  {
    name: "tokens rise in the order of grants, however a grant comes about",
    async run(bed) {
      const name = bed.name();
      const [one, two] = [lockOf(bed.process(), name), lockOf(bed.process(), name)];
      const tokens: number[] = [];
      const values = new KeyValue(bed.store());
      for (let round = 0; round < 4; round++) {
        // Free; pushed; free again by a try. Between them others write.
        const first = await one.acquire();
        const waiting = two.acquire();
        await queued(bed, name, 2);
        const revision = await values.put("a", String(round));
        await first.release();
        const second = await bed.soon(waiting, "the hand-off");
        isTrue(second.token > first.token, "the token of the second hold is the higher one");
        if (bed.caps.crossNamespace && bed.caps.orderPerNamespace !== true)
          isTrue(second.token > revision, "a token is above every write made under the hold before it");
        await second.release();
        const third = await one.tryAcquire();
        isTrue(third !== null, "the free lock is taken by a try");
        await third.release();
        tokens.push(first.token, second.token, third.token);
      }
      isRising(tokens, "the tokens");
    },
  },
  {
    name: "a release is pushed to the waiter, which neither polls nor asks again",
    skip: (caps) => (caps.handOff === "poll" || caps.watch !== "log" ? "this engine does not push every event" : undefined),
    async run(bed) {
      const name = bed.name();
      const waiter = bed.process();
      const holder = await lockOf(bed.process(), name).acquire();
      const waiting = lockOf(waiter, name).acquire();
      await queued(bed, name, 2);
      await bed.pass(300);
      await holder.release();
      // Well below the five seconds after which a waiter looks by itself.
      await bed.soon(waiting, "the push", 2_000);
      isTrue(waiter.txnCount <= 2, `a waiter needs its own txn, and one look at the most; it used ${waiter.txnCount}`);
    },
  },
  {
    name: "a waiter that gives up in the middle of the queue neither passes the lock on nor breaks the chain",
    async run(bed) {
      const name = bed.name();
      const holder = await lockOf(bed.process(), name).acquire();
      const controller = new AbortController();
      const middle = settled(lockOf(bed.process(), name).acquire({ signal: controller.signal }));
      await queued(bed, name, 2);
      let last: Hold | undefined;
      const waiting = lockOf(bed.process(), name)
        .acquire()
        .then((hold) => {
          last = hold;
        });
      await queued(bed, name, 3);
      const reason = new Error("enough");
      controller.abort(reason);
      const outcome = await bed.soon(middle, "the end of the wait");
      isTrue(outcome.kind === "error" && outcome.error === reason, "the wait rejects with the signal's reason");
      await queued(bed, name, 2);
      await bed.pass(200);
      isTrue(last === undefined && holder.held, "the waiter behind is not served while the lock is held");
      await holder.release();
      await bed.soon(waiting, "the waiter behind is served");
    },
  },
  {
    name: "aborting a wait leaves no key behind",
    async run(bed) {
      const name = bed.name();
      const lock = lockOf(bed.process(), name);
      const holder = await lock.acquire();
      for (const delayMs of [0, 1, 20]) {
        const controller = new AbortController();
        const waiting = settled(lock.acquire({ signal: controller.signal }));
        if (delayMs > 0) await bed.pass(delayMs);
        controller.abort();
        await bed.soon(waiting, "the end of the wait");
        await queued(bed, name, 1);
      }
      await holder.release();
      await queued(bed, name, 0);
    },
  },
  {
    name: "the end of a session passes the lock on, and its waiter's place is skipped",
    async run(bed) {
      const name = bed.name();
      const [first, second] = [bed.process(), bed.process()];
      const hold = await lockOf(first, name).acquire();
      const skipped = settled(lockOf(second, name).acquire());
      await queued(bed, name, 2);
      const waiting = lockOf(bed.process(), name).acquire();
      await queued(bed, name, 3);
      await second.end();
      const outcome = await bed.soon(skipped, "the end of the wait");
      isTrue(outcome.kind === "error" && hasCode(outcome.error, "SESSION_LOST"), "the wait ends with its session");
      await first.end();
      isTrue(!hold.held && hold.signal.aborted, "the hold is lost with its session");
      await rejects(async () => hold.assertHeld(), "LOCK_LOST", "a look at a lost hold");
      const next = await bed.soon(waiting, "the next holder");
      isTrue(next.held && next.token > hold.token, "the next holder has a higher token");
    },
  },
  {
    name: "a holder that is cut off stops by its own clock before anybody else is served",
    isolates: true,
    async run(bed) {
      const client = await bed.isolate();
      const name = bed.name();
      const ttlMs = Math.max(bed.caps.limits.ttlMsMin, 1_500);
      const hold = await createLock(client.engine, name, { ttlMs }).acquire();
      const next = lockOf(bed.process(), name, { ttlMs })
        .acquire()
        .then((granted) => {
          isTrue(!hold.held && hold.signal.aborted, "the hold before it had ended by its own clock");
          return granted;
        });
      await queued(bed, name, 2);
      client.cutOff();
      const granted = await bed.soon(next, "the next holder", 4 * ttlMs);
      isTrue(granted.token > hold.token, "the next holder has a higher token");
      await hold.release();
    },
  },
  {
    name: "tryAcquire answers null at once while the lock is held, and joins no queue",
    async run(bed) {
      const name = bed.name();
      const process = bed.process();
      const hold = await lockOf(bed.process(), name).acquire();
      equal(await lockOf(process, name).tryAcquire(), null, "the try");
      equal(process.txnCount, 1, "the round trips");
      await queued(bed, name, 1);
      await hold.release();
      isTrue((await lockOf(process, name).tryAcquire())?.held === true, "the try on a free lock");
    },
  },
  {
    name: "LOCK_TIMEOUT tells the holder, the position and the time, and leaves no key behind",
    async run(bed) {
      const name = bed.name();
      const holder = await lockOf(bed.process(), name, { meta: { host: "a" } }).acquire();
      void settled(lockOf(bed.process(), name).acquire());
      await queued(bed, name, 2);
      const outcome = await bed.soon(settled(lockOf(bed.process(), name).acquire({ waitMs: 200 })), "the end of the wait");
      const error = outcome.kind === "error" ? (outcome.error as LockTimeout) : undefined;
      isTrue(error !== undefined && hasCode(error, "LOCK_TIMEOUT") && error.definite, "the wait ends with LOCK_TIMEOUT");
      equal([error.holder?.meta, error.position], [{ host: "a" }, 2], "the holder and the position");
      isTrue(error.waitedMs >= 200 && error.waitedMs < 5_000, "the time waited is told");
      await queued(bed, name, 2);
      await holder.release();
    },
  },
  {
    name: "a guard refuses the write of a holder that came too late",
    async run(bed) {
      const name = bed.name();
      const process = bed.process();
      const hold = await lockOf(process, name).acquire();
      const store = bed.caps.crossNamespace ? bed.store() : bed.engine.store(`lock/${name}`);
      const write = () => store.txn({ if: [hold.guard()], then: [op.add("guarded", 1)] });
      isTrue((await write()).succeeded, "a write of the holder passes");
      await process.end();
      const next = await lockOf(bed.process(), name).acquire();
      isTrue(!(await write()).succeeded, "a write of the one before is refused");
      await next.release();
      await store.txn({ then: [op.delete({ key: "guarded" })] });
    },
  },
  {
    name: "run releases always, passes on answers and errors, and reports a loss with the work's error as cause",
    async run(bed) {
      const name = bed.name();
      const process = bed.process();
      const lock = lockOf(process, name);
      equal(await lock.run(() => 42), 42, "the answer");
      const mistake = new Error("mine");
      const failed = await settled(lock.run(() => Promise.reject(mistake)));
      isTrue(failed.kind === "error" && failed.error === mistake, "the work's own error comes through");
      equal(await lock.holder(), null, "the holder afterwards");
      const lost = await settled(
        lock.run(async (hold) => {
          await process.end();
          isTrue(hold.signal.aborted, "the signal aborts with the loss");
          throw mistake;
        }),
      );
      isTrue(
        lost.kind === "error" && hasCode(lost.error, "LOCK_LOST") && lost.error.cause === mistake,
        "the loss is reported, with its cause",
      );
    },
  },
  {
    name: "two tasks of one process do not share a lock",
    async run(bed) {
      const name = bed.name();
      const process = bed.process();
      const hold = await lockOf(process, name).acquire();
      equal(await lockOf(process, name).tryAcquire(), null, "the try of another task");
      await hold.release();
    },
  },
  {
    name: "locks of different names do not meet, slashes and emoji included",
    async run(bed) {
      const name = bed.name();
      const process = bed.process();
      for (const other of [name, `${name}/`, `${name}/a`, `${name}🔒`, `${name}a`]) {
        isTrue((await lockOf(process, other).tryAcquire()) !== null, `the lock ${other} is free`);
      }
    },
  },
  {
    name: "clients with the engine's own way and clients that only use txns share one lock, in one order, with rising tokens",
    async run(bed) {
      const name = bed.name();
      const tokens: number[] = [];
      let inside = 0;
      const work = async (hold: Hold): Promise<void> => {
        isTrue(++inside === 1, "nobody else is inside");
        tokens.push(hold.token);
        await bed.pass(1);
        inside--;
      };
      const generic = [bed.process(), bed.process()];
      const tasks = Array.from({ length: 24 }, (_, index) =>
        index % 2 === 0
          ? createLock(bed.engine, name).run(work)
          : lockOf(generic[(index >> 1) % 2] as TestProcess, name).run(work),
      );
      await bed.soon(Promise.all(tasks), "every task had its turn", 60_000);
      equal(tokens.length, 24, "the grants");
      isRising(tokens, "the tokens in the order of grants");
      await queued(bed, name, 0);
    },
  },
  {
    name: "barging contenders have it one at a time, with tokens that rise in the order of grants, and overtake nobody in the queue",
    async run(bed) {
      const name = bed.name();
      const tokens: number[] = [];
      const served: string[] = [];
      let inside = 0;
      const work = (who: string) => async (hold: Hold) => {
        isTrue(++inside === 1, "nobody else is inside");
        tokens.push(hold.token);
        served.push(who);
        await bed.pass(1);
        inside--;
      };
      const barging = { fairness: "barging", ttlMs: Math.max(bed.caps.limits.ttlMsMin, 3_000) } as const;
      const holder = await lockOf(bed.process(), name).acquire();
      const bargers = Array.from({ length: 6 }, () => lockOf(bed.process(), name, barging).run(work("barging")));
      const waiting = lockOf(bed.process(), name).run(work("in the queue"));
      await queued(bed, name, 2);
      await holder.release();
      await bed.soon(Promise.all([...bargers, waiting]), "every contender had its turn", 60_000);
      equal(served[0], "in the queue", "the first one served");
      isRising(tokens, "the tokens in the order of grants");
    },
  },
  {
    name: "a lock-delay holds the next one up after a session that ended, and not after a release",
    async run(bed) {
      const name = bed.name();
      const options = { lockDelayMs: 400 };
      const first = bed.process();
      await (await lockOf(first, name, options).acquire()).release();
      const before = bed.platform.now();
      await lockOf(first, name, options).acquire();
      const waiting = lockOf(bed.process(), name, options).acquire();
      await queued(bed, name, 2);
      const endedAt = bed.platform.now();
      isTrue(endedAt - before < 10_000, "a release holds nobody up");
      await first.end();
      await bed.soon(waiting, "the next holder");
      isTrue(bed.platform.now() - endedAt >= 400, "the next holder waited for the delay");
    },
  },
  {
    name: "an hour's jump of the client's wall clock, there and back, changes nothing",
    async run(bed) {
      const name = bed.name();
      const ttlMs = Math.max(bed.caps.limits.ttlMsMin, 1_500);
      const platform = bed.platform as { wallMs(): number };
      const wallMs = platform.wallMs;
      const hold = await lockOf(bed.process(), name, { ttlMs }).acquire();
      const signal = hold.signal;
      let isServed = false;
      const waiting = lockOf(bed.process(), name, { ttlMs })
        .acquire()
        .then((next) => {
          isServed = true;
          return next;
        });
      try {
        for (const jumpMs of [3_600_000, -3_600_000]) {
          platform.wallMs = () => wallMs.call(platform) + jumpMs;
          await bed.pass(ttlMs);
          isTrue(hold.held && !signal.aborted && !isServed, "the hold goes on, and the waiter waits");
        }
        await hold.release();
        const next = await bed.soon(waiting, "the waiter is served");
        isTrue(next.held && next.token > hold.token, "by a higher token");
      } finally {
        platform.wallMs = wallMs;
      }
    },
  },
  {
    name: "who takes a lock away says why, first: `revoked` tells the holder, and then the hold is lost",
    async run(bed) {
      const name = bed.name();
      const hold = await lockOf(bed.process(), name).acquire();
      const [revoked, lost] = [hold.revoked, hold.signal];
      await bed.pass(50);
      const taken = await createLock(bed.engine, name).break("it is stuck");
      isTrue(taken !== null, "there was a holder to take it from");
      await bed.until(() => revoked.aborted && lost.aborted, "the holder hears of both");
      isTrue(String((revoked.reason as Error).message).includes("it is stuck"), "the reason is told");
      await rejects(async () => hold.assertHeld(), "LOCK_LOST", "a look at the broken hold");
      isTrue((await lockOf(bed.process(), name).tryAcquire())?.held === true, "the lock is free");
    },
  },
  {
    name: "a TTL that the engine does not take is refused by name",
    async run(bed) {
      for (const ttlMs of [-1, bed.caps.limits.ttlMsMin - 1, bed.caps.limits.ttlMsMax + 1]) {
        const error = await rejects(
          async () => lockOf(bed.process(), bed.name(), { ttlMs }),
          "INVALID_OPTION",
          `a TTL of ${ttlMs}`,
        );
        isTrue(error.message.includes("`ttlMs`"), "the message names the field");
      }
    },
  },
];

function lockOf(process: TestProcess, name: string, options?: LockOptions): Lock {
  return createLock(process, name, options);
}

/** Waits until so many stand in the queue, the holder included. */
function queued(bed: TestBed, name: string, count: number): Promise<void> {
  const lock = createLock(bed.engine, name);
  return bed.until(async () => (await lock.queue()).length === count, `${count} in the queue of the lock`);
}
