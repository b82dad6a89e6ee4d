/**
 * The lock on a data directory: one process at a time, and a killed owner blocks nobody.
 *
 * Node has no flock, so the lock is a file, and the hard part is the file of a dead owner: two processes find it, both
 * decide that it is dead, and the slower one must not take away what the faster one just took.
 *
 * Intuition: a ticket roll. Files `lock-1`, `lock-2`, ... are owners, one after another, and the highest number is the one
 * that counts. Whoever finds it dead or released links `lock-(n+1)`, which exactly one can do, then looks again: a higher
 * number means that the roll went on while this process slept, so the ticket is void and it starts over. Owners remove
 * lower tickets and never the highest one, not even on release (it is marked), so the highest number never goes back;
 * that is what makes a late link of an old number harmless.
 *
 *   lock-6 (dead)   A: reads 6     A: links 7, wins, looks again: 7 is highest, removes 6    A dies
 *                   B: reads 6 ............... sleeps .............................   C: links 8, removes 7
 *                                                               B: links 7 (free again!), looks again: 8 is there: void
 *
 * An owner is alive when its process is, and it is the same one: the start time tells a reused pid, the boot a reused both.
 * A ticket is written aside, synced and linked, so it is never seen half written by others, not even after a power cut.
 * Assumes a local file system with hard links, one pid namespace (two containers that share a volume cannot see each
 * other's processes), and that a small directory is listed in one system call.
 */
import { randomUUID } from "node:crypto";
import { link, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { resolve as resolvePath, sep } from "node:path";
import { conclaveError } from "../../base/errors.ts";
import { makeDirectory } from "./make-directory.ts";

export interface DirectoryLock {
  /** The next process may have the directory. Idempotent. */
  release(): Promise<void>;
}

interface Ticket {
  readonly pid: number;
  /** Start of the process in clock ticks since the boot, and the boot; empty where the platform tells neither. */
  readonly started: string;
  readonly boot: string;
  /** Tells two locks of one process apart. */
  readonly id: string;
  readonly released?: boolean;
}

const attemptsMax = 1000;

/**
 * Takes the directory for this process, until `release` or the process's end, however it ends. Makes it where it is missing.
 * @throws DIRECTORY_IN_USE with the owner's pid, also when the owner is this process
 */
export async function lockDirectory(path: string): Promise<DirectoryLock> {
  const directory = resolvePath(path);
  try {
    await makeDirectory(directory);
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `The data directory ${path} cannot be made: ${(cause as Error).message}.`, { cause });
  }
  const ticket: Ticket = { ...(await processIdentity(process.pid)), pid: process.pid, id: randomUUID() };
  const aside = `${directory}${sep}lock-${ticket.id}.tmp`;
  await writeDurably(aside, JSON.stringify(ticket));
  try {
    const number = await takeTicket(directory, aside, path);
    await removeLower(directory, number);
    return lockOf(directory, number, ticket);
  } finally {
    await rm(aside, { force: true });
  }
}

async function takeTicket(directory: string, aside: string, path: string): Promise<number> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const highest = await highestTicket(directory);
    if (highest > 0) await refuseLiveOwner(directory, highest, path);
    const mine = highest + 1;
    if (!(await linkExclusively(aside, ticketPath(directory, mine)))) continue;
    if ((await highestTicket(directory)) === mine) return mine;
    await rm(ticketPath(directory, mine), { force: true });
  }
  throw conclaveError("DIRECTORY_IN_USE", `The data directory ${path} changed owners ${attemptsMax} times in a row.`);
}

async function refuseLiveOwner(directory: string, number: number, path: string): Promise<void> {
  const owner = await readTicket(directory, number);
  if (owner === undefined || owner.released === true || !(await isAlive(owner))) return;
  const who = owner.pid === process.pid ? "this process" : "process";
  throw conclaveError(
    "DIRECTORY_IN_USE",
    `The data directory ${path} is in use by ${who} ${owner.pid}. To share it: \`conclave serve --data ${path}\`.`,
  );
}

function lockOf(directory: string, number: number, ticket: Ticket): DirectoryLock {
  let releasing: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    const aside = `${directory}${sep}lock-${ticket.id}.tmp`;
    try {
      await writeFile(aside, JSON.stringify({ ...ticket, released: true } satisfies Ticket));
      await rename(aside, ticketPath(directory, number));
    } catch {
      // No space for a second file: the mark goes over the ticket itself, in no more bytes than it has.
      await rm(aside, { force: true });
      const mark = JSON.stringify({ pid: 0, started: "", boot: "", id: "", released: true } satisfies Ticket);
      const file = await open(ticketPath(directory, number), "r+");
      await file.write(mark.padEnd(JSON.stringify(ticket).length), 0).finally(() => file.close());
    }
  };
  return {
    release: () => {
      releasing ??= release();
      return releasing;
    },
  };
}

/** Undefined when the ticket is gone or is no ticket: it was linked whole, so the disk lost it and its owner with it. */
async function readTicket(directory: string, number: number): Promise<Ticket | undefined> {
  try {
    const found: unknown = JSON.parse(await readFile(ticketPath(directory, number), "utf8"));
    return isTicket(found) ? found : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function isTicket(value: unknown): value is Ticket {
  if (typeof value !== "object" || value === null) return false;
  const fields = value as Record<string, unknown>;
  return Number.isInteger(fields["pid"]) && typeof fields["started"] === "string" && typeof fields["boot"] === "string";
}

async function isAlive(owner: Ticket): Promise<boolean> {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    // EPERM: it runs, as somebody else.
    if (codeOf(error) !== "EPERM") return false;
  }
  const now = await processIdentity(owner.pid);
  if (owner.started === "" || now.started === "") return true;
  return now.started === owner.started && now.boot === owner.boot;
}

async function processIdentity(pid: number): Promise<{ readonly started: string; readonly boot: string }> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
    // Field 2 is the command in parentheses and may hold spaces: count from its end. Field 3 is the state, 22 the start.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has ended; only its parent has not noticed.
    const ended = fields[0] === "Z" || fields[0] === "X";
    return { started: ended ? "ended" : (fields[19] ?? ""), boot: boot.trim() };
  } catch {
    return { started: "", boot: "" };
  }
}

async function highestTicket(directory: string): Promise<number> {
  const numbers = (await readdir(directory)).map(ticketNumber);
  return Math.max(0, ...numbers);
}

async function removeLower(directory: string, number: number): Promise<void> {
  for (const name of await readdir(directory)) {
    const lower = ticketNumber(name);
    if (lower > 0 && lower < number) await rm(ticketPath(directory, lower), { force: true });
  }
}

async function linkExclusively(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function ticketPath(directory: string, number: number): string {
  return `${directory}${sep}lock-${number}`;
}

/** 0 when the name is no ticket. */
function ticketNumber(name: string): number {
  const match = /^lock-(\d+)$/.exec(name);
  return match === null ? 0 : Number(match[1]);
}

/** Files of the lock are none of the disk's. */
export function isLockName(name: string): boolean {
  return name.startsWith("lock-");
}

function codeOf(error: unknown): unknown {
  return typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
}
