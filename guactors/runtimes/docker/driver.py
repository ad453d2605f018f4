"""A daemon as a runtime: what it can do, and what it still has of those who are dead.

Owns: the connection to the daemon, the thread that notices ends, what the daemon says of itself.
Must never: take what it is from what it calls itself: Podman and others speak the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from msgspec import Struct

from guactors.errors import ImageRefused, RuntimeMissing, UsageError
from guactors.runtimes.base import Capability, Probe, Spec
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.container import DockerInstance
from guactors.runtimes.docker.ends import Ends
from guactors.runtimes.docker.images import Images, Loaded
from guactors.runtimes.docker.orphans import Watch
from guactors.runtimes.docker.removal import labelled, remove_container
from guactors.runtimes.docker.socket import find_socket
from guactors.runtimes.docker.words import INSTANCE, OWNER
from guactors.runtimes.native.guardian import Guardian

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

_ALWAYS: Final = frozenset({
    Capability.IMAGE, Capability.PRIVATE, Capability.PAUSE, Capability.TTY, Capability.USER,
    Capability.DISK, Capability.MOUNT,
})  # fmt: skip
_HELD: Final = {
    Capability.CPU: "CpuCfsQuota",
    Capability.MEMORY: "MemoryLimit",
    Capability.PIDS: "PidsLimit",
}
"""Limits, and what the daemon calls them where the kernel lets it hold them."""


class Facts(Struct, frozen=True):
    """What the daemon says of itself. ``without``: limits that it cannot hold."""

    processors: int
    without: frozenset[Capability]
    told: dict[str, str]


class DockerRuntime:
    """:class:`~guactors.runtimes.base.Runtime`. ``images`` opens the store, where there is one;
    ``guardian``: of this process, if it has one; ``socket``: of the daemon, else DOCKER_HOST or the
    usual places say where it is."""

    name = "docker"

    def __init__(
        self,
        images: Callable[[], ImageStore] | None = None,
        guardian: Guardian | None = None,
        *,
        socket: str = "",
    ) -> None:
        self._open_store = images
        self._guardian = guardian or Guardian()
        self._socket = socket
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._watch: Watch | None = None
        self._facts: Facts | None = None
        self.ends = Ends()
        self.capabilities = _ALWAYS | _HELD.keys()
        with suppress(RuntimeMissing):
            self.capabilities -= self.facts().without

    def client(self) -> Client:
        """Of the daemon. Raises RuntimeMissing where no socket is known."""
        with self._lock:
            if self._client is None:
                self._client = Client(find_socket(self._socket))
            return self._client

    def _watched(self, client: Client) -> Watch:
        with self._lock:
            if self._watch is None:
                self._watch = Watch(self._guardian, client.path)
            return self._watch

    def facts(self) -> Facts:
        """Asked once. Raises RuntimeMissing."""
        if self._facts is None:
            client = self.client()
            try:
                found = client.call("GET", "/info").data
            except DaemonRefused as refused:
                raise RuntimeMissing(
                    f"the Docker daemon at {client.path} does not say what it can: {refused.words}"
                ) from None
            if not isinstance(found, dict):
                raise RuntimeMissing(f"what answers at {client.path} is no Docker daemon")
            self._facts = _facts_of(found)
        return self._facts

    def probe(self) -> Probe:
        """See Runtime; so all that follow."""
        try:
            version, facts = self.client().version(), self.facts()
        except RuntimeMissing as missing:
            return Probe(False, reason=str(missing))
        told = {
            "socket": self.client().path,
            "engine": version.engine,
            "api": f"{version.api[0]}.{version.api[1]}",
            "arch": version.arch,
            **facts.told,
        }
        if facts.without:
            told["not held"] = ", ".join(sorted(facts.without))
        return Probe(True, version.text, facts=told)

    def create(self, spec: Spec) -> DockerInstance:
        """A container that was not started."""
        if not spec.image:
            raise UsageError(f"{spec.instance}: a container runs an image, and none is named")
        client, facts = self.client(), self.facts()
        asked = {
            Capability.CPU: spec.limits.cpu,
            Capability.MEMORY: spec.limits.memory,
            Capability.PIDS: spec.limits.pids,
        }
        for one in facts.without:
            if asked[one]:
                raise UsageError(
                    f"{spec.instance}: the daemon at {client.path} cannot hold the limit {one}: "
                    "its kernel has no cgroup for it"
                )
        watch = self._watched(client)
        loaded = self._load(client, spec.image)
        try:
            return DockerInstance(spec, client, self.ends, loaded, facts.processors, watch)
        except ImageRefused:  # it was removed since it was looked for, see ``notes.py``
            loaded = self._load(client, spec.image)
            return DockerInstance(spec, client, self.ends, loaded, facts.processors, watch)

    def _load(self, client: Client, image: str) -> Loaded:
        try:
            return Images(client, self._open_store).load(image)
        except DaemonRefused as refused:
            raise RuntimeMissing(
                f"the Docker daemon at {client.path} does not tell of its images: {refused.words}"
            ) from None

    def restore(self, spec: Spec, path: str) -> DockerInstance:
        """Nothing is ever saved."""
        raise UsageError(f"{spec.instance}: a container cannot be saved to {path}: run a VM")

    def reap(self, owner: str) -> list[str]:
        """By their labels."""
        client = self.client()
        ended = []
        for one in labelled(client, OWNER, owner):
            remove_container(client, one["Id"])
            ended.append(str(one["Labels"].get(INSTANCE, one["Id"])))
        return ended

    def close(self) -> None:
        """The thread, the guardian and the idle connections go."""
        self.ends.close()
        self._guardian.close()
        with self._lock:
            client, self._client = self._client, None
            self._watch = None
        if client is not None:
            client.close()


def _facts_of(found: dict[str, Any]) -> Facts:
    processors = found.get("NCPU")
    security = found.get("SecurityOptions")
    options = security if isinstance(security, list) else []
    told = {
        "storage": str(found.get("Driver", "")),
        "cgroups": f"{found.get('CgroupDriver', '')} v{found.get('CgroupVersion', '')}",
        "rootless": "yes" if any("name=rootless" in str(one) for one in options) else "no",
        "isolation": "namespaces, seccomp" if any("seccomp" in str(one) for one in options)
        else "namespaces",
    }  # fmt: skip
    without = frozenset(limit for limit, word in _HELD.items() if found.get(word) is False)
    return Facts(processors if isinstance(processors, int) else 1, without, told)
