"""A real worker refuses unsigned code, objects in arguments, strangers, and whoever was expelled;
and in the runtime of programs everything but the image's programs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guactors as gu
from guactors.errors import PermissionDenied, RuntimeMissing, UsageError
from guactors.messages import Admit, Expel
from guactors.payload import PROGRAM
from guactors.refs import current_session
from guactors.security.code import Purpose, judge_code, sign_code
from guactors.security.keys import Kind
from guactors.transport.base import SendError
from guactors.transport.zmq_link import new_keypair
from tests import leaks
from tests.integration.bare_worker import BareWorker, Caller
from tests.unit.security.samples import public, secret

pytestmark = [pytest.mark.needs("fork"), pytest.mark.may_keep(*leaks.KINDS)]
SIGNER = public(Kind.SIGNER).text
Sign = Callable[[bytes], bytes]


def by(number: int, purpose: Purpose = Purpose.FUNCTION) -> Sign:
    return lambda blob: sign_code([secret(Kind.SIGNER, number)], purpose, blob)


def as_class(number: int) -> Sign:
    return by(number, Purpose.CLASS)


def unsigned(_blob: bytes) -> bytes:
    return b""


@pytest.fixture
def worker(run_root: Path) -> Iterator[BareWorker]:
    bare = BareWorker(run_root)
    yield bare
    bare.close()


def note(path: str, text: str) -> str:
    with open(path, "a") as out:
        out.write(text + "\n")
    return text


def wait(path: str) -> None:
    note(path, "began")
    try:
        while True:
            time.sleep(0.01)
    finally:
        note(path, "ended")


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


# --- signed code ---------------------------------------------------------------------------------


def test_only_signed_functions_run(worker: BareWorker, tmp_path: Path) -> None:
    worker.bind(signers=[SIGNER])
    caller = Caller(worker)
    place = tmp_path / "notes"
    for sign in (unsigned, by(2), as_class(1)):
        caller.define(note, sign)
        with pytest.raises(PermissionDenied, match="function work"):
            caller.call(str(place), "x")
        assert worker.refused().object.startswith("function work sha3-256:")
    assert lines(place) == []
    caller.define(note, by(1))
    assert caller.call(str(place), "x") == "x"
    assert lines(place) == ["x"]


def test_arguments_are_data_to_a_worker_with_signers(worker: BareWorker, tmp_path: Path) -> None:
    def total(array: Any, more: Any) -> float:
        return float(array.sum() + more["x"][0])

    worker.bind(signers=[SIGNER])
    caller = Caller(worker)
    caller.define(total, by(1))
    assert caller.call(np.arange(4), {"x": [1.5]}) == 7.5
    marker = tmp_path / "ran"
    with pytest.raises(PermissionDenied, match=r"args\[1\]\['x'\]"):
        caller.call(np.arange(4), {"x": Touch(str(marker))})
    assert worker.refused().reason == "function_signer"
    assert not marker.exists()


class Touch:
    """Runs code where it is opened as a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_without_signers_the_same_runs(worker: BareWorker, tmp_path: Path) -> None:
    worker.bind()
    caller = Caller(worker)
    caller.define(note, unsigned)
    assert caller.call(str(tmp_path / "notes"), "x") == "x"


def test_only_signed_classes_become_actors(worker: BareWorker) -> None:
    worker.bind(signers=[SIGNER])
    error = worker.load(Plain, unsigned)
    assert isinstance(error, PermissionDenied)
    refusal = worker.refused()
    assert (refusal.who, refusal.reason) == ("c-maker", "function_signer")


class Plain:
    def answer(self) -> int:
        return 42

    def _hidden(self) -> int:
        return 1


class Awaiting:
    async def answer(self) -> int:
        return 42

    async def wait(self, path: str) -> None:
        note(path, "began")
        try:
            await asyncio.sleep(1000)
        finally:
            note(path, "ended")


@pytest.mark.parametrize("cls", [Plain, Awaiting])
@pytest.mark.parametrize("concurrency", [0, 4])
def test_a_signed_actor_serves(worker: BareWorker, cls: type, concurrency: int) -> None:
    worker.bind(signers=[SIGNER])
    assert worker.load(cls, as_class(1), max_concurrency=concurrency) is None
    caller = Caller(worker)
    assert caller.call(fn=b"", method="answer") == 42
    for method in ("_hidden", "__class__", "__init__"):
        with pytest.raises(PermissionDenied, match="public method"):
            caller.call(fn=b"", method=method)
    with pytest.raises(PermissionDenied):
        caller.call(Touch("never"), fn=b"", method="answer")


def test_the_session_signs_what_it_sends(tmp_path: Path) -> None:
    @gu.remote
    def double(x: int) -> int:
        return 2 * x

    @gu.remote
    class Counter:
        def next(self) -> int:
            return 1

    gu.init(num_cpus=1)
    try:
        session = current_session()
        assert session is not None
        session.code_signers = [secret(Kind.SIGNER)]
        assert gu.get(double.remote(21)) == 42
        (define,) = session.core.blobs.values()
        judged = judge_code(Purpose.FUNCTION, define.blob, define.signatures, [SIGNER])
        assert judged.signer == SIGNER
        assert gu.get(Counter.remote().next.remote()) == 1
    finally:
        gu.shutdown()


# --- who may call --------------------------------------------------------------------------------


def test_only_admitted_keys_come_in(worker: BareWorker, tmp_path: Path) -> None:
    known, late, stranger = new_keypair(), new_keypair(), new_keypair()
    worker.bind(keys=[known[0]])
    caller = Caller(worker, known)
    caller.define(note, unsigned)
    assert caller.call(str(tmp_path / "notes"), "x") == "x"
    assert not Caller(worker, stranger).admitted()
    assert not Caller(worker, late).admitted()
    worker.tell(Admit([late[0]]))
    assert Caller(worker, late).admitted()
    assert not Caller(worker, stranger).admitted()


