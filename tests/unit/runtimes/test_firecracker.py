"""What Firecracker is asked and in which order; what it may answer; what a saved machine is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("Firecracker is for Linux", allow_module_level=True)

from guactors.errors import InternalError, ProtocolError, RuntimeMissing, UsageError
from guactors.runtimes.firecracker import probing, requests, saved, sequence, vmm, vsock
from guactors.runtimes.firecracker.api import MOST_ANSWER, Fault, read_answer
from guactors.runtimes.firecracker.requests import Network, Request
from guactors.runtimes.firecracker.saved import Head, Key
from guactors.runtimes.firecracker.sequence import Plan, Sequence, State

PLAN = Plan(
    2, 256, "/k/vmlinux", "/k/initrd", "console=ttyS0 panic=-1", "rootfs", "scratch", "agent.sock"
)
NET = Network("tap0", "02:67:00:00:00:01", 8900, "/run/netns/x")
KEY = Key("1.16", "a processor", "sha3-256:1", "hash", 2, 256)

# --- bodies ---------------------------------------------------------------------------------------


def test_bodies() -> None:
    assert [(str(one), one.body) for one in sequence.boot(PLAN)] == [
        ("PUT /machine-config", {"vcpu_count": 2, "mem_size_mib": 256}),
        (
            "PUT /boot-source",
            {
                "kernel_image_path": "/k/vmlinux",
                "initrd_path": "/k/initrd",
                "boot_args": "console=ttyS0 panic=-1",
            },
        ),
        (
            "PUT /drives/rootfs",
            {
                "drive_id": "rootfs",
                "path_on_host": "rootfs",
                "is_root_device": False,
                "is_read_only": True,
                "cache_type": "Unsafe",
            },
        ),
        (
            "PUT /drives/scratch",
            {
                "drive_id": "scratch",
                "path_on_host": "scratch",
                "is_root_device": False,
                "is_read_only": False,
                "cache_type": "Unsafe",
            },
        ),
        ("PUT /vsock", {"guest_cid": 3, "uds_path": "agent.sock"}),
        ("PUT /entropy", {}),
        ("PUT /actions", {"action_type": "InstanceStart"}),
    ]


def test_a_network_card() -> None:
    assert requests.network_interface("eth0", NET).body == {
        "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "02:67:00:00:00:01", "mtu": 8900,
    }  # fmt: skip
    assert requests.network_interface("eth0", Network("tap0")).body == {
        "iface_id": "eth0", "host_dev_name": "tap0",
    }  # fmt: skip


def test_a_snapshot() -> None:
    assert [one.body for one in sequence.save("s", "m")] == [
        {"state": "Paused"},
        {"snapshot_type": "Full", "snapshot_path": "s", "mem_file_path": "m"},
    ]
    load, resume = sequence.restore("s", "m", NET)
    assert load.body == {
        "snapshot_path": "s",
        "mem_backend": {"backend_type": "File", "backend_path": "m"},
        "resume_vm": False,
        "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
    }
    assert resume.body == {"state": "Resumed"}
    assert "network_overrides" not in (sequence.restore("s", "m", None)[0].body or {})


@pytest.mark.parametrize(
    ("make", "arguments", "says"),
    [
        (requests.machine_config, (0, 256), "1 to 32"),
        (requests.machine_config, (33, 256), "1 to 32"),
        (requests.machine_config, (1, 8), "no kernel boots"),
        (requests.boot_source, ("k", "", ""), "no boot arguments"),
        (requests.boot_source, ("k", "", "quiet nomodule"), "nomodule"),
        (requests.network_interface, ("eth-0", NET), "name a device"),
        (requests.network_interface, ("eth0", Network("a/b")), "no network device"),
        (requests.network_interface, ("eth0", Network("a" * 16)), "no network device"),
        (requests.network_interface, ("eth0", Network("t", "02:00")), "no network card"),
        (requests.network_interface, ("eth0", Network("t", "03:00:00:00:00:01")), "no network"),
        (requests.network_interface, ("eth0", Network("t", mtu=67)), "68 to 65535"),
        (requests.vsock, (2, "x"), "no guest"),
        (requests.vsock, (2**32 - 1, "x"), "no guest"),
    ],
)
def test_values_that_cannot_be(make: Any, arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make(*arguments)


def test_a_body_has_a_most() -> None:
    with pytest.raises(UsageError, match="takes 51200"):
        _ = requests.boot_source("k", "", "x" * 52000).data
    assert requests.describe().data == b""


# --- the order ------------------------------------------------------------------------------------

EVERY = [
    *sequence.boot(PLAN),
    requests.network_interface("eth0", NET),
    requests.send_ctrl_alt_del(),
    *sequence.save("s", "m"),
    *sequence.restore("s", "m", None),
]
ALLOWED = {
    State.FRESH: {"PUT /snapshot/load", "InstanceStart", "set"},
    State.SET_UP: {"InstanceStart", "set"},
    State.RUNNING: {"PATCH /vm", "SendCtrlAltDel"},
    State.PAUSED: {"PATCH /vm", "SendCtrlAltDel", "PUT /snapshot/create"},
}


def kind(request: Request) -> str:
    action = (request.body or {}).get("action_type")
    if action:
        return str(action)
    special = {"PATCH /vm", "PUT /snapshot/create", "PUT /snapshot/load"}
    return str(request) if str(request) in special else "set"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("request_", EVERY, ids=str)
def test_what_is_allowed_when(state: State, request_: Request) -> None:
    found = Sequence()
    found.state = state
    if kind(request_) in ALLOWED[state]:
        found.check(request_)
    else:
        with pytest.raises(InternalError, match=str(state)):
            found.check(request_)
    found.check(requests.describe())


def run(found: Sequence, wanted: list[Request]) -> State:
    for request in wanted:
        found.check(request)
        found.done(request)
    return found.state


def test_a_whole_life() -> None:
    found = Sequence()
    assert run(found, [requests.describe(), requests.version()]) is State.FRESH
    assert run(found, sequence.boot(PLAN)[:-1]) is State.SET_UP
    assert run(found, sequence.boot(PLAN)[-1:]) is State.RUNNING
    assert run(found, [requests.pause(), requests.pause()]) is State.PAUSED
    assert run(found, [requests.resume()]) is State.RUNNING
    assert run(found, sequence.save("s", "m")) is State.PAUSED
    again = Sequence()
    assert run(again, sequence.restore("s", "m", None)) is State.RUNNING


def test_it_must_be_in_the_state_we_think() -> None:
    found = Sequence()
    found.agrees("Not started")
    found.state = State.PAUSED
    found.agrees("Paused")
    for wrong in ("Running", None, 7):
        with pytest.raises(ProtocolError, match="should be paused"):
            found.agrees(wrong)


# --- answers --------------------------------------------------------------------------------------


def test_answers() -> None:
    asked = requests.describe()
    assert read_answer(asked, 204, b"") == {}
    assert read_answer(asked, 200, b'{"state":"Running"}') == {"state": "Running"}
    with pytest.raises(Fault, match="status 400: no kernel"):
        read_answer(asked, 400, b'{"fault_message":"no kernel"}')
    with pytest.raises(Fault, match="status 500: plain words"):
        read_answer(asked, 500, b"plain words")
    with pytest.raises(Fault, match="status 404") as caught:
        read_answer(asked, 404, b'{"fault_message":"' + b"x" * 90_000 + b'"}')
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("data", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_answer(requests.describe(), 200, data)


def test_an_answer_has_a_most() -> None:
    with pytest.raises(ProtocolError, match="too_large"):
        read_answer(requests.describe(), 200, b" " * (MOST_ANSWER + 1))


def test_the_handshake() -> None:
    assert vsock.hello(5000) == b"CONNECT 5000\n"
    assert vsock.read_ok(b"OK 1073741824\n") == 1073741824
    for bad in (b"", b"OK\n", b"OK -1\n", b"OK 1", b"ok 1\n", b"OK 9999999999\n", b"OK 1\nmore"):
        with pytest.raises(ProtocolError):
            vsock.read_ok(bad)


# --- the process ----------------------------------------------------------------------------------


def test_its_words() -> None:
    assert vmm.command("/x/firecracker", "i-0a_b") == [
        "/x/firecracker", "--api-sock", "api.sock", "--id", "i-0a-b",
    ]  # fmt: skip
    assert vmm.command("f", "i", "/run/netns/x")[:4] == ["nsenter", "--net=/run/netns/x", "--", "f"]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("Firecracker v1.9.1\n", "is release 1.9.1: install 1.10.0 or later"),
        ("bash: no such thing", "is no Firecracker"),
        ("", "is no Firecracker"),
    ],
)
def test_releases_that_will_not_do(said: str, says: str) -> None:
    with pytest.raises(RuntimeMissing, match=says):
        probing.check_version(said, "/x/firecracker")


def test_releases_that_will() -> None:
    text = "Firecracker v1.16.1\n\nSupported snapshot data format versions: 7.0.0"
    assert probing.check_version(text, "f") == (1, 16, 1)
    assert probing.check_version("Firecracker v2.0.0-dirty", "f") == (2, 0, 0)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissing, match=r"not installed: put the program .* into PATH"):
        probing.find_binary("firecracker-that-nobody-has")
    with pytest.raises(RuntimeMissing, match="load the module kvm_intel or kvm_amd"):
        probing.check_kvm(str(tmp_path / "kvm"))
    (tmp_path / "kvm").write_bytes(b"")
    with pytest.raises(RuntimeMissing, match="makes no machine"):
        probing.check_kvm(str(tmp_path / "kvm"))
    (tmp_path / "kernel").write_bytes(b"MZ")
    with pytest.raises(RuntimeMissing, match=r"compressed.*extract-vmlinux"):
        probing.check_kernel(str(tmp_path / "kernel"))
    with pytest.raises(RuntimeMissing, match="No such file"):
        probing.check_kernel(str(tmp_path / "none"))


def test_the_model_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert probing.cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert probing.cpu_model(tmp_path / "none")


# --- saved machines -------------------------------------------------------------------------------


def parts(directory: Path) -> list[str]:
    (directory / "state").write_bytes(b"small")
    with (directory / "memory").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    (directory / "scratch").write_bytes(bytes(range(256)) * 40)
    return ["state", "memory", "scratch"]


def test_there_and_back(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    names = parts(source)
    path = str(tmp_path / "saved")
    saved.pack(path, KEY, source, names)
    head = saved.read_head(path)
    assert head.key == KEY
    assert [name for name, _ in head.parts] == names
    saved.unpack(path, head, target)
    for name in names:
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "saved").stat().st_blocks * 512 < 8 << 20, "holes stay holes"
    assert (target / "memory").stat().st_blocks * 512 < 8 << 20
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o600


def test_what_is_not_written_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        saved.pack(str(tmp_path / "x"), KEY, tmp_path, ["missing"])
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        saved.pack(str(tmp_path / "there"), KEY, tmp_path, [])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["there"]


@pytest.mark.parametrize("cut", [0, 10, 3000, -1])
def test_what_is_cut_is_refused(tmp_path: Path, cut: int) -> None:
    names = parts(tmp_path)
    path = tmp_path / "saved"
    saved.pack(str(path), KEY, tmp_path, names)
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    with pytest.raises(UsageError, match="saved"):
        saved.read_head(str(path))


KEYED = (
    b'{"key":{"firecracker":"1","cpu":"","image":"","kernel":"","cpus":1,"memory_mib":1},'
    b'"parts":%s}'
)


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[" * 60000, b'{"key":1,"parts":[]}', KEYED % b'[["../x",1]]', KEYED % b'[["x",-1]]'],
)
def test_heads_that_lie(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "saved"
    path.write_bytes(saved.MAGIC + line + b"\n")
    with pytest.raises(UsageError):
        saved.read_head(str(path))


def test_what_must_be_the_same() -> None:
    saved.check(KEY, KEY, "x")
    other = Key("1.15", "a processor", "sha3-256:1", "hash", 2, 512)
    with pytest.raises(RuntimeMissing, match=r"firecracker was '1\.16' and is '1\.15', memory_mib"):
        saved.check(KEY, other, "x")
    assert Head(KEY, []).parts == []
