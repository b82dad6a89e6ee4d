/**
 * Who has met whom: so that a member whose disk was lost is not taken for the one that it was.
 *
 * A member's votes and confirmations live on its disk. One that comes back under its old name with an empty disk has forgotten
 * them, and could vote a second time or help to elect a leader that lacks what it had confirmed. So each member remembers,
 * durably, which life of its directory (`incarnation`) it met under each name of the configuration, and refuses another one;
 * and a member with a new directory says nothing and hears nothing until more than half of the others have met it.
 *
 * ```
 *   n - 1 others.   The first life was met by a set A of them, |A| > (n - 1) / 2, before its first vote.
 *                   A second life would need such a set B. A and B share a member, and that one refuses.
 * ```
 * The price: the first start of a group of three needs all three of them, one of five needs four. Later starts do not.
 * Source: the identity rule of `research/consensus.md` §6.1, H6; Viewstamped Replication Revisited, §4.3, for what an
 * amnesiac member may not do. Forgotten when a committed configuration no longer names the member.
 */
import { utf8Decode, utf8Encode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { Checksum, Disk } from "../base/ports.ts";
import type { MemberId } from "../consensus/core.ts";

const fileName = "acquaintances";
const temporaryFile = "acquaintances.tmp";

interface Remembered {
  /** Whether enough of the others have met this directory: from then on its member takes part. */
  readonly admitted: boolean;
  /** Whether it began as an addition to a group, and not as one of its founders. */
  readonly joins: boolean;
  readonly met: Readonly<Record<MemberId, number>>;
}

export class Acquaintances {
  readonly #disk: Disk;
  readonly #checksum: Checksum;
  #remembered: Remembered;
  readonly #welcomed = new Set<MemberId>();
  /** One write after another. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(parts: { readonly disk: Disk; readonly checksum: Checksum; readonly remembered: Remembered }) {
    this.#disk = parts.disk;
    this.#checksum = parts.checksum;
    this.#remembered = parts.remembered;
  }

  /** `isNew`: the directory holds no log yet. @throws LOG_CORRUPT, DISK_FULL, DISK_FAILED */
  static async open(options: {
    readonly disk: Disk;
    readonly checksum: Checksum;
    readonly isNew: boolean;
    readonly joins: boolean;
    readonly isAlone: boolean;
  }): Promise<Acquaintances> {
    const { disk, checksum, isNew, joins, isAlone } = options;
    if ((await disk.list()).includes(fileName)) {
      return new Acquaintances({ disk, checksum, remembered: await read(disk, checksum) });
    }
    // A directory with a log from before this file existed took part already; a founder without others has nobody to meet.
    const remembered = { admitted: !isNew || (isAlone && !joins), joins: isNew && joins, met: {} };
    const opened = new Acquaintances({ disk, checksum, remembered });
    if (isNew) await opened.#write();
    return opened;
  }

  get isAdmitted(): boolean {
    return this.#remembered.admitted;
  }

  get joins(): boolean {
    return this.#remembered.joins;
  }

  /** Another life of the member was met before. */
  isStranger(member: MemberId, incarnation: number): boolean {
    const known = this.#remembered.met[member];
    return known !== undefined && known !== incarnation;
  }

  hasMet(member: MemberId): boolean {
    return this.#remembered.met[member] !== undefined;
  }

  /** Remembers this life of the member; durable once resolved. */
  async meet(member: MemberId, incarnation: number): Promise<void> {
    const { met } = this.#remembered;
    if (met[member] !== undefined) return;
    this.#remembered = { ...this.#remembered, met: { ...met, [member]: incarnation } };
    await this.#write();
  }

  /** The peer has met us, durably. Resolves to whether that was the one that makes this member take part. */
  async welcomedBy(member: MemberId, others: readonly MemberId[]): Promise<boolean> {
    this.#welcomed.add(member);
    const count = others.filter((other) => this.#welcomed.has(other)).length;
    if (this.#remembered.admitted || 2 * count <= others.length) return false;
    await this.#writeAs({ ...this.#remembered, admitted: true });
    return true;
  }

  /** Whoever left the group may come back as somebody new. */
  async forgetAllBut(members: readonly MemberId[]): Promise<void> {
    const kept = Object.entries(this.#remembered.met).filter(([member]) => members.includes(member));
    if (kept.length === Object.keys(this.#remembered.met).length) return;
    this.#remembered = { ...this.#remembered, met: Object.fromEntries(kept) };
    await this.#write();
  }

  /** In force only once it is durable. */
  async #writeAs(remembered: Remembered): Promise<void> {
    const before = this.#remembered;
    this.#remembered = { ...remembered, admitted: before.admitted };
    await this.#write(remembered.admitted);
    this.#remembered = { ...this.#remembered, admitted: remembered.admitted };
  }

  #write(admitted = this.#remembered.admitted): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      const text = utf8Encode(JSON.stringify({ ...this.#remembered, admitted: admitted || this.#remembered.admitted }));
      await this.#disk.remove(temporaryFile);
      const file = await this.#disk.open(temporaryFile, { create: true });
      try {
        await file.write(0, [utf8Encode(`${this.#checksum(text)}\n`), text], { durable: true });
      } finally {
        await file.close();
      }
      await this.#disk.rename(temporaryFile, fileName);
    });
    return this.#writing;
  }
}

async function read(disk: Disk, checksum: Checksum): Promise<Remembered> {
  // A process killed between a rename and its sync leaves a name that a power cut still takes away.
  await disk.rename(fileName, fileName);
  const file = await disk.open(fileName);
  try {
    const bytes = await file.read(0, await file.sizeBytes());
    const end = bytes.indexOf(10);
    const text = bytes.subarray(end + 1);
    if (end < 0 || utf8Decode(bytes.subarray(0, end)) !== String(checksum(text))) {
      throw conclaveError("LOG_CORRUPT", `The file "${fileName}" is damaged at offset 0.`);
    }
    return JSON.parse(utf8Decode(text)) as Remembered;
  } finally {
    await file.close();
  }
}
