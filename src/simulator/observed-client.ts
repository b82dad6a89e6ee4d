/**
 * A client with a witness: the sessions that it hands out are told, so that somebody can ask them what their owner believes.
 */
import { Client } from "../client/client.ts";
import type { ClientOptions } from "../client/options.ts";
import type { Session, SessionOptions } from "../store/store.ts";

export class ObservedClient extends Client {
  readonly #onSession: (session: Session) => void;

  constructor(onSession: (session: Session) => void, options: ClientOptions) {
    super(options);
    this.#onSession = onSession;
  }

  override session(options: SessionOptions, isShared: boolean): Promise<Session> {
    const opening = super.session(options, isShared);
    opening.then(this.#onSession, () => undefined);
    return opening;
  }
}
