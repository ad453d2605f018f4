"""One suite over every runtime: what is promised of an instance, and what becomes of bad programs.

The table of ``docs/runtimes.md`` is made of it: case by runtime.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from guactors.errors import (
    ImageRefused,
    InstanceLost,
    ProgramFailed,
    ProgramNotStarted,
    RuntimeMissing,
    UsageError,
)
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Exit, Mount, Output
from guactors.runtimes.instance import Instance
from guactors.runtimes.life import State
from tests.contract.runtime_bench import (
    BENCHES,
    FIXTURES,
    NEEDS,
    SIZE,
    WITHIN,
    Bench,
    finish,
    lines,
    outcome,
    output,
    sh,
    tar,
    untar,
)

pytestmark = pytest.mark.needs("posix", "sh")
MIB = 1 << 20


KINDS = [pytest.param(kind, marks=pytest.mark.needs(*NEEDS.get(kind, ()))) for kind in BENCHES]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, list[object]]:
    """The name of a bench, and what it is made of that lives for the session: begun before anybody
    counts what a test leaves behind."""
    given = [request.getfixturevalue(name) for name in FIXTURES.get(request.param, ())]
    return request.param, given


@pytest.fixture
def bench(
    kind: tuple[str, list[object]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    monkeypatch.setenv("GU_LIMITS", "")
    name, given = kind
    try:
        made = BENCHES[name](tmp_path, *given)
    except RuntimeMissing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    for marker in request.node.iter_markers("can"):
        missing = set(marker.args) - made.can
        if missing:
            made.close()
            pytest.skip(f"{name} is not capable of {', '.join(sorted(missing))}")
    yield made
    made.close()


can = pytest.mark.can

# --- programs -------------------------------------------------------------------------------------


def test_streams_are_kept_apart_and_the_code_comes_last(bench: Bench) -> None:
    found = outcome(bench.started(), "echo out; echo err >&2; exit 3")
    assert found == (b"out\n", b"err\n", Exit(3))


def test_several_programs_at_a_time(bench: Bench) -> None:
    instance = bench.started()
    first = sh(instance, "read line; echo first $line", stdin=True)
    second = sh(instance, "read line; echo second $line", stdin=True)
    second.write(b"b\n")
    assert finish(second)[0] == b"second b\n"
    first.write(b"a\n")
    assert finish(first)[0] == b"first a\n"


def test_a_signal_is_told(bench: Bench) -> None:
    running = sh(bench.started(), "echo go; exec sleep 60")
    assert output(running) == b"go\n"
    running.signal(signal.SIGTERM)
    found = finish(running)[2]
    assert found.signal == signal.SIGTERM or found.code == 128 + signal.SIGTERM


def test_all_of_its_input_arrives_and_its_end(bench: Bench) -> None:
    running = sh(bench.started(), "wc -c", stdin=True)
    writer = threading.Thread(target=_feed, args=(running, 3 * MIB))
    writer.start()
    out, _, found = finish(running)
    writer.join()
    assert (int(out), found) == (3 * MIB, Exit(0))


def _feed(running: object, size: int) -> None:
    for _ in range(size // 65536):
        running.write(b"x" * 65536)  # type: ignore[attr-defined]
    running.close_input()  # type: ignore[attr-defined]


def test_without_input_it_is_empty(bench: Bench) -> None:
    assert outcome(bench.started(), "cat; echo end")[0] == b"end\n"


def test_input_for_one_that_has_ended_is_dropped(bench: Bench) -> None:
    running = sh(bench.started(), "exit 0", stdin=True)
    assert finish(running)[2] == Exit(0)
    running.write(b"late")
    running.close_input()


def test_bytes_arrive_unchanged_whatever_they_are(bench: Bench) -> None:
    running = sh(bench.started(), "cat", stdin=True)
    data = bytes(range(256)) * 64 + b"\xff\xfe\xc3("
    running.write(data)
    running.close_input()
    assert finish(running)[0] == data


def test_a_slow_reader_loses_nothing(bench: Bench) -> None:
    running = sh(bench.started(), "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    found = [running.read(WITHIN)]
    for wait in (0.1, 0.1, 0.1):
        assert not isinstance(found[-1], Exit | None)
        threading.Event().wait(wait)
        found.append(running.read(WITHIN))
    seen = sum(len(one.data) for one in found if isinstance(one, Output))
    out, err, end = finish(running)
    assert (seen + len(out) + len(err), end) == (6_000_000, Exit(0))


def test_both_streams_may_be_flooded_at_once(bench: Bench) -> None:
    script = "head -c 4000000 /dev/zero & head -c 4000000 /dev/zero >&2; wait"
    out, err, end = outcome(bench.started(), script)
    assert (len(out), len(err), end) == (4_000_000, 4_000_000, Exit(0))


def test_environment_and_directory(bench: Bench) -> None:
    instance = bench.started(env={"A": "1", "B": "2"})
    outcome(instance, "mkdir -p sub")
    found = outcome(instance, "echo $A$B; basename $PWD", env={"B": "3"}, cwd="sub")
    assert found[0] == b"13\nsub\n"


def test_it_can_be_waited_for_by_and_by(bench: Bench) -> None:
    running = sh(bench.started(), "sleep 0.2; echo x")
    while (found := running.read(0.01)) is None:
        continue
    assert found == Output(1, b"x\n")
    assert finish(running)[2] == Exit(0)
    assert running.read(0) == Exit(0)


@can(Capability.TTY)
def test_a_terminal_has_the_size_it_was_given(bench: Bench) -> None:
    running = sh(bench.started(), "stty size; read x; stty size; test -t 2; echo $?", tty=SIZE)
    assert output(running).split() == [b"31", b"97"]
    running.resize(type(SIZE)(40, 50))
    running.write(b"go\n")
    out, err, end = finish(running)
    assert out.replace(b"\r", b"").split()[-3:] == [b"40", b"50", b"0"]
    assert (err, end) == (b"", Exit(0))


@can(Capability.TTY)
def test_a_terminal_interrupts(bench: Bench) -> None:
    running = sh(bench.started(), "echo go; exec sleep 60", tty=SIZE)
    assert b"go" in output(running)
    running.write(b"\x03")
    found = finish(running)[2]
    assert found.signal == signal.SIGINT or found.code == 128 + signal.SIGINT


@can(Capability.USER)
def test_a_program_runs_as_another_user(bench: Bench) -> None:
    instance = bench.started()
    assert outcome(instance, "id -u; id -g", user="65534:65533")[0].split() == [b"65534", b"65533"]
    with pytest.raises(UsageError, match="no-such-user"):
        sh(instance, "true", user="no-such-user")


# --- programs that misbehave ----------------------------------------------------------------------


def test_a_program_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(ProgramNotStarted, match="nonesuch") as caught:
        bench.started().exec(Command(("/bin/nonesuch",)))
    assert caught.value.code == 127


def test_a_program_that_is_not_executable(bench: Bench) -> None:
    instance = bench.started()
    instance.put("plain", [b"text"])
    with pytest.raises(ProgramNotStarted, match="plain") as caught:
        instance.exec(Command(("./plain",)))
    assert caught.value.code == 126


def test_a_program_for_another_machine(bench: Bench) -> None:
    instance = bench.started()
    instance.put("alien", [b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xf3\0" + bytes(100)])
    outcome(instance, "chmod +x alien")
    with pytest.raises(ProgramNotStarted, match="alien") as caught:
        instance.exec(Command(("./alien",)))
    assert caught.value.code == 126


def test_a_directory_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(ProgramNotStarted, match="nowhere"):
        sh(bench.started(), "true", cwd="nowhere")


def test_a_daemon_that_holds_the_streams_does_not_hold_the_end(bench: Bench) -> None:
    instance = bench.started()
    began = time.monotonic()
    out, _, found = outcome(instance, "sleep 60 & echo $!")
    assert (found, out.strip().isdigit()) == (Exit(0), True)
    assert time.monotonic() - began < 10


def test_what_runs_in_the_background_ends_with_the_instance(bench: Bench) -> None:
    instance = bench.started()
    outcome(instance, "setsid sleep 61.25 >/dev/null 2>&1 </dev/null & true")
    instance.close()
    assert not living("sleep 61.25")


def test_it_ignores_sigterm(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "trap '' TERM; echo go; while :; do sleep 0.05; done")
    assert output(running) == b"go\n"
    instance.stop(grace=0.3)
    finish(running)
    assert instance.state is State.ENDED


def test_it_ends_when_it_is_asked_to(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "trap 'exit 7' TERM; echo go; while :; do sleep 0.05; done")
    assert output(running) == b"go\n"
    began = time.monotonic()
    instance.stop(grace=15)
    assert time.monotonic() - began < 10


@can(Capability.PIDS)
def test_a_fork_bomb_is_held(bench: Bench) -> None:
    instance = bench.started(Limits(pids=40))
    running = sh(instance, "i=0; while test $i -lt 200; do sleep 60 & i=$((i+1)); done; echo all")
    out, err, _ = finish(running)
    assert b"all" not in out
    assert err
    stats = instance.stats().processes
    assert stats is not None
    assert stats <= 40


@can(Capability.MEMORY)
def test_memory_without_end(bench: Bench) -> None:
    instance = bench.started(Limits(memory=48 * MIB))
    running = sh(instance, "x=0123456789abcdef; while :; do x=$x$x; done")
    found = finish(running)[2]
    assert (found.reason, found.signal) == ("memory_limit", signal.SIGKILL)
    assert "48.0 MiB" in found.detail


@can(Capability.CPU)
def test_processor_time_is_held(bench: Bench) -> None:
    instance = bench.started(Limits(cpu=0.2))
    sh(instance, "while :; do :; done")
    sh(instance, "while :; do :; done")
    threading.Event().wait(0.2)
    began, before = time.monotonic(), instance.stats().cpu_seconds
    threading.Event().wait(1.0)
    after, ended = instance.stats().cpu_seconds, time.monotonic()
    assert before is not None
    assert after is not None
    assert (after - before) / (ended - began) < 0.4


@can(Capability.DISK)
def test_a_disk_that_is_filled(bench: Bench) -> None:
    instance = bench.started(Limits(disk=16 * MIB))
    running = sh(instance, "while head -c 1000000 /dev/zero; do sleep 0.02; done >> big")
    found = finish(running)[2]
    assert found.reason == "disk_limit" or found.code
    if found.reason:
        assert "16.0 MiB" in found.detail


def test_it_runs_for_too_long(bench: Bench) -> None:
    instance = bench.started(Limits(wall=0.7))
    running = sh(instance, "echo go; sleep 60")
    out, _, found = finish(running)
    assert (out, found.reason) == (b"go\n", "wall_limit")
    assert "0.7 s" in found.detail
    with pytest.raises(InstanceLost, match=r"wall limit of 0\.7 s"):
        sh(instance, "true")


# --- files ----------------------------------------------------------------------------------------


def test_files_go_in_and_out(bench: Bench) -> None:
    instance = bench.started()
    data = bytes(range(256)) * 5000
    instance.put("deep/down/file", [data[:1000], data[1000:]])
    assert outcome(instance, "wc -c < deep/down/file")[0].strip() == b"1280000"
    assert b"".join(instance.get("deep/down/file")) == data


def test_a_file_is_replaced(bench: Bench) -> None:
    instance = bench.started()
    instance.put("file", [b"long and old"])
    instance.put("file", [b"new"])
    assert b"".join(instance.get("file")) == b"new"


def test_directories_go_in_and_out_as_tar(bench: Bench) -> None:
    instance = bench.started()
    files = {"a": b"1", "sub/b": b"2" * 100_000, "sub/deep/c": b""}
    instance.put("tree", [tar(files)], tar=True)
    outcome(instance, "echo more > tree/sub/d")
    assert untar(instance.get("tree", tar=True)) == files | {"sub/d": b"more\n"}


@pytest.mark.parametrize("path", ["../out", "a/../../out", "link/out", "/link/out"])
def test_no_path_leads_out(bench: Bench, path: str, tmp_path: Path) -> None:
    instance = bench.started()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "out").write_text("secret")
    outcome(instance, f"ln -s {outside} link; mkdir a")
    with suppress(UsageError):
        instance.put(path, [b"x"])
    assert (outside / "out").read_text() == "secret"
    assert not (tmp_path / "out").exists()
    try:
        found = b"".join(instance.get(path))
    except UsageError:
        found = b""
    assert b"secret" not in found


@pytest.mark.parametrize("name", ["../x", "/../x", "d/../../x"])
def test_no_member_of_an_archive_leads_out(bench: Bench, name: str) -> None:
    instance = bench.started()
    with pytest.raises(UsageError):
        instance.put("tree", [tar({name: b"x"})], tar=True)


def test_what_is_not_there_cannot_be_read(bench: Bench) -> None:
    with pytest.raises(UsageError, match="missing"):
        b"".join(bench.started().get("missing"))


# --- directories of the machine -------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A directory with files, one below and one large, and links that lead out of it."""
    made = tmp_path / "given"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_text("content")
    (made / "sub" / "deep").write_text("deep content")
    (made / "large").write_bytes(bytes(range(256)) * 4 * 4096)
    (tmp_path / "secret").write_text("secret")
    (made / "near").symlink_to("sub/deep")
    (made / "above").symlink_to("../secret")
    (made / "absolute").symlink_to(tmp_path / "secret")
    return made


