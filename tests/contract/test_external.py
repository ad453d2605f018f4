"""Drivers of others that misbehave, die, hang or lie; and what the protocol has that the example
driver does not need."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import InstanceLost, RuntimeMissing, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Exit, Output, Size
from guactors.runtimes.external.driver import ExternalRuntime
from guactors.runtimes.external.manifest import read_driver
from guactors.runtimes.instance import Instance, Running
from guactors.runtimes.life import State
from tests.contract.runtime_bench import OWNER, Bench, external, finish, outcome, output
from tests.contract.test_runtime import living

pytestmark = pytest.mark.needs("posix", "sh")
DRIVERS = Path(__file__).parent / "drivers"
SOON = 0.7
"""A deadline that is meant to pass."""
HANG = 8.0
"""Seconds that nothing here may take."""

Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a Bench of a driver that misbehaves so."""
    made: list[Bench] = []

    def write(what: str, name: str = "hostile", **fields: Any) -> Bench:
        script = DRIVERS / f"{name}.py"
        manifest = {
            "format": "guactors.driver/1",
            "name": name,
            "version": "1",
            "protocol": 1,
            "command": [sys.executable, "-S", str(script), what],
            "capabilities": ["host", "pause", "stats", "tty"],
            "platforms": ["any"],
        }
        path = tmp_path / f"{name}.gu-driver.json"
        path.write_text(json.dumps(manifest | fields))
        bench = Bench(ExternalRuntime(read_driver(path)), tmp_path)
        made.append(bench)
        return bench

    began = time.monotonic()
    yield write
    for bench in made:
        bench.close()
    assert time.monotonic() - began < HANG


def soon(what: str) -> dict[str, Any]:
    """Deadlines for what ends in one."""
    verb = what.partition(":")[2]
    return {"deadlines": {verb: SOON}} if what.startswith(("silent", "stands", "twice")) else {}


# --- it cannot be started, or is no driver ------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("silent:hello", "did not answer 'hello' within 0.7 s"),
        ("stands:hello", "did not answer 'hello' within 0.7 s"),
        ("dies:hello", "ended, status 3; its last words: I am so tired"),
        ("killed:hello", "was ended by SIGKILL"),
        ("talks:hello", "Hello! This is not JSON."),
        ("endless:hello", "a line of more than 1048576 bytes"),
        ("unasked:hello", "which nobody asked"),
        ("stranger:hello", "program 4711"),
        ("gone:hello", "the machine room is on fire"),
        ("mute:hello", "closed its standard output"),
        ("leaves:hello", "ended, status 0"),
        ("answers:hello", "an answer: Object missing required field"),
        ("fails:hello", "no more room"),
        ("refuses:hello", "install a frobnicator"),
        ("silent:create", "did not answer 'create' within 0.7 s"),
        ("dies:create", "I am so tired"),
        ("talks:create", "not JSON"),
        ("mute:create", "closed its standard output"),
        ("leaves:create", "ended, status 0"),
        ("fails:create", "no more room"),
        ("refuses:create", "install a frobnicator"),
    ],
)
def test_it_is_not_made(make: Make, what: str, says: str) -> None:
    bench = make(what, **soon(what))
    with pytest.raises(RuntimeMissing, match=re.escape(says)) as caught:
        bench.created()
    assert "'hostile'" in str(caught.value)
    if what.endswith(":hello"):
        found = bench.runtime.probe()
        assert not found.usable
        assert says in found.reason


def test_its_program_is_not_there(make: Make) -> None:
    bench = make("", command=["./nonesuch"])
    with pytest.raises(RuntimeMissing, match=r"nonesuch: No such file.*hostile\.gu-driver\.json"):
        bench.created()
    assert "nonesuch" in bench.runtime.probe().reason


def test_it_is_for_another_machine(make: Make) -> None:
    bench = make("", platforms=["plan9"])
    with pytest.raises(RuntimeMissing, match="is for plan9"):
        bench.created()
    assert "plan9" in bench.runtime.probe().reason


