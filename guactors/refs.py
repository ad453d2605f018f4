"""References to results: what ``.remote()`` and ``put()`` return.

Owns: the user's view of one object or stream. Must never: hold a value, or talk to anything but its
session.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from guactors.errors import NotInitialized, SessionClosed
from guactors.values import note_reference

if TYPE_CHECKING:
    import concurrent.futures

    from guactors.messages import RefWord
    from guactors.session import Session

_current: Session | None = None
_factory: Callable[[], Session] | None = None


def current_session() -> Session | None:
    """The session of this process, if there is one; a worker's is made at its first use."""
    if _current is None and _factory is not None:
        set_current_session(_factory())
    return _current


def set_session_factory(factory: Callable[[], Session] | None) -> None:
    """Called by the worker: most workers never call others, so their session can wait."""
    global _factory
    _factory = factory


def present_session() -> Session | None:
    """The session, if it was made already."""
    return _current


def set_current_session(session: Session | None) -> None:
    """Called by ``init``, ``shutdown`` and the worker."""
    global _current
    _current = session


def grid_name(owner: str, number: int) -> str:
    """The name in hex of the object, or of the call, that the process ``owner`` knows by
    ``number``."""
    return f"{owner.partition('-')[2]}{number:016x}"


class TaskID(str):
    """The name of a call, in hex."""

    __slots__ = ()

    def hex(self) -> str:
        """As a plain text."""
        return str(self)

    def binary(self) -> bytes:
        """As bytes."""
        return bytes.fromhex(self)


def check_session(ref: ObjectRef | ObjectRefGenerator, session: Session | None) -> None:
    """Raise SessionClosed unless ``ref`` is of this session, and that goes on: another one has
    other objects of the same numbers."""
    own = ref._session
    if own is not session or own.closed:
        over = "that has ended" if own.closed else "other than the present one"
        raise SessionClosed(
            f"{ref!r} is of a session {over}: make the value again, or get() it before shutdown()"
        )


class ObjectRef:
    """A value that is, or will be, somewhere. ``get`` it, ``await`` it, or pass it on."""

    __slots__ = ("__weakref__", "_call", "_id", "_session")
    _call: int

    def __init__(self, id: int, session: Session) -> None:
        self._id = id
        self._session = session

    def __del__(self) -> None:
        # Runs in any thread at any time, so it only leaves a note for the session.
        self._session.released.append(self._id)

    @property
    def id(self) -> int:
        """Number of the object within this process."""
        return self._id

    def hex(self) -> str:
        """The grid-wide name of the object."""
        word = self._session.values.word(self._id)
        return grid_name(word.owner, word.object)

    def binary(self) -> bytes:
        """``hex()`` as bytes."""
        return bytes.fromhex(self.hex())

    def task_id(self) -> TaskID:
        """Name of the call that makes it, as ``get_task_id()`` gives it there; of a ``put`` value,
        its own."""
        word = self._session.values.word(self._id)
        # Only results after a call's first carry a number of their own and one of the call.
        first = getattr(self, "_call", 0)
        return TaskID(grid_name(word.owner, first or word.object))

    def future(self) -> concurrent.futures.Future[Any]:
        """A future that ends as the object does."""
        check_session(self, self._session)
        return self._session.values.future(self._id)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self.future()).__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        check_session(self, present_session())
        note_reference(self)
        word = self._session.values.word(self._id)
        return _rebuild_ref, (word.owner, word.object)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ObjectRef)
            and self._id == other._id
            and self._session is other._session
        )

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._session.peer}/{self._id})"


def _rebuild_ref(owner: str, object: int) -> ObjectRef:
    session = current_session()
    if session is None:
        raise NotInitialized("an ObjectRef can only be unpickled in a process that called init()")
    return session.values.arrived(owner, object)


class _Word:
    """Pickles as what this reference is when it arrives."""

    def __init__(self, word: RefWord) -> None:
        self._word = (word.owner, word.object)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_ref, self._word


def pack_refs(words: list[RefWord]) -> bytes:
    """A list of references, as the result of a call with ``num_returns="dynamic"``."""
    return pickle.dumps([_Word(word) for word in words], 5)


class ObjectRefGenerator:
    """The refs of a streaming call, each as soon as its item exists. Sync and async iterator; one
    consumer at a time."""

    def __init__(self, id: int, session: Session) -> None:
        self._id = id
        self._session = session

    def __del__(self) -> None:
        self._session.abandoned.append(self._id)

    def __iter__(self) -> Iterator[ObjectRef]:
        return self

    def __next__(self) -> ObjectRef:
        ref = self._session.values.next_item(self._id, None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef]:
        return self

    async def __anext__(self) -> ObjectRef:
        ref = await self._session.values.next_item_async(self._id)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def next_ready(self) -> bool:
        """Whether ``next`` would not block."""
        return self._session.values.item_ready(self._id)

    def completed(self) -> ObjectRef:
        """A ref that is ready when the whole call has ended, and carries its error."""
        return self._session.values.share(self._id)

    def is_finished(self) -> bool:
        """Whether every item was taken and the call has ended."""
        return self._session.values.stream_finished(self._id)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._session.peer}/{self._id})"
