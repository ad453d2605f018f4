"""What the suite of the runtimes needs of each: how to make an instance, and what one may expect.

Owns: one Bench per adapter and way of running it. Must never: know a case.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from guactors.errors import RuntimeMissing
from guactors.ids import fresh
from guactors.images.store import ImageStore
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Exit, Output, Runtime, Size, Spec
from guactors.runtimes.instance import Instance, Running

WITHIN = 20.0
OWNER = fresh("provider")
"""Of all instances of this session: those of another on this machine are not ours to reap."""
DOCKER_OPTIONS = {"ulimits": {"nofile": 4096, "nproc": 8192}}
"""Of any daemon: the usual ones of Podman are more than it may set on some machines."""


class Bench:
    """Makes instances of one runtime. ``image``: of one with a shell and the usual small programs,
    empty where those of the machine are run."""

    def __init__(
        self,
        runtime: Runtime,
        directory: Path,
        image: str = "",
        options: dict[str, Any] | None = None,
        without: frozenset[Capability] = frozenset(),
    ) -> None:
        self.runtime = runtime
        self.directory = directory
        self.image = image
        self.options = options or {}
        self.can = runtime.capabilities - without
        self._open: list[Instance] = []

    def spec(self, limits: Limits | None = None, **fields: Any) -> Spec:
        """Of a new instance, with a directory of its own."""
        name = fresh("instance")
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        options = self.options | fields.pop("options", {})
        return Spec(
            name,
            OWNER,
            str(directory),
            self.image,
            limits or Limits(),
            options=options,
            **fields,
        )

    def created(self, limits: Limits | None = None, **fields: Any) -> Instance:
        """An instance that was not started."""
        spec = self.spec(limits, **fields)
        return self.keep(Instance(spec, self.runtime.create(spec)))

    def keep(self, instance: Instance) -> Instance:
        """It is closed at the end of the test."""
        self._open.append(instance)
        return instance

    def started(self, limits: Limits | None = None, **fields: Any) -> Instance:
        """An instance that runs."""
        instance = self.created(limits, **fields)
        instance.start()
        return instance

    def close(self) -> None:
        """Every instance, and the runtime."""
        for instance in self._open:
            instance.close()
        self.runtime.close()


def sh(instance: Instance, script: str, **fields: Any) -> Running:
    """A shell that runs it."""
    return instance.exec(Command(("/bin/sh", "-c", script), **fields))


def finish(running: Running, within: float = WITHIN) -> tuple[bytes, bytes, Exit]:
    """Both streams to their ends, and the exit."""
    streams = {1: b"", 2: b""}
    until = time.monotonic() + within
    while True:
        found = running.read(max(0.0, until - time.monotonic()))
        if isinstance(found, Exit):
            return streams[1], streams[2], found
        if found is None:
            raise AssertionError(f"still runs after {within} s, said {streams}")
        streams[found.stream] += found.data


def outcome(instance: Instance, script: str, **fields: Any) -> tuple[bytes, bytes, Exit]:
    """Of a shell script, run to its end."""
    return finish(sh(instance, script, **fields))


def output(running: Running, within: float = WITHIN) -> bytes:
    """The next thing it says."""
    found = running.read(within)
    assert isinstance(found, Output), found
    return found.data


def lines(running: Running, count: int) -> list[str]:
    """So many whole lines of what it says."""
    said = b""
    while said.count(b"\n") < count:
        said += output(running)
    return said.decode().splitlines()


def tar(files: dict[str, bytes]) -> bytes:
    """An archive of these, some of which may be links: ``-> TARGET``."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if data.startswith(b"-> "):
                member.type, member.linkname = tarfile.SYMTYPE, data[3:].decode()
                archive.addfile(member)
            else:
                member.size, member.mode = len(data), 0o644
                archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def untar(pieces: Iterator[bytes]) -> dict[str, bytes]:
    """The files of an archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        for member in archive:
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def native(directory: Path) -> Bench:
    """Programs of this machine, held by groups of the kernel's."""
    from guactors.runtimes.native.driver import NativeRuntime

    return Bench(NativeRuntime(), directory, without=frozenset({Capability.MOUNT}))


