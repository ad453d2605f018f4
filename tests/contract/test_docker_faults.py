"""A daemon that stops making sense between two words: who, where, why, and what to do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from guactors.errors import GuactorsError, InternalError, RuntimeMissing
from guactors.images.store import ImageStore
from guactors.runtimes.base import Command, Driver
from guactors.runtimes.docker import removal
from guactors.runtimes.life import State
from tests.contract.docker_daemon import containers
from tests.contract.docker_proxy import Proxy
from tests.contract.runtime_bench import OWNER, SIZE, Bench, docker, finish, output, sh, tar
from tests.contract.test_docker import gone

pytestmark = pytest.mark.needs("dockerd", "busybox")
Busybox = tuple[ImageStore, str]


def said(body: bytes, status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """An answer."""
    head = [b"HTTP/1.1 " + status, b"Content-Type: application/json", *fields]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


SOON = 3.0
NONSENSE = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "half a head": b"HTTP/1.1 200 O",
    "a long head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n",
    "half an answer": said(b'{"Id": "ab')[:-4],
    "no chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "no JSON": said(b"{{{{"),
    "null": said(b"null"),
    "a list": said(b'[1, null, {"Id": 3, "Labels": 4}]'),
    "numbers": said(
        b'{"Id": 1, "State": 2, "ExecIDs": 3, "Running": 4, "Pid": "x", "ExitCode": "x"}'
    ),
    "an error": said(b"<html>no", b"500 Internal Server Error"),
    "teapots": said(b'{"message": {"a": "b"}}', b"418 I am a teapot"),
    "another protocol": b"HTTP/1.1 101 Switching\r\n\r\n" + b"nonsense" * 10,
    "a wrong stat": said(b"", b"200 OK", b"X-Docker-Container-Path-Stat: nonsense"),
}
ASKED: dict[str, Callable[[Driver], object]] = {
    "start": lambda driver: driver.start(),
    "exec": lambda driver: driver.exec(Command(("/bin/true",))),
    "terminal": lambda driver: driver.exec(Command(("true",), tty=SIZE)),
    "put": lambda driver: driver.put("a/b", [b"content"], tar=False),
    "put tar": lambda driver: driver.put("a", [tar({"x": b"y"})], tar=True),
    "get": lambda driver: b"".join(driver.get("/bin/busybox", tar=False)),
    "get tar": lambda driver: b"".join(driver.get("/bin", tar=True)),
    "pause": lambda driver: driver.pause(),
    "resume": lambda driver: driver.resume(),
    "stats": lambda driver: driver.stats(),
    "disk": lambda driver: driver.disk_used(),
    "stop": lambda driver: driver.stop(0.0),
}


@pytest.fixture
def proxy(docker_socket: str, run_root: Path) -> Iterator[Proxy]:
    path = run_root / "proxy"
    made = Proxy(str(path), docker_socket)
    yield made
    made.close()
    path.unlink()


@pytest.fixture
def bench(proxy: Proxy, busybox: Busybox, tmp_path: Path) -> Iterator[Bench]:
    made = docker(tmp_path, proxy.path, busybox)
    yield made
    made.close()


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_in_the_middle(kind: str, bench: Bench, proxy: Proxy, docker_socket: str) -> None:
    """Whatever is asked ends soon, by an answer that can be or by an error of ours; and once the
    daemon is itself again nothing is left."""
    before = containers(docker_socket)
    driver = bench.runtime.create(bench.spec())
    driver.start()
    running = driver.exec(Command(("/bin/sh", "-c", "echo go; exec sleep 75.25")))
    faults = []
    for what, ask in ASKED.items():
        proxy.nonsense = NONSENSE[kind]
        began = time.monotonic()
        try:
            ask(driver)
        except GuactorsError as error:
            if proxy.path not in str(error):
                faults.append((what, error))
        if time.monotonic() - began > SOON:
            faults.append((what, time.monotonic() - began))
        proxy.nonsense = None
    running.close()
    driver.close()
    assert faults == []
    assert containers(docker_socket) == before
    assert gone("sleep 75.25")


def test_nonsense_from_the_beginning(
    bench: Bench, proxy: Proxy, docker_socket: str, busybox: Busybox, tmp_path: Path
) -> None:
    """Of a new one, with and without a daemon that has introduced itself."""
    before = containers(docker_socket)
    for kind, nonsense in NONSENSE.items():
        (tmp_path / kind).mkdir()
        proxy.nonsense = nonsense
        strange = docker(tmp_path / kind, proxy.path, busybox)
        for one in (strange, bench):
            with pytest.raises(GuactorsError) as caught:
                one.runtime.create(one.spec())
            assert proxy.path in str(caught.value), (kind, caught.value)
        found = strange.runtime.probe()
        assert not found.usable, kind
        assert proxy.path in found.reason, (kind, found.reason)
        strange.close()
        proxy.nonsense = None
    assert containers(docker_socket) == before


@pytest.mark.parametrize("kind", ["nothing", "no HTTP", "an error"])
def test_nonsense_at_the_end(
    kind: str, bench: Bench, proxy: Proxy, docker_socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs end where they can be reached, and the container is reaped later."""
    monkeypatch.setattr(removal, "WITHIN", 0.3)
    before = containers(docker_socket)
    instance = bench.started()
    running = sh(instance, "echo go; exec sleep 76.25")
    assert output(running) == b"go\n"
    proxy.nonsense = NONSENSE[kind]
    with pytest.raises(InternalError, match="proxy") if kind == "an error" else nullcontext():
        instance.close()
    assert instance.state is State.ENDED
    assert gone("sleep 76.25")
    with pytest.raises(RuntimeMissing, match="proxy"):
        bench.runtime.reap(OWNER)
    proxy.nonsense = None
    assert bench.runtime.reap(OWNER) == [instance.spec.instance]
    assert containers(docker_socket) == before
    found = finish(running)[2]
    assert (found.signal, found.reason) == (signal.SIGKILL, "closed")
