"""The shared memory of all machines in the simulation.

Owns: which worker keeps which value for whom. Must never: outlive a worker: a machine's memory may
go with the process that wrote it.
"""

from __future__ import annotations

from guactors.messages import BlockName, ReadBlock, Stored
from guactors.objects.layout import aligned
from guactors.transport.base import Frame


class Kept:
    """One value; ``loans`` by the links it was given over."""

    def __init__(self, worker: str, host: str, data: bytes) -> None:
        self.worker = worker
        self.host = host
        self.data = data
        self.loans: list[str] = []


class Memory:
    """All blocks there are."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], Kept] = {}
        self._serial = 0

    def keep(self, worker: str, host: str, link: str, data: bytes) -> Stored:
        """A result stays with its worker, for who is at the other end of the link."""
        self._serial += 1
        word = Stored(host, f"m-{self._serial:032x}", 0, self._serial, [len(data)])
        kept = self._blocks[word.arena, word.serial] = Kept(worker, host, data)
        kept.loans.append(link)
        return word

    def look(self, host: str, word: Stored) -> bytes | None:
        """The value, for a process of that machine."""
        kept = self._blocks.get((word.arena, word.serial))
        return kept.data if kept is not None and kept.host == host == word.store else None

    def read(self, worker: str, link: str, ask: ReadBlock) -> bytes | None:
        """Bytes of it, for whom it was given to."""
        kept = self._blocks.get((ask.block.arena, ask.block.serial))
        if kept is None or kept.worker != worker or link not in kept.loans:
            return None
        padded = kept.data.ljust(aligned(len(kept.data)), b"\0")
        return padded[ask.offset : ask.offset + ask.length]

    def unused(self, worker: str, link: str, names: list[BlockName]) -> None:
        """It comes back."""
        for name in names:
            kept = self._blocks.get((name.arena, name.serial))
            if kept is not None and kept.worker == worker and link in kept.loans:
                kept.loans.remove(link)
                if not kept.loans:
                    del self._blocks[name.arena, name.serial]

    def link_gone(self, worker: str, link: str) -> None:
        """Nobody is at the other end any more."""
        for key, kept in list(self._blocks.items()):
            if kept.worker == worker:
                kept.loans = [other for other in kept.loans if other != link]
                if not kept.loans:
                    del self._blocks[key]

    def worker_gone(self, worker: str) -> None:
        """Its memory is gone with it."""
        for key, kept in list(self._blocks.items()):
            if kept.worker == worker:
                del self._blocks[key]

    def has(self, worker: str) -> bool:
        """Whether a worker keeps anything."""
        return any(kept.worker == worker for kept in self._blocks.values())

    def takers(self, worker: str) -> list[str]:
        """The links over which it has given what it keeps."""
        links = [
            link for kept in self._blocks.values() if kept.worker == worker for link in kept.loans
        ]
        return list(dict.fromkeys(links))

    def left(self) -> list[str]:
        """What living workers still keep, for the end of a run."""
        return [f"{kept.worker} keeps {key} for {kept.loans}" for key, kept in self._blocks.items()]


class Local:
    """A value that came to a caller: at first a draft, then the value."""

    def __init__(self, sizes: list[int]) -> None:
        self.size = sizes[0]
        self.word = Stored("", f"m-{0:032x}", 0, 0, sizes)
        self._bytes = bytearray(aligned(self.size))

    def write(self, offset: int, data: Frame) -> None:
        self._bytes[offset : offset + len(data)] = data

    def finish(self) -> Local:
        return self

    def parts(self) -> list[memoryview]:
        return [memoryview(bytes(self._bytes[: self.size]))]
