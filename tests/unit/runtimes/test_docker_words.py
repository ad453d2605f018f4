"""What the daemon is told, and what is made of what it says."""

from __future__ import annotations

import base64

import pytest

from guactors.errors import ProgramNotStarted, ProtocolError, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Command, Exit, Mount, Output, Size, Spec
from guactors.runtimes.docker import images, words
from guactors.runtimes.docker.figures import figures_of
from guactors.runtimes.docker.files import Stat, parse_stat, place
from guactors.runtimes.docker.init import MARK

RUNC = "OCI runtime exec failed: exec failed: unable to start container process: "


def spec(**fields: object) -> Spec:
    return Spec("i-1", "p-1", "/nowhere", "sha3-256:0", **fields)  # type: ignore[arg-type]


def test_a_container_may_nothing() -> None:
    body = words.container_body(spec(env={"A": "b=c"}), "sha256:1", 8, "k-1")
    assert body["Image"] == "sha256:1"
    assert body["Entrypoint"] == ["/gu-init"]
    assert body["Env"] == ["A=b=c"]
    assert body["Labels"] == {
        "gu.owner": "p-1", "gu.instance": "i-1", "gu.keeper": "k-1",
    }  # fmt: skip
    host = body["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["NetworkMode"], host["LogConfig"]["Type"]) == ("none", "none")
    assert not {"Memory", "NanoCpus", "PidsLimit"} & host.keys()


def test_limits() -> None:
    host = words.host_config(spec(limits=Limits(cpu=0.5, memory=2**26, pids=40)), 8)
    assert host["Memory"] == host["MemorySwap"] == 2**26
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 41)


@pytest.mark.parametrize(("cpu", "nano"), [(8.0, None), (99.0, None), (0.0001, 10_000_000)])
def test_processors_that_the_daemon_would_refuse(cpu: float, nano: int | None) -> None:
    assert words.host_config(spec(limits=Limits(cpu=cpu)), 8).get("NanoCpus") == nano


def test_limits_of_each_process() -> None:
    host = words.host_config(spec(options={"ulimits": {"nofile": 99}}), 1)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 99, "Hard": 99}]


def test_mounts_are_read_only_and_whole() -> None:
    host = words.host_config(spec(mounts=(Mount("/a", "/b"),)), 1)
    (mount,) = host["Mounts"]
    assert (mount["Type"], mount["Source"], mount["Target"]) == ("bind", "/a", "/b")
    assert mount["ReadOnly"] is True
    assert mount["BindOptions"]["NonRecursive"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"mounts": (Mount("a", "/b"),)},
        {"mounts": (Mount("/a", "/b/../../etc"),)},
        {"network": "bridge"},
        {"options": {"ulimits": {"no file": 1}}},
        {"options": {"ulimits": {"nofile": "1"}}},
        {"options": {"ulimits": [1]}},
        {"env": {"A=B": "c"}},
        {"env": {"A": "\0"}},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        words.container_body(spec(**wrong), "sha256:1", 1, "k-1")


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 200])
def test_names_of_containers(name: str) -> None:
    with pytest.raises(UsageError):
        words.container_name(Spec(name, "p", "/", "i"))


def test_a_program() -> None:
    body = words.exec_body(Command(("a", "b"), env={"X": "1"}, stdin=True), "/w", ["a", "b"])
    assert (body["AttachStdin"], body["AttachStderr"], body["Tty"]) == (True, True, False)
    assert (body["Cmd"], body["WorkingDir"], body["Env"]) == (["a", "b"], "/w", ["X=1"])
    body = words.exec_body(Command(("a",), tty=Size()), "/w", ["a"])
    assert (body["AttachStdin"], body["AttachStderr"], body["Tty"]) == (True, False, True)
    assert body["Env"] == ["TERM=xterm"]


@pytest.mark.parametrize(
    ("workdir", "path", "found"),
    [("/", "", "/"), ("/w", "", "/w"), ("/w", "a", "/w/a"), ("/w", "/a", "/a"), ("/", "a/", "/a")],
)
def test_directories(workdir: str, path: str, found: str) -> None:
    assert words.directory(workdir, path) == found


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (f'{RUNC}exec: "/bin/x": stat /bin/x: no such file or directory: unknown\r\n', 127),
        (f'{RUNC}exec: "x": executable file not found in $PATH: unknown\r\n', 127),
        (f'{RUNC}chdir to cwd ("/x") set in config.json failed: not a directory: unknown', 127),
        (f'{RUNC}exec: "/x": permission denied: unknown\r\n', 126),
    ],
)
def test_why_a_program_did_not_start(said: str, code: int) -> None:
    assert words.is_complaint(said)
    found = words.not_started("x", "", said)
    assert isinstance(found, ProgramNotStarted)
    assert found.code == code
    assert "OCI" not in str(found)