@can(Capability.MOUNT)
def test_what_is_mounted_can_be_read(bench: Bench, given: Path) -> None:
    instance = bench.started(mounts=(Mount(str(given), "/mnt/given"),))
    found = outcome(instance, "cat /mnt/given/file /mnt/given/near; wc -c < /mnt/given/large")
    assert found == (b"contentdeep content4194304\n", b"", Exit(0))
    user = "id -u; cat /mnt/given/sub/deep"
    if Capability.USER in bench.can:
        assert outcome(instance, user, user="65534:65534")[0] == b"65534\ndeep content"


@can(Capability.MOUNT)
@pytest.mark.parametrize(
    "script", ["echo x > file", "echo x > new", "mkdir new", "rm file", "mv file new", "chmod 0 ."]
)
def test_what_is_mounted_cannot_be_written(bench: Bench, given: Path, script: str) -> None:
    instance = bench.started(mounts=(Mount(str(given), "/mnt/given"),))
    before = sorted(path.name for path in given.iterdir())
    _, err, end = outcome(instance, f"cd /mnt/given && {script}")
    assert end.code
    assert b"ead-only" in err
    assert sorted(path.name for path in given.iterdir()) == before
    assert (given / "file").read_text() == "content"


@can(Capability.MOUNT)
@pytest.mark.parametrize("path", ["above", "absolute", "../secret", "sub/../../secret"])
def test_no_path_leads_out_of_what_is_mounted(bench: Bench, given: Path, path: str) -> None:
    instance = bench.started(mounts=(Mount(str(given), "/mnt/given"),))
    out, _, end = outcome(instance, f"cat /mnt/given/{path}")
    assert (out, bool(end.code)) == (b"", True)


