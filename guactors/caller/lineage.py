"""How values that were lost with their machine are made again: the calls that made them.

Owns: the calls whose results stay on other machines, and the bound on what is kept for them. Must
never: run anything itself.

A call is kept, and its arguments with it, until none of its results is away: then all that can be
lost is lost with this process. What is kept is a copy, which goes into no listing: the call itself
has ended, and is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from msgspec.structs import replace

from guactors.caller.tasks import Task

MOST: Final = 256 << 20
"""Bytes of arguments kept for all calls together; a call beyond that is not made again."""


class Lineage:
    """Calls by the objects that they made."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._bytes = 0
        self._by_object: dict[int, Task] = {}
        self._copies: dict[int, Task] = {}
        """By the id of the call."""
        self._left: Counter[int] = Counter()

    def keep(self, task: Task, away: list[int]) -> bool:
        """These results of the call are away; False where it is not to be made again. What the
        call is made of is the lineage's from here on."""
        if task.retries == 0 or task.cancelled or task.returns < 1:
            return False
        mine = self._copies.get(task.id)
        if mine is None:
            size = _size(task)
            if self._bytes + size > self._most:
                return False
            self._bytes += size
            mine = self._copies[task.id] = replace(task, events=False, fault="")
        if mine is not task:
            task.args, task.buffers, task.deps, task.lent = b"", (), (), ()
        for id in away:
            if id not in self._by_object:
                self._by_object[id] = mine
                self._left[mine.id] += 1
        return True

    def let_go(self, id: int) -> Task | None:
        """An object is away no longer; its call, if nothing else of it is."""
        task = self._by_object.pop(id, None)
        if task is None:
            return None
        self._left[task.id] -= 1
        if self._left[task.id]:
            return None
        del self._left[task.id], self._copies[task.id]
        self._bytes -= _size(task)
        return task

    def maker(self, id: int) -> Task | None:
        """The call that can make the object again."""
        return self._by_object.get(id)

    def __len__(self) -> int:
        return len(self._left)


def _size(task: Task) -> int:
    inline = len(task.args) if isinstance(task.args, bytes) else task.args.size
    return inline + sum(len(buffer) for buffer in task.buffers)
