"""The instance in which a worker runs the code of its session, and the Python in it.

Owns: both, from the first call to the worker's end. Must never: open code or values out here, or
give the instance anything that reaches the grid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from guactors.enclosure.conversation import Conversation, Ended, Print
from guactors.enclosure.source import BOOT
from guactors.errors import PermissionDenied, ProgramNotStarted, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Command, Runtime, Where
from guactors.runtimes.choice import NATIVE
from guactors.runtimes.instance import Instance, Running
from guactors.runtimes.program import private_instance

PYTHONS: Final[tuple[str, ...]] = ("python3", "python")
"""Names of the interpreter in an image, the first that is there."""
_PLACES: Final = ("/usr/local/bin", "/usr/bin", "/bin")
"""Where it is looked for by the native runtime, which knows programs by their paths only."""


class Enclosure:
    """``runtime`` is opened at the first call. ``env``: of its Python; ``tell`` and ``ended`` as in
    Conversation. Threads: any."""

    def __init__(
        self,
        where: Where,
        runtime: Callable[[], Runtime],
        env: dict[str, str],
        tell: Print,
        ended: Ended,
    ) -> None:
        self._where = where
        self._runtime = runtime
        self._env = env
        self._tell = tell
        self._ended = ended
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._talk: Conversation | None = None

    def talk(self) -> Conversation:
        """With its Python, which is started if it was not. Raises RuntimeMissing, ImageRefused,
        VersionMismatch, UsageError."""
        with self._lock:
            if self._talk is None:
                try:
                    self._talk = self._start()
                except BaseException:
                    self._held.close()
                    raise
            return self._talk

    def close(self) -> None:
        """End it, and leave nothing."""
        with self._lock:
            if self._talk is not None:
                self._talk.close()
            self._held.close()

    def _start(self) -> Conversation:
        where, runtime = self._where, self._runtime()
        limits = where.limits or Limits()
        instance = self._held.enter_context(private_instance(runtime, where, limits))
        talk = Conversation(self._python(instance), where.image, self._tell, self._ended)
        talk.begin()
        talk.say({"do": "environ", "variables": self._env})
        return talk

    def _python(self, instance: Instance) -> Running:
        names = PYTHONS
        if self._where.runtime == NATIVE:
            names = tuple(f"{place}/{name}" for name in PYTHONS for place in _PLACES)
        for name in names:
            try:
                return instance.exec(Command((name, "-c", BOOT), stdin=True, main=True))
            except (ProgramNotStarted, PermissionDenied):
                continue
        raise UsageError(
            f"the image {self._where.image} has no Python that could be started: functions and "
            f"actors need one ({' or '.join(PYTHONS)}); programs do not (gu run --image)"
        )
