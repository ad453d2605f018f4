"""Machines of Firecracker: one process, one machine, one agent in it.

Owns: what a Spec becomes as a machine, and the order of the steps: files, process, API, agent. Must
never: know the frames of the agent, or leave a machine behind whose making failed.

``Spec.options``: ``network``: ``{"device", "mac", "mtu", "namespace"}`` of a TAP that exists; the
process joins the namespace. Programs run with the agent: see ``agent.py``.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

assert sys.platform == "linux", "Firecracker is for Linux"

import msgspec
from msgspec.structs import replace

from guactors.errors import (
    GuactorsError,
    ImageRefused,
    InstanceLost,
    ProtocolError,
    RuntimeMissing,
    UsageError,
)
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.cgroup_places import find_places, sweep
from guactors.runtimes.firecracker import probing, requests, saved, sequence, vsock
from guactors.runtimes.firecracker.agent import Agent, Guest
from guactors.runtimes.firecracker.api import Api, Fault, Silence
from guactors.runtimes.firecracker.requests import Network, Request
from guactors.runtimes.firecracker.saved import Key
from guactors.runtimes.firecracker.sequence import Plan
from guactors.runtimes.firecracker.vmm import OVERHEAD, SOCKET, Vmm, command
from guactors.runtimes.native.guardian import Guardian

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

ROOTFS, SCRATCH, STATE, MEMORY, VSOCK = "rootfs", "scratch", "state", "memory", "agent.sock"
MEMORY_MIB: Final = 256
DISK: Final = 1 << 30
AGENT_WITHIN: Final = 15.0
_EXPLAINED_WITHIN: Final = 0.2
_NAP: Final = 0.005
_MIB: Final = 1 << 20
_numbers = count(1)


class FirecrackerRuntime:
    """:class:`~guactors.runtimes.base.Runtime`. ``guest``: what is booted, None where there is
    nothing; ``images`` opens the store, where there is one; ``binary``: its name or path;
    ``within``: seconds until the agent must answer."""

    name = "firecracker"
    capabilities = frozenset({
        Capability.IMAGE, Capability.PRIVATE, Capability.PAUSE, Capability.SAVE, Capability.TTY,
        Capability.USER, Capability.CPU, Capability.MEMORY, Capability.DISK, Capability.NETWORK,
    })  # fmt: skip

    def __init__(
        self,
        guest: Callable[[], Guest] | None,
        images: Callable[[], ImageStore] | None = None,
        *,
        binary: str = "firecracker",
        kvm: str = "/dev/kvm",
        within: float = AGENT_WITHIN,
    ) -> None:
        self._guest = guest
        self._images = images
        self._binary = binary
        self._kvm = kvm
        self.within = within
        self.guardian = Guardian()

    def probe(self) -> Probe:
        """See Runtime; so all that follow. The last question is a machine that boots."""
        release = ""
        try:
            binary, guest, release = self._look()
            plan = _plan(Spec("probe", "", ""), guest, None)
            self._try_boot(replace(plan, rootfs="", scratch=""), guest, binary)
        except GuactorsError as error:
            return Probe(False, release, self._all_missing() or str(error))
        return Probe(True, release, facts={"accel": "kvm", "limits": "guest memory, cgroup"})

    def create(self, spec: Spec) -> FirecrackerInstance:
        """A process that is set up, and not started."""
        network = _check(spec)
        binary, guest, _ = self._look()
        plan = _plan(spec, guest, network)
        self._bring_image(spec)
        guest.make_disk(Path(spec.directory) / SCRATCH, spec.limits.disk or DISK)
        made = self._make(spec, plan, guest, binary)
        with made.or_nothing():
            made.ask_all(sequence.boot(plan)[:-1])
        return made

    def restore(self, spec: Spec, path: str) -> FirecrackerInstance:
        """Another process, with the memory of the one that was saved."""
        network = _check(spec)
        binary, guest, _ = self._look()
        plan = _plan(spec, guest, network)
        head = saved.read_head(path)
        saved.check(head.key, self.key(spec, plan, guest, binary), path)
        if [name for name, _ in head.parts] != [STATE, MEMORY, SCRATCH]:
            raise UsageError(f"{path}: not the parts of a machine")
        self._bring_image(spec)
        saved.unpack(path, head, Path(spec.directory))
        made = self._make(spec, plan, guest, binary)
        with made.or_nothing():
            made.ask_all(sequence.restore(STATE, MEMORY, network))
            made.find_agent()
            made.agent.restored()
        return made

    def reap(self, owner: str) -> list[str]:
        """Groups of processes whose maker is dead."""
        del owner
        places = find_places()
        return sweep(places) if places is not None else []

    def close(self) -> None:
        """The guardian goes."""
        self.guardian.close()

    def key(self, spec: Spec, plan: Plan, guest: Guest, binary: str) -> Key:
        """What a machine that is saved needs."""
        release = probing.find_version(binary)
        return Key(
            f"{release[0]}.{release[1]}", probing.cpu_model(), spec.image,
            probing.kernel_hash(guest.kernel), plan.cpus, plan.memory_mib,
            plan.network is not None,
        )  # fmt: skip

    def _look(self) -> tuple[str, Guest, str]:
        binary = probing.find_binary(self._binary)
        release = probing.find_version(binary)
        probing.check_kvm(self._kvm)
        if self._guest is None:
            raise RuntimeMissing("there is no guest for machines: none was given")
        guest = self._guest()
        probing.check_kernel(guest.kernel)
        return binary, guest, ".".join(map(str, release))

    def _all_missing(self) -> str:
        """What of this machine is, so that nobody mends one thing only to be told of the next."""

        def find_release() -> None:
            probing.find_version(probing.find_binary(self._binary))

        found = []
        for look in (find_release, lambda: probing.check_kvm(self._kvm)):
            try:
                look()
            except RuntimeMissing as error:
                found.append(str(error))
        return "; and ".join(found)

    def _try_boot(self, plan: Plan, guest: Guest, binary: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="gu-probe-") as directory:
            spec = Spec(f"probe-{os.getpid()}-{next(_numbers)}", "", directory)
            made = self._make(spec, plan, guest, binary)
            with made.or_nothing():
                made.ask_all(sequence.boot(plan))
                made.find_agent()
            made.close()

    def _make(self, spec: Spec, plan: Plan, guest: Guest, binary: str) -> FirecrackerInstance:
        namespace = plan.network.namespace if plan.network is not None else ""
        limits = Limits(cpu=spec.limits.cpu, memory=plan.memory_mib * _MIB + OVERHEAD)
        words = command(binary, spec.instance, namespace)
        vmm = Vmm(words, spec.instance, Path(spec.directory), limits, self.guardian)
        return FirecrackerInstance(
            spec, guest, vmm, self.within, lambda: self.key(spec, plan, guest, binary)
        )

    def _bring_image(self, spec: Spec) -> None:
        if self._images is None:
            raise RuntimeMissing(f"there is no store of images to take {spec.image} from")
        store = self._images()
        manifest = store.get(spec.image).manifest
        if manifest.arch != platform.machine():
            raise ImageRefused(
                f"the image {spec.image} is for {manifest.arch}, and machines here are "
                f"{platform.machine()}"
            )
        media = manifest.blob("rootfs").media
        if media != "squashfs":
            raise ImageRefused(
                f"the image {spec.image} is a {media}, and a machine mounts squashfs: build it "
                "with --media squashfs"
            )
        path = Path(spec.directory) / ROOTFS
        with store.open_blob(spec.image, "rootfs") as blob, path.open("xb") as file:
            shutil.copyfileobj(blob, file, _MIB)


class FirecrackerInstance:
    """:class:`~guactors.runtimes.base.Driver`. ``key``: what it needs if it is saved."""

    def __init__(
        self, spec: Spec, guest: Guest, vmm: Vmm, within: float, key: Callable[[], Key]
    ) -> None:
        self._spec = spec
        self._guest = guest
        self._vmm = vmm
        self._within = within
        self._key = key
        self._api = Api(spec.directory, SOCKET)
        self._asking = threading.Lock()
        self._agent: Agent | None = None
        self._paused = False
        self._lost = ""

    # --- of the runtime -------------------------------------------------------------------------

    @contextmanager
    def or_nothing(self) -> Iterator[None]:
        """It is made, or nothing of it is left. Raises RuntimeMissing for what it lacks."""
        try:
            yield
        except (InstanceLost, Fault) as error:
            why = f"{self._spec.instance} was not made: {error}{self._vmm.last_words()}"
            self.close()
            raise RuntimeMissing(why) from error
        except BaseException:
            self.close()
            raise

    def ask_all(self, wanted: list[Request]) -> None:
        """Ask these one after the other. Raises Fault for a no, InstanceLost for no answer."""
        for request in wanted:
            with self._asking:
                try:
                    self._api.ask(request)
                except (Silence, ProtocolError) as error:
                    self._lose(self._vmm.lost() or f"Firecracker does not answer: {error}")

    def find_agent(self) -> None:
        """Connect with it. Raises InstanceLost where it does not answer."""
        directory, port = self._spec.directory, self._guest.port
        try:
            stream = vsock.connect(directory, VSOCK, port, self._within, self._vmm.lost)
            self._agent = self._guest.open_agent(stream, self._spec, self._within)
        except (ProtocolError, InstanceLost) as error:
            self._lose(f"{error}{self._vmm.last_words()}")

    @property
    def agent(self) -> Agent:
        """Raises InstanceLost where there is none any more, UsageError where there is none yet."""
        if why := self.lost():
            raise InstanceLost(why)
        if self._agent is None:
            raise UsageError(f"{self._spec.instance} does not run: start it first")
        return self._agent

    # --- the port -------------------------------------------------------------------------------

    def start(self) -> None:
        """See Driver; so all that follow."""
        try:
            self.ask_all([requests.instance_start()])
        except Fault as error:
            self._lose(f"it does not boot: {error}")
        self.find_agent()

    def exec(self, command: Command) -> Process:
        """By the agent."""
        with self._explained():
            return self.agent.exec(command)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """By the agent."""
        with self._explained():
            self.agent.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """By the agent."""
        with self._explained():
            yield from self.agent.get(path, tar=tar)

    def pause(self) -> None:
        """All processors stand still."""
        agent = self.agent
        agent.pause()
        try:
            self._change("pause", [requests.pause()])
        except UsageError:
            agent.resume()
            raise
        self._paused = True

    def resume(self) -> None:
        """They go on."""
        agent = self.agent
        self._change("resume", [requests.resume()])
        agent.resume()
        self._paused = False

    def save(self, path: str) -> None:
        """State, memory and the disk that was written, in one file."""
        agent, directory = self.agent, Path(self._spec.directory)
        if not self._paused:
            agent.pause()
        try:
            self._change("save", sequence.save(STATE, MEMORY))
            saved.pack(os.path.abspath(path), self._key(), directory, [STATE, MEMORY, SCRATCH])
        except (OSError, UsageError) as error:
            for name in (STATE, MEMORY):
                (directory / name).unlink(missing_ok=True)
            if not self._paused:
                self._change("resume", [requests.resume()])
                agent.resume()
            raise UsageError(f"{self._spec.instance} cannot be saved to {path}: {error}") from None
        self.close()

    def stats(self) -> Stats:
        """Time and memory as the machine sees them, the rest as the guest does."""
        with self._explained():
            found, inside = self._vmm.stats(), self.agent.stats()
        return Stats(
            found.cpu_seconds, found.memory, found.memory_peak, self._scratch_used(), inside.read,
            inside.written, inside.received, inside.sent, inside.processes,
        )  # fmt: skip

    def disk_used(self) -> int | None:
        """Its disk has the size of its limit."""
        return None

    def lost(self) -> str:
        """Once its process is, or it did not answer."""
        return self._lost or self._vmm.lost()

    def stop(self, grace: float) -> None:
        """By the agent."""
        with self._explained():
            self.agent.stop(grace)

    def close(self) -> None:
        """The agent's stream, the process, and its sockets."""
        if self._agent is not None:
            self._agent.close()
        self._vmm.close()
        for name in (SOCKET, VSOCK):
            (Path(self._spec.directory) / name).unlink(missing_ok=True)

    # --- helpers --------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A stream that breaks is mostly a process that ended, and that says more."""
        try:
            yield
        except InstanceLost as error:
            until = time.monotonic() + _EXPLAINED_WITHIN
            while not (why := self.lost()) and time.monotonic() < until:
                time.sleep(_NAP)
            if why:
                raise InstanceLost(why) from error
            raise

    def _change(self, what: str, wanted: list[Request]) -> None:
        try:
            self.ask_all(wanted)
        except Fault as error:
            raise UsageError(f"{self._spec.instance} does not {what}: {error}") from None

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._vmm.kill()
        raise InstanceLost(self._lost)

    def _scratch_used(self) -> int | None:
        with suppress(OSError):
            return (Path(self._spec.directory) / SCRATCH).stat().st_blocks * 512
        return None


