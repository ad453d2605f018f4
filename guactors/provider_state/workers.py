"""One worker as its provider knows it: what it is at, and how it is to end.

Owns: the states of a worker (one frozen class each, with the data of that state) and the moves
between them. Must never: decide who gets a worker (``pool``) or say anything (``core``).

::

    Starting ──> Unbound ──> Idle <──> Leased
                  │  │                   (a session's worker stays with its session)
                  │  ├─────> Hosting     (an actor's worker ends with the actor)
                  └> Preparing ──> Leased or Hosting
                                         (its image is unpacked before it is bound)
    any ──> Spent: it does nothing for anybody any more and is to end
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from guactors.errors import DEATH_CAUSES, Death, InternalError
from guactors.messages import (
    DeathReport,
    Endpoint,
    EnvPlace,
    Hello,
    Limits,
    Shape,
    StartActor,
    StartLease,
)
from guactors.transport.liveness import Liveness

Order = StartLease | StartActor
"""What the hub wants a worker for."""


Devices = tuple[tuple[str, tuple[str, ...]], ...]
"""Kinds with the ids that may be used: none where the kind must not be seen."""


class Binding(Struct, frozen=True):
    """What a worker is bound to, once in its life: only orders with an equal one may share it.
    ``signers``: whose code it may unpickle, None: anybody's. ``env``: the id of its environment;
    ``python``: the interpreter of that, empty for the provider's own; ``limits``: what it is held
    to, once and for all. ``group`` and ``capture`` as in Bind."""

    session: str
    runtime: str = "python"
    image: str = ""
    signers: tuple[str, ...] | None = None
    env: str = ""
    python: str = ""
    limits: Limits | None = None
    devices: Devices = ()
    group: str = ""
    capture: bool = False

    @property
    def has_device(self) -> bool:
        """Whether it holds any."""
        return any(ids for _, ids in self.devices)


class Job(Struct, frozen=True):
    """An order that may run here. ``admitted``: when that was judged, epoch seconds. ``env``: where
    its environment is; ``parts``: the keys of what that is made of."""

    order: Order
    binding: Binding
    admitted: float
    env: EnvPlace | None = None
    parts: tuple[str, ...] = ()


def order_key(order: Order) -> str:
    """The lease's or actor's id."""
    return order.lease if isinstance(order, StartLease) else order.spec.actor


def order_session(order: Order) -> str:
    """The session that pays for it."""
    return order.session if isinstance(order, StartLease) else order.spec.session


def order_shape(order: Order) -> Shape:
    """What it holds while it lives."""
    return order.shape if isinstance(order, StartLease) else order.spec.shape


class Starting(Struct, frozen=True):
    """Its process was asked for and has not said WorkerReady."""

    since: float


class Unbound(Struct, frozen=True):
    """Ready, and still free for any session."""

    since: float


class Idle(Struct, frozen=True):
    """Bound to its session, without a lease."""

    since: float


class Preparing(Struct, frozen=True):
    """Taken for this order, but not bound: the image it is to work in is being unpacked."""

    order: Order


class Leased(Struct, frozen=True):
    """Runs the calls of one lease; ``blocked`` while its main thread waits in get()."""

    order: StartLease
    blocked: bool = False


class Hosting(Struct, frozen=True):
    """Is one actor; ``alive`` once the constructor has returned."""

    order: StartActor
    alive: bool = False


class Spent(Struct, frozen=True):
    """Nobody waits for it any more."""


State = Starting | Unbound | Idle | Preparing | Leased | Hosting | Spent

MOVES: dict[type[State], tuple[type[State], ...]] = {
    Starting: (Unbound, Spent),
    Unbound: (Idle, Preparing, Leased, Hosting, Spent),
    Preparing: (Leased, Hosting, Spent),
    Idle: (Leased, Spent),
    Leased: (Leased, Idle, Spent),
    Hosting: (Hosting, Spent),
    Spent: (Spent,),
}


class Ending(Struct, frozen=True):
    """Its end was decided: ``cause`` and ``detail`` go into the death report. ``kill_at`` is when
    politeness ends; None: SIGKILL is on its way. ``if_unused``: it was asked, and may stay."""

    cause: str
    detail: str = ""
    kill_at: float | None = None
    if_unused: bool = False


class Worker(Struct):
    """``transport``: the public CURVE key it dials with. ``job``: what it was taken for last, None
    while unbound. ``spared``: what it does may be finished although it would not be allowed now.
    ``retiring``: it takes no more calls and is let go when its lease is over.
    ``liveness`` exists from Hello on; ``link_lost_at`` is when its connection broke although its
    process lives; ``lost_lines`` of its output could not be passed on; it ``keeps`` what others
    need, and is not asked to leave."""

    worker: str
    state: State
    python: str = ""
    """Its interpreter, empty for the provider's own."""
    transport: str = ""
    pid: int = 0
    job: Job | None = None
    spared: bool = False
    retiring: bool = False
    endpoints: list[Endpoint] = field(default_factory=list)
    liveness: Liveness | None = None
    ending: Ending | None = None
    link_lost_at: float | None = None
    lost_lines: int = 0
    keeps: bool = False
    frozen: bool = False
    """Its processes are stopped: it cannot say anything."""
    history: list[str] = field(default_factory=list)

    def move(self, state: State) -> None:
        """Go to ``state``. Raises InternalError with the worker's history for an impossible
        move."""
        if type(state) not in MOVES[type(self.state)]:
            trail = " ".join([*self.history, type(self.state).__name__])
            raise InternalError(
                f"worker {self.worker} cannot go to {type(state).__name__} after: {trail}"
            )
        if type(state) is not type(self.state):
            self.history = [*self.history[-7:], type(self.state).__name__]
        self.state = state

    @property
    def session(self) -> str:
        """Whom it works for, empty while unbound."""
        return self.job.binding.session if self.job is not None else ""

    @property
    def order(self) -> Order | None:
        """The lease or actor it works for."""
        return self.state.order if isinstance(self.state, Preparing | Leased | Hosting) else None

    @property
    def bound(self) -> bool:
        """Whether it was told its session and is still at its service."""
        return isinstance(self.state, Idle | Leased | Hosting)

    @property
    def dying(self) -> bool:
        """Whether it is being killed."""
        return self.ending is not None and self.ending.kill_at is None

    def end(
        self,
        cause: str,
        detail: str = "",
        kill_at: float | None = None,
        *,
        if_unused: bool = False,
    ) -> bool:
        """Decide its end. The first cause stands, but a kill overtakes a polite end. False when
        nothing new was decided."""
        if self.ending is None:
            self.ending = Ending(cause, detail, kill_at, if_unused)
            return True
        if kill_at is None and self.ending.kill_at is not None:
            self.ending = Ending(self.ending.cause, self.ending.detail)
            return True
        return False


