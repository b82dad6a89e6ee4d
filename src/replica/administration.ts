/**
 * What the core said no to, as an operator is told it: code, words, and whom to ask instead.
 */
import type { ErrorCode } from "../base/error-table.ts";
import type { MemberId, RejectReason } from "../consensus/core.ts";
import type { AdminRequest } from "../wire/admin.ts";
import type { Refusal } from "./service.ts";

/** Called once, with the answer or the refusal. */
export type AdminAnswer = (answer: { readonly text: string } | { readonly refusal: Refusal }) => void;

type AdminReason = Exclude<RejectReason, "not-leader" | "fenced" | "busy" | "transferring" | "lost-leadership">;

export function refusalOf(reason: AdminReason, request: AdminRequest, leader: MemberId | undefined): Refusal {
  const name = "member" in request ? `"${request.member}"` : "The member";
  const [code, message] = explain(reason, { name, to: request.kind === "transfer" ? request.to : undefined });
  return { code, message, definite: reason !== "transfer-abandoned", leader };
}

function explain(
  reason: AdminReason,
  { name, to }: { readonly name: string; readonly to: string | undefined },
): readonly [ErrorCode, string] {
  switch (reason) {
    case "unsupported":
      return ["UNSUPPORTED", "The protocol by which this group agrees cannot do that."];
    case "change-in-flight":
      return ["CHANGE_IN_FLIGHT", "Another change of the members is not committed yet."];
    case "member-exists":
      return ["MEMBER_EXISTS", `${name} is a member already.`];
    case "already-voter":
      return ["MEMBER_EXISTS", `${name} votes already.`];
    case "member-unknown":
      return ["MEMBER_UNKNOWN", `${name} is no member; \`conclave member add\` comes first.`];
    case "last-voter":
      return ["LAST_VOTER", `${name} is the only member that votes; without it nobody decides.`];
    case "learner-lags":
      return ["LEARNER_LAGS", `${name} does not have the log yet.`];
    case "transfer-in-flight":
      return ["CHANGE_IN_FLIGHT", "Leadership is being handed over."];
    case "transfer-target":
      return to === undefined
        ? ["TRANSFER_REFUSED", "No other voter was heard of lately."]
        : ["TRANSFER_REFUSED", `Leadership cannot go to "${to}": it leads already, or is no voter.`];
    case "transfer-abandoned":
      return ["TRANSFER_ABANDONED", "The other member did not take over within an election timeout; this one leads on."];
  }
}
