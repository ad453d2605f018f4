"""The ``gu`` command against a grid of this machine, in processes as a user has them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from guactors.join import format_join, parse_join
from guactors.security.key_files import load_key
from guactors.security.keys import Kind, PublicKey
from guactors.transport.zmq_link import new_keypair
from tests.command import GU, ended, eventually, first_line, gu, refused, running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, run_root: Path) -> Iterator[str]:
    """GU_HOME of a grid with two providers that the tests of this file share."""
    path = str(tmp_path_factory.mktemp("grid"))
    up = gu("up", "--providers", "2", "--cpus", "2", GU_HOME=path)
    assert "2 provider(s) are up" in up.stdout
    yield path
    gu("down", GU_HOME=path)


@pytest.fixture
def grid(home: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """That grid as this user's, and its record."""
    monkeypatch.setenv("GU_HOME", home)
    record: dict[str, str] = json.loads(Path(home, "grid.json").read_text())
    return record


def provider_names() -> list[str]:
    peers = json.loads(gu("peers", "--json").stdout)
    return sorted(peer["name"] for peer in peers if peer["role"] == "provider")


# --- up and down ---------------------------------------------------------------------------------


def test_a_grid_comes_up_and_goes_down_without_a_trace(gu_home: Path) -> None:
    assert "no grid" in gu("down").stderr
    shown = json.loads(gu("up", "--json").stdout)
    assert parse_join(shown["address"]).host == "127.0.0.1"
    pids = [shown["pid"], *shown["pids"].values()]
    family = [child.pid for child in psutil.Process(shown["pid"]).children(recursive=True)]
    assert set(pids[1:]) <= set(family)
    gu("down")
    assert all(ended(pid) for pid in [*pids, *family])
    assert not (gu_home / "grid.json").exists()


def test_a_second_up_says_that_one_is_up(grid: dict[str, str]) -> None:
    assert f"pid {grid['pid']}" in refused("up")