def report(worker: Worker, death: Death, provider: str) -> DeathReport:
    """The death as the hub is told: what the process layer saw, under the cause that was decided
    here, if one was. ``provider`` is the provider's name."""
    cause, detail = death.cause, death.detail
    if worker.ending is not None:
        cause = worker.ending.cause
        detail = "; ".join(part for part in (worker.ending.detail, death.detail) if part)
    elif isinstance(worker.state, Starting):
        cause = "start_failed"
    return DeathReport(
        cause=cause,
        detail=detail[:4096],
        exit_code=death.exit_code,
        signal=death.signal,
        stderr_tail=death.stderr_tail[-4096:],
        rss_bytes=death.rss_bytes,
        worker=worker.worker,
        provider=provider[:256],
    )


def known_cause(cause: str, otherwise: str) -> tuple[str, str]:
    """A cause from the wire as ``(cause, detail)``: an unknown word becomes the detail."""
    return (cause, "") if cause in DEATH_CAUSES else (otherwise, cause)


Fresh = Callable[[str], str]
"""An id factory, as :func:`guactors.ids.fresh`."""


def other_python(worker: Worker, hello: Hello, own: Hello) -> str:
    """Why this worker's interpreter cannot serve beside ``own``, empty if it can."""
    its, ours = hello.versions.python, own.versions.python
    if its.split(".")[:2] == ours.split(".")[:2]:
        return ""
    return (
        f"the runtime_env could not be set up: its interpreter {worker.python} is a Python {its}, "
        f"which cannot read what {ours} has pickled"
    )
