/**
 * A fence on anything that has ETags and `If-Match`: object stores, WebDAV, a REST resource.
 *
 * The token is kept in the object's metadata. A write says which version it replaces, so a version that appeared meanwhile
 * refuses it; then its token decides whether this holder is late or may try again. Source: RFC 9110 §13.1.1.
 */
import { conclaveError } from "../base/errors.ts";
import { checkFenced, type Fenced, staleToken } from "./fence.ts";

/** The object as it is; `etag: null`: there is none. */
export interface TaggedState {
  readonly etag: string | null;
  /** What the writer of this version put into its metadata; undefined: nobody did. */
  readonly token: number | undefined;
}

export interface TaggedResource {
  /** Reads the present version's tag and metadata. */
  head(): Promise<TaggedState>;
  /**
   * Writes with `If-Match: etag`, or `If-None-Match: *` where it is null, and the token in the metadata.
   * Answers false where the server says 412: another version is there.
   */
  put(condition: { readonly etag: string | null; readonly token: number }): Promise<boolean>;
}

const triesMax = 20;

/**
 * Writes unless a higher token has been here. Two requests, more where others write at the same moment.
 * @throws STALE_TOKEN (nothing was written), BUSY after 20 tries, and what the resource throws
 */
export async function fenceIfMatch(resource: TaggedResource, fenced: Fenced): Promise<void> {
  checkFenced(fenced);
  for (let tries = 0; tries < triesMax; tries++) {
    const { etag, token } = await resource.head();
    if (token !== undefined && token > fenced.token) throw staleToken(fenced, token);
    if (await resource.put({ etag, token: fenced.token })) return;
  }
  throw conclaveError("BUSY", `"${fenced.name}" was written by others ${triesMax} times in a row.`);
}
