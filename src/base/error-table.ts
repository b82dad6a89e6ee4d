/**
 * The one table of errors. Code, tests and `docs/reference/errors.md` all read it.
 *
 * `definite: true` - it did not happen, for certain. `definite: false` - it may have happened, now or in a moment.
 * `retryable` - calling again with the same arguments can succeed without anybody changing anything.
 */
export type ErrorClass = "usage" | "conflict" | "unavailable" | "lost" | "corruption";

export interface ErrorRow {
  readonly class: ErrorClass;
  readonly definite: boolean;
  readonly retryable: boolean;
  /** What the reader does next. */
  readonly remedy: string;
}

const usage = (remedy: string): ErrorRow => ({ class: "usage", definite: true, retryable: false, remedy });
const conflict = (remedy: string): ErrorRow => ({ class: "conflict", definite: true, retryable: false, remedy });
const refused = (remedy: string): ErrorRow => ({ class: "unavailable", definite: true, retryable: true, remedy });
const unknown = (remedy: string): ErrorRow => ({ class: "unavailable", definite: false, retryable: true, remedy });
const lost = (remedy: string): ErrorRow => ({ class: "lost", definite: false, retryable: false, remedy });
const corrupt = (remedy: string): ErrorRow => ({ class: "corruption", definite: true, retryable: false, remedy });