def _plan(spec: Spec, guest: Guest, network: Network | None) -> Plan:
    limits = spec.limits
    return Plan(
        cpus=max(1, math.ceil(limits.cpu)),
        memory_mib=limits.memory // _MIB + guest.own_mib if limits.memory else MEMORY_MIB,
        kernel=guest.kernel,
        initrd=guest.initrd,
        arguments=guest.arguments,
        rootfs=ROOTFS,
        scratch=SCRATCH,
        vsock=VSOCK,
        network=network,
    )


def _check(spec: Spec) -> Network | None:
    """What it asks for must be what a machine is capable of. Raises UsageError."""
    if not spec.image:
        raise UsageError(f"{spec.instance}: a machine runs an image, and none is named")
    if spec.network != "none":
        raise UsageError(f"{spec.instance}: a machine cannot have the network {spec.network!r}")
    if spec.mounts:
        raise UsageError(f"{spec.instance}: a machine cannot see directories of its host: use put")
    unknown = sorted(set(spec.options) - {"network"})
    if unknown:
        raise UsageError(f"{spec.instance}: machines have no option {', '.join(unknown)}")
    if spec.options.get("network") is None:
        return None
    try:
        return msgspec.convert(spec.options["network"], Network)
    except msgspec.ValidationError as error:
        raise UsageError(f"{spec.instance}: network: {error}") from None
