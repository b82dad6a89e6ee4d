/**
 * Zab as the host sees it.
 */
import type { ZabMessage } from "../consensus/zab/messages.ts";
import type { ZabOptions } from "../consensus/zab/options.ts";
import { Zab } from "../consensus/zab/zab.ts";
import { decodeZabMessage, encodeZabMessage } from "../wire/zab-messages.ts";
import type { Protocol } from "./protocol.ts";

export function zabProtocol(options: Partial<ZabOptions> = {}): Protocol<ZabMessage> {
  return {
    name: "zab",
    makeCore: () => new Zab(options),
    encode: encodeZabMessage,
    decode: decodeZabMessage,
    slots: "contiguous",
    abilities: { membership: "fixed" },
  };
}
