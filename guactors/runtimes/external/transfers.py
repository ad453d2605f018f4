"""Files into an instance and out of it, by a driver.

Owns: the cutting into blocks, of which few are on the way at a time. Must never: leave a transfer
open in the driver, whatever ends it here.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count

assert sys.platform != "win32", "needs poll"

from guactors.errors import GuactorsError, InstanceLost
from guactors.runtimes.external import words
from guactors.runtimes.external.channel import Channel
from guactors.runtimes.external.words import AHEAD, BLOCK


class Transfers:
    """Of one instance. Threads: any."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count(1)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """See Driver; so what follows."""
        transfer = next(self._numbers)
        ask = self._channel.ask
        ask("put", transfer=transfer, path=path, tar=tar)
        asked: deque[int] = deque()
        try:
            for block in blocks(data):
                asked.append(self._channel.request("put_data", transfer=transfer, data=block))
                if len(asked) >= AHEAD:
                    self._channel.answer_to(asked.popleft(), "put_data")
            while asked:
                self._channel.answer_to(asked.popleft(), "put_data")
            ask("put_end", transfer=transfer)
        except BaseException:
            self._drop("put", transfer, asked)
            raise

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """The driver is asked for what is read, and little more."""
        transfer = next(self._numbers)
        channel = self._channel
        channel.ask("get", transfer=transfer, path=path, tar=tar)
        asked: deque[int] = deque()
        try:
            end = False
            while not end:
                while len(asked) < AHEAD:
                    asked.append(channel.request("get_data", transfer=transfer, most=BLOCK))
                found = channel.read(words.Block, channel.answer_to(asked.popleft(), "get_data"))
                end = found.end
                if found.data:
                    yield found.data
                elif not end:
                    channel.lose("broke the protocol: an empty block that is not the last")
                    raise InstanceLost(channel.lost)
        finally:
            self._drop("get", transfer, asked)

    def _drop(self, verb: str, transfer: int, asked: deque[int]) -> None:
        while asked:
            with suppress(GuactorsError):  # that is told already, or nobody wants to know
                self._channel.answer_to(asked.popleft(), f"{verb}_data")
        with suppress(GuactorsError):
            self._channel.ask(f"{verb}_drop", transfer=transfer)


def blocks(data: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that fit into a line, neither empty nor needlessly small."""
    held = bytearray()
    for piece in data:
        held += piece
        while len(held) >= BLOCK:
            yield bytes(held[:BLOCK])
            del held[:BLOCK]
    if held:
        yield bytes(held)
