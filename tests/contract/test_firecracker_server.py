"""The stand-in for Firecracker is no pushover: each published rule of its API, one by one."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.firecracker_server import PORT, Machine, serve

pytestmark = pytest.mark.needs("linux")
MACHINE = {"vcpu_count": 2, "mem_size_mib": 64}
ROOT = {"drive_id": "a", "path_on_host": "disk", "is_root_device": True}
DATA = {"drive_id": "b", "path_on_host": "disk", "is_root_device": False}
START = {"action_type": "InstanceStart"}


class Asked:
    """A server, and requests to it: the status and what it says."""

    def __init__(self, path: Path) -> None:
        self.machine = Machine("m")
        self.path = path
        self.server = serve(str(path), self.machine)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
        self.machine.close()

    def raw(self, method: str, path: str, data: bytes | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.path))
        connection.request(method, path, data)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, json.loads(said) if said else None

    def get(self, path: str) -> Any:
        status, said = self.raw("GET", path, None)
        assert status == 200
        return said

    def put(self, path: str, body: Any, method: str = "PUT") -> None:
        assert self.raw(method, path, json.dumps(body).encode()) == (204, None)

    def patch(self, path: str, body: Any) -> None:
        self.put(path, body, "PATCH")

    def refused(self, path: str, body: Any, method: str = "PUT") -> str:
        status, said = self.raw(method, path, json.dumps(body).encode())
        assert status == 400
        assert list(said) == ["fault_message"]
        return str(said["fault_message"])

    def started(self) -> Asked:
        self.put("/machine-config", MACHINE)
        self.put("/boot-source", {"kernel_image_path": "kernel"})
        self.put("/actions", START)
        return self


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernel").write_bytes(b"\x7fELF and so on")
    (tmp_path / "disk").write_bytes(bytes(4096))
    made = Asked(Path("api.sock"))
    yield made
    made.close()


# --- form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/nonesuch"), ("GET", "/drives/a"), ("PATCH", "/boot-source"), ("POST", "/actions"),
     ("DELETE", "/drives/a"), ("PUT", "/vm"), ("GET", "/nonesuch"), ("PUT", "/machine-config/")],
)  # fmt: skip
def test_unknown_paths_and_methods(api: Asked, method: str, path: str) -> None:
    status, said = api.raw(method, path, b"{}" if method != "GET" else None)
    assert (status, list(said)) == (400, ["fault_message"])


def test_get_has_no_body(api: Asked) -> None:
    assert api.raw("GET", "/", b"{}")[0] == 400


@pytest.mark.parametrize(("method", "path"), [("PUT", "/entropy"), ("PATCH", "/vm")])
def test_put_and_patch_have_one(api: Asked, method: str, path: str) -> None:
    status, said = api.raw(method, path, b"")
    assert (status, said["fault_message"]) == (400, f"Empty {method} request.")


def test_a_body_has_a_most(api: Asked) -> None:
    body = {"kernel_image_path": "kernel", "boot_args": "x" * 51200}
    assert "larger than 51200" in api.refused("/boot-source", body)


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b'"x"'])
def test_a_body_is_an_object(api: Asked, data: bytes) -> None:
    assert api.raw("PUT", "/entropy", data)[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/machine-config", MACHINE, "PUT"),
        ("/boot-source", {"kernel_image_path": "kernel"}, "PUT"),
        ("/drives/a", ROOT, "PUT"),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "tap0"}, "PUT"),
        ("/vsock", {"guest_cid": 3, "uds_path": "v"}, "PUT"),
        ("/actions", START, "PUT"),
        ("/vm", {"state": "Paused"}, "PATCH"),
        ("/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"}, "PUT"),
        ("/snapshot/load", {"snapshot_path": "s", "mem_file_path": "m"}, "PUT"),
    ],
)
def test_fields(api: Asked, path: str, body: dict[str, Any], method: str) -> None:
    """Unknown ones are refused, and so is a body without one that is required."""
    assert "unknown field `colour`" in api.refused(path, body | {"colour": 1}, method)
    required = {name for name in body if name not in {"path_on_host", "mem_file_path"}}
    if path == "/snapshot/create":
        required.add("mem_file_path")
    for name in required:
        left = {key: value for key, value in body.items() if key != name}
        assert f"missing field `{name}`" in api.refused(path, left, method)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/machine-config", MACHINE | {"vcpu_count": 0}),
        ("/machine-config", MACHINE | {"vcpu_count": 33}),
        ("/machine-config", MACHINE | {"vcpu_count": 3, "smt": True}),
        ("/machine-config", MACHINE | {"vcpu_count": True}),
        ("/machine-config", MACHINE | {"mem_size_mib": 0}),
        ("/machine-config", MACHINE | {"mem_size_mib": 63, "huge_pages": "2M"}),
        ("/machine-config", MACHINE | {"huge_pages": "1G"}),
        ("/machine-config", MACHINE | {"smt": "no"}),
        ("/boot-source", {"kernel_image_path": "missing"}),
        ("/boot-source", {"kernel_image_path": "kernel", "initrd_path": "missing"}),
        ("/drives/a", ROOT | {"path_on_host": "missing"}),
        ("/drives/a", ROOT | {"cache_type": "Maybe"}),
        ("/drives/a", ROOT | {"rate_limiter": {"bandwidth": {"size": 1}}}),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "a-name-too-long-for-it"}),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "t", "guest_mac": "02:00"}),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "t", "mtu": 67}),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "t", "mtu": 65536}),
        ("/vsock", {"guest_cid": 2, "uds_path": "v"}),
        ("/actions", {"action_type": "Dance"}),
    ],
)
def test_values(api: Asked, path: str, body: dict[str, Any]) -> None:
    api.refused(path, body)


def test_ids(api: Asked) -> None:
    assert "does not match" in api.refused("/drives/other", ROOT)
    assert "does not match" in api.refused(
        "/network-interfaces/b", {"iface_id": "a", "host_dev_name": "t"}
    )
    assert "alphanumeric" in api.refused("/drives/a-b", ROOT | {"drive_id": "a-b"})
    assert "empty" in api.refused("/drives/", ROOT | {"drive_id": ""})


# --- phases ---------------------------------------------------------------------------------------


def test_what_it_says_of_itself(api: Asked) -> None:
    assert api.get("/")["state"] == "Not started"
    assert api.get("/version") == {"firecracker_version": "1.16.1"}
    assert api.get("/machine-config")["vcpu_count"] == 1
    api.started()
    assert api.get("/") == {
        "app_name": "Firecracker", "id": "m", "state": "Running", "vmm_version": "1.16.1",
    }  # fmt: skip
    api.patch("/vm", {"state": "Paused"})
    assert api.get("/")["state"] == "Paused"
    assert api.get("/vm/config")["machine-config"]["vcpu_count"] == 2


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/machine-config", MACHINE, "PUT"),
        ("/machine-config", {"vcpu_count": 1}, "PATCH"),
        ("/boot-source", {"kernel_image_path": "kernel"}, "PUT"),
        ("/drives/a", ROOT, "PUT"),
        ("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "tap0"}, "PUT"),
        ("/vsock", {"guest_cid": 3, "uds_path": "v"}, "PUT"),
        ("/entropy", {}, "PUT"),
        ("/serial", {"serial_out_path": "x"}, "PUT"),
        ("/actions", START, "PUT"),
        ("/snapshot/load", {"snapshot_path": "s", "mem_file_path": "m"}, "PUT"),
    ],
)
def test_after_the_start_it_is_too_late(
    api: Asked, path: str, body: dict[str, Any], method: str
) -> None:
    assert "after starting" in api.started().refused(path, body, method)


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/vm", {"state": "Paused"}, "PATCH"),
        ("/drives/a", {"drive_id": "a", "path_on_host": "disk"}, "PATCH"),
        ("/network-interfaces/a", {"iface_id": "a"}, "PATCH"),
        ("/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"}, "PUT"),
        ("/actions", {"action_type": "SendCtrlAltDel"}, "PUT"),
        ("/actions", {"action_type": "FlushMetrics"}, "PUT"),
    ],
)
def test_before_the_start_it_is_too_early(
    api: Asked, path: str, body: dict[str, Any], method: str
) -> None:
    assert "before starting" in api.refused(path, body, method)


def test_nothing_starts_without_a_kernel(api: Asked) -> None:
    assert "without kernel" in api.refused("/actions", START)
    Path("kernel").write_bytes(b"MZ compressed")
    api.put("/boot-source", {"kernel_image_path": "kernel"})
    assert "Cannot load kernel" in api.refused("/actions", START)


def test_there_is_one_root(api: Asked) -> None:
    api.put("/drives/a", ROOT)
    api.put("/drives/a", ROOT)
    api.put("/drives/b", DATA)
    assert "root block device already" in api.refused("/drives/b", DATA | {"is_root_device": True})


def test_two_cards_have_two_addresses(api: Asked) -> None:
    first = {"iface_id": "a", "host_dev_name": "t0", "guest_mac": "02:00:00:00:00:01"}
    api.put("/network-interfaces/a", first)
    second = first | {"iface_id": "b", "host_dev_name": "t1"}
    assert "already in use" in api.refused("/network-interfaces/b", second)


def test_metrics_are_set_once(api: Asked) -> None:
    api.put("/metrics", {"metrics_path": "m"})
    assert "already" in api.refused("/metrics", {"metrics_path": "m"})


def test_pausing_twice_is_no_fault(api: Asked) -> None:
    api.started()
    for state in ("Paused", "Paused", "Resumed", "Resumed"):
        api.patch("/vm", {"state": state})


# --- vsock and snapshots -------------------------------------------------------------------------


def test_only_a_paused_machine_is_saved(api: Asked) -> None:
    api.started()
    body = {"snapshot_path": "s", "mem_file_path": "m"}
    assert "not paused" in api.refused("/snapshot/create", body)
    api.patch("/vm", {"state": "Paused"})
    assert "dirty page" in api.refused("/snapshot/create", body | {"snapshot_type": "Diff"})
    api.put("/snapshot/create", body)
    assert Path("m").stat().st_size == 64 << 20


def test_only_a_fresh_process_loads(api: Asked) -> None:
    body = {"snapshot_path": "s", "mem_file_path": "m"}
    both = body | {"mem_backend": {"backend_type": "File", "backend_path": "m"}}
    assert "exactly one" in api.refused("/snapshot/load", both)
    assert "exactly one" in api.refused("/snapshot/load", {"snapshot_path": "s"})
    api.put("/entropy", {})
    assert "not allowed after configuring" in api.refused("/snapshot/load", body)


def test_a_logger_does_not_make_it_old(
    api: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.started()
    api.patch("/vm", {"state": "Paused"})
    api.put("/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"})
    other = Asked(tmp_path / "other.sock")
    other.put("/logger", {"level": "Info"})
    other.put("/metrics", {"metrics_path": "x"})
    load = {"snapshot_path": "s", "mem_backend": {"backend_type": "File", "backend_path": "m"}}
    other.put("/snapshot/load", load)
    assert other.get("/")["state"] == "Paused"
    assert other.get("/machine-config")["vcpu_count"] == 2
    other.close()


def test_vsock(api: Asked) -> None:
    """The handshake; a port where nobody listens; silence while paused; the end at a snapshot."""
    api.put("/vsock", {"guest_cid": 3, "uds_path": "v.sock"})
    api.started()

    def dial(port: int) -> tuple[socket.socket, bytes]:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(5)
        stream.connect("v.sock")
        stream.sendall(f"CONNECT {port}\n".encode())
        return stream, stream.recv(32)

    until = threading.Event()
    while not (found := dial(PORT))[1]:
        found[0].close()
        until.wait(0.02)
    stream, said = found
    assert said.startswith(b"OK ")
    refused, nothing = dial(PORT + 1)
    assert nothing == b""
    refused.close()
    stream.sendall(b'{"do": "set", "key": "a", "value": 1}\n')
    assert stream.recv(32) == b"true\n"
    api.patch("/vm", {"state": "Paused"})
    stream.sendall(b'{"do": "get", "key": "a"}\n')
    stream.settimeout(0.2)
    with pytest.raises(TimeoutError):
        stream.recv(32)
    stream.settimeout(5)
    api.put("/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"})
    assert stream.recv(32) == b""
    stream.close()
    api.patch("/vm", {"state": "Resumed"})
    again, said = dial(PORT)
    assert said.startswith(b"OK ")
    again.close()


def test_a_socket_that_is_there_is_in_the_way(api: Asked) -> None:
    Path("v.sock").write_bytes(b"")
    api.put("/vsock", {"guest_cid": 3, "uds_path": "v.sock"})
    api.put("/boot-source", {"kernel_image_path": "kernel"})
    assert "vsock" in api.refused("/actions", START)
    os.unlink("v.sock")
