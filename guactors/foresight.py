"""``explain`` and ``plan``: why something waits, and what would run where.

Owns: the form in which people and programs read the hub's answers. Must never: find out anything
itself (the hub does, by the functions with which it decides), or load with ``import guactors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from guactors.errors import NotInitialized, UnknownOption, UsageError
from guactors.ids import demand_id
from guactors.listing import text_of
from guactors.looking import Ask, asker, look
from guactors.messages import AskPlan, Cell, MissRow, PlanIs, PlannedPlace, PlannedVictim, Shape
from guactors.options import TASK, check_options, shape_of
from guactors.refs import ObjectRef, check_session, current_session

if TYPE_CHECKING:
    from guactors.session import Session

EXPLANATIONS: Final = "explanations"
MOST_PLANNED: Final = 64
_HEADS: Final = ("DEMAND", "PRIORITY", "PROVIDER", "REASON", "PREEMPTION", "DETAIL")
_GIVES_WAY: Final = {
    "suspend": "suspended",
    "checkpoint": "ended, to go on elsewhere with its state",
    "requeue": "ended and begun anew",
    "stop": "ended",
}


class Explanation(Sequence[dict[str, Cell]]):
    """A row for each provider and demand, as a dict: ``reason`` is a single value, as is
    ``preemption``, ``detail`` is for people; ``counts_as`` is the priority with what it has gained
    by waiting; ``asked``, ``free`` and ``still`` (held by what stands still) are of the resources
    that are short. ``note``: why there is nothing to tell; ``unseen``: so many demands more wait.
    """

    def __init__(self, rows: list[dict[str, Cell]], unseen: int = 0, note: str = "") -> None:
        self.rows = rows
        self.unseen = unseen
        self.note = note or "" if rows else note or "nothing waits"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Cell]]:
        return iter(self.rows)

    def __str__(self) -> str:
        keys = ("demand_id", "priority", "node_name", "reason", "preemption", "detail")
        lines = []
        if self.rows:
            rows = ({**row, "priority": _priority(row)} for row in self.rows)
            cells = ([text_of(row[key]) or "-" for key in keys] for row in rows)
            lines = _columns([_HEADS, *cells])
        if self.unseen:
            lines.append(f"and {self.unseen} demands more, each by its session or its own name")
        return "\n".join([*lines, *filter(None, [self.note])])

    __repr__ = __str__


class Plan:
    """What would happen: ``places`` in their order, how many are ``missing``, the ``misses`` (why,
    by provider), and ``never``: why no provider that is there could ever do it."""

    def __init__(self, answer: PlanIs) -> None:
        self.places: list[PlannedPlace] = answer.places
        self.missing: int = answer.missing
        self.misses: list[MissRow] = answer.misses
        self.never: str = answer.never

    def __bool__(self) -> bool:
        """Whether all of it could start now."""
        return not self.missing

    @property
    def victims(self) -> list[PlannedVictim]:
        """All that would give way."""
        return [victim for place in self.places for victim in place.victims]

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        import msgspec

        def plain(word: Any) -> dict[str, Any]:
            found: dict[str, Any] = msgspec.structs.asdict(word)
            return found

        places = [
            {**plain(place), "victims": [plain(one) for one in place.victims]}
            for place in self.places
        ]
        return {
            "places": places,
            "missing": self.missing,
            "misses": [plain(miss) for miss in self.misses],
            "never": self.never,
        }

    def __str__(self) -> str:
        lines = []
        for number, place in enumerate(self.places, 1):
            takes = ", ".join(f"{amount:g} {name}" for name, amount in place.takes.items())
            where = f"{number} starts on {place.name or place.provider}"
            lines.append(f"{where} with {takes}" if takes else where)
            lines += [f"  {_words(victim)}" for victim in place.victims]
        if self.missing:
            lines.append(f"{self.missing} would wait" + (f": {self.never}" if self.never else ""))
            heads = ("PROVIDER", "REASON", "PREEMPTION", "DETAIL")
            rows = (
                (x.name or x.provider or "-", x.reason, x.preemption or "-", x.detail)
                for x in self.misses
            )
            lines += _columns([heads, *rows])
        return "\n".join(lines)

    __repr__ = __str__


def _words(victim: PlannedVictim) -> str:
    others = "an actor of others" if victim.kind == "actor" else "a lease of others"
    who = f"{victim.key} {victim.name}".rstrip() if victim.key else others
    frees = ", ".join(f"{amount:g} {name}" for name, amount in sorted(victim.frees.items()))
    mode = _GIVES_WAY.get(victim.mode, victim.mode)
    return f"{who} of priority {victim.priority} would be {mode}, which frees {frees}"


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


# --- asking ---------------------------------------------------------------------------------------


def _priority(row: dict[str, Cell]) -> str:
    """``3+2``: of priority 3, which counts as 5 for it has waited."""
    own, aged = row["priority"], row["counts_as"]
    gained = aged - own if isinstance(own, int) and isinstance(aged, int) else 0
    return f"{own}+{gained}" if gained else f"{own}"


def ask_why(ask: Ask, subject: str = "") -> Explanation:
    """Of all that waits and may be seen, or of a session, demand, lease or actor. Raises
    UsageError where there is none of that name."""
    seen = look(ask, EXPLANATIONS, subject=subject)
    return Explanation(seen.records(), seen.dropped)


def ask_plan(ask: Ask, shape: Shape, count: int = 1) -> Plan:
    """What would happen if ``count`` places of this shape were asked for."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_PLANNED:
        raise UsageError(f"count={count!r} is impossible: it takes 1 to {MOST_PLANNED}")
    answer = ask(AskPlan(0, shape, count))
    assert isinstance(answer, PlanIs), answer
    return Plan(answer)