@can(Capability.MOUNT)
def test_many_instances_have_the_same_mounted(bench: Bench, given: Path) -> None:
    there = [bench.started(mounts=(Mount(str(given), "/mnt/given"),)) for _ in range(3)]
    reading = [sh(one, "cat /mnt/given/large /mnt/given/file") for one in there]
    large = (given / "large").read_bytes()
    for running in reading:
        assert finish(running)[0] == large + b"content"
    there[0].close()
    assert outcome(there[1], "cat /mnt/given/file")[0] == b"content"


@can(Capability.MOUNT)
def test_several_are_mounted_each_in_its_place(bench: Bench, given: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("another")
    both = (Mount(str(given), "/mnt/z"), Mount(str(other), "/mnt/a"))
    script = "cat /mnt/a/file /mnt/z/file"
    assert outcome(bench.started(mounts=both), script)[0] == b"anothercontent"
    swapped = (Mount(str(other), "/mnt/z"), Mount(str(given), "/mnt/a"))
    assert outcome(bench.started(mounts=swapped), script)[0] == b"contentanother"


@can(Capability.MOUNT)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("missing", "/x"),
        ("given", "x"),
        ("given", "/x/../y"),
        ("given", "/"),
        ("given/../..", "/x"),
    ],
)
def test_what_cannot_be_mounted_is_said(
    bench: Bench, given: Path, source: str, target: str
) -> None:
    wrong = Mount(str(given.parent) + f"/{source}", target)
    with pytest.raises(UsageError, match="cannot be mounted"):
        bench.started(mounts=(wrong,))