export const errorTable = {
  // The caller's mistake: nothing was sent.
  INVALID_OPTION: usage("Correct the option that the message names."),
  UNKNOWN_SCHEME: usage(
    "Use memory:, file:DIRECTORY, conclave://HOST:PORT[,HOST:PORT...], redis://HOST:PORT, etcd://HOST:PORT, zookeeper://HOST:PORT or postgres://HOST:PORT/DATABASE.",
  ),
  KEY_INVALID: usage("Use a non-empty key of at most the documented size."),
  KEY_TOO_LARGE: usage("Shorten the key; put long content into the value."),
  VALUE_TOO_LARGE: usage("Keep large content elsewhere and store a reference to it."),
  TXN_TOO_LARGE: usage("Split the transaction, or ask for less in one."),
  UNSUPPORTED: usage("Read the Caps of this engine (`conclave doctor`); choose an engine that can."),
  NOT_A_NUMBER: usage("`add` needs a value that is a whole number in decimal digits, within 2^53."),
  TOKEN_REQUIRED: usage("Send the token of your hold: `headers: { ...fenceHeader(hold) }`."),
  FOREIGN_CLIENT: usage("Hand in a client that has the method which the message names."),
  NOT_SERIALIZABLE: usage("Keep it out of L2 (a function, a symbol, a class of your own), or hand in a codec that can."),
  CLOSED: usage("The handle was closed; connect again."),

  // The world's answer is no, for certain.
  DIRECTORY_IN_USE: conflict("Stop the owner, or let it serve the directory to you by that line."),
  DIRECTORY_FOREIGN: conflict("Use the directory of this member; a new member starts from an empty one."),
  DIRECTORY_OTHER_PROTOCOL: conflict(
    "Start it with the protocol that the message names; a new protocol starts from empty directories.",
  ),
  DIRECTORY_NEWER: conflict("Run the version that wrote it, or a newer one."),
  ADDRESS_IN_USE: conflict("Choose another address or port, or stop what listens there."),
  WRONG_CLUSTER: conflict("Check the address and the cluster name."),
  WRONG_MEMBER: conflict("Check that each address leads to the member that the configuration names."),
  WRONG_PROTOCOL: conflict("Upgrade the older side: their protocol ranges do not meet."),
  OTHER_PROTOCOL: conflict("All members of a cluster agree by one protocol: start this one with theirs."),
  READ_ONLY: conflict("Name the primary, or let Sentinel or the Cluster find it."),
  TLS_FAILED: conflict("Check that both sides speak TLS, the certificate's authority and its host name."),
  MEMBER_EXISTS: conflict("Nothing to do; `conclave member list` shows the members."),
  MEMBER_UNKNOWN: conflict("Check the name: `conclave member list` shows the members."),
  MEMBER_WIPED: conflict(
    "The disk of this member was lost, and with it its votes: `conclave member remove` it, then `member add` it anew with --join.",
  ),
  MEMBER_REMOVED: conflict("The member is no part of the cluster any more: stop it; to come back it joins anew, empty."),
  LAST_VOTER: conflict("Add and promote another member first."),
  TRANSFER_REFUSED: conflict("Name a voter that runs and does not lead, or none."),
  UNAUTHORIZED: conflict("Ask for a credential that may use this key range."),
  LOCK_TIMEOUT: conflict("Wait longer, or look at the holder that the message names."),
  STALE_TOKEN: conflict("Stop: a later holder has been here. Acquire anew, and read what is there before you write."),
  WAIT_TIMEOUT: conflict("Wait longer, or look at what the message says was waited for."),
  QUEUE_FULL: conflict("Wait until consumers have caught up, or raise the queue's bound."),
  NOT_HOLDER: conflict("The hold had ended before the call."),
  YIELD_ASKED: conflict("Finish or put aside the work, and release; nothing is taken from you."),
  SESSION_EXPIRED: conflict("Open a new session; what was bound to the old one is gone."),
  CLAIM_TOO_OLD: conflict("This mutation was answered long ago and will not run again."),
  COMPACTED: conflict("The revision is no longer kept; read the present state."),
  NO_NODES: conflict("Add a node with a weight above 0 before asking who owns a key."),
  REVISION_LIMIT: conflict("The store has reached revision 2^53 - 1; export it into a new one."),
  TRANSACTION_ABORTED: conflict("Nothing happened in any resource; `why` and the cause say whether running it again can help."),
  TRANSACTION_KEY_REUSED: conflict("The key belongs to another request; choose a new key for a new request."),
  TRANSACTION_CLOSED: conflict("The transaction was settled, or its time was over, before this arrived; do not send it again."),
  TRANSACTION_EVIDENCE: conflict("Look at the evidence again (`conclave tx show`); what you asked for contradicts it."),

  // The answer did not come.
  TRANSACTION_UNKNOWN: {
    class: "unavailable",
    definite: false,
    retryable: false,
    remedy: "Ask later with `outcome(gid)`; run it again only with the idempotency key that it had.",
  },
  TIMEOUT: unknown("Retry; with a claim the mutation happens once."),
  LOAD_TIMEOUT: unknown("Look at what the load waits for; raise `hardTimeoutMs` if it may take so long."),
  NO_QUORUM: unknown("Retry; check that a majority of members runs (`conclave status`)."),
  NOT_LEADER: refused("The client follows the leader by itself; check `conclave status` if it persists."),
  CHANGE_IN_FLIGHT: refused("Wait until it is done, then ask again."),
  LEARNER_LAGS: refused("Wait until it has caught up (`conclave status`, BEHIND), then promote it."),
  TRANSFER_ABANDONED: unknown("Check that the other member runs and can be reached, then ask again."),
  BUSY: refused("Too much is in flight; send less at a time."),
  CONNECTION_LOST: unknown("Retry: it may have been done before the connection ended."),
  QUARANTINED: refused("Wait: after a failover no lock is granted until every earlier holder has stopped by its own clock."),
  KEEPER_FAILED: refused("Mend what the cause names; without `maxStallMs` no thread and no second connection is needed."),
  REPLICAS_MISSING: unknown("It is done on the primary, and a failover may undo it: check the replicas, or lower `wait`."),
  ENGINE_REFUSED: refused("The message is the server's own; mend what it names."),
  CONNECTION_REFUSED: refused("Check that a member listens at the address."),
  DISK_FULL: unknown("Free space; the member stops accepting writes and loses nothing that it acknowledged."),
  DISK_FAILED: unknown("The member stopped on the first failed write; check the disk, then start it again."),
  PROTOCOL: refused("The other side sent what this version cannot read; check what listens there."),

  // Something that was held is gone.
  LOCK_LOST: lost("Stop the work; pass hold.token to the store that you write to."),
  PARTITION_LOST: lost("Stop the work on it; pass shard.epoch to the store that you write to."),
  SESSION_LOST: lost("Treat everything bound to the session as gone."),

  // Durable state cannot be trusted.
  LOG_CORRUPT: corrupt("Restore this member from the others: move the directory away and let it join as new."),
  SNAPSHOT_CORRUPT: corrupt("Restore this member from the others, or from an older snapshot."),
  INVARIANT: corrupt("This is a defect of Conclave; keep the log and report it."),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;
