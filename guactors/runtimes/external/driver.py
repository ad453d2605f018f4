"""A runtime that somebody else wrote: an executable with the protocol of ``docs/drivers.md``.

Owns: what a Spec and a Command become on its line, and which limits are held here. Must never:
believe a driver that says it can what its manifest does not name.

A driver's process runs as the provider does and is trusted as its programs are; what it *says* is
checked. ``Spec.options`` go to the driver as they are.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

assert sys.platform != "win32", "needs poll"

from guactors.errors import GuactorsError, RuntimeMissing, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.cgroup_places import find_places, sweep
from guactors.runtimes.external import words
from guactors.runtimes.external.channel import Channel
from guactors.runtimes.external.manifest import HELD, Driver
from guactors.runtimes.external.transfers import Transfers
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.native.workspace import bytes_below

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

IMAGE: Final = "image"
"""Where an image is in an instance's directory."""
_numbers = count(1)


class ExternalRuntime:
    """:class:`~guactors.runtimes.base.Runtime`. ``images`` opens the store, where there is one."""

    def __init__(self, driver: Driver, images: Callable[[], ImageStore] | None = None) -> None:
        self.driver = driver
        self.name = driver.name
        self.capabilities = self._of_port(frozenset(driver.manifest.capabilities))
        """As the manifest says; after ``probe`` those that the driver has on this machine."""
        self._images = images
        self.guardian = Guardian()

    def probe(self) -> Probe:
        """See Runtime; so all that follow."""
        try:
            channel = self._channel("probe")
        except RuntimeMissing as error:
            return Probe(False, self.driver.manifest.version, str(error))
        facts = {"driver": str(self.driver.path), "limits": self.driver.manifest.limits}
        try:
            version = channel.talk.version or self.driver.manifest.version
            self.capabilities = self._of_port(channel.talk.capabilities)
            if "probe" not in channel.talk.capabilities:
                return Probe(True, version, facts=facts)
            found = channel.read(words.Probed, channel.ask("probe"))
            return Probe(found.usable, version, found.reason, found.facts | facts)
        except GuactorsError as error:
            return Probe(False, self.driver.manifest.version, str(error))
        finally:
            channel.close()

    def create(self, spec: Spec) -> ExternalInstance:
        """A driver's process, which has made it."""
        return self._make(spec, "create")

    def restore(self, spec: Spec, path: str) -> ExternalInstance:
        """Another process, which has read it."""
        if Capability.SAVE not in self.capabilities:
            raise UsageError(
                f"{spec.instance}: the driver {self.name!r} cannot restore: it has not the "
                "capability 'save'"
            )
        return self._make(spec, "restore", path=path)

    def reap(self, owner: str) -> list[str]:
        """Groups of processes here; and what the driver keeps elsewhere, if it does."""
        places = find_places() if sys.platform == "linux" else None
        ended = sweep(places) if places is not None else []
        if "reap" not in self.driver.manifest.capabilities:
            return ended
        channel = self._channel("reap")
        try:
            if "reap" not in channel.talk.capabilities:
                return ended
            return ended + channel.read(words.Reaped, channel.ask("reap", owner=owner)).ended
        finally:
            channel.close()

    def close(self) -> None:
        """The guardian goes."""
        self.guardian.close()

    def _make(self, spec: Spec, verb: str, **more: Any) -> ExternalInstance:
        self._check(spec)
        told = {**_told(spec), "image": self._image(spec)}
        host = self.driver.manifest.limits == "host"
        channel = Channel(
            self.driver, spec.instance, spec.limits if host else Limits(), self.guardian
        )
        try:
            channel.ask(verb, spec=told, **more)
        except BaseException as error:
            lost = channel.lost
            channel.close()
            if lost and isinstance(error, GuactorsError):
                raise RuntimeMissing(f"{spec.instance} was not made: {lost}") from error
            raise
        return ExternalInstance(spec, channel)

    def _channel(self, purpose: str) -> Channel:
        name = f"{purpose}-{self.name}-{next(_numbers)}"
        return Channel(self.driver, name, Limits(), self.guardian)

    def _of_port(self, said: frozenset[str]) -> frozenset[Capability]:
        found = {one for one in Capability if one.value in said}
        if self.driver.manifest.limits == "host":
            found.add(Capability.DISK)
            places = find_places() if sys.platform == "linux" else None
            if places is not None:
                found |= {Capability.CPU, Capability.MEMORY}
                if "pids" in places.bases:
                    found.add(Capability.PIDS)
        return frozenset(found)

    def _check(self, spec: Spec) -> None:
        what = f"{spec.instance}: the driver {self.name!r}"
        needed = Capability.IMAGE if spec.image else Capability.HOST
        if needed not in self.capabilities:
            instead = "give it an image" if needed is Capability.HOST else "leave the image out"
            raise UsageError(f"{what} has not the capability {needed.value!r}: {instead}")
        if spec.mounts and Capability.MOUNT not in self.capabilities:
            raise UsageError(f"{what} has not the capability 'mount': leave the mounts out")
        if self.driver.manifest.limits == "driver":
            for one in sorted(HELD - self.capabilities):
                if getattr(spec.limits, one.value):
                    raise UsageError(f"{what} cannot hold a limit of {one.value}: leave it out")

    def _image(self, spec: Spec) -> dict[str, Any] | None:
        if not spec.image:
            return None
        if self._images is None:
            raise RuntimeMissing(f"there is no store of images to take {spec.image} from")
        store, path = self._images(), Path(spec.directory) / IMAGE
        manifest = store.get(spec.image).manifest
        if not path.exists():
            self._bring(store, spec.image, path)
        config = manifest.config
        return {
            "id": spec.image,
            "path": str(path),
            "media": manifest.blob("rootfs").media,
            "entrypoint": list(config.entrypoint),
            "env": dict(config.env),
            "workdir": config.workdir,
            "user": config.user,
        }

    def _bring(self, store: ImageStore, image: str, path: Path) -> None:
        if self.driver.manifest.image == "directory":
            from guactors.images.unpack import unpack_image

            unpack_image(store, image, path)
            return
        with store.open_blob(image, "rootfs") as blob, path.open("xb") as file:
            shutil.copyfileobj(blob, file, 1 << 20)


