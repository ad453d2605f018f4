"""A session's depots: actors that hold values in the memory of other machines.

Owns: making them. Must never: decide which machine needs one (``caller/depots`` does).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from guactors.caller.effects import NeedDepot
from guactors.errors import GuactorsError

if TYPE_CHECKING:
    from guactors.remote_actor import ActorHandle
    from guactors.session import Session

log = logging.getLogger(__name__)


class Depot:
    """What runs there: nothing. All that a depot does, its process's session does."""

    def __init__(self) -> None:
        from guactors.api import auto_init

        auto_init()


class SessionDepots:
    """Of one session, which holds the handles: the end of a handle is the end of its actor."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handles: list[ActorHandle] = []

    def make(self, effect: NeedDepot) -> None:
        """Have a provider's machine get one, and say which actor it is. The lock is held."""
        from guactors.remote_actor import ActorClass

        made = ActorClass(Depot, {"num_cpus": 0, "provider": effect.provider})
        try:
            handle = made.remote()
        except GuactorsError as error:
            log.warning("no depot for values at %s: %s", effect.provider, error)
            self._session.core.remote.depots.made(effect.store, None)
            return
        self._handles = [one for one in self._handles if one._actor.state != "dead"]
        self._handles.append(handle)
        self._session.core.remote.depots.made(effect.store, handle._actor)