@pytest.mark.needs("posix")
def test_what_holds_secrets_is_private(grid: dict[str, str], home: str) -> None:
    keys = Path(home, "keys")
    assert {path.name for path in keys.iterdir()} >= {"hub-main.key", "owner-main.key"}
    for path in (*keys.iterdir(), Path(home, "grid.json"), Path(home, "grid.log")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (Path(home), keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    seen = Path(home, "grid.json").read_text() + Path(home, "grid.log").read_text()
    for process in psutil.Process(int(grid["pid"])).children(recursive=True):
        seen += " ".join([*process.cmdline(), *process.environ().values()])
    for path in keys.glob("*.key"):
        key = load_key(path)
        assert key.secret.text not in seen
        assert key.transport_secret not in seen


def test_a_grid_that_was_killed_is_noticed_and_replaced() -> None:
    first = json.loads(gu("up", "--json").stdout)
    os.kill(first["pid"], signal.SIGKILL)
    eventually(lambda: ended(first["pid"]), "the launcher ends")
    assert "has ended" in refused("status")
    second = json.loads(gu("up", "--json").stdout)
    assert second["pid"] != first["pid"]
    gu("down")


# --- listings ------------------------------------------------------------------------------------


def test_status_adds_up(grid: dict[str, str]) -> None:
    status = json.loads(gu("status", "--json").stdout)
    assert sum(p["total"].get("CPU", 0) for p in status["peers"]) == 4
    text = gu("status").stdout
    assert "2 providers" in text
    assert "of 4 free" in text


def test_status_over_tcp_with_the_join_address(grid: dict[str, str]) -> None:
    shown = gu("status", "--address", grid["address"]).stdout
    assert "tcp://127.0.0.1:" in shown


def test_the_join_address_alone_lets_nobody_in(grid: dict[str, str], gu_home: Path) -> None:
    for command, *rest in (["status"], ["peers"], ["run", "--", "true"]):
        line = refused(command, "--address", grid["address"], *rest, GU_HOME=str(gu_home))
        assert "gu key approve" in line


def test_a_key_of_the_environment_goes_before_the_owners(
    grid: dict[str, str], gu_home: Path
) -> None:
    gu("key", "new", "app", GU_HOME=str(gu_home))
    app = str(gu_home / "keys" / "app-default.key")
    assert "gu key approve" in refused("status", GU_KEY=app)
    assert gu("status", "--key", "main", GU_KEY=app).stdout


def test_peers_do_not_list_the_command_itself(grid: dict[str, str]) -> None:
    eventually(
        lambda: {p["role"] for p in json.loads(gu("peers", "--json").stdout)} == {"provider"},
        "only providers are listed",
    )
    table = gu("peers").stdout
    assert all(name in table for name in provider_names())


def test_inf_has_the_roadmaps_fields(grid: dict[str, str]) -> None:
    name = provider_names()[0]
    everything = json.loads(gu("inf", name, "--json").stdout)
    assert {"cpu", "mem", "storage", "os"} <= set(everything)
    cpu = json.loads(gu("inf", name, "cpu", "--json").stdout)
    assert cpu["threads"] == psutil.cpu_count()
    assert cpu["bit"]
    assert everything["mem"]["total"] == pytest.approx(psutil.virtual_memory().total / 2**30)
    assert "architecture" in gu("inf", name).stdout


def test_inf_of_a_peer_that_is_not_there_names_those_that_are(grid: dict[str, str]) -> None:
    assert provider_names()[0] in refused("inf", "nobody")


def test_doctor_finds_the_grid(grid: dict[str, str]) -> None:
    findings = {f["check"]: f for f in json.loads(gu("doctor", "--json").stdout)}
    assert findings["grid"]["state"] == "ok"
    assert "answers" in findings["grid"]["found"]
    assert (findings["native"]["state"], "firecracker" in findings) == ("ok", True)
    text = gu("doctor").stdout
    assert "ok    zeromq" in text


def test_the_runtimes_of_this_machine_are_listed() -> None:
    told = json.loads(gu("runtime", "list", "--json").stdout)
    found = {one["name"]: one for one in told["runtimes"]}
    assert found["native"]["usable"]
    assert all(one["usable"] or one["reason"] for one in found.values())
    lines = gu("runtime", "list").stdout.splitlines()
    assert {line.split()[0] for line in lines if not line.startswith(" ")} >= set(found)


# --- wrong usage and what cannot work ------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["nonesuch"],
        ["up", "--providers", "0"],
        ["up", "--listen", "127.0.0.1:1"],
        ["inf"],
        ["inf", "peer", "gpu"],
        ["run"],
        ["run", "--runtime", "docker", "--", "ls"],
        ["run", "--env", "X", "--", "ls"],
        ["run", "--limit", "wall", "--", "ls"],
        ["run", "--limit", "time=3", "--", "ls"],
        ["run", "--limit", "memory=-1", "--", "ls"],
        ["run", "--limit", "cpu=many", "--", "ls"],
        ["provider", "--hub", "auto", "--memory", "much"],
        ["peers", "--nonesuch"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(args: list[str]) -> None:
    refused(*args, status=2)


def test_without_a_grid_the_line_says_how_to_start_one() -> None:
    for command in (["status"], ["peers"], ["inf", "x"], ["run", "--", "ls"]):
        assert "gu up" in refused(*command)


def test_a_port_in_use(grid: dict[str, str], gu_home: Path) -> None:
    port = parse_join(grid["address"]).port
    for command in ("hub", "up"):
        line = refused(command, "--listen", f"tcp://127.0.0.1:{port}", GU_HOME=str(gu_home))
        assert str(port) in line
        assert "in use" in line


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (["up"], ["hub", "--listen", "tcp://127.0.0.1:0"], ["status"]):
        assert str(tmp_path / "file") in refused(*command, GU_HOME=str(tmp_path / "file"))


def test_a_hub_that_is_not_there_and_a_key_that_is_not_its_own(grid: dict[str, str]) -> None:
    joined = parse_join(grid["address"])
    away = format_join(replace(joined, port=1))
    for command in (["status", "--address", away], ["provider", "--hub", away]):
        assert "does not answer" in refused(*command)
    wrong = format_join(replace(joined, transport=new_keypair()[0]))
    for command in (["status", "--address", wrong], ["provider", "--hub", wrong]):
        assert "handshake" in refused(*command)
    other = PublicKey(Kind.HUB, bytes(32)).text
    assert "not the hub" in refused(
        "status", "--address", format_join(replace(joined, hub=other)), "--key", "main"
    )


def test_an_address_of_an_older_grid_is_named_as_such() -> None:
    for command in (["status", "--address"], ["provider", "--hub"]):
        assert "older guactors" in refused(*command, "gu://127.0.0.1:1?key=abc")


# --- hub and provider in the foreground ----------------------------------------------------------


@pytest.mark.needs("posix")
def test_a_hub_and_a_provider_in_the_foreground(gu_home: Path, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "hub"))
    with running("hub", "--listen", "tcp://127.0.0.1:0", *data) as hub:
        address = first_line(hub)
        assert address.startswith("gu://127.0.0.1:")
        invited = gu("key", "invite", "provider", "--name", "attic").stdout.strip()
        assert invited.startswith(f"{address}&invite=")
        join = ("provider", "--hub", invited, "--name", "attic", "--cpus", "3")
        with running(*join, "--memory", "64MiB", "--label", "disk=ssd") as provider:
            assert "attic serves" in first_line(provider)
            [row] = [
                peer
                for peer in json.loads(gu("peers", "--json").stdout)
                if peer["role"] == "provider"
            ]
            assert row["name"] == "attic"
            assert row["pid"] == provider.pid
            assert row["labels"] == {"disk": "ssd"}
            assert row["total"] == {"CPU": 3.0, "memory": float(64 * 2**20)}
    assert not (gu_home / "grid.json").exists()
    with running("hub", "--listen", "tcp://127.0.0.1:0", *data) as again:
        keys = address.partition("?hub=")[2]
        assert first_line(again).endswith(f"?hub={keys}")


# --- run -----------------------------------------------------------------------------------------


def test_run_keeps_streams_apart_and_returns_the_code(grid: dict[str, str]) -> None:
    done = gu("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_run_needs_no_dashes_where_nothing_is_ambiguous(grid: dict[str, str]) -> None:
    assert gu("run", "echo", "-n", "x").stdout == "x"


def test_run_passes_bytes_unchanged(grid: dict[str, str]) -> None:
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)"
    command = [*GU, "run", "--", sys.executable, "-c", script]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30).stdout
    assert out == bytes(range(256)) * 4096


def test_run_of_a_program_that_is_not_there(grid: dict[str, str]) -> None:
    done = gu("run", "--", "nonesuch-program", status=127)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "nonesuch-program" in done.stderr


def test_run_reports_a_signal_as_a_shell_does(grid: dict[str, str]) -> None:
    gu("run", "--", "sh", "-c", "kill -9 $$", status=128 + signal.SIGKILL)


def test_run_where_and_with_what(grid: dict[str, str], tmp_path: Path) -> None:
    name = provider_names()[1]
    args = ("--on", name, "--priority", "5", "--cpus", "0.5", "--env", "A=b c")
    done = gu("run", *args, "--cwd", str(tmp_path), "--", "sh", "-c", 'pwd; echo "$A"')
    assert done.stdout == f"{tmp_path}\nb c\n"


@pytest.mark.parametrize(
    ("limit", "script", "words"),
    [
        ("wall=0.5", "sleep 60", "wall limit of 0.5 s"),
        ("disk=4MiB", "head -c 9000000 /dev/zero > big; sleep 60", "disk limit is 4.0 MiB"),
    ],
)
def test_run_holds_a_program_to_its_limits(
    grid: dict[str, str], limit: str, script: str, words: str
) -> None:
    done = gu("run", "--limit", limit, "--", "sh", "-c", script, status=128 + signal.SIGKILL)
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_program_ends_with_its_command(grid: dict[str, str], number: signal.Signals) -> None:
    script = "sleep 300 & echo $$ $!; wait"
    with subprocess.Popen(
        [*GU, "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as command:
        pids = [int(pid) for pid in first_line(command).split()]
        assert len(pids) == 2
        command.send_signal(number)
        status = command.wait(30)
    assert status == (130 if number == signal.SIGINT else -signal.SIGKILL)
    eventually(lambda: all(ended(pid) for pid in pids), "the program and its child end")


def test_run_stops_when_nobody_reads(grid: dict[str, str]) -> None:
    with subprocess.Popen(
        [*GU, "run", "--", "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert first_line(command) == "y"
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.wait(30) == 128 + signal.SIGPIPE
        assert command.stderr.read() == ""


# --- the shell -----------------------------------------------------------------------------------


def test_the_shell_completes_commands() -> None:
    request = {"_GU_COMPLETE": "complete_bash", "COMP_WORDS": "gu pr", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("gu")],
        env={**os.environ, **request},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["provider"]


def test_version_and_help() -> None:
    assert gu("--version").stdout.startswith("gu 0.")
    commands = ("up", "down", "hub", "provider", "status", "peers", "inf", "run", "doctor")
    text = gu("--help").stdout
    assert all(f" {command} " in text for command in commands)