def test_what_a_program_says_is_no_complaint() -> None:
    assert not words.is_complaint("")
    assert not words.is_complaint("sh: x: not found\n")


def test_a_user_that_there_is_not() -> None:
    found = words.not_started("x", "jo", "unable to find user jo: no matching entries in passwd")
    assert type(found) is UsageError
    assert words.is_complaint("unable to find user jo: no matching entries in passwd")
    assert "jo" in str(found)


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        (1, [Output(2, b"exec /x: exec format error\n")], 126),
        (255, [Output(2, b"exec /x: no such file "), Output(2, b"or directory\n")], 127),
        (8, [Output(1, MARK)], 126),
        (2, [Output(1, MARK)], 127),
        (0, [Output(1, MARK)], None),
        (1, [], None),
        (2, [Output(2, b"exec /x: exec format error\n")], None),
        (1, [Output(2, b"exec /x: exec format error\nmore\n")], None),
        (1, [Output(1, b"a"), Output(2, b"exec /x: exec format error\n")], None),
        (1, [Output(1, b"exec /x: exec format error\n")], None),
    ],
)
def test_a_failure_that_comes_late(code: int, said: list[Output], found: int | None) -> None:
    failure = words.late_failure(code, said, "x")
    assert (failure and failure.code) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (0, Exit(0)), (3, Exit(3)), (128, Exit(128)), (137, Exit(None, 9)), (143, Exit(None, 15)),
        (192, Exit(None, 64)), (193, Exit(193)), (255, Exit(255)),
    ],
)  # fmt: skip
def test_a_status(code: int, found: Exit) -> None:
    assert words.exit_of(code) == found


@pytest.mark.parametrize(
    "data", [None, [], {}, {"Running": "yes", "Pid": "1", "ExitCode": "2"}, {"Pid": None}]
)
def test_a_state_that_says_nothing(data: object) -> None:
    assert words.state_of(data) == words.State(False, 0, None)


def test_what_did_not_run() -> None:
    assert words.failed_to_start(words.state_of({"Running": False, "Pid": 0, "ExitCode": 126}))
    assert not words.failed_to_start(words.state_of({"Running": False, "Pid": 9, "ExitCode": 126}))
    assert not words.failed_to_start(words.state_of({"Running": False, "Pid": 0, "ExitCode": None}))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"stream": "Loaded image"}, None),
        ({"error": "no"}, "no"),
        (b'{"stream":"x"}\n{"errorDetail":{},"error":"bad layer"}\n', "bad layer"),
        (b"not json\n[1]\n", None),
        (b"", None),
    ],
)
def test_errors_with_status_200(said: object, found: str | None) -> None:
    assert images.complaint(said) == found


@pytest.mark.parametrize(
    ("workdir", "path", "found"),
    [
        ("/", "a/b", ["a", "b"]), ("/w", "a", ["w", "a"]), ("/w", "/a", ["a"]), ("/w", "", ["w"]),
        ("/w", "a/../b", ["w", "b"]), ("/w/", "./a//b/", ["w", "a", "b"]),
    ],
)  # fmt: skip
def test_places(workdir: str, path: str, found: list[str]) -> None:
    assert place(workdir, path) == found


@pytest.mark.parametrize("path", ["..", "../a", "a/../../b", "/..", "/../etc"])
def test_no_place_is_outside(path: str) -> None:
    with pytest.raises(UsageError, match="leads out"):
        place("/w", path)


def test_stats_of_files() -> None:
    def told(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    assert parse_stat(told('{"mode":420,"linkTarget":""}')) == Stat(False, 0o644, "")
    assert parse_stat(told('{"mode":2147484141,"linkTarget":""}')).directory
    assert parse_stat(told('{"mode":134218239,"linkTarget":"/x"}')).target == "/x"
    for wrong in ("", "%", told("[]"), told('{"mode":"x","linkTarget":""}'), told("{")):
        with pytest.raises(ProtocolError):
            parse_stat(wrong)


def test_figures() -> None:
    found = figures_of({
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
        "memory_stats": {"usage": 7, "max_usage": 9},
        "pids_stats": {"current": 3},
        "blkio_stats": {"io_service_bytes_recursive": [
            {"op": "Read", "value": 1}, {"op": "Write", "value": 2}, {"op": "read", "value": 4}, 5,
        ]},
        "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}},
    })  # fmt: skip
    assert (found.cpu_seconds, found.memory, found.memory_peak) == (2.5, 7, 9)
    assert (found.read, found.written, found.received, found.sent) == (5, 2, 10, 20)
    assert found.processes == 2
    for nothing in (None, [], {}, {"cpu_stats": 1, "networks": 3, "pids_stats": {"current": "x"}}):
        assert figures_of(nothing).cpu_seconds is None
