/**
 * Who waits for which command. A batch is bound to (index, term), never to the index alone: another leader's entry may
 * come to stand at the same index.
 */
import type { Index, Term } from "../consensus/core.ts";
import type { AnswerSink } from "./service.ts";

/** The waiters of one batch, by position. */
export class WaitingBatch {
  readonly sinks: (AnswerSink | undefined)[] = [];
  readonly tags: number[] = [];

  get count(): number {
    return this.sinks.length;
  }

  add(sink: AnswerSink | undefined, tag: number): void {
    this.sinks.push(sink);
    this.tags.push(tag);
  }

  /** Its connection is gone: nobody to answer. */
  drop(sink: AnswerSink): void {
    for (let at = 0; at < this.sinks.length; at++) if (this.sinks[at] === sink) this.sinks[at] = undefined;
  }
}

export class Waiters {
  readonly #byTicket = new Map<number, WaitingBatch>();
  readonly #byIndex = new Map<Index, { readonly term: Term; readonly batch: WaitingBatch }>();
  /** Commands that wait, for the bound. */
  count = 0;

  submitted(ticket: number, batch: WaitingBatch): void {
    this.#byTicket.set(ticket, batch);
    this.count += batch.count;
  }

  accepted(ticket: number, at: { readonly index: Index; readonly term: Term }): void {
    const batch = this.#byTicket.get(ticket);
    if (batch === undefined) return;
    this.#byTicket.delete(ticket);
    this.#byIndex.set(at.index, { term: at.term, batch });
  }

  /** The batch was refused by the core: it never entered the log. */
  rejected(ticket: number): WaitingBatch | undefined {
    const batch = this.#byTicket.get(ticket);
    this.#byTicket.delete(ticket);
    if (batch !== undefined) this.count -= batch.count;
    return batch;
  }

  /** An entry is delivered: the waiters of exactly this entry, or those whose entry it displaced. */
  delivered(at: {
    readonly index: Index;
    readonly term: Term;
  }): { readonly batch: WaitingBatch; readonly displaced: boolean } | undefined {
    const waiting = this.#byIndex.get(at.index);
    if (waiting === undefined) return undefined;
    this.#byIndex.delete(at.index);
    this.count -= waiting.batch.count;
    return { batch: waiting.batch, displaced: waiting.term !== at.term };
  }

  /** Leadership is gone: everything in the log may still be committed by another leader, or not. */
  takeAll(): readonly WaitingBatch[] {
    const all = [...this.#byIndex.values()].map(({ batch }) => batch);
    this.#byIndex.clear();
    for (const batch of all) this.count -= batch.count;
    return all;
  }

  drop(sink: AnswerSink): void {
    for (const batch of this.#byTicket.values()) batch.drop(sink);
    for (const { batch } of this.#byIndex.values()) batch.drop(sink);
  }
}
