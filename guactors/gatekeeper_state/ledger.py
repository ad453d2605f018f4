"""What goes into the audit log, and how often: a flood of refusals must not drown the rest.

Owns: the counts of refusals that repeat. Must never: lose one without counting it, or hold back a
decision that was not written in the last minute.

A refusal is written at once. Those that say the same (who, action, reason) in the minute after it
are counted, and the count is written at the minute's end. Where more than MOST say different things
in a minute, as a crowd of fresh keys can, the rest is written as of ``others``.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from guactors.scheduling.events import Decision
from guactors.security.rights import Reason

WINDOW: Final = 60.0
"""Seconds in which equal decisions become one line."""
MOST: Final = 200
"""Different refusals of one window that get lines of their own."""
OTHERS: Final = "others"

_REASONS: Final = frozenset(reason.value for reason in Reason)
_ACTIONS: Final = frozenset({
    "join", "session", "token", "grant", "revoke", "approve", "invite", "rotate", "upload", "run",
    "submit", "admin", "read_logs", "read_stats", "suspend_others", "upload_images", "read_keys",
    "read_grants", "read_audit", "handshake", "message", "report", "http",
    "download", "remove",
})  # fmt: skip


class _Count(Struct):
    """``last``: the newest of ``more`` decisions that came after the one written at the start."""

    last: Decision
    until: float
    more: int = 0


class Ledger:
    """Times are monotonic seconds. Each method returns the decisions to write, in order."""

    def __init__(self) -> None:
        # In the order of their ends: every window is equally long.
        self._counts: dict[tuple[str, ...], _Count] = {}

    def note(self, decision: Decision, now: float, *, often: bool = False) -> list[Decision]:
        """A decision was taken. ``often``: count equal ones even though it was allowed."""
        refused = decision.decision != "allowed"
        if not (refused or often):
            return [decision]
        lines = self.due(now)
        words = (decision.who, decision.action, decision.reason)
        # What was allowed is told apart by what it was done to; the number of such is limited by
        # the number of principals.
        key = words if refused else (*words, decision.object)
        count = self._counts.get(key)
        if count is None and len(self._counts) >= MOST:
            if not refused:
                return [*lines, decision]
            decision = _of_others(decision)
            key = (OTHERS, decision.action, decision.reason)
            count = self._counts.get(key)
        if count is None:
            self._counts[key] = _Count(decision, now + WINDOW)
            return [*lines, decision]
        count.last = decision
        count.more += 1
        return lines

    def due(self, now: float) -> list[Decision]:
        """The counts whose minute is over."""
        lines = []
        for key, count in list(self._counts.items()):
            if count.until > now:
                break
            del self._counts[key]
            if count.more:
                lines.append(_summary(count))
        return lines

    def flush(self) -> list[Decision]:
        """All counts: the log is about to close."""
        lines = [_summary(count) for count in self._counts.values() if count.more]
        self._counts.clear()
        return lines

    def next_wake(self) -> float | None:
        """When the first count that says something is due."""
        return next((count.until for count in self._counts.values() if count.more), None)

    def check(self) -> None:
        """Every invariant holds."""
        assert len(self._counts) <= MOST + (len(_ACTIONS) + 1) * (len(_REASONS) + 1)
        ends = [count.until for count in self._counts.values()]
        assert ends == sorted(ends)


def _of_others(decision: Decision) -> Decision:
    """Of whom there are many: the words are reduced to known ones, which bounds their number."""
    return replace(
        decision,
        who=OTHERS,
        action=decision.action if decision.action in _ACTIONS else "other",
        reason=decision.reason if decision.reason in _REASONS else "other",
    )


def _summary(count: _Count) -> Decision:
    detail = f"repeated: {count.more}; the last one: {count.last.detail}"
    return replace(count.last, detail=detail)
