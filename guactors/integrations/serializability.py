"""Why something cannot be pickled: Ray's ``inspect_serializability``.

Owns: the search for the parts that cannot. Must never: change what it looks at.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO


class FailureTuple:
    """A part that cannot be pickled although all it is made of can: ``obj``, called ``name``, of
    ``parent``."""

    def __init__(self, obj: Any, name: str, parent: Any) -> None:
        self.obj = obj
        self.name = name
        self.parent = parent

    def __repr__(self) -> str:
        return f"FailureTuple({self.name} [obj={self.obj!r}, parent={self.parent!r}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether ``base_obj`` can be pickled, and if not, which of its parts cannot: variables of
    functions, attributes of objects, items of containers, ``depth`` levels down. The search is
    printed to ``print_file`` (default: stdout)."""
    search = _Search(print_file or sys.stdout)
    name = name or getattr(base_obj, "__qualname__", None) or repr(base_obj)
    search.tell(0, f"can {name} be pickled?")
    error = _pickling_error(base_obj)
    if error is None:
        search.tell(0, "yes")
        return True, set()
    search.tell(0, f"no: {error}")
    search.look(base_obj, name, base_obj, depth, 1)
    for failure in search.failures:
        search.tell(0, f"{failure.name!r} is in the way: {_short(failure.obj)}")
    return False, set(search.failures)


class _Search:
    def __init__(self, stream: TextIO) -> None:
        self.failures: list[FailureTuple] = []
        self._stream = stream
        self._seen: set[int] = set()

    def tell(self, level: int, line: str) -> None:
        print("  " * level + line, file=self._stream)

    def look(self, obj: Any, name: str, parent: Any, depth: int, level: int) -> None:
        """``obj`` cannot be pickled: find the parts of it that cannot."""
        guilty = []
        if depth > 0:
            for part_name, part in _parts(obj):
                if id(part) in self._seen:
                    continue
                self._seen.add(id(part))
                error = _pickling_error(part)
                if error is not None:
                    self.tell(level, f"{part_name}: {error}")
                    guilty.append((part_name, part))
        for part_name, part in guilty:
            self.look(part, part_name, obj, depth - 1, level + 1)
        if not guilty:
            self.failures.append(FailureTuple(obj, name, parent))


def _pickling_error(obj: Any) -> str | None:
    import cloudpickle

    try:
        cloudpickle.dumps(obj)
    except Exception as error:  # noqa: BLE001 - any reason is the answer
        return f"{type(error).__name__}: {error}"
    return None


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    if inspect.ismethod(obj):
        yield "self", obj.__self__
    elif inspect.isfunction(obj):
        variables = inspect.getclosurevars(obj)
        yield from variables.nonlocals.items()
        yield from variables.globals.items()
    elif isinstance(obj, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in obj.items())
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from ((f"[{index}]", value) for index, value in enumerate(obj))
    elif not inspect.ismodule(obj):
        yield from vars(obj).items() if hasattr(obj, "__dict__") else ()


def _short(obj: Any) -> str:
    text = repr(obj)
    return text if len(text) <= 200 else f"{text[:197]}..."
