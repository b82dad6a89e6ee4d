/**
 * Finds the leader and follows it: which members there are, a link to each that was needed, and which of them leads.
 *
 * Intuition: a guest in a large house who has a message for the head of it. He asks whoever opens a door, believes the claim
 * with the highest term, and while nobody knows he knocks at one door after another, pausing a little longer each time.
 *
 *   news (welcome, push, hint) --> a claim of a higher term --> dial that member --> its welcome confirms --> `onLeader`
 *   no leader, its link closed, or it refused --> next address after 20 to 250 ms, jittered
 *
 * A claim is only advice: a member that does not lead refuses by itself, so a wrong one costs a round trip and no more.
 */
import { type ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import type { Platform, Timer, Transport } from "../base/ports.ts";
import { writePing } from "../wire/client-messages.ts";
import type { Hello, Refuse, Welcome } from "../wire/hello.ts";
import { Link, type LinkOwner } from "./link.ts";
import type { ClientLimits } from "./options.ts";

interface Node {
  readonly address: string;
  link: Link | undefined;
  /** Why it was last left. */
  lastError: Error | undefined;
}

export interface NodeInfo {
  readonly address: string;
  readonly member: string | undefined;
  readonly state: "idle" | Link["state"];
  readonly lastError: Error | undefined;
}

export interface NavigatorOptions {
  readonly platform: Platform;
  readonly transport: Transport;
  readonly addresses: readonly string[];
  readonly hello: Hello;
  readonly limits: ClientLimits;
  /** Gets the answers of every link. */
  readonly owner: LinkOwner;
  /** The leader is ready to be spoken to. */
  readonly onLeader: (link: Link) => void;
  /** Whether anybody waits for a leader: otherwise nobody is dialled. */
  readonly isWanted: () => boolean;
}

export class Navigator {
  readonly #options: NavigatorOptions;
  readonly #nodes = new Map<string, Node>();
  /** Member to address, from the newest welcome. */
  #addresses: ReadonlyMap<string, string> = new Map();
  /** The best claim heard of. Invariant: `#term` only rises, until a whole round of knocking finds nobody. */
  #leader: string | undefined;
  #term = 0;
  #leaderLink: Link | undefined;
  #seekTimer: Timer | undefined;
  /** Attempts since the leader last answered. */
  #attempts = 0;
  #cursor = 0;
  #isClosed = false;

  constructor(options: NavigatorOptions) {
    this.#options = options;
    for (const address of options.addresses) this.#node(address);
    this.#cursor = options.platform.randomUint32() % this.#nodes.size;
  }

  /** Ready, and believed to lead. */
  get leaderLink(): Link | undefined {
    return this.#leaderLink;
  }

  get term(): number {
    return this.#term;
  }

  get leader(): string | undefined {
    return this.#leader;
  }

  nodes(): NodeInfo[] {
    return [...this.#nodes.values()].map(({ address, link, lastError }) => ({
      address,
      member: link?.member || undefined,
      state: link?.state ?? "idle",
      lastError,
    }));
  }

  /** Any link that can be spoken to, the leader's first. */
  anyLink(): Link | undefined {
    if (this.#leaderLink !== undefined) return this.#leaderLink;
    for (const { link } of this.#nodes.values()) if (link?.state === "ready") return link;
    return undefined;
  }

  /** The link to this address, dialled where there is none. */
  linkTo(address: string): Link {
    const link = this.#dial(this.#node(address));
    link.isAskedFor = true;
    return link;
  }

  /** Starts looking for the leader unless it is known or looked for. */
  want(): void {
    if (this.#isClosed || this.#leaderLink !== undefined || this.#seekTimer !== undefined) return;
    if (this.#attempts === 0) this.#seek();
    else this.#seekLater();
  }

  /** The leader answered: the next search starts without a pause. */
  onSuccess(): void {
    this.#attempts = 0;
  }

  onLinkReady(link: Link, welcome: Welcome): void {
    const node = this.#node(link.address);
    node.lastError = undefined;
    this.#addresses = welcome.addresses;
    const twin = this.#linkOfMember(welcome.member, link);
    this.onNews(welcome.leader, welcome.term, welcome.member);
    // An address given by the user and one from a welcome may be the same member: one connection each is enough.
    if (twin !== undefined && link !== this.#leaderLink && !link.isAskedFor)
      link.close(conclaveError("CLOSED", `${welcome.member} is connected already.`));
    else if (this.#leaderLink === undefined) this.want();
  }

  onLinkClosed(link: Link, error: Error): void {
    const node = this.#nodes.get(link.address);
    if (node !== undefined && node.link === link) {
      node.link = undefined;
      node.lastError = error;
    }
    if (this.#leaderLink === link) this.#leaderLink = undefined;
    if (!this.#isClosed && this.#options.isWanted()) this.want();
  }

  /** Somebody says who leads. */
  onNews(leader: string | undefined, term: number, from: string): void {
    if (leader === undefined) {
      // A member that stepped down knows it of itself; of others it only lacks knowledge.
      if (from === this.#leader && term >= this.#term) this.#forgetLeader(term);
      return;
    }
    if (term < this.#term || (term === this.#term && this.#leader !== undefined && this.#leader !== leader)) return;
    const isChange = this.#leader !== leader;
    this.#leader = leader;
    this.#term = term;
    if (isChange) this.#leaderLink = undefined;
    if (this.#leaderLink === undefined) this.#goTo(leader);
  }

  /** The link refused because it does not lead. */
  onNotLeader(link: Link, hint: string | undefined): void {
    // A late refusal of a member that was left, or the second of many in one frame.
    if (this.#leaderLink !== link) return;
    this.#leaderLink = undefined;
    this.#leader = undefined;
    this.#attempts++;
    // The first hint is followed at once, later ones at the pace of the search: two members may point at each other.
    if (hint !== undefined && hint !== link.member && this.#attempts === 1) this.#goTo(hint);
    else this.#seekLater();
  }

  /** The leader owes an answer: ping it, and hear whom the others follow. */
  probe(): void {
    for (const node of this.#nodes.values()) {
      if (node.link?.state === "ready") writePing(node.link.writer(), 0);
    }
    for (const node of this.#meetMembers()) if (node.link === undefined) this.#dial(node);
  }

  /** Every address failed in a way that no second attempt changes; answers the reason. */
  hopeless(): ConclaveError | undefined {
    let found: ConclaveError | undefined;
    for (const { lastError, link } of this.#nodes.values()) {
      if (link?.state === "ready") return undefined;
      const codes = ["WRONG_CLUSTER", "WRONG_PROTOCOL", "WRONG_MEMBER", "UNAUTHORIZED"] as const;
      if (!codes.some((code) => hasCode(lastError, code))) return undefined;
      found = lastError as ConclaveError;
    }
    return found;
  }

  /** Every member of the cluster said that it serves no more; answers the reason. A member that is started anew takes it back. */
  stopped(): Refuse | undefined {
    if (this.#addresses.size === 0) return undefined;
    let found: Refuse | undefined;
    for (const member of this.#addresses.keys()) {
      found = this.#linkOfMember(member)?.stopped;
      if (found === undefined) return undefined;
    }
    return found;
  }

  /** Members that the cluster is known to have. */
  get memberCount(): number {
    return Math.max(1, this.#addresses.size);
  }

  /** The addresses that were tried, and how each ended. */
  describe(): string {
    const each = [...this.#nodes.values()].map(({ address, link, lastError }) => {
      if (link?.state === "ready") return `${address}: ${link.stopped?.message ?? `connected as "${link.member}"`}`;
      if (lastError !== undefined) return `${address}: ${firstSentence(lastError.message)}`;
      return `${address}: ${link === undefined ? "not tried" : "no answer yet"}`;
    });
    return `Tried ${each.join("; ").replace(/\.$/, "")}.`;
  }

  close(): void {
    this.#isClosed = true;
    this.#seekTimer?.cancel();
    this.#seekTimer = undefined;
    this.#leaderLink = undefined;
    const error = conclaveError("CLOSED", "The client was closed.");
    for (const node of this.#nodes.values()) node.link?.close(error);
  }

  #node(address: string): Node {
    let node = this.#nodes.get(address);
    if (node === undefined) {
      node = { address, link: undefined, lastError: undefined };
      this.#nodes.set(address, node);
    }
    return node;
  }

  /** A node for each member that is known and not linked: whoever was given one address outlives the member behind it. */
  #meetMembers(): Node[] {
    const unlinked = [...this.#addresses.values()].filter((address) => this.#linkAtMemberAddress(address) === undefined);
    return unlinked.map((address) => this.#node(address));
  }

  #dial(node: Node): Link {
    if (node.link !== undefined) return node.link;
    const { platform, transport, hello, limits, owner } = this.#options;
    node.link = new Link({ platform, transport, hello, owner, address: node.address, dialTimeoutMs: limits.dialTimeoutMs });
    return node.link;
  }

  #goTo(member: string): void {
    if (this.#isClosed) return;
    const link = this.#linkOfMember(member);
    if (link !== undefined) {
      this.#become(link);
      return;
    }
    const address = this.#addresses.get(member);
    if (address !== undefined) this.#dial(this.#node(address));
    // The next door is tried meanwhile: this one may be slow, or nobody may live there any more.
    this.#seekLater();
  }

  #become(link: Link): void {
    this.#leader = link.member;
    this.#leaderLink = link;
    this.#seekTimer?.cancel();
    this.#seekTimer = undefined;
    this.#options.onLeader(link);
  }

  #forgetLeader(term: number): void {
    this.#leader = undefined;
    this.#term = term;
    this.#leaderLink = undefined;
    this.#attempts++;
    if (this.#options.isWanted()) this.#seekLater();
  }

  /** Knocks at the next door: asks a link that is there, or dials. */
  #seek(): void {
    this.#attempts++;
    this.#meetMembers();
    const nodes = [...this.#nodes.values()];
    if (this.#attempts % (nodes.length + 1) === 0) {
      // A whole round found nobody: the terms that we remember may be those of a cluster that is no more.
      this.#leader = undefined;
      this.#term = 0;
    }
    const leaderAddress = this.#leader === undefined ? undefined : this.#addresses.get(this.#leader);
    const isFirst = this.#attempts === 1 && leaderAddress !== undefined;
    const node = isFirst ? this.#node(leaderAddress) : (nodes[this.#cursor++ % nodes.length] as Node);
    // The answers to a ping and to a hello both say who leads.
    if (node.link?.state === "ready") writePing(node.link.writer(), 0);
    else this.#dial(node);
    this.#seekLater();
  }

  #seekLater(): void {
    if (this.#isClosed || this.#seekTimer !== undefined) return;
    const { platform, limits } = this.#options;
    const ceilingMs = Math.min(limits.backoffMsMax, limits.backoffMsMin * 2 ** Math.min(this.#attempts, 16));
    const delayMs = limits.backoffMsMin + ((ceilingMs - limits.backoffMsMin) * platform.randomUint32()) / 2 ** 32;
    this.#seekTimer = platform.setTimer(delayMs, () => {
      this.#seekTimer = undefined;
      if (!this.#isClosed && this.#leaderLink === undefined && this.#options.isWanted()) this.#seek();
    });
  }

  #linkOfMember(member: string, except?: Link): Link | undefined {
    for (const { link } of this.#nodes.values()) {
      if (link !== undefined && link !== except && link.state === "ready" && link.member === member) return link;
    }
    return undefined;
  }

  #linkAtMemberAddress(address: string): Link | undefined {
    for (const [member, at] of this.#addresses) if (at === address) return this.#linkOfMember(member);
    return undefined;
  }
}

function firstSentence(message: string): string {
  const end = message.indexOf(". ");
  return end < 0 ? message : message.slice(0, end);
}
