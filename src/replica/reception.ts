/**
 * Where connections come in: the first frame tells a client from a peer.
 *
 * A client gets a `Door` of its own, from the hello on. A peer is checked here, and its later frames are letters of the
 * protocol for the replica. Whoever sends garbage is told so and disconnected; the member goes on.
 */
import { background } from "../base/background.ts";
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Connection, ConnectionHandler, Platform, Telemetry, Timer } from "../base/ports.ts";
import { protocolDefault } from "../base/protocol-name.ts";
import { checkHello, chooseProtocol, type Hello, type Refuse, readHello, writeRefuse, writeWelcome } from "../wire/hello.ts";
import type { Acquaintances } from "./acquaintances.ts";
import { Door, type DoorOptions } from "./door.ts";
import type { Replica } from "./replica.ts";
import { WatchHub } from "./watch-hub.ts";

export interface ReceptionOptions extends Pick<DoorOptions, "authenticate" | "authorize" | "limits"> {
  readonly platform: Platform;
  readonly replica: Replica;
  readonly acquaintances: Acquaintances;
  /** Whether members come and go: then one that this member does not know may be one that the others do. */
  readonly hasMembership: boolean;
  /** A peer that is not in the configuration here, and says that it is in its own. */
  readonly onUnknownPeer: (member: string, address: string) => void;
  /** What a peer wrote could not be remembered. */
  readonly onFailed: (error: unknown) => void;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

/** A connection whose first frame has not come by then is closed. */
const helloTimeoutMs = 5_000;

type Guest =
  | { readonly kind: "unknown"; readonly timer: Timer }
  /** Its directory is being remembered; it sends nothing before its welcome. */
  | { readonly kind: "greeted" }
  | { readonly kind: "peer"; readonly member: string }
  | { readonly kind: "client"; readonly door: Door }
  | { readonly kind: "gone" };

export class Reception {
  readonly #options: ReceptionOptions;
  readonly #hub: WatchHub;
  readonly #open = new Set<Connection>();
  readonly #writer = new ByteWriter();
  /** On which connection each peer was greeted last: what still lies on an earlier one is of an earlier process. */
  readonly #latest = new Map<string, Connection>();
  #closed = false;

