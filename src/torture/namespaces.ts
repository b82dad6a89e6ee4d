/**
 * A network of real packets between the members of a run: each in a network namespace of its own, all on one bridge.
 *
 *   runner, clients ── bridge ──┬── a      (namespace cv<pid>-a, 10.x.y.1)
 *                               ├── b
 *                               └── c
 *
 * What a proxy cannot show: here a cut loses packets, so TCP sends again, ever more slowly, a handshake gets no answer, and nobody
 * is told anything. A cut from a to b is a wrong hardware address that a keeps for b: its packets go out and no one takes them. That
 * works in one direction, at once, on connections that stand, and needs neither a packet filter nor a traffic shaper in the kernel.
 * It needs Linux, root and `ip` (iproute2). Breaking, slowing and garbling links stay with the proxies (`network.ts`).
 */
import { execFileSync } from "node:child_process";

/** What cuts between members, whatever it is made of. */
export interface Cuts {
  /** Nothing that `from` says reaches `to` any more, until `mend`. */
  cut(from: string, to: string): void;
  mend(from: string, to: string): void;
  mendAll(): void;
  close(): Promise<void>;
}

/** Locally administered, and nobody's. */
const nobodysHardware = "02:00:00:00:00:fe";
const device = "eth0";
const bridgePattern = /\b(cv[0-9a-z]+):/g;

export class Namespaces implements Cuts {
  readonly #bridge: string;
  readonly #names: readonly string[];
  readonly #net: string;
  readonly #cuts = new Set<string>();
  readonly #onExit = (): void => this.#remove();

  private constructor(names: readonly string[], pid: number) {
    this.#names = names;
    this.#bridge = bridgeOf(pid);
    this.#net = `10.${128 + ((pid >> 8) % 127)}.${pid % 256}`;
  }

  /** Whether this machine and this user can have them: tried, not guessed. */
  static areAvailable(): boolean {
    if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
    const probe = `cv-probe-${process.pid}`;
    try {
      ip(`netns add ${probe}`, `link add ${bridgeOf(process.pid)}-p type veth peer name ${device} netns ${probe}`);
      return true;
    } catch {
      // No `ip`, no rights in this container, or no such devices: the proxies serve.
      return false;
    } finally {
      tryIp(`link del ${bridgeOf(process.pid)}-p`);
      tryIp(`netns del ${probe}`);
    }
  }

  /** @throws Error of `ip`, with what it said */
  static open(names: readonly string[], pid = process.pid): Namespaces {
    removeLeftOvers();
    const namespaces = new Namespaces(names, pid);
    process.on("exit", namespaces.#onExit);
    namespaces.#make();
    return namespaces;
  }

  /** Where the member listens. */
  hostOf(name: string): string {
    return `${this.#net}.${this.#names.indexOf(name) + 1}`;
  }

  /** What a command line must begin with to run where the member lives. It becomes that command: the process id stays. */
  commandOf(name: string): readonly [command: string, ...arguments: string[]] {
    return ["ip", "netns", "exec", this.#namespaceOf(name)];
  }

  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
    this.#inside(from, `neigh replace ${this.hostOf(to)} lladdr ${nobodysHardware} dev ${device} nud permanent`);
  }

  mend(from: string, to: string): void {
    if (this.#cuts.delete(`${from}>${to}`)) this.#inside(from, `neigh del ${this.hostOf(to)} dev ${device}`);
  }

  mendAll(): void {
    for (const pair of this.#cuts) this.mend(...(pair.split(">") as [string, string]));
  }

  async close(): Promise<void> {
    process.off("exit", this.#onExit);
    this.#remove();
  }

  #make(): void {
    const bridge = this.#bridge;
    ip(`link add ${bridge} type bridge`, `addr add ${this.#net}.254/24 dev ${bridge}`, `link set ${bridge} up`);
    for (const name of this.#names) {
      const namespace = this.#namespaceOf(name);
      const outside = `${bridge}-${name}`;
      ip(
        `netns add ${namespace}`,
        `link add ${outside} type veth peer name ${device} netns ${namespace}`,
        `link set ${outside} master ${bridge}`,
        `link set ${outside} up`,
      );
      this.#inside(name, "link set lo up", `addr add ${this.hostOf(name)}/24 dev ${device}`, `link set ${device} up`);
    }
  }

  #inside(name: string, ...commands: readonly string[]): void {
    for (const command of commands) ip(`-n ${this.#namespaceOf(name)} ${command}`);
  }

  #namespaceOf(name: string): string {
    return `${this.#bridge}-${name}`;
  }

  #remove(): void {
    remove(this.#bridge);
  }
}

/** What runs that were killed have left; their namespaces go by the process id in the bridge's name. */
function removeLeftOvers(): void {
  const links = execFileSync("ip", ["-o", "link", "show", "type", "bridge"], { encoding: "utf8" });
  for (const [, bridge = ""] of links.matchAll(bridgePattern)) if (!isAlive(Number.parseInt(bridge.slice(2), 36))) remove(bridge);
}

function remove(bridge: string): void {
  const listed = execFileSync("ip", ["netns", "list"], { encoding: "utf8" });
  for (const line of listed.split("\n")) {
    const [namespace = ""] = line.split(" ");
    if (!namespace.startsWith(`${bridge}-`)) continue;
    // The link of the same name first: with its namespace alone it goes when the kernel finds the time.
    tryIp(`link del ${namespace}`);
    tryIp(`netns del ${namespace}`);
  }
  tryIp(`link del ${bridge}`);
}

function bridgeOf(pid: number): string {
  return `cv${pid.toString(36)}`;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function ip(...commands: readonly string[]): void {
  for (const command of commands) execFileSync("ip", command.split(" "), { stdio: ["ignore", "ignore", "pipe"] });
}

/** Where what it takes away may be gone already. */
function tryIp(command: string): void {
  try {
    ip(command);
  } catch {
    return;
  }
}
