/**
 * memcached as it is installed here, and a client in the shape of `memjs` that speaks the text protocol: the tests need no
 * package for it.
 */
import { connect, type Socket } from "node:net";
import type { MemcachedClient } from "../../src/cache/memcached-l2.ts";
import { freePorts } from "../../src/cli/free-ports.ts";
import { noteEngine } from "./engine-report.ts";
import { acceptsTcp, installed, ServerProcess, type Skipped, serverFolder } from "./server-process.ts";

export interface MemcachedServer {
  readonly port: number;
  readonly process: ServerProcess;
  stop(): Promise<void>;
}

const getIt = "Debian: apt-get install memcached";

export async function startMemcached(): Promise<MemcachedServer | Skipped> {
  const found = installed(["memcached"], ["-V"]);
  if (found === undefined) {
    const skipped = "memcached is not installed";
    noteEngine({ engine: "memcached", skipped, getIt });
    return { skipped };
  }
  noteEngine({ engine: "memcached", version: /([\d.]+)/.exec(found.version)?.[1] ?? found.version });
  const folder = serverFolder("memcached");
  const [port] = (await freePorts(1)) as [number];
  const server = await ServerProcess.start({
    name: "memcached",
    command: found.command,
    folder: folder.path,
    args: ["-l", "127.0.0.1", "-p", String(port), "-U", "0", ...(process.getuid?.() === 0 ? ["-u", "root"] : [])],
    isReady: () => acceptsTcp(port),
  });
  return {
    port,
    process: server,
    stop: async () => {
      await server.stop();
      folder.remove();
    },
  };
}

/** One command at a time. */
export class TextClient implements MemcachedClient {
  readonly #socket: Socket;
  #heard = "";
  #onHeard: () => void = () => undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1").setEncoding("latin1");
    this.#socket.on("data", (bytes: string) => {
      this.#heard += bytes;
      this.#onHeard();
    });
    this.#socket.on("error", () => undefined);
    this.#socket.on("close", () => this.#onHeard());
  }

  async get(key: string): Promise<{ readonly value: Uint8Array | null }> {
    const answer = await this.#ask(`get ${key}\r\n`, (heard) => {
      const value = valueIn(heard);
      return heard === "END\r\n" || (value !== undefined && heard.length === value.end + "\r\nEND\r\n".length);
    });
    const value = valueIn(answer);
    return { value: value === undefined ? null : Buffer.from(answer.slice(value.begin, value.end), "latin1") };
  }

  async set(key: string, value: string, { expires }: { readonly expires: number }): Promise<boolean> {
    const bytes = Buffer.from(value).toString("latin1");
    const answer = await this.#ask(`set ${key} 0 ${expires} ${bytes.length}\r\n${bytes}\r\n`, isLine);
    if (answer !== "STORED\r\n") throw new Error(answer.trim());
    return true;
  }

  async delete(key: string): Promise<boolean> {
    return (await this.#ask(`delete ${key}\r\n`, isLine)) === "DELETED\r\n";
  }

  stats(callback: (error: Error | null, server: unknown, stats: Readonly<Record<string, string>> | null) => void): void {
    this.#ask("stats\r\n", (heard) => heard.endsWith("END\r\n")).then(
      (answer) => {
        const lines = [...answer.matchAll(/STAT (\S+) (.*)\r\n/g)];
        callback(null, "", Object.fromEntries(lines.map(([, name, value]) => [name, value])));
      },
      (error: Error) => callback(error, "", null),
    );
  }

  close(): void {
    this.#socket.destroy();
  }

  #ask(command: string, isWhole: (heard: string) => boolean): Promise<string> {
    const answer = this.#last.then(
      () =>
        new Promise<string>((resolve, reject) => {
          this.#heard = "";
          this.#onHeard = () => {
            if (isWhole(this.#heard)) resolve(this.#heard);
            else if (this.#socket.destroyed) reject(new Error("The connection is gone."));
          };
          this.#socket.write(command, "latin1");
          this.#onHeard();
        }),
    );
    this.#last = answer.catch(() => undefined);
    return answer;
  }
}

/** Where it stands in what was heard; undefined: there is none. */
function valueIn(heard: string): { readonly begin: number; readonly end: number } | undefined {
  const head = /^VALUE \S+ \d+ (\d+)\r\n/.exec(heard);
  return head === null ? undefined : { begin: head[0].length, end: head[0].length + Number(head[1]) };
}

function isLine(heard: string): boolean {
  return heard.endsWith("\r\n");
}
