"""Addresses: what is one, what is none, and who may enter the directory."""

from __future__ import annotations

import errno
import stat

import pytest

from guactors.transport.addresses import (
    IPC_PATH_LIMIT,
    directory_fault,
    ipc_path,
    join_tcp,
    places_of,
    split_tcp,
)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("tcp://10.0.0.1:61621", ("10.0.0.1", 61621)),
        ("tcp://hub.example:1", ("hub.example", 1)),
        ("tcp://*:65535", ("*", 65535)),
        ("tcp://[::1]:0", ("::1", 0)),
        ("tcp://127.0.0.1:*", ("127.0.0.1", 0)),
    ],
)
def test_tcp(address: str, parts: tuple[str, int]) -> None:
    assert split_tcp(address) == parts
    assert split_tcp(join_tcp(*parts)) == parts


@pytest.mark.parametrize(
    "address",
    ["", "tcp://", "tcp://h", "tcp://:1", "tcp://h:", "tcp://h:x", "tcp://h:65536", "tcp://::1:1",
     "tcp://h:-1", "tcp://h:²", "ipc:///a", "h:1"],
)  # fmt: skip
def test_no_tcp(address: str) -> None:
    with pytest.raises(ValueError, match="is not a TCP address"):
        split_tcp(address)


@pytest.mark.parametrize("address", ["ipc://", "ipc://relative", "ipc://@abstract", "/path"])
def test_no_ipc(address: str) -> None:
    with pytest.raises(ValueError, match="is not an ipc address"):
        ipc_path(address)


def test_the_longest_path_and_one_more() -> None:
    longest = "/" + "x" * (IPC_PATH_LIMIT - 1)
    assert ipc_path("ipc://" + longest) == longest
    with pytest.raises(OSError, match=f"allows {IPC_PATH_LIMIT}") as caught:
        ipc_path(f"ipc://{longest}x")
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    ("mode", "owner", "fault"),
    [
        (stat.S_IFDIR | 0o700, 5, ""),
        (stat.S_IFDIR | 0o500, 5, ""),
        (stat.S_IFDIR | 0o710, 5, "mode 0710"),
        (stat.S_IFDIR | 0o701, 5, "mode 0701"),
        (stat.S_IFDIR | 0o1777, 5, "mode 1777"),
        (stat.S_IFDIR | 0o700, 6, "belongs to user 6, not to us (5)"),
        (stat.S_IFLNK | 0o700, 5, "not a link"),
        (stat.S_IFREG | 0o600, 5, "must be a directory"),
    ],
)
def test_who_may_enter(mode: int, owner: int, fault: str) -> None:
    found = directory_fault("/run/gu", mode, owner, 5)
    assert fault in found
    assert bool(found) == bool(fault)
    assert not found or "/run/gu" in found


def test_ports_a_listener_needs() -> None:
    assert places_of("ipc:///d/s", None) == ["ipc:///d/s", "ipc:///d/s.d"]
    assert places_of("ipc:///d/s", "ipc:///d/t") == ["ipc:///d/s", "ipc:///d/t"]
    assert places_of("tcp://h:0", None) == ["tcp://h:0", "tcp://h:0"]
    assert places_of("tcp://h:0", "") == ["tcp://h:0"]
    with pytest.raises(ValueError, match="cannot share"):
        places_of("ipc:///d/s", "")
    assert places_of("tcp://h:61621", None) == ["tcp://h:61621"]
    assert places_of("tcp://h:61621", "tcp://h:61621") == ["tcp://h:61621"]
    assert places_of("tcp://h:61621", "tcp://h:61622") == ["tcp://h:61621", "tcp://h:61622"]
    with pytest.raises(ValueError, match="same kind"):
        places_of("tcp://h:61621", "ipc:///d/s")