# --- it loses its instance ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("silent:exec", "did not answer 'exec' within 0.7 s"),
        ("stands:exec", "did not answer 'exec' within 0.7 s"),
        ("dies:exec", "ended, status 3; its last words: I am so tired"),
        ("killed:exec", "was ended by SIGKILL"),
        ("talks:exec", "broke the protocol: malformed"),
        ("endless:exec", "broke the protocol: too_large"),
        ("unasked:exec", "which nobody asked"),
        ("early:exec", "which does not run"),
        ("stranger:exec", "program 4711, which does not run"),
        ("gone:exec", "says that its instance is gone: the machine room is on fire"),
        ("mute:exec", "closed its standard output"),
        ("leaves:exec", "ended, status 0"),
        ("wanders:exec", "broke the protocol"),
        ("answers:exec", "broke the protocol"),
        ("fails:exec", "no more room"),
    ],
)
def test_it_is_lost_while_a_program_is_started(make: Make, what: str, says: str) -> None:
    instance = make(what, **soon(what)).started()
    with pytest.raises(InstanceLost, match=re.escape(says)):
        instance.exec(Command(("x",)))
    assert instance.state is State.ENDED
    with pytest.raises(InstanceLost, match=re.escape(says)):
        instance.exec(Command(("x",)))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("dies:signal", "I am so tired"),
        ("talks:signal", "not JSON"),
        ("gone:signal", "on fire"),
        ("mute:signal", "closed its standard output"),
        ("leaves:signal", "ended, status 0"),
        ("floods:exec", "60000 bytes of output with a credit of"),
        ("generous:exec", "bytes of credit for input"),
    ],
)
def test_it_is_lost_while_a_program_runs(make: Make, what: str, says: str) -> None:
    instance = make(what).started()
    running = instance.exec(Command(("x",), stdin=True))
    running.signal(signal.SIGUSR1)
    found = finish_of(running)
    assert (found.reason, found.signal) == ("lost", signal.SIGKILL)
    assert says in found.detail
    running.write(b"nobody reads this any more")
    running.close_input()
    assert instance.state is State.ENDED


def finish_of(running: Running) -> Exit:
    """The exit, whatever it says before."""
    until = time.monotonic() + HANG
    while True:
        found = running.read(max(0.0, until - time.monotonic()))
        assert found is not None
        if isinstance(found, Exit):
            return found


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "stats", "put", "put_data", "get"])
@pytest.mark.parametrize("what", ["dies", "silent", "fails"])
def test_it_is_lost_at_every_verb(make: Make, what: str, verb: str) -> None:
    bench = make(f"{what}:{verb}", **soon(f"{what}:{verb}"))
    instance = bench.created()
    with pytest.raises(InstanceLost, match=r"tired|within 0\.7 s|no more room"):
        use(instance)
    assert instance.state is State.ENDED


def use(instance: Instance) -> None:
    """Every verb once."""
    instance.start()
    instance.pause()
    instance.resume()
    instance.stats()
    instance.put("x", [b"x"])
    assert b"".join(instance.get("x")) == b"x"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("answers:stats", "an answer"),
        ("answers:get_data", "an answer"),
        ("empty:get_data", "empty"),
    ],
)
def test_answers_that_hold_something_else(make: Make, what: str, says: str) -> None:
    instance = make(what).created()
    with pytest.raises(InstanceLost, match=f"broke the protocol.*{says}"):
        use(instance)


def test_it_refuses_and_lives(make: Make) -> None:
    instance = make("refuses:pause").started()
    with pytest.raises(RuntimeMissing, match="says of pause: install a frobnicator"):
        instance.pause()
    running = instance.exec(Command(("x",), stdin=True))
    running.write(b"hello")
    assert output(running) == b"hello"
    running.write(b"exit")
    assert finish(running)[2] == Exit(5)


