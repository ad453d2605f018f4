"""Moving messages between processes. :func:`open_transport` is the door; importing it loads no zmq.

Owns: which adapter serves which kind of address. Must never: know what the messages mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guactors.transport.base import Doors, Link, Listener, Transport

if TYPE_CHECKING:
    from guactors.config import Identity
    from guactors.messages import Endpoint

__all__ = ["open_transport"]


def open_transport(identity: Identity) -> Transport:
    """The transport of this process, for ``ipc://``, ``tcp://`` and ``inproc://`` addresses.

    Call it after the last fork: it starts threads with its first link or listener.
    """
    return _BySchemeTransport(identity)


class _BySchemeTransport:
    """Hands each address to the adapter for its kind; each adapter is loaded at its first use."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._inproc: Transport | None = None
        self._zmq: Transport | None = None

    def listen(
        self, address: str, *, data_address: str | None = None, doors: Doors | None = None
    ) -> Listener:
        return self._for(address).listen(address, data_address=data_address, doors=doors)

    def dial(self, endpoint: Endpoint) -> Link:
        return self._for(endpoint.control).dial(endpoint)

    def close(self) -> None:
        for adapter in (self._inproc, self._zmq):
            if adapter is not None:
                adapter.close()

    def _for(self, address: str) -> Transport:
        if address.startswith("inproc://"):
            if self._inproc is None:
                from guactors.transport.inproc import InprocTransport

                self._inproc = InprocTransport()
            return self._inproc
        if self._zmq is None:
            from guactors.transport.zmq_link import ZmqTransport

            self._zmq = ZmqTransport(self._identity)
        return self._zmq
