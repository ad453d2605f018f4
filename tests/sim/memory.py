"""The shared memory of all machines in the simulation.

Owns: which process keeps which value for whom. Must never: keep what a process held beyond its end,
but for what it had promised to other machines, and that for a moment.
"""

from __future__ import annotations

from collections.abc import Callable

from guactors.errors import ObjectLost
from guactors.messages import BlockName, ReadBlock, Stored
from guactors.objects.layout import aligned
from guactors.transport.base import Frame

LINGER = 3.0
Key = tuple[str, int]


class Kept:
    """One value; ``loans`` by the links it was given over, ``holders``: processes that use it,
    ``until``: how long it stays without its writer."""

    def __init__(self, writer: str, host: str, data: bytes) -> None:
        self.writer = writer
        self.host = host
        self.data = data
        self.loans: list[str] = []
        self.holders: list[str] = []
        self.until = 0.0


class Memory:
    """All blocks there are. ``later`` runs something after so many seconds."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._later = later
        self._blocks: dict[Key, Kept] = {}
        self._serial = 0

    # --- workers ----------------------------------------------------------------------------------

    def keep(self, worker: str, host: str, link: str, data: bytes) -> Stored:
        """A result stays with its worker, for who is at the other end of the link."""
        word = self._new(worker, host, data)
        self._blocks[word.arena, word.serial].loans.append(link)
        return word

    def _new(self, writer: str, host: str, data: bytes) -> Stored:
        self._serial += 1
        word = Stored(host, f"m-{self._serial:032x}", 0, self._serial, [len(data)])
        self._blocks[word.arena, word.serial] = Kept(writer, host, data)
        return word

    def look(self, host: str, word: Stored) -> bytes | None:
        """The value, for a process of that machine."""
        kept = self._blocks.get((word.arena, word.serial))
        return kept.data if kept is not None and kept.host == host == word.store else None

    def read(self, worker: str, link: str, ask: ReadBlock) -> bytes | None:
        """Bytes of it, for whom it was given to."""
        kept = self._blocks.get((ask.block.arena, ask.block.serial))
        if kept is None or kept.writer != worker or link not in kept.loans:
            return None
        return _padded(kept.data)[ask.offset : ask.offset + ask.length]

    def unused(self, worker: str, link: str, names: list[BlockName]) -> None:
        """It comes back."""
        for name in names:
            kept = self._blocks.get((name.arena, name.serial))
            if kept is not None and kept.writer == worker and link in kept.loans:
                kept.loans.remove(link)
                self._tidy((name.arena, name.serial))

    def link_gone(self, worker: str, link: str) -> None:
        """Nobody is at the other end any more."""
        for key, kept in list(self._blocks.items()):
            if kept.writer == worker:
                kept.loans = [other for other in kept.loans if other != link]
                self._tidy(key)

    def gone(self, process: str) -> None:
        """What it had promised stays for a moment, what others use as long as they do."""
        for key, kept in list(self._blocks.items()):
            kept.holders = [other for other in kept.holders if other != process]
            if kept.writer == process and kept.loans:
                kept.writer, kept.loans = "", [""]
                self._later(LINGER, lambda key=key: self._over(key))
            self._tidy(key)

    def _over(self, key: Key) -> None:
        if key in self._blocks:
            self._blocks[key].loans = []
            self._tidy(key)

    def _tidy(self, key: Key) -> None:
        kept = self._blocks[key]
        if not (kept.loans or kept.holders):
            del self._blocks[key]

    def has(self, worker: str) -> bool:
        """Whether a worker keeps anything for others."""
        return any(kept.writer == worker and kept.loans for kept in self._blocks.values())

    def takers(self, worker: str) -> list[str]:
        """The links over which it has given what it keeps."""
        links = [
            link for kept in self._blocks.values() if kept.writer == worker for link in kept.loans
        ]
        return list(dict.fromkeys(links))

    # --- callers and depots -----------------------------------------------------------------------

    def attach(self, process: str, host: str, word: Stored) -> Local:
        """Use a value. Raises ObjectLost."""
        data = self.look(host, word)
        if data is None:
            raise ObjectLost("its memory is gone")
        return Local(self, process, word, data)

    def draft(self, process: str, host: str, sizes: list[int]) -> Local:
        """Room for a value that comes in pieces."""
        word = self._new(process, host, bytes(sizes[0]))
        return Local(self, process, word, bytes(sizes[0]))

    def hold(self, process: str, word: Stored) -> None:
        self._blocks[word.arena, word.serial].holders.append(process)

    def fill(self, word: Stored, data: bytes) -> None:
        self._blocks[word.arena, word.serial].data = data

    def release(self, process: str, word: Stored) -> None:
        key = word.arena, word.serial
        if key in self._blocks and process in self._blocks[key].holders:
            self._blocks[key].holders.remove(process)
            self._tidy(key)

    def left(self, living: set[str]) -> list[str]:
        """What living processes still keep, for the end of a run."""
        return [
            f"{kept.writer} keeps {key} for {kept.loans}, used by {kept.holders}"
            for key, kept in self._blocks.items()
            if kept.loans or living & set(kept.holders)
        ]


class Local:
    """A value that a process uses: at first a draft, then the value."""

    def __init__(self, memory: Memory, process: str, word: Stored, data: bytes) -> None:
        self.word = word
        self.size = len(data)
        self._memory = memory
        self._process = process
        self._bytes = bytearray(_padded(data))
        memory.hold(process, word)

    def __del__(self) -> None:
        self._memory.release(self._process, self.word)

    def write(self, offset: int, data: Frame) -> None:
        self._bytes[offset : offset + len(data)] = data

    def read(self, offset: int, length: int) -> memoryview:
        return memoryview(bytes(self._bytes[offset : offset + length]))

    def finish(self) -> Local:
        self._memory.fill(self.word, bytes(self._bytes[: self.size]))
        return self

    def parts(self) -> list[memoryview]:
        return [memoryview(bytes(self._bytes[: self.size]))]

    def body(self) -> memoryview:
        return memoryview(bytes(self._bytes))


def _padded(data: bytes) -> bytes:
    return data.ljust(aligned(len(data)), b"\0")