def shape_for(options: Mapping[str, Any]) -> Shape:
    """Of the options of a remote function. Raises UnknownOption, which names the option."""
    for name, what in _NOT_PLANNED.items():
        if options.get(name) is not None:
            raise UnknownOption(f"{name!r} cannot be planned: {what}")
    return shape_of(check_options(options, TASK), 1.0)


_NOT_PLANNED: Final = {"runtime_env": "an environment is built where the work starts"}


def explain(what: Any = None, *, timeout: float = 30.0) -> Explanation:
    """What a call (by its ref) or an actor waits for, or where it runs; without ``what``, all of
    this program that waits. A row for each provider; print it to read it."""
    session = _session("explain()")
    ask = asker(session, timeout)
    if what is None:
        return ask_why(ask, session.id)
    subject, note = _subject(session, what)
    if note:
        return Explanation([], 0, note)
    try:
        return ask_why(ask, subject)
    except UsageError:
        return Explanation([], 0, f"the hub knows of no {subject} any more: it may have ended")


def plan(count: int = 1, *, timeout: float = 30.0, **options: Any) -> Plan:
    """What would run where, and who would give way, if ``count`` calls of a function with these
    options (as in ``@remote``: ``num_cpus``, ``num_gpus``, ``memory``, ``resources``, ``priority``,
    ``label_selector``, ...) were made now. Nothing is started, and nothing reserved."""
    session = _session("plan()")
    shape = shape_for({**session.terms, **options})
    return ask_plan(asker(session, timeout), shape, count)


def _session(what: str) -> Session:
    session = current_session()
    if session is None or session.closed:
        raise NotInitialized(f"{what} needs a grid: call init() first")
    return session


def _subject(session: Session, what: Any) -> tuple[str, str]:
    """The name under which the hub knows what is meant, or why it does not."""
    from guactors.caller.actors import RemoteActor
    from guactors.caller.demands import Demand
    from guactors.remote_actor import ActorHandle

    if isinstance(what, ActorHandle):
        return what._actor.id, ""
    if not isinstance(what, ObjectRef):
        raise TypeError(f"explain() takes a ref or an actor, not {type(what).__name__}")
    check_session(what, session)
    with session.lock:
        entry = session.core.objects.entries.get(what.id)
        task = entry.task if entry is not None else None
        if entry is None or task is None or entry.data is not None:
            return "", "it is there already, or no call of this program makes it"
        if task.unmet:
            return "", f"its call waits for {task.unmet} of its arguments"
        home = task.home
        if isinstance(home, RemoteActor):
            return home.id, ""
        lease = session.core.leases.by_peer.get(task.peer)
        if lease is not None:
            return lease.id, ""
        assert isinstance(home, Demand), home
        return demand_id(session.peer, home.key), ""
