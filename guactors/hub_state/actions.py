"""Which right a message of a caller needs, and how it is refused.

Owns: the table from messages to actions of a grant. Must never: judge (``security.rights`` does).
"""

from __future__ import annotations

from guactors import messages as m
from guactors.scheduling.events import Decision, Standing
from guactors.security.rights import Verdict

_ACTIONS: dict[type[m.Message], str] = {
    m.SetDemand: "submit",
    m.CreateActor: "submit",
    m.FindActor: "submit",
    m.Relay: "submit",
    m.CreateGroups: "submit",
    m.FindGroup: "submit",
    m.AskGrid: "read_stats",
    m.AskInfo: "read_stats",
    m.AskSources: "read_stats",
    m.Inquire: "read_stats",
    m.AskPlan: "read_stats",
}


def needed_action(message: m.Message) -> str:
    """The action that a grant must list for this message; empty for what needs none here: what only
    gives back or ends, and what the gatekeeper and the image room judge themselves."""
    if isinstance(message, m.SetDemand) and not message.count:
        return ""
    return _ACTIONS.get(type(message), "")


def refusal(message: m.Message, verdict: Verdict) -> m.Message:
    """The answer to a message that is not allowed, so that nobody waits for another."""
    match message:
        case m.SetDemand(key):
            return m.DemandInfeasible(key, verdict.detail, "PermissionDenied")
        case m.CreateActor(spec=spec):
            death = m.DeathReport("refused", verdict.detail)
            return m.ActorUpdate(spec.actor, "dead", 0, death=death)
        case m.CreateGroups(groups, 0):
            why = verdict.detail, "PermissionDenied"
            return m.GroupsAre([m.GroupUpdate(x.group, "removed", [], *why) for x in groups])
    return m.Fault("PermissionDenied", verdict.detail, getattr(message, "request", 0))


def decision(standing: Standing, action: str, message: m.Message, verdict: Verdict) -> Decision:
    """The line for the audit log."""
    return Decision(
        standing.principal,
        action,
        type(message).__name__,
        "refused",
        verdict.reason.value,
        verdict.detail,
        grant=verdict.serial,
    )
