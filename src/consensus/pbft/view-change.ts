/**
 * What a view change proves, and what a new view must therefore propose. Pure: the new primary computes it to speak, every
 * replica computes it again to believe.
 *
 * Source: OSDI 1999 §4.4. A sequence that was committed anywhere is prepared at a correct replica of every quorum, so its
 * digest is that of the highest certificate in any quorum of view changes; what no certificate mentions may be a null request.
 */
import type { Checkpoint, Digest, PreparedCertificate, Sequence, Signed, View, ViewChange } from "./messages.ts";
import { quorumOf } from "./quorum.ts";

export interface Group {
  readonly replicas: number;
  readonly windowLength: number;
}

/** Where the new view starts, and the digest of every sequence above, without a gap. */
export interface NewViewPlan {
  readonly stable: Sequence;
  readonly checkpoints: readonly Signed<Checkpoint>[];
  /** `digests[i]` belongs to sequence `stable + 1 + i`. */
  readonly digests: readonly Digest[];
}

export function primaryOf(view: View, replicas: number): number {
  return view % replicas;
}

/** Undefined: valid. Else why not. Signatures were checked at the gate; here the words are. */
export function flawOfViewChange(change: ViewChange, group: Group): string | undefined {
  const { view, stable, checkpoints, prepared } = change;
  if (view < 1) return "nobody changes into view 0";
  if (stable > 0 && proofIn(checkpoints, group.replicas)?.[0]?.statement.sequence !== stable)
    return "its stable checkpoint is not proven";
  let before = stable;
  for (const certificate of prepared) {
    const flaw = flawOfCertificate(certificate, group.replicas);
    if (flaw !== undefined) return flaw;
    const { sequence, view: preparedIn } = certificate.proposal.statement;
    if (preparedIn >= view) return "a certificate is of no earlier view";
    if (sequence <= before || sequence > stable + group.windowLength)
      return "a certificate lies outside the window or out of order";
    before = sequence;
  }
  return undefined;
}

/** A pre-prepare of its view's primary, and matching prepares of so many different backups that both make a quorum (§4.2). */
export function flawOfCertificate(certificate: PreparedCertificate, replicas: number): string | undefined {
  const { replica: primary, view, sequence, digest } = certificate.proposal.statement;
  if (primary !== primaryOf(view, replicas)) return "a certificate's proposal is not of its view's primary";
  const backups = new Set<number>();
  for (const { statement } of certificate.prepares) {
    if (statement.replica === primary) return "the primary prepares by its proposal alone";
    if (statement.view !== view || statement.sequence !== sequence || statement.digest !== digest) {
      return "a certificate's prepare does not match its proposal";
    }
    backups.add(statement.replica);
  }
  return backups.size >= quorumOf(replicas) - 1 ? undefined : "a certificate has too few prepares";
}

/** The statements that agree with the first, one of each replica, when they are a quorum: the proof of a stable checkpoint. */
export function proofIn(checkpoints: readonly Signed<Checkpoint>[], replicas: number): readonly Signed<Checkpoint>[] | undefined {
  const first = checkpoints[0]?.statement;
  if (first === undefined) return undefined;
  const proof = new Map<number, Signed<Checkpoint>>();
  for (const checkpoint of checkpoints) {
    const { replica, sequence, digest } = checkpoint.statement;
    if (sequence === first.sequence && digest === first.digest) proof.set(replica, checkpoint);
  }
  return proof.size >= quorumOf(replicas) ? [...proof.values()] : undefined;
}

/** The O of the paper, from its V: valid view changes for one view. */
export function planNewView(changes: readonly ViewChange[], nullDigest: Digest): NewViewPlan {
  let base: ViewChange | undefined;
  for (const change of changes) if (base === undefined || change.stable > base.stable) base = change;
  const stable = base?.stable ?? 0;
  const highest = new Map<Sequence, { readonly view: View; readonly digest: Digest }>();
  let last = stable;
  for (const { prepared } of changes) {
    for (const { proposal } of prepared) {
      const { sequence, view, digest } = proposal.statement;
      if (sequence <= stable) continue;
      last = Math.max(last, sequence);
      const best = highest.get(sequence);
      if (best === undefined || view > best.view) highest.set(sequence, { view, digest });
    }
  }
  const digests: Digest[] = [];
  for (let sequence = stable + 1; sequence <= last; sequence++) digests.push(highest.get(sequence)?.digest ?? nullDigest);
  return { stable, checkpoints: base?.checkpoints ?? [], digests };
}
