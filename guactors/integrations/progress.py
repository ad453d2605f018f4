"""Telling how far a map is: to a bar of tqdm or rich, or to a function.

Owns: the bars. Must never: import a package of bars before one is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from guactors.errors import UsageError

Told = Callable[[int, int | None], object]
"""``told(done, total)``; ``total`` is None where nobody knows it."""


class Progress(Protocol):
    """Somebody who is told."""

    def update(self, done: int) -> None:
        """So many items are done."""

    def close(self) -> None:
        """No more will come."""


class Silence:
    """Nobody."""

    def update(self, done: int) -> None:
        pass

    def close(self) -> None:
        pass


class Function:
    """The user's function."""

    def __init__(self, told: Told, total: int | None) -> None:
        self._told = told
        self._total = total

    def update(self, done: int) -> None:
        self._told(done, self._total)

    def close(self) -> None:
        pass


class TqdmBar:
    """A bar of tqdm, of its notebook kind in a notebook."""

    def __init__(self, total: int | None, name: str) -> None:
        tqdm: Any = _import("tqdm.auto", "tqdm")
        self._bar = tqdm.tqdm(total=total, desc=name, unit="item")

    def update(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class RichBar:
    """A bar of rich."""

    def __init__(self, total: int | None, name: str) -> None:
        rich: Any = _import("rich.progress", "rich")
        self._progress = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(name, total=total)
        self._progress.start()

    def update(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def close(self) -> None:
        self._progress.stop()


def open_progress(wanted: str | Told | None, total: int | None, name: str) -> Progress:
    """``"tqdm"``, ``"rich"``, a function of (done, total), or None. Raises UsageError for anything
    else, and where the package is not installed."""
    if wanted is None:
        return Silence()
    if callable(wanted):
        return Function(wanted, total)
    if wanted == "tqdm":
        return TqdmBar(total, name)
    if wanted == "rich":
        return RichBar(total, name)
    raise UsageError(
        f'progress={wanted!r} is unknown; there are "tqdm", "rich", and functions of (done, total)'
    )


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f'progress="{package}" needs the package {package}: pip install guactors[progress]'
        ) from error
