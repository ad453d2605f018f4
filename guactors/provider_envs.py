"""The environments of a provider on its disk: archives unpacked, packages installed.

Owns: a directory of its own below ``envs``, the builds under way. Must never: decide what is built
or removed (``provider_state`` does), or build on the event loop.

Each part is built in a directory with a fresh name and told of when it is whole, so what a build
left half-done is never used. A provider that was killed leaves its directory behind; the next one
removes it, for nobody holds its lock any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.home import private_directory
from guactors.provider_fetch import ImageTrouble
from guactors.provider_images import Images, remove_tree
from guactors.provider_state import BuildPart, Part, ProviderCore, RemovePart
from guactors.provider_state import Effect as CoreEffect
from guactors.runtime_env.description import ARCHIVE

if TYPE_CHECKING:
    from guactors.runtimes.envbuild import Builders

log = logging.getLogger("guactors.provider")

MOST_BUILDS = 8
"""At a time; others wait."""
_LOCK = "lock"


class PartBuilt(Struct, frozen=True):
    """The part is in the directory ``path``, of ``size`` bytes."""

    key: str
    path: str
    size: int


class PartFailed(Struct, frozen=True):
    """It is not; ``reason`` and ``detail`` as in ``ProviderCore.on_part_failed``."""

    key: str
    reason: str
    detail: str


EnvNews = PartBuilt | PartFailed


def tell_core(core: ProviderCore, news: EnvNews, now: float) -> Sequence[CoreEffect]:
    """Hand it to the event it is."""
    match news:
        case PartBuilt(key, path, size):
            return core.on_part_built(key, path, size, now)
        case PartFailed(key, reason, detail):
            return core.on_part_failed(key, reason, detail, now)


class EnvDisk:
    """``directory``: of this and other providers. ``images`` fetch archives; ``tell`` gets the
    news, on the loop. ``provider``: its name, for messages."""

    def __init__(
        self, directory: Path, provider: str, images: Images, tell: Callable[[EnvNews], None]
    ) -> None:
        self._directory = directory
        self._provider = provider
        self._images = images
        self._tell = tell
        self._own: Path | None = None
        self._lock = -1
        self._builders: Builders | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(MOST_BUILDS, "environment")
        self._closed = False

    def carry_out(self, effect: BuildPart | RemovePart) -> None:
        """See the effects; the news tell what came of it."""
        match effect:
            case BuildPart(part, cwd):
                self._run(self._build(part, cwd))
            case RemovePart(_, path):
                self._threads.submit(remove_tree, Path(path))

    def close(self) -> None:
        """No worker is left. Blocks while directories are removed."""
        self._closed = True
        if self._builders is not None:
            self._builders.close()
        for task in self._tasks:
            task.cancel()
        # Whoever still writes would leave something behind.
        self._threads.shutdown(cancel_futures=True)
        if self._own is not None:
            remove_tree(self._own)
            os.close(self._lock)
            self._own = None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- building -------------------------------------------------------------------------------

    async def _build(self, part: Part, cwd: str) -> None:
        from guactors.runtimes.envbuild import BuildFailed

        try:
            if part.kind == "files":
                await self._images.fetch(part.image)
            work = partial(self._make, part, cwd)
            target, size = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ImageTrouble as trouble:
            reason = "link_lost" if trouble.reason in ("link_lost", "gone") else "failed"
            self._failed(part, reason, trouble.detail)
        except (BuildFailed, ImageRefused, UsageError, OSError) as error:
            self._failed(part, "failed", str(error))
        except Exception as error:
            # Whoever waits for it must learn of our bug, too.
            log.exception("an environment could not be built")
            self._failed(part, "failed", f"{error!r}; please report this")
        else:
            self._tell(PartBuilt(part.key, str(target), size))

    def _failed(self, part: Part, reason: str, detail: str) -> None:
        what = "its files" if part.kind == "files" else part.kind
        where = f"the runtime_env could not be set up on {self._provider} ({what})"
        self._tell(PartFailed(part.key, reason, f"{where}: {detail}"))

    def _make(self, part: Part, cwd: str) -> tuple[Path, int]:
        """The directory, and its bytes. In a thread."""
        target = self._fresh(part)
        try:
            if part.kind == "files":
                self._images.unpack_named(part.image, ARCHIVE, target)
            else:
                self._install(part, cwd, target)
            return target, _size(target)
        except BaseException:
            remove_tree(target)
            raise

    def _install(self, part: Part, cwd: str, target: Path) -> None:
        from guactors.runtimes.envbuild import Request

        packages, builders = part.packages, self._builders
        assert packages is not None
        assert builders is not None
        builders.build(
            Request(
                str(target), part.kind, packages.packages, packages.options, packages.check,
                packages.version, part.python, cwd,
            ),
            part.timeout,
        )  # fmt: skip

    def _fresh(self, part: Part) -> Path:
        """A name for a directory that is not there yet; the first one sweeps."""
        if self._closed:
            raise UsageError("the provider stops")
        return self._place() / f"{part.kind}-{part.key[:12]}-{token_hex(4)}"

    def _place(self) -> Path:
        from guactors.images import disk
        from guactors.runtimes.envbuild import Builders

        if self._own is not None:
            return self._own
        root = private_directory(self._directory)
        with disk.locked(root / _LOCK):
            if self._own is None:
                _sweep(root)
                own = Path(tempfile.mkdtemp(prefix="env-", dir=root))
                self._lock = disk.open_file(own / _LOCK, os.O_RDWR | os.O_CREAT)
                disk.try_lock(self._lock)
                self._builders = Builders()
                self._own = own
        return self._own


def _sweep(root: Path) -> None:
    """Remove what providers left that were killed."""
    from guactors.images import disk

    for other in root.iterdir():
        if not other.is_dir():
            continue
        try:
            lock = disk.open_file(other / _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            log.warning("%s cannot be looked at: %s", other, error)
            continue
        try:
            if disk.try_lock(lock):
                remove_tree(other)
        finally:
            os.close(lock)


def _size(directory: Path) -> int:
    """Bytes of the files below."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            total += os.lstat(os.path.join(where, name)).st_size
    return total