def marked(directory: Path) -> Bench:
    """The same, where the kernel has no groups for us."""
    from guactors.runtimes.native.driver import NativeRuntime

    os.environ["GU_LIMITS"] = "rlimit"
    held = frozenset({Capability.CPU, Capability.MEMORY, Capability.PIDS, Capability.MOUNT})
    return Bench(NativeRuntime(), directory, without=held)


def sandboxed(directory: Path) -> Bench:
    """The same in a sandbox."""
    from guactors.runtimes.native.driver import NativeRuntime
    from guactors.runtimes.native.sandbox import find_bubblewrap

    bubblewrap = find_bubblewrap()
    if not bubblewrap:
        assert os.environ.get("CI") != "true", "CI=true: bubblewrap is promised to be there"
        raise RuntimeMissing("bubblewrap is not installed")
    words = [bubblewrap, "--unshare-all", "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise RuntimeMissing(f"this kernel lets nobody make a sandbox: {tried.stderr}")
    return Bench(NativeRuntime(), directory, options={"sandbox": "bubblewrap"})


def external(directory: Path) -> Bench:
    """The driver of the examples, by this interpreter."""
    from guactors.runtimes.external.driver import ExternalRuntime
    from guactors.runtimes.external.manifest import read_driver

    example = Path(__file__).parents[2] / "examples" / "driver"
    manifest = json.loads((example / "machine.gu-driver.json").read_text())
    manifest["command"] = [sys.executable, "-S", str(example / "machine.py")]
    path = directory / "machine.gu-driver.json"
    path.write_text(json.dumps(manifest))
    runtime = ExternalRuntime(read_driver(path))
    found = runtime.probe()
    if not found.usable:
        runtime.close()
        raise RuntimeMissing(found.reason)
    return Bench(runtime, directory)


def docker(directory: Path, socket: str, busybox: tuple[ImageStore, str]) -> Bench:
    """Containers."""
    from guactors.runtimes.docker.driver import DockerRuntime

    store, image = busybox
    return Bench(DockerRuntime(lambda: store, socket=socket), directory, image, DOCKER_OPTIONS)


def agent_stub(directory: Path) -> Bench:
    """The agent of a guest, as a process of this machine."""
    from guactors.runtimes.native.sandbox import find_bubblewrap
    from tests.contract.guest_stub import StubRuntime

    if not find_bubblewrap():
        raise RuntimeMissing("bubblewrap is not installed")
    return Bench(StubRuntime(), directory)


def firecracker_stub(directory: Path) -> Bench:
    """Machines of Firecracker, of which only the machine is missing: the stand-in for its program,
    and the agent as a process."""
    from guactors.runtimes.native.sandbox import find_bubblewrap
    from guactors.runtimes.qemu.scratch import find_mke2fs
    from tests.contract.firecracker_stub import StubBench

    for there, name in ((find_bubblewrap(), "bubblewrap"), (find_mke2fs(), "e2fsprogs")):
        if not there:
            raise RuntimeMissing(f"{name} is not installed")
    return StubBench(directory)


def machines(directory: Path) -> Bench:
    """Guests of QEMU, emulated where KVM does not work; the first of a kind leaves a warm one."""
    from tests.contract.guests import runtime, shell_image

    return Bench(runtime(), directory, shell_image())


BENCHES: dict[str, Callable[..., Bench]] = {
    "native": native,
    "native, no cgroups": marked,
    "native, sandbox": sandboxed,
    "external": external,
    "docker": docker,
    "guest stub": agent_stub,
    "firecracker stub": firecracker_stub,
    "qemu": machines,
}
"""Each is called with a directory, and what its fixtures give."""
FIXTURES: dict[str, tuple[str, ...]] = {"docker": ("docker_socket", "busybox")}
"""Of the session (``conftest.py``)."""
NEEDS: dict[str, tuple[str, ...]] = {"docker": ("dockerd", "busybox")}
"""Components, without which a runtime is skipped."""
SIZE = Size(31, 97)
