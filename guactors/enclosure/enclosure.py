"""The instance in which a worker runs the code of its session, and the Python in it.

Owns: both, from the first call to the worker's end. Must never: open code or values out here, or
give the instance anything that reaches the grid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from guactors.enclosure.conversation import Conversation, Print
from guactors.enclosure.source import BOOT
from guactors.errors import ProgramNotStarted, RuntimeMissing, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Runtime, Where
from guactors.runtimes.choice import NATIVE
from guactors.runtimes.instance import Instance, Running
from guactors.runtimes.program import instance_in

PYTHONS: Final = ("python3", "python")
"""Names of the interpreter in an image, the first that is there."""
_PATHS: Final = tuple(f"/{where}/bin/{name}" for name in PYTHONS for where in ("usr", "usr/local"))
"""Where the image's own search path is not followed."""


class Enclosure:
    """``runtime`` is opened at the first call. ``owner``: the provider's id; ``tell`` and ``ended``
    as in Conversation. Threads: any."""

    def __init__(
        self,
        where: Where,
        runtime: Callable[[], Runtime],
        owner: str,
        tell: Print,
        ended: Callable[[str], None],
    ) -> None:
        self._where = where
        self._runtime = runtime
        self._owner = owner
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
        if Capability.PRIVATE not in runtime.capabilities:
            raise RuntimeMissing(
                f"the runtime {where.runtime!r} of this machine cannot keep code apart from it: "
                "install the package bubblewrap there, or use another runtime"
            )
        limits = where.limits or Limits()
        options = {"root": where.root, "sandbox": "bubblewrap"} if where.runtime == NATIVE else {}
        instance = self._held.enter_context(
            instance_in(runtime, limits, where.image, options, self._owner)
        )
        talk = Conversation(self._python(instance), where.image, self._tell, self._ended)
        talk.begin()
        return talk

    def _python(self, instance: Instance) -> Running:
        for name in (*PYTHONS, *_PATHS):
            try:
                return instance.exec(Command((name, "-c", BOOT), stdin=True, main=True))
            except ProgramNotStarted:
                continue
        raise UsageError(
            f"the image {self._where.image} has no Python that could be started: functions and "
            f"actors need one ({' or '.join(PYTHONS)}); programs do not (gu run --image)"
        )