def test_what_it_says_on_stderr_never_stops_it(make: Make) -> None:
    instance = make("cries:stats").started()
    assert instance.stats().processes is not None
    assert instance.exec(Command(("x",)))


def test_it_does_not_read(make: Make) -> None:
    """Neither the writer nor anybody else waits for ever."""
    instance = make("deaf:exec", deadlines={"send": SOON, "close": SOON}).started()
    running = instance.exec(Command(("x",), stdin=True))
    running.write(bytes(900_000))
    assert "does not read its standard input for 0.7 s" in finish_of(running).detail
    with pytest.raises(InstanceLost, match="does not read"):
        instance.exec(Command(("x",)))


@pytest.mark.parametrize("what", ["silent:close", "stands:close", "fails:close", "leaves:close"])
def test_it_does_not_want_to_end(make: Make, what: str) -> None:
    instance = make(what, **soon(what)).started()
    running = instance.exec(Command(("x",)))
    instance.close()
    assert finish(running)[2].reason == "closed"
    with pytest.raises(InstanceLost, match="it was closed"):
        instance.exec(Command(("x",)))


def test_it_does_not_end_a_program(make: Make) -> None:
    instance = make("nothing:forget", deadlines={"forget": SOON}).started()
    running = instance.exec(Command(("x",)))
    running.close()
    with pytest.raises(InstanceLost, match=r"did not end a program within 0\.7 s"):
        instance.exec(Command(("x",)))


def test_who_waits_is_told_when_another_closes_it(make: Make) -> None:
    instance = make("silent:exec", deadlines={"close": SOON}).started()
    threading.Timer(0.2, instance.close).start()
    with pytest.raises(InstanceLost, match="was closed"):
        instance.exec(Command(("x",)))


def test_it_is_killed_by_somebody(tmp_path: Path) -> None:
    bench = external(tmp_path)
    instance = bench.started()
    running = instance.exec(Command(("/bin/sh", "-c", "echo $PPID; setsid sleep 64.25")))
    os.kill(int(output(running)), signal.SIGKILL)
    found = finish(running)[2]
    assert (found.reason, found.signal) == ("lost", signal.SIGKILL)
    assert "was ended by SIGKILL" in found.detail
    bench.close()
    assert not living("sleep 64.25")


# --- what an orderly driver may do ----------------------------------------------------------------


def test_nothing_grows_while_nobody_reads(tmp_path: Path) -> None:
    """A program that says more than its credit waits, and others go on."""
    bench = external(tmp_path)
    instance = bench.started()
    full = Command(("/bin/sh", "-c", "head -c 50000000 /dev/zero; echo done >&2"))
    running = instance.exec(full)
    assert isinstance(running.read(HANG), Output)
    for _ in range(5):
        assert outcome(instance, "echo still here")[0] == b"still here\n"
    process = instance._driver._channel._programs  # type: ignore[attr-defined]
    held = sum(len(one.data) for program in process.values() for one in program._said)
    assert 0 < held <= 262144
    running.close()
    assert outcome(instance, "echo still here")[0] == b"still here\n"
    bench.close()


def test_input_for_one_that_does_not_read_waits(tmp_path: Path) -> None:
    bench = external(tmp_path)
    instance = bench.started()
    running = instance.exec(Command(("/bin/sh", "-c", "sleep 0.5; wc -c"), stdin=True))
    sent = []

    def feed() -> None:
        for _ in range(64):
            running.write(bytes(65536))
            sent.append(65536)
        running.close_input()

    writer = threading.Thread(target=feed)
    writer.start()
    threading.Event().wait(0.2)
    assert sum(sent) < 1 << 20
    out, _, end = finish(running)
    writer.join()
    assert (int(out), end) == (64 * 65536, Exit(0))
    bench.close()


