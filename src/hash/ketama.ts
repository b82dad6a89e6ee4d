/**
 * The ring of libketama: the same keys on the same memcached servers as clients in other languages choose.
 *
 * Each server gets `floor(share * 40 * servers)` digests, each of them four points; digest k of a server is
 * MD5("id-k"), a key stands at the first four bytes of MD5(key), all little-endian; the floats are single, as in C.
 * Source: Richard Jones, libketama, ketama.c (`ketama_create_continuum`, `ketama_hashi`, `ketama_get_server`).
 * Node ids are the servers as libketama's file writes them, "10.0.1.1:11211"; weights are their memory.
 *
 * Known weaknesses, kept because others have them: the number of points depends on the share of the whole, so a change of
 * one weight moves some points of bystanders (`diff(...).collateral` says how much); 160 points are less even than 256.
 * libmemcached counts and labels its points otherwise; this mode is not for it.
 */
import { md5 } from "./md5.ts";
import type { KeyHash } from "./placement.ts";
import { Ring } from "./ring.ts";
import { type NodeLike, type PlacementNode, Roster } from "./roster.ts";

/** Makes a ring that agrees with libketama; nothing is stored or sent. @throws INVALID_OPTION @since 0.2.0 */
export function ketama(nodes: Iterable<NodeLike> = []): Ring {
  return new Ring("ketama", new Roster(nodes), pointsOfServers, ketamaKeyHash);
}

const ketamaKeyHash: KeyHash = (key) => md5(key)[0];

function pointsOfServers(nodes: readonly PlacementNode[]): readonly ArrayLike<number>[] {
  const servers = nodes.filter((node) => node.weight > 0);
  const total = Math.fround(servers.reduce((sum, node) => sum + node.weight, 0));
  return nodes.map(({ id, weight }) => {
    if (weight === 0) return [];
    const share = Math.fround(Math.fround(weight) / total);
    const digests = Math.floor(Math.fround(share * 40 * servers.length));
    return Array.from({ length: digests }, (_, index) => md5(`${id}-${index}`)).flat();
  });
}
