"""This process's part of the shared-memory store: what it writes, holds, gives away and spills.

Owns: its arenas, the blocks in them, its holds on other processes' blocks, and the decision what is
recycled. Thread-safe. Must never: recycle a block that anybody holds or may be told of, or know
what a value is.

A block lives while this process holds it, while it is given away with a result that has not come
back, and while another process has it locked. A process that got a block's name holds it by the
lock of its own; the lock ends with the process.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

from guactors.errors import ObjectLost, StoreFull
from guactors.messages import BlockName, Stored
from guactors.objects import base
from guactors.objects.arena import OwnArena, SeenArena
from guactors.objects.arenas import KEEP, Arenas
from guactors.objects.blocks import Block
from guactors.objects.held import Draft, Held
from guactors.objects.layout import HEADER, block_size
from guactors.objects.room import Room

SOON: Final = 4 << 20
"""Bytes of others' memory from which they are to hear at once that it is unused: a word for each
value would cost them more than writing a small one elsewhere."""
SOON_SHARE: Final = 1 / 16
"""Most of all memory of the store that this may be."""


class ObjectStore:
    """One per process. ``room`` says where arenas may be, and how much there is."""

    def __init__(self, room: Room) -> None:
        self.id = room.id
        self._room = room
        self._lock = threading.Lock()
        self._arenas = Arenas(room)
        self._seen: dict[str, SeenArena] = {}
        self._blocks: dict[tuple[str, int], Block] = {}
        self._given: dict[str, Counter[tuple[str, int]]] = {}
        self._notes: deque[Block] = deque()
        self._unused: dict[str, list[BlockName]] = {}
        self._borrowed = 0
        """Bytes of others' memory that are held here, or of which they do not know yet that they
        are not."""
        self._untold = 0
        """Of these, the bytes of which they do not know."""
        self._soon: float | None = None
        self._stuck: dict[tuple[str, int], Block] = {}
        """Nobody here needs them; other processes did when it was last asked."""
        self._serials = itertools.count(secrets.randbits(48))
        self._uses = itertools.count()
        self.closed = False

    # --- holding ----------------------------------------------------------------------------------

    def note(self, block: Block) -> None:
        """One hold less. From any thread, at any moment."""
        self._notes.append(block)
        if self.closed and self._lock.acquire(blocking=False):
            try:
                self._settle()
                self._arenas.drop_empty()
                self._drop_seen()
                if not (self._arenas or self._seen):
                    self._room.close()
            finally:
                self._lock.release()

    @property
    def restless(self) -> bool:
        """Whether there is something to settle."""
        return bool(self._notes or self._unused)

    def write(self, parts: Sequence[bytes | memoryview]) -> Held:
        """A copy of ``parts`` in shared memory. Raises StoreFull."""
        block, arena = self._new([memoryview(part).nbytes for part in parts])
        # The block is ours alone until its name leaves this process.
        arena.write(block.offset, block.serial, parts)
        return Held(block, self)

    def draft(self, sizes: list[int]) -> Draft:
        """Memory for parts of these sizes. Raises StoreFull."""
        block, arena = self._new(sizes)
        return Draft(Held(block, self), arena)

    def _new(self, sizes: list[int]) -> tuple[Block, OwnArena]:
        length = block_size(sizes)
        with self._lock:
            self._settle()
            if self._stuck:
                self._retry_stuck()
            arena, offset = self._place(length)
            block = Block(arena, offset, secrets.randbits(53), sizes, length)
            block.used = next(self._uses)
            block.holds = 1
            self._blocks[block.key] = block
        return block, arena

    def attach(self, word: Stored, giver: str = "") -> Held:
        """Hold a block that another process, or this one, spoke of. ``giver``: who is to be told
        when it is unused here. Raises ObjectLost."""
        with self._lock:
            block = self._blocks.get((word.arena, word.offset))
            if block is None:
                block = self._see(word)
            elif block.serial != word.serial or block.sizes != word.sizes:
                raise ObjectLost("the memory that held the value was recycled")
            block.holds += 1
            block.used = next(self._uses)
            if giver:
                block.givers.append(giver)
        return Held(block, self)

    def _see(self, word: Stored) -> Block:
        if word.store != self.id:
            raise ObjectLost("the value is in another machine's memory")
        length = block_size(word.sizes)
        arena = self._seen.get(word.arena)
        fresh = arena is None
        if arena is None:
            arena = SeenArena(self._room.path(word.arena))
        try:
            arena.hold(word.offset, word.serial, length)
        except ObjectLost:
            if fresh:
                arena.end()
            raise
        self._seen[word.arena] = arena
        arena.users += 1
        self._borrowed += length
        block = Block(arena, word.offset, word.serial, word.sizes, length)
        self._blocks[block.key] = block
        return block

    def parts(self, block: Block) -> list[memoryview]:
        """The parts of a block that is held. Raises ObjectLost once the store has ended."""
        with self._lock:
            self._check_there(block)
            block.used = next(self._uses)
            return block.parts(self.note)

    def body(self, block: Block) -> memoryview:
        """All that follows the header of a block that is held; raises as ``parts``."""
        with self._lock:
            self._check_there(block)
            block.used = next(self._uses)
            return block.body(self.note)

    def _check_there(self, block: Block) -> None:
        if self.closed and self._blocks.get(block.key) is not block:
            raise ObjectLost("the store that held the value was closed")

    # --- giving away ------------------------------------------------------------------------------

    def give(self, held: base.Held, taker: str, *, far: bool = False) -> Stored:
        """Keep a block until ``taker``, on another machine where it is ``far``, says that it is
        unused, or is lost."""
        assert isinstance(held, Held)
        block = held.block
        with self._lock:
            if far and isinstance(block.arena, OwnArena):
                block.far = True
                block.arena.promise()
            block.loans += 1
            self._given.setdefault(taker, Counter())[block.key] += 1
            return block.word(self.id)

    def read(self, taker: str, name: BlockName, offset: int, length: int) -> memoryview | None:
        """Bytes of a block that ``taker`` was given, ``offset`` counted from the end of its header;
        None where it was given no such block, or the block has no such bytes."""
        with self._lock:
            block = self._blocks.get((name.arena, name.offset))
            given = self._given.get(taker)
            if block is None or given is None or not given[block.key]:
                return None
            if block.serial != name.serial or offset + length > block.length - HEADER:
                return None
            return block.body(self.note)[offset : offset + length]

    def takers(self) -> list[str]:
        """Who was given blocks that have not come back."""
        with self._lock:
            return [taker for taker, given in self._given.items() if given]

    def given_back(self, taker: str, names: Iterable[BlockName]) -> None:
        """``taker`` uses these no more; names of others' blocks, or of old ones, are ignored."""
        with self._lock:
            given = self._given.get(taker, Counter())
            for name in names:
                key = (name.arena, name.offset)
                block = self._blocks.get(key)
                if block is not None and block.serial == name.serial and given[key] > 0:
                    self._returned(given, block)

    def lost(self, taker: str) -> None:
        """Whatever it held, it holds by locks of its own."""
        with self._lock:
            given = self._given.pop(taker, Counter())
            for key in list(given):
                while given[key] > 0:
                    self._returned(given, self._blocks[key])

    def _returned(self, given: Counter[tuple[str, int]], block: Block) -> None:
        given[block.key] -= 1
        if not given[block.key]:
            del given[block.key]
        block.loans -= 1
        self._free_if_unused(block)

    # --- letting go -------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Carry out what ended objects noted; who is to hear of it hears at the next ``settle``."""
        with self._lock:
            self._settle()

    def settle(self) -> dict[str, list[BlockName]]:
        """Carry out what ended objects noted; whom to tell of which blocks."""
        with self._lock:
            self._settle()
            unused, self._unused = self._unused, {}
            self._borrowed -= self._untold
            self._untold = 0
        return unused

    def _settle(self) -> None:
        while self._notes:
            block = self._notes.popleft()
            block.holds -= 1
            self._free_if_unused(block)

    def _free_if_unused(self, block: Block) -> None:
        if block.holds or block.loans:
            return
        if isinstance(block.arena, OwnArena):
            if block.arena.erase(block.offset):
                self._recycle(block)
            else:
                self._stuck[block.key] = block
            return
        del self._blocks[block.key]
        self._leave(block)

    def _recycle(self, block: Block) -> None:
        arena = block.arena
        assert isinstance(arena, OwnArena)
        del self._blocks[block.key]
        self._stuck.pop(block.key, None)
        arena.space.give(block.offset, block.length)
        arena.quiet_since = None

    def _leave(self, block: Block) -> None:
        """Use another process's block no more."""
        arena = block.arena
        assert isinstance(arena, SeenArena)
        arena.let_go(block.offset)
        for giver in block.givers:
            self._unused.setdefault(giver, []).append(block.name())
        if block.givers:
            self._untold += block.length
        else:
            self._borrowed -= block.length
        block.givers = []
        arena.users -= 1
        arena.quiet_since = None

    def _retry_stuck(self) -> None:
        stuck, self._stuck = self._stuck, {}
        for block in stuck.values():
            if not (block.holds or block.loans):
                self._free_if_unused(block)

    # --- room -------------------------------------------------------------------------------------

    def _place(self, length: int) -> tuple[OwnArena, int]:
        """An arena with free bytes. Raises StoreFull."""
        found = self._arenas.fit(length, disk=False)
        if found is None:
            found = self._arenas.grow(length, disk=False)
        if found is None:
            self._arenas.drop_empty()
            self._room.ask_for_memory()
            found = self._arenas.grow(length, disk=False)
        if found is None and self._spill(length):
            found = self._arenas.find(length, disk=False)
        if found is None:
            found = self._arenas.find(length, disk=True)
        if found is None:
            raise StoreFull(self._room.complaint(length))
        return found

    def _spill(self, wanted: int) -> bool:
        """Move values that nobody looks at to the disk, those unused for longest first, until
        ``wanted`` bytes of ours are free or nothing is left that can go."""
        cold = [
            block
            for block in self._blocks.values()
            if block.holds and not block.loans and not block.viewed() and not _on_disk(block)
        ]
        cold.sort(key=lambda block: block.used)
        freed = 0
        for block in cold:
            if freed >= wanted:
                break
            if not block.holds:
                continue  # its last hold ended while others were moved
            freed += self._move_to_disk(block)
        return freed > 0

    def _move_to_disk(self, block: Block) -> int:
        """Bytes that this freed in an arena of ours."""
        place = self._arenas.find(block.length, disk=True)
        if place is None:
            return 0
        target, offset = place
        parts = block.parts(self.note)
        target.write(offset, block.serial, parts)
        del parts
        self._settle()
        old, old_offset = block.arena, block.offset
        if isinstance(old, OwnArena) and not old.erase(old_offset):
            # Another process uses it: it cannot move.
            target.erase(offset)
            target.space.give(offset, block.length)
            return 0
        del self._blocks[block.key]
        if isinstance(old, SeenArena):
            self._leave(block)
        else:
            old.space.give(old_offset, block.length)
        block.arena, block.offset = target, offset
        self._blocks[block.key] = block
        return block.length if isinstance(old, OwnArena) else 0

    def _drop_seen(self) -> None:
        for arena in [arena for arena in self._seen.values() if not arena.users]:
            del self._seen[arena.name]
            arena.end()

    def on_tick(self, now: float) -> None:
        """Give back what was unused for a while; make way where others need memory."""
        with self._lock:
            self._settle()
            self._retry_stuck()
            quiet = self._arenas.quiet(now)
            short = self._room.others_need_memory()
            if short:
                self._spill(short)
                quiet = list(self._arenas)
            self._arenas.give_back(quiet)
            self._forget_seen(now)

    def _forget_seen(self, now: float) -> None:
        """Unmap others' arenas of which nothing was used for a while: to map one anew for each
        value costs more than to read it."""
        for arena in list(self._seen.values()):
            if arena.users:
                continue
            if arena.quiet_since is None:
                arena.quiet_since = now
            elif now - arena.quiet_since >= KEEP:
                del self._seen[arena.name]
                arena.end()

    @property
    def borrowing(self) -> bool:
        """Whether so much of other processes' memory is in use here, or was and they do not know,
        that they are to hear of each end of a use at once."""
        if self._soon is None and self._borrowed:
            self._soon = min(SOON, SOON_SHARE * self._room.most(disk=False))
        return self._soon is not None and self._borrowed >= self._soon

    @property
    def idle(self) -> bool:
        """Whether nothing is kept that a tick could give back."""
        return not (self._arenas or self._seen or self._notes or self._unused)

    def close(self) -> None:
        """Give everything back. What others still use of it, the last of them removes; what is
        still looked at in this process stays until it is not, and for a while what was given to
        other machines."""
        with self._lock:
            self.closed = True
            self._given.clear()
            self._settle()
            for block in list(self._blocks.values()):
                wanted = block.viewed() or (block.far and block.loans)
                block.loans = 0
                block.holds = 1 if wanted else 0
                self._free_if_unused(block)
            self._unused.clear()
            self._arenas.drop_empty()
            self._drop_seen()
            for arena in self._arenas:
                arena.leave()
        self._room.close()


def _on_disk(block: Block) -> bool:
    return block.arena.name.startswith("d")
