"""The requests of Firecracker's API, built: what is in each, and which values it may have.

Owns: the bodies, and the checks that the API would do as well, with better words. Must never: send
one, know in which state a machine is (``sequence.py`` does), or leave the boot arguments to
Firecracker, whose own contain ``nomodule``: with a modular kernel that is a machine without disks.

Paths in bodies are of the process, whose directory is the instance's: relative ones stay right when
a snapshot is loaded elsewhere.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from guactors.errors import UsageError

MOST_CPUS: Final = 32
LEAST_MIB: Final = 32
MOST_BODY: Final = 51200
"""Bytes that the API takes."""
LEAST_CID: Final = 3
_ID: Final = re.compile(r"[A-Za-z0-9_]+")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DEVICE: Final = re.compile(r"[^\s/\0]{1,15}")

Method = Literal["GET", "PUT", "PATCH"]


class Request(Struct, frozen=True):
    """One call. ``body`` is None for GET, and never for the others."""

    method: Method
    path: str
    body: dict[str, Any] | None = None

    @property
    def data(self) -> bytes:
        """The body on the wire. Raises UsageError for one that is too large."""
        found = b"" if self.body is None else msgspec.json.encode(self.body)
        if len(found) > MOST_BODY:
            raise UsageError(f"{self}: {len(found)} bytes, and Firecracker takes {MOST_BODY}")
        return found

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Network(Struct, frozen=True):
    """A network interface. ``device``: a TAP, in the namespace ``namespace`` (a path such as
    ``/run/netns/NAME``; empty for that of the process); ``mtu``: 0 for what the guest likes."""

    device: str
    mac: str = ""
    mtu: int = 0
    namespace: str = ""


def describe() -> Request:
    """What state it is in."""
    return Request("GET", "/")


def version() -> Request:
    """Which release it is."""
    return Request("GET", "/version")


def machine_config(cpus: int, memory_mib: int) -> Request:
    """Processors and memory."""
    if not 1 <= cpus <= MOST_CPUS:
        raise UsageError(f"a machine of {cpus} processors: Firecracker has 1 to {MOST_CPUS}")
    if memory_mib < LEAST_MIB:
        raise UsageError(f"a machine of {memory_mib} MiB: no kernel boots in less than {LEAST_MIB}")
    body = {"vcpu_count": cpus, "mem_size_mib": memory_mib}
    return Request("PUT", "/machine-config", body)


def boot_source(kernel: str, initrd: str, arguments: str) -> Request:
    """What is booted. ``arguments``: of the kernel, all of them."""
    words = arguments.split()
    if not words:
        raise UsageError("no boot arguments: Firecracker's own would leave out all modules")
    if "nomodule" in words:
        raise UsageError("'nomodule' among the boot arguments: a machine without disks and agent")
    body = {"kernel_image_path": kernel, "boot_args": arguments}
    if initrd:
        body["initrd_path"] = initrd
    return Request("PUT", "/boot-source", body)


def drive(name: str, path: str, *, root: bool, read_only: bool) -> Request:
    """A disk. ``root``: only one may be."""
    body = {
        "drive_id": _id(name),
        "path_on_host": path,
        "is_root_device": root,
        "is_read_only": read_only,
        # A disk of an instance does not outlive this machine's power.
        "cache_type": "Unsafe",
    }
    return Request("PUT", f"/drives/{name}", body)


def network_interface(name: str, network: Network) -> Request:
    """A network card."""
    if not _DEVICE.fullmatch(network.device):
        raise UsageError(f"{network.device!r} is the name of no network device")
    body: dict[str, Any] = {"iface_id": _id(name), "host_dev_name": network.device}
    if network.mac:
        if not _MAC.fullmatch(network.mac.lower()) or int(network.mac[:2], 16) & 1:
            raise UsageError(f"{network.mac!r} is the address of no network card")
        body["guest_mac"] = network.mac.lower()
    if network.mtu:
        if not 68 <= network.mtu <= 65535:
            raise UsageError(f"an MTU of {network.mtu}: 68 to 65535 there are")
        body["mtu"] = network.mtu
    return Request("PUT", f"/network-interfaces/{name}", body)


def vsock(cid: int, path: str) -> Request:
    """The socket that leads to the agent."""
    if not LEAST_CID <= cid < 2**32 - 1:
        raise UsageError(f"{cid} is the context of no guest: from {LEAST_CID} on")
    return Request("PUT", "/vsock", {"guest_cid": cid, "uds_path": path})


def entropy() -> Request:
    """A source of randomness."""
    return Request("PUT", "/entropy", {})


def instance_start() -> Request:
    """Boot."""
    return Request("PUT", "/actions", {"action_type": "InstanceStart"})


def send_ctrl_alt_del() -> Request:
    """What a guest may take for the wish that it ends (x86 only)."""
    return Request("PUT", "/actions", {"action_type": "SendCtrlAltDel"})


def pause() -> Request:
    """It stands still; so it stays if it does."""
    return Request("PATCH", "/vm", {"state": "Paused"})


def resume() -> Request:
    """It goes on; so it does if it does."""
    return Request("PATCH", "/vm", {"state": "Resumed"})


def snapshot_create(state: str, memory: str) -> Request:
    """All of it but its disks, to two files."""
    body = {"snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory}
    return Request("PUT", "/snapshot/create", body)


def snapshot_load(state: str, memory: str, *, networks: dict[str, str] | None = None) -> Request:
    """Go on from there, paused. ``networks``: other devices, by interface."""
    body: dict[str, Any] = {
        "snapshot_path": state,
        "mem_backend": {"backend_type": "File", "backend_path": memory},
        "resume_vm": False,
    }
    if networks:
        body["network_overrides"] = [
            {"iface_id": _id(name), "host_dev_name": device} for name, device in networks.items()
        ]
    return Request("PUT", "/snapshot/load", body)


def _id(name: str) -> str:
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r}: letters, digits and '_' name a device")
    return name
