/**
 * A directory, with those above it where they are missing.
 *
 * Node's own recursive `mkdir` never ends on a file system that answers "no such directory" for a name below a directory that
 * is there, as /proc does: a mistyped path would be a process that hangs.
 */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";

/** @throws the system's error */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await makeOne(path);
  } catch (error) {
    const above = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || above === path) throw error;
    await makeDirectory(above);
    await makeOne(path);
  }
}

async function makeOne(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    // There, if it is a directory; where it is not, this says so.
    await mkdir(path, { recursive: true });
  }
}