  constructor(options: ReceptionOptions) {
    this.#options = options;
    this.#hub = new WatchHub({ service: options.replica, platform: options.platform });
    options.replica.onMachine(() => this.#hub.onMachineReplaced());
  }

  accept(connection: Connection): ConnectionHandler {
    this.#open.add(connection);
    const timer = this.#options.platform.setTimer(helloTimeoutMs, () => connection.close());
    let guest: Guest = { kind: "unknown", timer };
    if (this.#closed) connection.close();
    return {
      onFrame: (_, frame) => {
        if (guest.kind === "client") guest.door.onFrame(connection, frame);
        else if (guest.kind === "peer") guest = this.#onLetter(connection, guest, frame);
        else if (guest.kind === "unknown") {
          guest = this.#greet(connection, frame, guest.timer, (next) => {
            if (guest.kind === "greeted") guest = next;
          });
        }
      },
      onClose: (_, error) => {
        this.#open.delete(connection);
        if (guest.kind === "unknown") guest.timer.cancel();
        else if (guest.kind === "client") guest.door.onClose(connection, error);
        else if (guest.kind === "peer") {
          if (this.#latest.get(guest.member) === connection) this.#latest.delete(guest.member);
          const { member } = this.#options.replica;
          this.#emit({ kind: "connection.closed", member, remote: connection.remote, why: error?.message ?? "the peer left" });
        }
        guest = { kind: "gone" };
      },
    };
  }

  close(): void {
    this.#closed = true;
    for (const connection of this.#open) connection.close();
    this.#hub.close();
  }

  #greet(connection: Connection, frame: Uint8Array, timer: Timer, become: (guest: Guest) => void): Guest {
    timer.cancel();
    try {
      const hello = readHello(frame);
      return hello.role === "peer" ? this.#greetPeer(connection, hello, become) : this.#greetClient(connection, frame);
    } catch (error) {
      if (!hasCode(error, "PROTOCOL")) throw error;
      return this.#refuse(connection, { code: "PROTOCOL", message: error.message });
    }
  }

  #greetClient(connection: Connection, frame: Uint8Array): Guest {
    const { platform, replica, telemetry, authenticate, authorize, limits } = this.#options;
    const rest = {
      platform,
      ...(telemetry === undefined ? {} : { telemetry }),
      ...(authenticate === undefined ? {} : { authenticate }),
      ...(authorize === undefined ? {} : { authorize }),
      ...(limits === undefined ? {} : { limits }),
    };
    const door = new Door({ ...rest, service: replica, hub: this.#hub, connection });
    door.onFrame(connection, frame);
    return { kind: "client", door };
  }

  #greetPeer(connection: Connection, hello: Hello, become: (guest: Guest) => void): Guest {
    const { replica, acquaintances } = this.#options;
    const wrong = checkHello(hello, replica) ?? this.#checkPeer(hello, connection);
    if (wrong !== undefined) return this.#refuse(connection, wrong);
    const { incarnation } = hello;
    const isMember = replica.addresses.has(hello.member);
    if (!isMember && hello.address !== undefined) this.#options.onUnknownPeer(hello.member, hello.address);
    if (!isMember || incarnation === undefined) return this.#welcomePeer(connection, hello, { remembers: false });
    if (acquaintances.hasMet(hello.member)) return this.#welcomePeer(connection, hello, { remembers: true });
    background(
      acquaintances.meet(hello.member, incarnation).then(
        () => become(this.#welcomePeer(connection, hello, { remembers: true })),
        (error: unknown) => this.#options.onFailed(error),
      ),
      "meet a peer",
    );
    return { kind: "greeted" };
  }

  #welcomePeer(connection: Connection, hello: Hello, { remembers }: { readonly remembers: boolean }): Guest {
    const { replica } = this.#options;
    this.#latest.set(hello.member, connection);
    const { leader, term } = replica.leader();
    const { member, cluster, addresses } = replica;
    this.#writer.reset();
    writeWelcome(this.#writer, {
      protocol: chooseProtocol(hello) as number,
      member,
      cluster,
      addresses,
      leader,
      term,
      remembers,
    });
    connection.send(this.#writer.finish());
    this.#emit({ kind: "connection.opened", member, remote: connection.remote, role: `peer ${hello.member}` });
    return { kind: "peer", member: hello.member };
  }

  #checkPeer(hello: Hello, connection: Connection): Refuse | undefined {
    const { replica, authenticate, acquaintances } = this.#options;
    // A peer that names none is older than the choice.
    const agreement = hello.agreement ?? protocolDefault;
    if (agreement !== replica.protocol) {
      const message = `Member "${replica.member}" agrees by ${replica.protocol}; "${hello.member}" came with ${agreement}.`;
      return { code: "OTHER_PROTOCOL", message };
    }
    // Whoever is yet to be added is refused, and asks again; a member that we do not know may be one that was added while
    // we were away, and may even lead.
    const mayBelong = this.#options.hasMembership && (hello.belongs === true || !replica.knowsMembers);
    if (!replica.addresses.has(hello.member) && !mayBelong) {
      return { code: "WRONG_MEMBER", message: `"${hello.member}" is no member of cluster "${replica.cluster}".` };
    }
    if (hello.incarnation !== undefined && acquaintances.isStranger(hello.member, hello.incarnation)) {
      const message =
        `"${hello.member}" came back with an empty directory, and without the votes that it gave. Remove it and add it anew: ` +
        `conclave member remove ${hello.member}.`;
      return { code: "MEMBER_WIPED", message };
    }
    if (authenticate !== undefined && authenticate(hello.credential, connection) === undefined) {
      return { code: "UNAUTHORIZED", message: `Member "${replica.member}" does not know the credential.` };
    }
    return undefined;
  }

  #onLetter(connection: Connection, guest: Guest & { readonly kind: "peer" }, frame: Uint8Array): Guest {
    // Until enough of the others have met this directory, its member has no part in what they write.
    if (!this.#options.acquaintances.isAdmitted || this.#latest.get(guest.member) !== connection) return guest;
    try {
      this.#options.replica.receive(guest.member, frame);
      return guest;
    } catch (error) {
      if (!hasCode(error, "PROTOCOL")) throw error;
      return this.#refuse(connection, { code: "PROTOCOL", message: error.message });
    }
  }

  #refuse(connection: Connection, refuse: Refuse): Guest {
    const { member } = this.#options.replica;
    this.#emit({ kind: "connection.refused", member, remote: connection.remote, code: refuse.code, why: refuse.message });
    this.#writer.reset();
    writeRefuse(this.#writer, refuse);
    connection.send(this.#writer.finish());
    connection.close();
    return { kind: "gone" };
  }

  #emit(event: ConclaveEvent): void {
    this.#options.telemetry?.emit(event);
  }
}
