/**
 * A fence on a file system without locks: every writer has a file of its own, and readers take the highest.
 *
 * Intuition: a pigeonhole with numbered letters. A late letter with a low number is put in as well, and nobody reads it.
 *
 *   directory/00000001732180000000-content     written aside, synced, renamed: whole or absent
 *
 * So a stale write can never be seen once a later holder has written, whenever it arrives; no clock and no lock file.
 * Assumes that a rename within a directory is atomic (POSIX; not NFS without care).
 */
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkFenced, type Fenced, staleToken } from "./fence.ts";
import { hasSystemCode } from "./system-code.ts";

/** Wide enough for 2^53. */
const digits = 16;
const suffix = "-content";
/** Older versions are kept so that a reader who has just chosen one still finds it. */
const keep = 3;

export interface FencedContent {
  readonly token: number;
  readonly bytes: Uint8Array;
}

/** The content of a directory that stands for one file. @since 0.2.0 */
export class FencedFile {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * Replaces the content for everybody, unless a higher token has been here.
   * @throws STALE_TOKEN (nobody reads what was written), INVALID_OPTION, and the system's errors
   */
  async write(bytes: Uint8Array | string, fenced: Fenced): Promise<void> {
    checkFenced(fenced);
    await mkdir(this.directory, { recursive: true });
    const aside = join(this.directory, `${randomBytes(8).toString("hex")}.new`);
    try {
      const file = await open(aside, "wx");
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(aside, join(this.directory, nameOf(fenced.token)));
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
    const tokens = await this.#tokens();
    const highest = Math.max(...tokens);
    for (const old of tokens.slice(0, -keep)) await rm(join(this.directory, nameOf(old)), { force: true });
    if (highest > fenced.token) throw staleToken(fenced, highest);
    await syncDirectory(this.directory);
  }

  /** What the highest token wrote; null where nobody has. */
  async read(): Promise<FencedContent | null> {
    for (;;) {
      const token = (await this.#tokens()).at(-1);
      if (token === undefined) return null;
      try {
        return { token, bytes: await readFile(join(this.directory, nameOf(token))) };
      } catch (error) {
        // Later holders have written so often meanwhile that this version is gone: there are newer ones.
        if (!hasSystemCode(error, "ENOENT")) throw error;
      }
    }
  }

  async #tokens(): Promise<number[]> {
    let names: string[];
    try {
      names = await readdir(this.directory);
    } catch (error) {
      if (hasSystemCode(error, "ENOENT")) return [];
      throw error;
    }
    const tokens = names.filter((name) => name.endsWith(suffix)).map((name) => Number(name.slice(0, digits)));
    return tokens.filter(Number.isSafeInteger).sort((left, right) => left - right);
  }
}

function nameOf(token: number): string {
  return `${String(token).padStart(digits, "0")}${suffix}`;
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
