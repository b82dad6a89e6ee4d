/**
 * What each server says about itself by its four-letter words, where they are allowed (`4lw.commands.whitelist`, only `srvr` by
 * default), and what sessions it grants, which any client may see.
 */
import { connect as connectTcp } from "node:net";
import type { ServerAddress } from "./connection.ts";

const answerBytesMax = 1_048_576;

export interface MemberReport {
  readonly address: string;
  /** "leader", "follower", "observer", "standalone"; undefined: it does not say. */
  readonly mode: string | undefined;
  readonly version: string | undefined;
  /** Undefined: it may not be asked. */
  readonly configuration: ReadonlyMap<string, string> | undefined;
}

export interface ServerReport {
  readonly members: readonly MemberReport[];
  readonly silent: readonly { readonly endpoint: string; readonly why: string }[];
  readonly ttlMsMin: number;
  readonly ttlMsMax: number;
}

/** Over TLS the words are not asked: the port takes none. */
export async function askMembers(
  servers: readonly ServerAddress[],
  { isTls, timeoutMs }: { readonly isTls: boolean; readonly timeoutMs: number },
): Promise<Pick<ServerReport, "members" | "silent">> {
  const told = await Promise.all(
    servers.map(async (server): Promise<MemberReport | { readonly endpoint: string; readonly why: string }> => {
      const address = `${server.host}:${server.port}`;
      if (isTls) return { address, mode: undefined, version: undefined, configuration: undefined };
      try {
        const [srvr, conf] = [await word(server, "srvr", timeoutMs), await word(server, "conf", timeoutMs)];
        return {
          address,
          mode: /^Mode: (\S+)/m.exec(srvr)?.[1],
          version: /^Zookeeper version: ([\d.]+)/m.exec(srvr)?.[1],
          configuration: conf.includes("tickTime=") ? pairsOf(conf) : undefined,
        };
      } catch (error) {
        return { endpoint: address, why: error instanceof Error ? error.message : String(error) };
      }
    }),
  );
  return {
    members: told.filter((each): each is MemberReport => "address" in each),
    silent: told.filter((each): each is { endpoint: string; why: string } => "why" in each),
  };
}

function word({ host, port }: ServerAddress, text: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host, port });
    let said = "";
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    socket.once("connect", () => socket.write(text));
    socket.on("data", (chunk: Buffer) => {
      said += chunk.toString("utf8");
      if (said.length > answerBytesMax) socket.destroy(new Error("too long an answer"));
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(said));
  });
}

function pairsOf(text: string): ReadonlyMap<string, string> {
  return new Map([...text.matchAll(/^([\w.]+)=(.*)$/gm)].map(([, name, value]) => [name as string, value as string]));
}
