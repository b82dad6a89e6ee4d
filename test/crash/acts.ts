/**
 * What happens at a crash point: who is started, who dies or sleeps, and who comes back.
 */
import { type ChildProcess, fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ended } from "../servers/database-process.ts";
import { FaultProxy } from "../servers/fault-proxy.ts";
import type { CrashPoint } from "./points.ts";
import { type Rig, restartGently } from "./rig.ts";
import type { VictimOrder } from "./victim.ts";

/** The manager of the harness itself, which recovers what nobody else does. */
export interface OwnRecoverer {
  start(): Promise<void>;
  stop(): Promise<void>;
}

export interface ActsOptions {
  readonly times: number;
  /** Processes at one time. */
  readonly together: number;
  readonly ttlMs: number;
}

export class Acts {
  readonly journals: string[] = [];
  readonly #rig: Rig;
  readonly #own: OwnRecoverer;
  readonly #options: ActsOptions;
  /** Recoverers that said so before they killed themselves. */
  readonly #diedAtPoint = new WeakSet<ChildProcess>();
  #children = 0;

  constructor(rig: Rig, own: OwnRecoverer, options: ActsOptions) {
    this.#rig = rig;
    this.#own = own;
    this.#options = options;
  }

  /** How many came to the point. */
  async run(point: CrashPoint): Promise<number> {
    const { times, together } = this.#options;
    let served = 0;
    const isServer = /postgres|mariadb|store/.test(point.act);
    // A victim with many transfers at a time takes many of the slots for prepared ones.
    const width = point.together === undefined ? together : Math.min(together, 4);
    // Some come too late for a moment on the way: others take their place, up to a bound.
    const startedMax = times * (point.act === "kill-recoverer" ? 8 : 2);
    for (let started = 0; served < times && started < startedMax; ) {
      const count = Math.min(width, times - served);
      started += count;
      if (isServer) served += await this.#underServers(point, count);
      else if (point.act === "kill-recoverer") served += await this.#recoverersDie(point, count);
      else if (point.act === "two-recoverers") served += await this.#threeRecoverers(point, count);
      else {
        const did = await Promise.all(Array.from({ length: count }, () => this.#once(point)));
        served += did.filter(Boolean).length;
      }
    }
    return served;
  }

  async #once(point: CrashPoint): Promise<boolean> {
    switch (point.act) {
      case "kill": {
        const key = point.id === "C13" ? `k${this.#children}` : undefined;
        const child = this.#start({ role: "victim", point, ...(key === undefined ? {} : { key }) });
        await endedWithin(child, 60_000);
        const isKilled = child.signalCode === "SIGKILL";
        // The key is asked again by somebody else: it must be answered, or run, once.
        if (key !== undefined && isKilled) await this.#retryKeys(key);
        return isKilled;
      }
      case "stop":
        return this.#asleep(this.#start({ role: "victim", point }));
      case "lose-answer":
        return this.#loseAnswer(point);
      default:
        throw new Error(`${point.act} is no act on one process`);
    }
  }

  async #asleep(child: ChildProcess): Promise<boolean> {
    const isStopped = await heard(child, "stopping");
    // The lease ends, the others recover, and the zombie wakes.
    await pause(this.#options.ttlMs * 2 + Math.random() * 1_000);
    child.kill("SIGCONT");
    await endedWithin(child, 60_000);
    return isStopped;
  }

  /** So many processes stand at the point when the server dies under them. */
  async #underServers(point: CrashPoint, count: number): Promise<number> {
    const children = Array.from({ length: count }, () => this.#start({ role: "victim", point }));
    const reached = await Promise.all(children.map((child) => heard(child, "reached")));
    const { left, right, store } = this.#rig;
    const tell = (): void => {
      for (const child of children) if (child.connected) child.send("dead");
    };
    switch (point.act) {
      case "kill-postgres":
      case "kill-mariadb": {
        const server = point.act === "kill-postgres" ? left : right;
        await server.kill();
        tell();
        await server.restart();
        break;
      }
      case "restart-postgres":
      case "restart-mariadb": {
        const isLeft = point.act === "restart-postgres";
        const restarted = restartGently(isLeft ? left : right, isLeft ? "SIGINT" : "SIGTERM");
        setTimeout(tell, 100);
        await restarted;
        break;
      }
      default:
        await store.kill(point.members ?? "leader");
        tell();
        if (point.members === "majority") await pause(8_000);
        await store.start();
    }
    await Promise.all(children.map((child) => endedWithin(child, 60_000)));
    return reached.filter(Boolean).length;
  }

  /** Transactions are left by some, begun to be recovered by one after another who dies, and finished by the last. */
  async #recoverersDie(point: CrashPoint, count: number): Promise<number> {
    await this.#own.stop();
    const leavers = Array.from({ length: count }, () => this.#start({ role: "victim", point: leaving(point) }));
    const isAsleep = point.leftAsleep === true;
    await Promise.all(leavers.map((each) => (isAsleep ? heard(each, "stopping") : endedWithin(each, 60_000))));
    let died = 0;
    while (died < count) {
      const recoverer = this.#start({ role: "recoverer", point });
      await heard(recoverer, "ready");
      // Where its predecessors have left nothing it waits for nothing.
      await endedWithin(recoverer, this.#options.ttlMs * 2 + 4_000);
      if (!this.#diedAtPoint.has(recoverer)) break;
      died++;
    }
    await this.#own.start();
    for (const each of leavers) each.kill("SIGCONT");
    await Promise.all(leavers.map((each) => endedWithin(each, 60_000)));
    return died;
  }

  async #threeRecoverers(point: CrashPoint, count: number): Promise<number> {
    const others = [1, 2].map(() => this.#start({ role: "recoverer" }));
    await Promise.all(others.map((child) => heard(child, "ready")));
    const victims = Array.from({ length: count }, () => this.#start({ role: "victim", point: { ...point, act: "kill" } }));
    await Promise.all(victims.map((each) => endedWithin(each, 60_000)));
    await pause(this.#options.ttlMs + 700);
    for (const child of others) child.kill("SIGKILL");
    await Promise.all(others.map((child) => endedWithin(child, 10_000)));
    return victims.filter(({ signalCode }) => signalCode === "SIGKILL").length;
  }

  /** The victim's way to the database ends after the request and before its answer, and is whole again soon after. */
  async #loseAnswer(point: CrashPoint): Promise<boolean> {
    const { left, right } = this.#rig;
    const isLeft = point.resource === "orders";
    const proxy = await FaultProxy.start((isLeft ? left : right).port);
    const url = (isLeft ? left : right).url.replace(`:${proxy.target}`, `:${proxy.port}`);
    const child = this.#start({ role: "victim", point, ...(isLeft ? { postgres: url } : { mariadb: url }) });
    const reached = await heard(child, "reached");
    proxy.onAnswer = () => ({ kind: "cut" });
    if (child.connected) child.send("dead");
    await pause(300);
    proxy.onAnswer = undefined;
    await endedWithin(child, 60_000);
    await proxy.close();
    return reached;
  }

  /** Four loaded processes; every little while something dies, sleeps or comes back. */
  async storm(): Promise<readonly string[]> {
    const { left, right, store } = this.#rig;
    const acts: string[] = [];
    let loads = Array.from({ length: 4 }, () => this.#start({ role: "load" }));
    await Promise.all(loads.map((child) => heard(child, "ready")));
    for (let at = 0; at < 5; at++) {
      await pause(300 + Math.random() * 700);
      const dice = Math.random();
      const victim = loads[Math.floor(Math.random() * loads.length)] as ChildProcess;
      if (dice < 0.4) {
        acts.push("kill");
        victim.kill("SIGKILL");
        loads = loads.filter((child) => child !== victim);
        loads.push(this.#start({ role: "load" }));
      } else if (dice < 0.55) {
        acts.push("zombie");
        victim.kill("SIGSTOP");
        setTimeout(() => victim.kill("SIGCONT"), this.#options.ttlMs * 2 + 500);
      } else if (dice < 0.7) {
        acts.push("PostgreSQL");
        await left.kill();
        await left.restart();
      } else if (dice < 0.85) {
        acts.push("MariaDB");
        await right.kill();
        await right.restart();
      } else {
        const which = Math.random() < 0.6 ? "leader" : "all";
        acts.push(`store (${which})`);
        await store.kill(which);
        await store.start();
      }
    }
    await pause(600);
    for (const child of loads) {
      child.kill("SIGCONT");
      child.kill("SIGKILL");
    }
    await Promise.all(loads.map((child) => endedWithin(child, 10_000)));
    return acts;
  }

  async #retryKeys(key: string): Promise<void> {
    const point: CrashPoint = { id: "C13", what: "", at: "forgotten", act: "kill", resource: "wallet" };
    await endedWithin(this.#start({ role: "victim", point, key }), 60_000);
  }

  #start(about: Pick<VictimOrder, "role" | "point" | "key"> & Partial<VictimOrder>): ChildProcess {
    this.#children++;
    const journal = join(this.#rig.folder, "journals", `${this.#children}.jsonl`);
    this.journals.push(journal);
    const order: VictimOrder = {
      store: this.#rig.store.url,
      postgres: this.#rig.left.url,
      mariadb: this.#rig.right.url,
      journal,
      nth: 1 + Math.floor(Math.random() * 3),
      ttlMs: this.#options.ttlMs,
      ...about,
    };
    writeFileSync(journal, "");
    const child = fork(new URL("./victim.js", import.meta.url), [JSON.stringify(order)], {
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    child.on("error", () => undefined);
    child.on("message", (message) => {
      if (message === "at the point") this.#diedAtPoint.add(child);
    });
    return child;
  }
}

/** The death or sleep that leaves what the recoverers of this point find. */
function leaving({ id, what, kind, leftAt = "all-prepared", leftAsleep }: CrashPoint): CrashPoint {
  return { id, what, at: leftAt, act: leftAsleep === true ? "stop" : "kill", ...(kind === undefined ? {} : { kind }) };
}

async function endedWithin(child: ChildProcess, timeoutMs: number): Promise<boolean> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }, timeoutMs);
  await ended(child);
  clearTimeout(timer);
  return !isLate;
}

/** Whether it said the word before it ended. */
function heard(child: ChildProcess, word: string): Promise<boolean> {
  return new Promise((resolve) => {
    const listen = (message: unknown): void => {
      if (message === word) resolve(true);
    };
    child.on("message", listen);
    child.once("exit", () => resolve(false));
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