def test_mounts_are_refused_where_there_can_be_none(bench: Bench, given: Path) -> None:
    mounts = (Mount(str(given), "/mnt/given"),)
    if Capability.MOUNT in bench.can:
        assert outcome(bench.started(mounts=mounts), "cat /mnt/given/file")[0] == b"content"
        return
    with pytest.raises(UsageError, match=r"mount|directories"):
        bench.started(mounts=mounts)


# --- life -----------------------------------------------------------------------------------------


@can(Capability.PAUSE)
def test_it_stands_still_and_goes_on(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "while :; do echo tick; sleep 0.02; done")
    assert b"tick" in output(running)
    instance.pause()
    while running.read(0.2) is not None:
        continue
    assert running.read(0.3) is None
    with pytest.raises(UsageError, match="resume it first"):
        sh(instance, "true")
    instance.pause()
    instance.resume()
    instance.resume()
    assert b"tick" in output(running)


@can(Capability.PAUSE)
def test_time_does_not_run_while_it_is_paused(bench: Bench) -> None:
    instance = bench.started(Limits(wall=1.0))
    running = sh(instance, "echo go; sleep 0.3; echo done")
    assert output(running) == b"go\n"
    instance.pause()
    threading.Event().wait(1.2)
    instance.resume()
    assert finish(running)[0] == b"done\n"


