"""``deploy``: an instance at a provider that the session keeps, as its owner sees it.

Owns: the blocking face of the actor in ``worker/deployment``. Must never: hold a file or an output
in memory that can pass in pieces, except where its caller asks for all of it.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, Self

from msgspec import Struct

from guactors.errors import ActorDied, GuactorsError, InternalError
from guactors.options import check_terms
from guactors.refs import ObjectRefGenerator
from guactors.remote_actor import ActorHandle, kept_instance
from guactors.runtimes.base import Stats

if TYPE_CHECKING:
    from guactors.runtimes.program import Chunk
    from guactors.session import Session

PIECE: Final = 1 << 20
"""Bytes of a file that are sent at a time."""
GRACE: Final = 5.0
"""Seconds that programs get to end."""

Content = bytes | bytearray | memoryview | IO[bytes] | Iterable[bytes]


class Finished(Struct, frozen=True):
    """How a program ended. ``code``: its exit code, below zero minus the signal that ended it.
    ``out``, ``err``: what it said. ``reason``: who ended it, empty for itself or its like, else
    ``memory_limit``, ``disk_limit``, ``wall_limit``, ``closed`` or ``lost``; ``detail``: in
    words."""

    code: int
    out: bytes = b""
    err: bytes = b""
    reason: str = ""
    detail: str = ""


class Facts(Struct, frozen=True):
    """What a deployment is at. ``state``: ``created``, ``running``, ``paused`` or ``ended``;
    ``end``: why it ended. ``running``: programs that run in it now; ``ran``: whether any ever
    did."""

    state: str
    end: str
    name: str
    tags: list[str]
    runtime: str
    image: str
    running: int
    ran: bool


class Deployment:
    """An instance of an image at a provider, until ``close``, the end of its ``with``, or the end
    of the session. All its methods block; any thread may call them, several at a time. They raise
    InstanceLost once the instance has ended, ActorDied once its provider or its process has,
    UsageError for what the caller got wrong."""

    def __init__(self, session: Session, actor: ActorHandle) -> None:
        self._session = session
        self._actor = actor
        self.piece = PIECE

    def __repr__(self) -> str:
        return f"<Deployment {self.id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def id(self) -> str:
        """Of the actor that keeps it."""
        return self._actor._actor.id

    @property
    def alive(self) -> bool:
        """Whether the actor that keeps it is, as far as this process knows."""
        return not self._session.closed and self._actor._actor.state != "dead"

    # --- programs -------------------------------------------------------------------------------

    def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: bytes = b"",
    ) -> Iterator[Chunk]:
        """Run a program; yields what it says as it says it: ``("out", bytes)``, ``("err",
        bytes)``, and last ``("exit", code)``, below zero for minus the signal that ended it. What
        a limit ended says so on "err". ``argv[0]`` and ``cwd`` are paths in the instance, ``user``
        is ``uid:gid`` or a name in there. The program ends when the iterator is closed. Raises
        ProgramNotStarted for one that is not there or cannot be run."""
        for found in self._stream("exec", list(argv), dict(env or {}), cwd, user, bytes(stdin)):
            if found[0] != "exit":
                yield found
                continue
            end = _finished(found)
            if end.detail:
                yield "err", f"deployment: {end.detail}\n".encode()
            yield "exit", end.code

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: bytes = b"",
    ) -> Finished:
        """As ``exec``, to the end, with all that the program said."""
        said: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        for found in self._stream("exec", list(argv), dict(env or {}), cwd, user, bytes(stdin)):
            if found[0] == "exit":
                return _finished(found, bytes(said["out"]), bytes(said["err"]))
            said[found[0]] += found[1]
        raise InternalError(f"the end of {argv[0]} in {self.id} was never told")

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: bytes = b"",
    ) -> int:
        """Run a program in the background; the number that ``wait``, ``signal`` and ``output``
        take. It goes on when nobody listens, and ends with the deployment."""
        given = (list(argv), dict(env or {}), cwd, user, bytes(stdin))
        return int(self._ask("start", *given))

    def wait(self, number: int, timeout: float | None = None) -> Finished | None:
        """How a background program ended, without what it said; None if it has not within
        ``timeout`` seconds."""
        found = self._ask("wait", number, timeout)
        return None if found is None else _finished(found)

    def signal(self, number: int, sent: int = int(signals.SIGTERM)) -> None:
        """Send a signal to a background program and to all that it started."""
        self._ask("signal", number, int(sent))

    def output(self, number: int) -> tuple[bytes, bytes]:
        """What a background program said so far, on stdout and stderr: the last MiB of each."""
        found = self._ask("output", number)
        return found["out"], found["err"]

    def programs(self) -> dict[int, Finished | None]:
        """The background programs by number; None for those that run."""
        found = self._ask("programs").items()
        return {number: None if end is None else _finished(end) for number, end in found}

    # --- files ----------------------------------------------------------------------------------

    def put(self, path: str, data: Content, *, tar: bool = False) -> None:
        """Write a file, whose directory is made; or unpack a tar into the directory ``path``.
        ``data``: bytes, a file opened for reading bytes, or pieces of bytes."""
        number = self._ask("begin_put", path, tar)
        try:
            for piece in _pieces(data, self.piece):
                self._ask("put", number, piece)
        except BaseException:
            self._ask("end_put", number, False)
            raise
        self._ask("end_put", number)

    def get(self, path: str, *, tar: bool = False) -> Iterator[bytes]:
        """A file in pieces; or a tar of a file, or of a directory and all that is in it."""
        yield from self._stream("get", path, tar)

    def read(self, path: str) -> bytes:
        """A whole file."""
        return b"".join(self.get(path))

    # --- all of it ------------------------------------------------------------------------------

    def facts(self) -> Facts:
        """What it is at."""
        return Facts(**self._ask("describe"))

    def change_tags(self, add: Iterable[str] = (), remove: Iterable[str] = ()) -> list[str]:
        """The tags that it has now."""
        found: list[str] = self._ask("change_tags", list(add), list(remove))
        return found

    def stats(self) -> Stats:
        """What it has used so far, in seconds and bytes; None where nobody counts it."""
        return Stats(**self._ask("stats"))

    def pause(self) -> None:
        """Everything in it stands still when this returns. UsageError where its runtime cannot."""
        self._ask("pause")

    def resume(self) -> None:
        """It goes on."""
        self._ask("resume")

    def stop(self, grace: float = GRACE) -> None:
        """Ask all programs in it to end, end what is left after ``grace`` seconds, and leave
        nothing of it but what ``facts`` and ``output`` tell, until ``close``."""
        self._ask("stop", float(grace))

    def close(self, grace: float = 0.0) -> None:
        """End it and give its place back. Idempotent; quiet where it is gone already."""
        if not self.alive:
            return
        try:
            self._ask("stop", float(grace))
        except ActorDied:
            return
        finally:
            if not self._session.closed:
                self._actor.__guactors_kill__(no_restart=True)

    # --- inside ---------------------------------------------------------------------------------

    def _ask(self, name: str, *args: Any) -> Any:
        ref = getattr(self._actor, name).submit(*args)
        return self._session.values.get_one(ref.id, None)

    def _stream(self, name: str, *args: Any) -> Iterator[Any]:
        stream: ObjectRefGenerator = getattr(self._actor, name).submit(*args)
        for ref in stream:
            yield self._session.values.get_one(ref.id, None)


def deploy(
    runtime: str,
    image: str,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
    env: Mapping[str, str] | None = None,
    num_cpus: float = 1.0,
    memory: float = 0.0,
    resources: Mapping[str, float] | None = None,
    provider: str | None = None,
    label_selector: Mapping[str, str] | None = None,
    priority: int | None = None,
    preemption: Sequence[str] | None = None,
    min_runtime: float | None = None,
    max_suspended: float | None = None,
    grace: float | None = None,
    timeout: float | None = None,
) -> Deployment:
    """An instance of ``image`` (an id, see ``gu image list``) in ``runtime`` (``native``,
    ``docker``, ``qemu``, ...) at a provider that has room for it; it runs when this returns.

    ``limits``: the most that all its programs together may take, of ``cpu`` (processors),
    ``memory`` and ``disk`` (bytes), ``pids`` (processes) and ``wall`` (seconds). ``env``: variables
    of all its programs. ``num_cpus``, ``memory`` (bytes), ``resources``, ``provider``,
    ``label_selector``, ``priority``, ``preemption``, ``min_runtime``, ``max_suspended`` and
    ``grace`` as for actors: what it holds of its provider, where it may be, and how it gives way.
    ``timeout``: seconds to wait for it. Raises PermissionDenied where no grant or the machine's
    owner does not allow it, Unschedulable where no provider could ever have it, ImageRefused,
    RuntimeMissing, UsageError, GetTimeout."""
    from guactors.api import auto_init

    options = {
        "runtime": runtime, "image": image, "num_cpus": num_cpus, "memory": memory,
        "resources": dict(resources or {}),
    }  # fmt: skip
    options |= check_terms(priority, preemption, min_runtime, max_suspended, grace)
    if provider is not None:
        options["provider"] = provider
    if label_selector is not None:
        options["label_selector"] = dict(label_selector)
    held = None if limits is None else dict(limits)
    given = {"limits": held, "env": dict(env or {}), "name": name or "", "tags": list(tags)}
    return deploy_in(auto_init(), options, given, timeout)


def deploy_in(
    session: Session, options: Mapping[str, Any], given: dict[str, Any], timeout: float | None
) -> Deployment:
    """As ``deploy``, in this session. ``options``: of the actor; ``given``: what the instance is
    made with."""
    actor = kept_instance(options)._create(session, "", (), given)
    made = Deployment(session, actor)
    first = actor.describe.submit()
    try:
        session.values.get_one(first.id, timeout)
    except BaseException as error:
        if not session.closed:
            actor.__guactors_kill__(no_restart=True)
        cause = error.__cause__
        if isinstance(error, ActorDied) and isinstance(cause, GuactorsError):
            raise cause from None
        raise
    return made


def _finished(end: tuple[Any, ...], out: bytes = b"", err: bytes = b"") -> Finished:
    _, code, signal, reason, detail = end
    return Finished(-signal if signal is not None else code or 0, out, err, reason, detail)


def _pieces(data: Content, most: int) -> Iterator[bytes]:
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data).cast("B")
        yield from (bytes(view[at : at + most]) for at in range(0, len(view), most))
    elif isinstance(data, Iterable) and not hasattr(data, "read"):
        for one in data:
            yield from _pieces(one, most)
    else:
        while piece := data.read(most):
            yield piece
