"""Reservations: room of a provider that is kept, from one time to another, for what names it.

::

    night = gu.reserve("nightly", num_cpus=8, start=datetime(2030, 12, 1, 22), seconds=8 * 3600)
    refs = [render.options(reservation="nightly").remote(n) for n in range(100)]
    gu.get(night.ready())  # its time has come, and its room is taken
    night.remove()

Owns: the user's view of a reservation, and the checks of what is asked for. Must never: know how
room is found (the hub does).
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from guactors.errors import NotInitialized, UnknownOption
from guactors.ids import reservation_id
from guactors.looking import Ask, asker, look
from guactors.messages import Cell, ReservationSpec, Reserve, Unreserve
from guactors.options import TASK, check_options, shape_of
from guactors.refs import ObjectRef, current_session

if TYPE_CHECKING:
    from guactors.caller.groups import RemoteGroup
    from guactors.session import Session

RESERVATIONS: Final = "reservations"
ANSWER_WITHIN: Final = 30.0


class Reservation:
    """A handle, for whoever has the name. It can be passed to other processes; the reservation ends
    at its time, or when it is removed, whoever made it and whatever becomes of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ready(self) -> ObjectRef:
        """A ref that is there when its time has come and a provider has its room: ``get`` of it
        returns this reservation. It fails with PlacementGroupRemoved where that never comes."""
        session, group = self._met()
        with session.lock:
            id = session.core.groups.when_ready(group, pickle.dumps(self, 5))
        session.pump.kick()
        return ObjectRef(id, session)

    def use(self, function: Any) -> Any:
        """The same remote function or actor class, to run in this reservation."""
        return function.options(reservation=self.name)

    def record(self) -> dict[str, Cell]:
        """Its row as ``gu list reservations`` has it, empty where it is over."""
        rows = ask_rows(asker(_session("record()"), ANSWER_WITHIN))
        return next((row for row in rows if row["name"] == self.name), {})

    def remove(self) -> None:
        """It ends now. Raises NoSuchReservation where it is over, PermissionDenied."""
        ask_end(asker(_session("remove()"), ANSWER_WITHIN), self.name)

    def _met(self) -> tuple[Session, RemoteGroup]:
        session = _session("a reservation")
        with session.lock:
            return session, session.core.groups.watch(reservation_id(self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return Reservation, (self.name,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reservation) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<Reservation {self.name}>"


def reserve(
    name: str,
    *,
    seconds: float,
    start: datetime | float | None = None,
    allow: Sequence[str] = (),
    **options: Any,
) -> Reservation:
    """Keep room on one provider for ``seconds`` from ``start`` on (epoch seconds, or a datetime, in
    this machine's time zone unless it has one; None is now). ``options``: what room, as for a
    remote function: ``num_cpus`` (1), ``num_gpus``, ``memory``, ``resources``, ``provider``,
    ``label_selector``; and ``priority``: what is lower by 10 gives way at the start. ``allow``:
    keys of others who may use it, ``*`` for all.

    Raises UnknownOption that names the field, NameTaken, Unschedulable where no provider is so
    large, PermissionDenied to who may not do everything."""
    from guactors.api import auto_init

    spec = spec_of(name, start, seconds, options, allow)
    return ask_room(asker(auto_init(), ANSWER_WITHIN), spec)


def spec_of(
    name: str,
    start: datetime | float | None,
    seconds: float,
    options: Mapping[str, Any],
    allow: Sequence[str] = (),
) -> ReservationSpec:
    """What goes to the hub, which looks at it again. Raises UnknownOption that names the field."""
    if not isinstance(name, str) or not name or len(name) > 48:
        raise UnknownOption(f"name={name!r}: it takes a text of 1 to 48 characters")
    for option in options:
        if option not in _ROOM:
            known = ", ".join(sorted(_ROOM))
            raise UnknownOption(f"{option!r} is no option of a reservation; there are {known}")
    begins = start.timestamp() if isinstance(start, datetime) else start
    begins = time.time() if begins is None else begins
    if not _is_number(begins):
        raise UnknownOption(f"start={start!r}: it takes epoch seconds, a datetime, or None")
    if not _is_number(seconds) or seconds <= 0:
        raise UnknownOption(f"seconds={seconds!r}: it takes a number above 0")
    if isinstance(allow, str) or not all(isinstance(one, str) and one for one in allow):
        raise UnknownOption(f"allow={allow!r}: it takes a list of keys, or ['*']")
    shape = shape_of(check_options(options, TASK), 1.0)
    if not shape.resources:
        raise UnknownOption("num_cpus, num_gpus, memory, resources: it asks for nothing")
    return ReservationSpec(
        name, shape.resources, float(begins), float(begins + seconds), shape.priority,
        shape.labels, shape.provider, list(allow),
    )  # fmt: skip


_ROOM: Final = frozenset(
    {"num_cpus", "num_gpus", "memory", "resources", "provider", "label_selector", "priority"}
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --- asking ---------------------------------------------------------------------------------------


def ask_room(ask: Ask, spec: ReservationSpec) -> Reservation:
    """Have it kept. Raises as ``reserve``."""
    ask(Reserve(0, spec))
    return Reservation(spec.name)


def ask_end(ask: Ask, name: str) -> None:
    """Have it end."""
    ask(Unreserve(0, name))


def ask_rows(ask: Ask) -> list[dict[str, Cell]]:
    """All that are to come or stand, of those that may be used."""
    return look(ask, RESERVATIONS).records()


def _session(what: str) -> Session:
    session = current_session()
    if session is None or session.closed:
        raise NotInitialized(f"{what} needs a grid: call init() first")
    return session