@can(Capability.PAUSE)
def test_one_that_is_paused_can_be_closed(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "echo go; exec sleep 62.25")
    assert output(running) == b"go\n"
    instance.pause()
    instance.close()
    assert isinstance(running.read(0), Exit)
    assert not living("sleep 62.25")


@can(Capability.SAVE)
def test_what_was_saved_goes_on(bench: Bench, tmp_path: Path) -> None:
    instance = bench.started()
    script = (
        "i=0; while :; do i=$((i+1)); echo $i > count.new; mv count.new count; sleep 0.02; done"
    )
    outcome(instance, f"({script}) >/dev/null 2>&1 </dev/null & echo kept > file")
    running = sh(instance, "echo go; sleep 60")
    assert output(running) == b"go\n"
    instance.pause()
    instance.save(str(tmp_path / "saved"))
    assert instance.state is State.SAVED
    end = running.read(WITHIN)
    assert isinstance(end, Exit)
    assert (end.code, end.reason) == (None, "closed"), "whose output is lost is told so"
    with pytest.raises(UsageError, match="restore it first"):
        instance.resume()
    instance.close()
    spec = bench.spec()
    driver = bench.runtime.restore(spec, str(tmp_path / "saved"))
    again = bench.keep(Instance(spec, driver, running=True))
    assert outcome(again, "cat file")[0] == b"kept\n"
    before = int(outcome(again, "cat count")[0])
    threading.Event().wait(0.3)
    assert int(outcome(again, "cat count")[0]) > before


def test_a_program_that_writes_down_how_far_it_is_goes_on_elsewhere(bench: Bench) -> None:
    instance = bench.started()
    instance.put("state/count", [b"41"])
    hook = Command(("/bin/sh", "-c", "echo $(($(cat state/count) + 1)) > state/count"))
    data = b"".join(instance.checkpoint(hook, "state"))
    other = bench.started()
    other.put("state", [data], tar=True)
    assert outcome(other, "cat state/count")[0] == b"42\n"
    for script, says, within in (
        ("echo no room >&2; exit 3", "status 3: no room", WITHIN),
        ("sleep 60", "still ran", 0.3),
    ):
        with pytest.raises(ProgramFailed, match=says):
            instance.checkpoint(Command(("/bin/sh", "-c", script)), "state", within)
    assert outcome(instance, "cat state/count")[0] == b"42\n"


@can(Capability.SAVE)
def test_what_was_never_saved_cannot_go_on(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else" * 1000)
    for name in ("other", "missing"):
        with pytest.raises(UsageError if name == "missing" else ImageRefused, match=name):
            bench.runtime.restore(bench.spec(), str(tmp_path / name))


def test_the_rest_ends_with_its_main_program(bench: Bench) -> None:
    instance = bench.started()
    other = sh(instance, "echo go; exec sleep 60")
    assert output(other) == b"go\n"
    began = time.monotonic()
    assert finish(sh(instance, "sleep 60 & exit 4", main=True))[2] == Exit(4)
    assert finish(other)[2].signal == signal.SIGKILL
    assert time.monotonic() - began < 10


def test_what_cannot_be_asked_is_said(bench: Bench) -> None:
    instance = bench.created()
    with pytest.raises(UsageError, match="start it first"):
        sh(instance, "true")
    instance.start()
    with pytest.raises(UsageError, match="it runs already"):
        instance.start()
    instance.close()
    instance.close()
    with pytest.raises(InstanceLost, match="it was closed"):
        sh(instance, "true")


def test_a_program_of_one_that_is_closed_is_told_so(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "echo go; sleep 60")
    assert output(running) == b"go\n"
    threading.Timer(0.2, instance.close).start()
    assert finish(running)[2].reason == "closed"


def test_it_is_counted(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "i=0; while test $i -lt 30000; do i=$((i+1)); done; echo done; sleep 60")
    assert output(running) == b"done\n"
    stats = instance.stats()
    assert stats.cpu_seconds is not None
    assert stats.cpu_seconds > 0
    assert stats.memory is not None
    assert stats.memory > 0
    assert stats.processes is not None
    assert stats.processes >= 1


def test_many_instances_come_and_go(bench: Bench) -> None:
    for _ in range(5):
        with bench.started() as instance:
            assert outcome(instance, "echo $((6 * 7))")[0] == b"42\n"


def living(words: str) -> list[int]:
    """Processes of this machine with that command line."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if words in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_lines_are_whole(bench: Bench) -> None:
    assert lines(sh(bench.started(), "echo a; echo b"), 2) == ["a", "b"]