def test_what_it_cannot_is_refused_by_name(make: Make) -> None:
    bench = make("", capabilities=["host"])
    instance = bench.started()
    for ask in (instance.pause, lambda: instance.save("/nowhere")):
        with pytest.raises(UsageError, match=r"has not the capability '(pause|save)'"):
            ask()
    with pytest.raises(UsageError, match="capability 'tty'"):
        instance.exec(Command(("x",), tty=Size()))
    with pytest.raises(UsageError, match="capability 'user'"):
        instance.exec(Command(("x",), user="0:0"))
    with pytest.raises(UsageError, match="capability 'image'"):
        bench.runtime.create(bench.spec().__class__("i", "p", str(bench.directory), "an-image"))
    with pytest.raises(UsageError, match="capability 'save'"):
        bench.runtime.restore(bench.spec(), "/nowhere")
    assert instance.stats().cpu_seconds is not None


def notes(make: Make, tmp_path: Path) -> Bench:
    return make(
        str(tmp_path),
        name="notes",
        capabilities=["host", "save", "stats", "reap", "probe", "memory"],
        limits="driver",
    )


def says(instance: Instance, *words: str) -> bytes:
    out, _, end = finish(instance.exec(Command(words)))
    assert end == Exit(0)
    return out


def test_it_is_saved_and_goes_on(make: Make, tmp_path: Path) -> None:
    bench = notes(make, tmp_path)
    instance = bench.started(options={"notes": ["first"]})
    says(instance, "add", "second")
    waiting = instance.exec(Command(("wait",)))
    path = tmp_path / "saved"
    instance.save(str(path))
    assert instance.state is State.SAVED
    assert isinstance(waiting.read(HANG), Exit)
    instance.close()
    spec = bench.spec()
    again = bench.keep(Instance(spec, bench.runtime.restore(spec, str(path)), running=True))
    assert says(again, "list") == b"first\nsecond"


def test_it_holds_limits_and_counts_itself(make: Make, tmp_path: Path) -> None:
    bench = notes(make, tmp_path)
    assert bench.can == {Capability.HOST, Capability.SAVE, Capability.MEMORY}
    instance = bench.started(Limits(memory=8))
    says(instance, "add", "12345")
    found = finish(instance.exec(Command(("add", "12345"))))[2]
    assert (found.reason, found.detail) == ("memory_limit", "no more than 8 letters")
    stats = instance.stats()
    assert (stats.memory, stats.sent, stats.cpu_seconds) == (5, 7, None)
    with pytest.raises(UsageError, match="cannot hold a limit of pids"):
        bench.created(Limits(pids=5))


def test_it_is_probed_and_reaped(make: Make, tmp_path: Path) -> None:
    bench = notes(make, tmp_path)
    found = bench.runtime.probe()
    assert (found.usable, found.version, found.facts["paper"]) == (True, "3", "white")
    instance = bench.started()
    with pytest.raises(UsageError, match="there is no program dance"):
        instance.exec(Command(("dance",)))
    left = list(tmp_path.glob(f"{OWNER}-*.note"))
    assert len(left) == 1
    # It may find what another session on this machine has just left.
    assert left[0].stem not in bench.runtime.reap("somebody-else")
    assert left[0].exists()
    (tmp_path / "p-dead-i-1.note").write_text("")
    assert "p-dead-i-1" in bench.runtime.reap("p-dead")


_KEEPER = """
import sys, time
from pathlib import Path
from tests.contract.runtime_bench import external, output, sh
bench = external(Path(sys.argv[1]))
print(output(sh(bench.started(), "setsid sleep 65.25 & echo go; wait")).decode(), flush=True)
time.sleep(60)
"""


@pytest.mark.needs("memory-cgroup")
def test_it_ends_with_its_keeper_however_that_ends(tmp_path: Path) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert keeper.stdout is not None
    with keeper.stdout:
        assert keeper.stdout.readline() == b"go\n"
    assert living("sleep 65.25")
    keeper.kill()
    keeper.wait()
    until = time.monotonic() + HANG
    while living("sleep 65.25"):
        assert time.monotonic() < until
        threading.Event().wait(0.02)
