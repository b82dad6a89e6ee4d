/**
 * The client processes of a run, as the runner sees them: eight slots, and in each one incarnation after another.
 */
import { join } from "node:path";
import type { Child, Nursery } from "./child.ts";
import { clusterName } from "./cluster.ts";
import type { Dice } from "./dice.ts";
import type { Incident } from "./evidence.ts";
import type { ClientConfiguration, FromClient, ToClient } from "./messages.ts";
import { pause } from "./pause.ts";
import type { PbftAccess } from "./pbft-files.ts";

export interface FleetOptions {
  readonly nursery: Nursery;
  readonly url: string;
  readonly directory: string;
  readonly ttlMs: number;
  /** A store that only compares and sets: how a slot is known there. */
  readonly pbftAccess?: (slot: number) => PbftAccess;
  readonly dice: Dice;
  readonly onIncident: (incident: Incident) => void;
}

export const clientCount = 8;

/** A client that stopped itself is woken this often until it says that it runs: the first call may have come too early. */
const wakeEveryMs = 50;
const wakesMax = 600;

export class FleetClient {
  readonly slot: number;
  readonly incarnation: number;
  readonly child: Child;
  isReady = false;
  /** From an order to stop itself until it runs again: leave it alone. */
  isUnderOrder = false;
  progress = { grants: 0, operations: 0 };

  constructor(slot: number, incarnation: number, start: (client: FleetClient) => Child) {
    this.slot = slot;
    this.incarnation = incarnation;
    this.child = start(this);
  }

  get name(): string {
    return `${this.slot}.${this.incarnation}`;
  }
}

export class Fleet {
  /** Everybody who ever was, in order of birth. */
  readonly all: FleetClient[] = [];
  selfStops = 0;
  readonly #options: FleetOptions;
  readonly #current: FleetClient[] = [];

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  startAll(): void {
    for (let slot = 0; slot < clientCount; slot++) this.start(slot);
  }

  /** The next incarnation of the slot. */
  start(slot: number): void {
    const incarnation = (this.#current[slot]?.incarnation ?? 0) + 1;
    const client = new FleetClient(slot, incarnation, (self) => this.#spawn(self));
    this.#current[slot] = client;
    this.all.push(client);
  }

  /** Those that run and are not stopped, nor about to stop themselves. */
  get awake(): readonly FleetClient[] {
    return this.#current.filter(
      ({ child, isUnderOrder, isReady }) => isReady && child.isRunning && !child.isStopped && !isUnderOrder,
    );
  }

  get areAllReady(): boolean {
    return this.#current.every(({ isReady }) => isReady);
  }

  get progress(): { readonly grants: number; readonly operations: number } {
    const sum = { grants: 0, operations: 0 };
    for (const { progress } of this.all) {
      sum.grants += progress.grants;
      sum.operations += progress.operations;
    }
    return sum;
  }

  order(client: FleetClient, order: Extract<ToClient, { readonly kind: "stop-at" }>): void {
    client.isUnderOrder = true;
    client.child.send(order);
  }

  /** Wakes everybody and asks them to come to an end; answers those that did not within the time. */
  async finish(withinMs: number): Promise<readonly FleetClient[]> {
    const running = this.#current.filter(({ child }) => child.isRunning);
    for (const { child } of running) {
      child.allowEnd();
      child.resume();
      child.send({ kind: "finish" } satisfies ToClient);
    }
    await Promise.race([Promise.all(running.map(({ child }) => child.exited)), pause(withinMs)]);
    return running.filter(({ child }) => child.isRunning);
  }

  #spawn(client: FleetClient): Child {
    const { nursery, url, directory, ttlMs, pbftAccess, dice, onIncident } = this.#options;
    const configuration: ClientConfiguration = {
      name: client.name,
      seed: dice.integer(0, 2 ** 31),
      url,
      cluster: clusterName,
      directory,
      ttlMs,
      ...(pbftAccess === undefined ? {} : { pbft: pbftAccess(client.slot) }),
    };
    return nursery.start({
      name: `client-${client.name}`,
      script: join(import.meta.dirname, "client.js"),
      arguments: [JSON.stringify(configuration)],
      onMessage: (message) => this.#onMessage(client, message as FromClient),
      onUnexpectedEnd: (child, how) => {
        onIncident({ kind: "client-failed", text: `client ${client.name} ${how}. The end of its log:\n${child.logTail()}` });
      },
    });
  }

  #onMessage(client: FleetClient, message: FromClient): void {
    switch (message.kind) {
      case "ready":
        client.isReady = true;
        break;
      case "progress":
        client.progress = { grants: message.grants, operations: message.operations };
        break;
      case "stopping":
        this.selfStops++;
        void this.#wake(client, message.forMs);
        break;
      case "resumed":
        client.isUnderOrder = false;
        break;
    }
  }

  async #wake(client: FleetClient, forMs: number): Promise<void> {
    await pause(forMs);
    for (let wakes = 0; client.isUnderOrder && client.child.isRunning && wakes < wakesMax; wakes++) {
      client.child.resume();
      await pause(wakeEveryMs);
    }
  }
}