def test_nobody_comes_in_before_the_provider_named_a_key(worker: BareWorker) -> None:
    assert not Caller(worker, new_keypair()).admitted()


def test_who_is_expelled_is_cut_off_at_once(worker: BareWorker, tmp_path: Path) -> None:
    bad, good = new_keypair(), new_keypair()
    worker.bind(keys=[bad[0], good[0]])
    place = tmp_path / "notes"
    out, stays = Caller(worker, bad), Caller(worker, good)
    for caller in (out, stays):
        caller.define(note, unsigned)
        caller.define(wait, unsigned, b"wait")
    out.submit(str(place), fn=b"wait")
    worker.until(lambda: lines(place) == ["began"], "the running call")
    queued = [out.submit(str(place), "queued") for _ in range(5)]
    own = stays.submit(str(place), "own")
    worker.tell(Expel([bad[0]]))
    assert stays.result(own) == "own"
    assert lines(place) == ["began", "ended", "own"]
    again = stays.submit(str(place), "again")
    assert stays.result(again) == "again"
    assert not set(queued) & set(out.replies)
    assert not Caller(worker, bad).admitted()
    assert lines(place) == ["began", "ended", "own", "again"]


def test_what_an_expelled_caller_sends_afterwards_does_nothing(
    worker: BareWorker, tmp_path: Path
) -> None:
    bad, good = new_keypair(), new_keypair()
    worker.bind(keys=[bad[0], good[0]])
    place = tmp_path / "notes"
    out, stays = Caller(worker, bad), Caller(worker, good)
    for caller in (out, stays):
        caller.define(note, unsigned)
        caller.call(str(place), "before")
    worker.tell(Expel([bad[0]]))
    assert not Caller(worker, bad).admitted()
    with contextlib.suppress(SendError):  # its link may have noticed by now
        out.submit(str(place), "late")
    for _ in range(3):
        stays.call(str(place), "after")
    assert lines(place) == ["before"] * 2 + ["after"] * 3


def test_an_expelled_key_stays_out(worker: BareWorker) -> None:
    key = new_keypair()
    worker.bind(keys=[key[0]])
    worker.tell(Expel([key[0]]))
    worker.tell(Admit([key[0]]))
    other = new_keypair()
    worker.tell(Admit([other[0]]))
    assert Caller(worker, other).admitted()
    assert not Caller(worker, key).admitted()


def test_the_running_coroutine_of_an_expelled_caller_is_cancelled(
    worker: BareWorker, tmp_path: Path
) -> None:
    bad, good = new_keypair(), new_keypair()
    worker.bind(keys=[bad[0], good[0]])
    assert worker.load(Awaiting, unsigned) is None
    out, stays = Caller(worker, bad), Caller(worker, good)
    place = tmp_path / "notes"
    call = out.submit(str(place), fn=b"", method="wait")
    worker.until(lambda: lines(place) == ["began"], "the running call")
    worker.tell(Expel([bad[0]]))
    worker.until(lambda: lines(place) == ["began", "ended"], "its end")
    assert stays.call(fn=b"", method="answer") == 42
    assert call not in out.replies


class Counting:
    def answer(self) -> int:
        return 42

    def count(self) -> Iterator[int]:
        number = 0
        while True:
            yield (number := number + 1)
            time.sleep(0.001)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_stream_of_an_expelled_caller_ends(worker: BareWorker, concurrency: int) -> None:
    bad, good = new_keypair(), new_keypair()
    worker.bind(keys=[bad[0], good[0]])
    assert worker.load(Counting, unsigned, max_concurrency=concurrency) is None
    out, stays = Caller(worker, bad), Caller(worker, good)
    for _ in range(concurrency):  # each keeps one thread busy
        out.submit(fn=b"", method="count", returns=-1)
    worker.until(lambda: len(out.items) > 3, "some items")
    worker.tell(Expel([bad[0]]))
    assert stays.call(fn=b"", method="answer") == 42


# --- programs ------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "bin").mkdir(parents=True)
    program = root / "bin" / "hello"
    program.write_text('#!/bin/sh\necho "hello $1 from $PWD"\nexit 3\n')
    program.chmod(0o755)
    return root


def test_a_worker_for_programs_runs_those_of_its_image(worker: BareWorker, image: Path) -> None:
    worker.bind(runtime="native", root=str(image), image="sha3-256:" + "6" * 64)
    caller = Caller(worker)
    call = caller.submit(["/bin/hello", "you"], {}, "", fn=PROGRAM, returns=-1)
    caller.result(call)
    assert caller.items == [("out", f"hello you from {image}\n".encode()), ("exit", 3)]
    assert not worker.heard


def test_a_worker_for_programs_runs_nothing_else(worker: BareWorker, image: Path) -> None:
    worker.bind(runtime="native", root=str(image), image="sha3-256:" + "6" * 64)
    caller = Caller(worker)
    for program in ("/bin/sh", "../../../bin/sh", "/usr/bin/env"):
        with pytest.raises(PermissionDenied):
            caller.result(caller.submit([program], {}, "", fn=PROGRAM, returns=-1))
        assert worker.refused().reason == "image"
    caller.define(note, by(1))
    no_python = (UsageError, RuntimeMissing)
    with pytest.raises(no_python, match=r"has no Python|bubblewrap"):
        caller.call("x", "y")
    assert isinstance(worker.load(Plain, as_class(1)), no_python)
