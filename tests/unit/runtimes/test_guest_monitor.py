"""QEMU's monitor, as one that is broken, mad or silent would be."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from guactors.errors import InstanceLost

pytestmark = pytest.mark.needs("linux")

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
Answer = Callable[[dict[str, object]], bytes]


class Monitor:
    """The other end: says ``greeting``, and to each question what ``answer`` makes of it; then it
    hangs up if it ``ends``."""

    def __init__(self, answer: Answer, greeting: bytes = GREETING, *, ends: bool = False) -> None:
        self.ours, self.sock = socket.socketpair()
        self.asked: list[dict[str, object]] = []
        self._answer, self._ends = answer, ends
        self.sock.sendall(greeting)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self.sock.makefile("rb") as lines:
            for line in lines:
                self.asked.append(json.loads(line))
                self.sock.sendall(self._answer(self.asked[-1]))
                if self._ends:
                    break
        if self._ends:
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.ours.close()
        self._thread.join()
        self.sock.close()


@pytest.fixture
def monitors() -> Iterator[list[Monitor]]:
    made: list[Monitor] = []
    yield made
    for one in made:
        one.close()


def fine(question: dict[str, object]) -> bytes:
    return (
        json.dumps({"return": {"to": question["execute"]}, "id": question["id"]}).encode() + b"\n"
    )


def test_it_negotiates_once_and_answers_by_id(monitors: list[Monitor]) -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    def noisy(question: dict[str, object]) -> bytes:
        late = b'{"return": "of another", "id": "gu-0"}\n{"event": "STOP", "data": {}}\n'
        return late + fine(question)

    monitors.append(Monitor(noisy))
    qmp = Qmp(monitors[0].ours)
    assert qmp.execute("stop") == {"to": "stop"}
    assert qmp.execute("cont", {"a": 1}) == {"to": "cont"}
    assert [one["execute"] for one in monitors[0].asked] == ["qmp_capabilities", "stop", "cont"]
    assert monitors[0].asked[2]["arguments"] == {"a": 1}


def test_a_refusal_says_what_and_why(monitors: list[Monitor]) -> None:
    from guactors.runtimes.qemu.qmp import Qmp, Refusal

    def refuse(question: dict[str, object]) -> bytes:
        if question["execute"] == "qmp_capabilities":
            return fine(question)
        fault = {"class": "GenericError", "desc": "not now"}
        return json.dumps({"error": fault, "id": question["id"]}).encode() + b"\n"

    monitors.append(Monitor(refuse))
    with pytest.raises(Refusal, match="does not do migrate: not now"):
        Qmp(monitors[0].ours).execute("migrate")


def test_a_descriptor_goes_with_its_command() -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    theirs.sendall(GREETING + b'{"return": {}, "id": "gu-1"}\n{"return": {}, "id": "gu-2"}\n')
    with ours, theirs:
        Qmp(ours).execute("getfd", {"fdname": "state"}, fd=writing)
        _, fds, _, _ = socket.recv_fds(theirs, 65536, 4)
        while not fds:
            _, fds, _, _ = socket.recv_fds(theirs, 65536, 4)
        os.write(fds[0], b"through")
        assert os.read(reading, 9) == b"through"
    for fd in (reading, writing, *fds):
        os.close(fd)


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b'{"hello": 1}\n', "greets us with something else"),
        (b"no json\n", "no message"),
        (b"\xff\xfe\n", "no message"),
        (b"[1, 2]\n", "no message"),
        (b"\n", "no message"),
        (b"x" * ((1 << 20) + 2), "more than a line may have"),
    ],
)
def test_what_is_no_greeting(monitors: list[Monitor], greeting: bytes, said: str) -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=lambda: theirs.sendall(greeting))
    sender.start()
    with ours, theirs, pytest.raises(InstanceLost, match=said):
        Qmp(ours).execute("stop", within=5.0)
    sender.join()
    assert not monitors


@pytest.mark.parametrize("answer", [b"{", b'{"return": 1, "id"', b"", b'{"return": 1}'])
def test_an_end_in_the_middle(monitors: list[Monitor], answer: bytes) -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    monitors.append(Monitor(lambda _: answer, ends=True))
    began = time.monotonic()
    with pytest.raises(InstanceLost, match=r"QEMU has ended|monitor"):
        Qmp(monitors[0].ours).execute("stop", within=30.0)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("answer", [b"", b'{"event": "RESUME"}\n', b'{"return": 1, "id": 7}\n'])
def test_silence_has_a_deadline(monitors: list[Monitor], answer: bytes) -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    monitors.append(Monitor(lambda _: answer))
    with pytest.raises(InstanceLost, match="does not answer"):
        Qmp(monitors[0].ours).execute("stop", within=0.1)


def test_one_that_is_closed_says_so_and_may_be_closed_again() -> None:
    from guactors.runtimes.qemu.qmp import Qmp

    ours, theirs = socket.socketpair()
    qmp = Qmp(ours)
    qmp.close()
    qmp.close()
    theirs.close()
    with pytest.raises(InstanceLost, match="monitor"):
        qmp.execute("stop", within=1.0)