class ExternalInstance:
    """:class:`~guactors.runtimes.base.Driver`."""

    def __init__(self, spec: Spec, channel: Channel) -> None:
        self._spec = spec
        self._channel = channel
        self._files = Transfers(channel)
        self._host = channel.driver.manifest.limits == "host"

    def start(self) -> None:
        """See Driver; so all that follow."""
        self._channel.ask("start")

    def exec(self, command: Command) -> Process:
        """By the driver."""
        can = self._channel.talk.capabilities
        for wanted, name in ((command.tty, "tty"), (command.user, "user")):
            if wanted and name not in can:
                raise UsageError(
                    f"the driver {self._channel.driver.name!r} has not the capability {name!r}: "
                    f"run {command.argv[:1]} without"
                )
        if not command.argv or not command.argv[0]:
            raise UsageError("no program is named")
        tty = command.tty
        body = {
            "argv": list(command.argv),
            "env": command.env,
            "cwd": command.cwd,
            "user": command.user,
            "stdin": command.stdin,
            "tty": {"rows": tty.rows, "columns": tty.columns} if tty is not None else None,
            "main": command.main,
        }
        return self._channel.exec(body, tty=tty is not None, stdin=command.stdin)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """By the driver."""
        self._files.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """By the driver."""
        return self._files.get(path, tar=tar)

    def pause(self) -> None:
        """By the driver."""
        self._channel.ask("pause")

    def resume(self) -> None:
        """By the driver."""
        self._channel.ask("resume")

    def save(self, path: str) -> None:
        """By the driver, which ends then."""
        self._channel.ask("save", path=os.path.abspath(path))
        self._channel.close()

    def stats(self) -> Stats:
        """What the driver counts, and what it does not, of its processes, where all are its."""
        found = self._channel.executable.stats() if self._host else Stats()
        if self._host:
            found = _joined(Stats(disk=self.disk_used()), found)
        if "stats" not in self._channel.talk.capabilities:
            return found
        raw = self._channel.ask("stats")
        return _joined(self._channel.read(words.Counted, raw), found)

    def disk_used(self) -> int | None:
        """Of its directory, unless the driver holds that limit."""
        return bytes_below(Path(self._spec.directory)) if self._host else None

    def lost(self) -> str:
        """Once its driver is."""
        return self._channel.lost

    def stop(self, grace: float) -> None:
        """By the driver."""
        self._channel.ask("stop", extra=grace, grace=grace)

    def close(self) -> None:
        """What the driver does not end is ended with it."""
        try:
            self._channel.say_goodbye()
        finally:
            self._channel.close()


def _told(spec: Spec) -> dict[str, Any]:
    limits = spec.limits
    return {
        "instance": spec.instance,
        "owner": spec.owner,
        "directory": spec.directory,
        "limits": {
            "cpu": limits.cpu, "memory": limits.memory, "pids": limits.pids, "disk": limits.disk,
        },
        "env": spec.env,
        "network": spec.network,
        "mounts": [{"source": one.source, "target": one.target} for one in spec.mounts],
        "options": spec.options,
    }  # fmt: skip


def _joined(first: words.Counted | Stats, second: Stats) -> Stats:
    """What the first does not know, from the second."""
    names = Stats.__struct_fields__
    known = {name: getattr(first, name) for name in names}
    return Stats(
        **{name: getattr(second, name) if value is None else value for name, value in known.items()}
    )
