/**
 * The store that holds the decisions: members of its own, on disk, so that decisions outlive every process here.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { connect } from "../../src/index.ts";
import { ended, until } from "../servers/database-process.ts";

interface Member {
  readonly name: string;
  readonly port: number;
  child: ChildProcess | undefined;
}

export class StoreMembers {
  readonly url: string;
  readonly #members: readonly Member[];
  readonly #folder: string;

  private constructor(members: readonly Member[], folder: string) {
    this.#members = members;
    this.#folder = folder;
    this.url = `conclave://${members.map(({ port }) => `127.0.0.1:${port}`).join(",")}`;
  }

  static async start(folder: string, count: number): Promise<StoreMembers> {
    const ports = await freePorts(count);
    const members = ports.map((port, at) => ({ name: `m${at + 1}`, port, child: undefined }));
    const store = new StoreMembers(members, folder);
    await store.start();
    return store;
  }

  /** Those that do not run; resolves when the store answers. */
  async start(): Promise<void> {
    const list = this.#members.map(({ name, port }) => `${name}=127.0.0.1:${port}`).join(",");
    for (const member of this.#members) {
      if (member.child !== undefined) continue;
      const args = ["serve", "--data", join(this.#folder, member.name), "--log-level", "fatal"];
      const place =
        this.#members.length === 1
          ? ["--listen", `127.0.0.1:${member.port}`]
          : ["--member", member.name, "--cluster", "crash", "--members", list];
      member.child = spawn(process.execPath, ["dist/cli/main.js", ...args, ...place], { stdio: ["ignore", "ignore", "inherit"] });
    }
    await until(async () => {
      const probe = await connect({ url: this.url, timeoutMs: 2_000 });
      try {
        await probe.engine.store("probe").txn({ then: [{ kind: "get", key: "x" }] });
      } finally {
        await probe.close();
      }
    }, 60_000);
  }

  /** SIGKILL: to the one that leads, to two of three, or to all. */
  async kill(which: "leader" | "majority" | "all"): Promise<void> {
    const running = this.#members.filter(({ child }) => child !== undefined);
    const leader = await this.#leader();
    const first = running.filter(({ name }) => name === leader);
    const others = running.filter(({ name }) => name !== leader);
    const count = which === "all" ? running.length : which === "leader" ? 1 : Math.floor(running.length / 2) + 1;
    for (const member of [...first, ...others].slice(0, count)) {
      member.child?.kill("SIGKILL");
      if (member.child !== undefined) await ended(member.child);
      member.child = undefined;
    }
  }

  async stop(): Promise<void> {
    for (const { child } of this.#members) child?.kill("SIGTERM");
    await Promise.all(this.#members.map(({ child }) => (child === undefined ? undefined : ended(child))));
  }

  async #leader(): Promise<string | undefined> {
    for (const { port } of this.#members) {
      try {
        const status = (await (await fetch(`http://127.0.0.1:${port}/status`)).json()) as { readonly leader?: string };
        if (status.leader !== undefined) return status.leader;
      } catch {
        // Down, or without an answer: the next may know.
      }
    }
    return undefined;
  }
}
