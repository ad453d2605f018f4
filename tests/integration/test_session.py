"""Coming and going: init, shutdown, addresses, several threads, what workers print."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

import guactors as gu
from guactors import errors
from guactors.cli.network import join_address
from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.home import home, new_run_dir, private_directory
from guactors.hub_keys import hub_keys
from guactors.ids import fresh
from guactors.join import JoinAddress, format_join, parse_join
from guactors.runtimes.launch import launch_node
from guactors.security.key_files import key_path
from guactors.security.keys import Kind, PublicKey
from guactors.transport.zmq_link import new_keypair


@gu.remote
def add(a: int, b: int) -> int:
    return a + b


@gu.remote
def nested(a: int, b: int) -> int:
    return gu.get(add.remote(a, b))


@gu.remote
def nap(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture
def embedded(permanent_threads: None) -> Any:
    yield gu.init(num_cpus=2)
    gu.shutdown()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def test_init_twice_is_refused_and_shutdown_is_idempotent(embedded: Any) -> None:
    assert gu.is_initialized()
    with pytest.raises(errors.UsageError, match="shutdown"):
        gu.init()
    gu.init(ignore_reinit_error=True)
    gu.shutdown()
    gu.shutdown()
    assert not gu.is_initialized()


def test_shutdown_settles_what_is_pending(embedded: Any) -> None:
    ref = nap.remote(60)
    future = ref.future()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            gu.get(ref)
        except errors.GuactorsError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    gu.wait([ref], timeout=0.1)
    gu.shutdown()
    thread.join(10)
    assert isinstance(failed[0], errors.SessionClosed)
    assert isinstance(future.exception(10), errors.SessionClosed)


def test_calls_from_many_threads(embedded: Any) -> None:
    sums: list[int] = []

    def work(n: int) -> None:
        for i in range(30):
            sums.append(gu.get(add.remote(n, i)) - n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(sums) == sorted(list(range(30)) * 8)


def test_calls_from_a_running_event_loop(embedded: Any) -> None:
    async def many() -> list[int]:
        return await asyncio.gather(*[add.remote(i, i) for i in range(100)])

    assert asyncio.run(many()) == [2 * i for i in range(100)]


def test_submitted_calls_run_though_nobody_waits(embedded: Any, tmp_path: Any) -> None:
    @gu.remote
    def touch(path: str) -> None:
        open(path, "w").close()

    refs = [touch.remote(str(tmp_path / str(i))) for i in range(100)]
    until(lambda: len(list(tmp_path.glob("[0-9]*"))) == 100)
    del refs


def test_what_workers_print_appears_with_its_name(
    embedded: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    @gu.remote(name="talker")
    def talk(text: str) -> None:
        print(text)

    gu.get([talk.remote("same words") for _ in range(4)] + [talk.remote("other words")])
    seen = ""

    def printed() -> bool:
        nonlocal seen
        seen += capfd.readouterr().out
        return "other words" in seen and "same words" in seen

    until(printed)
    assert "(talker pid=" in seen


def test_printing_can_be_turned_off(
    permanent_threads: None, capfd: pytest.CaptureFixture[str]
) -> None:
    @gu.remote
    def talk() -> None:
        print("not for you")

    gu.init(num_cpus=1, log_to_driver=False)
    try:
        gu.get(talk.remote())
        gu.get(nap.remote(0.3))
    finally:
        gu.shutdown()
    assert "not for you" not in capfd.readouterr().out


def test_nobody_at_the_address_is_said_in_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        public, _ = new_keypair()
        hub, owner = (PublicKey(kind, bytes(32)).text for kind in (Kind.HUB, Kind.OWNER))
        address = format_join(JoinAddress("127.0.0.1", port, public, hub, owner))
        began = time.monotonic()
        with pytest.raises(errors.HubUnreachable, match=str(port)):
            gu.init(address, timeout=1.0)
        assert time.monotonic() - began < 3
    assert not gu.is_initialized()
    with pytest.raises(errors.UsageError):
        gu.init("gu://nowhere")
    with pytest.raises(errors.HubUnreachable, match="gu up"):
        gu.init("auto")


def test_tcp_with_curve_end_to_end_and_foreign_keys(
    permanent_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = str(new_run_dir())
    keys = hub_keys()
    listen = [f"ipc://{run_dir}/hub", "tcp://127.0.0.1:0"]
    hub = HubConfig(
        fresh("hub"), listen, run_dir, keys.identity, owners=keys.owners, seal=keys.seal,
        data=str(private_directory(home() / "hub")),
    )  # fmt: skip
    provider = ProviderConfig(
        fresh("provider"), "p", [], {"CPU": 2.0}, run_dir, listen_host="127.0.0.1",
        hub_key=keys.seal.key,
    )  # fmt: skip
    node = launch_node(NodeConfig(hub, [provider], embedded=True, scratch=[run_dir]))
    try:
        monkeypatch.setenv("GU_TRANSPORT", "tcp")
        address = join_address(node.hub_endpoints, keys)
        gu.init(address, key=str(key_path(Kind.OWNER, "main")))
        assert gu.get(add.remote(1, 2), timeout=20) == 3
        assert gu.get(nested.remote(2, 3), timeout=20) == 5
        gu.shutdown()
        # A key that nobody knows: it is noted, and that is all.
        with pytest.raises(errors.PendingApproval, match="gu key approve gu_app_"):
            gu.init(address, timeout=5)
        mistaken = replace(parse_join(address), transport=new_keypair()[0])
        with pytest.raises(errors.AuthFailed):
            gu.init(format_join(mistaken), timeout=5)
        other = PublicKey(Kind.HUB, bytes(32)).text
        impostor = replace(parse_join(address), hub=other)
        with pytest.raises(errors.AuthFailed, match="not the hub of the join address"):
            gu.init(format_join(impostor), timeout=5)
    finally:
        gu.shutdown()
        node.close()


def test_an_idle_grid_uses_no_processor(embedded: Any) -> None:
    gu.get([add.remote(1, 2) for _ in range(10)])
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def used() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in tree if p.is_running())

    threading.Event().wait(1.0)  # leases are given back, warm workers forked
    before, began = used(), time.monotonic()
    threading.Event().wait(2.0)
    assert (used() - before) / (time.monotonic() - began) < 0.1


@gu.remote
class Counter:
    def add(self, _: object = None) -> int:
        return 1


@gu.remote
def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize("large", [False, True], ids=["inline", "shared"])
def test_refs_and_handles_of_an_earlier_session_are_refused(
    permanent_threads: None, large: bool
) -> None:
    """Another session has other objects of the same numbers."""
    value = b"x" * (1 << 20 if large else 10)
    with gu.init(num_cpus=1):
        old, pending, counter = gu.put(value), nap.remote(60), Counter.remote()
        assert gu.get(counter.add.remote()) == 1
        method = counter.add
    for use in (
        lambda: gu.get(old),
        lambda: gu.get([old]),
        lambda: gu.wait([old]),
        lambda: gu.wait([pending]),
        old.future,
    ):
        with pytest.raises(errors.SessionClosed, match="ended"):
            use()
    with gu.init(num_cpus=1):
        mine = [gu.put(number) for number in range(3)]
        for use in (
            lambda: gu.get(old),
            lambda: gu.get([*mine, old]),
            lambda: gu.get([old, *mine]),
            lambda: gu.wait([*mine, old]),
            lambda: gu.put([old]),
            lambda: same.remote(old),
            lambda: same.remote({"deep": [old]}),
            lambda: Counter.remote(old),
            counter.add.remote,
            lambda: method.remote(mine[0]),
        ):
            with pytest.raises(errors.SessionClosed, match="ended"):
                use()
        assert gu.get(mine) == [0, 1, 2]
        gu.cancel(pending)
        assert gu.get(same.remote(mine)) == mine


def test_containers_of_refs_may_be_huge_and_contain_themselves(embedded: Any) -> None:
    refs = [gu.put(number) for number in range(20_000)]
    box = gu.put([gu.put(refs)])
    assert gu.get(gu.get(gu.get(box)[0])[-1]) == 19_999
    assert len(gu.get(same.remote(refs))) == 20_000
    ring: list[Any] = [refs[7]]
    ring.append(ring)
    for back in (gu.get(gu.put(ring)), gu.get(same.remote(ring))):
        assert back[1] is back
        assert gu.get(back[0]) == 7
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(errors.NotSerializable, match="deep"):
        gu.put(deep)
    with pytest.raises(errors.NotSerializable, match="deep"):
        same.remote(deep)
    while deep:
        deep = deep[0]  # or its end would recurse, too
    assert gu.get(same.remote(1)) == 1


@gu.remote(max_retries=0)
def attempts(path: str) -> int:
    """Notes its process, until the neighbour of ``path`` is there."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(f"{path}.end").exists():
        time.sleep(0.01)
    return os.getpid()


@gu.remote(num_cpus=0, max_retries=0)
def parent(path: str) -> int:
    return gu.get(attempts.remote(path))


def test_what_a_session_says_counts_for_what_its_calls_call(
    permanent_threads: None, tmp_path: Path
) -> None:
    """The child may be made to begin again, as the session says, and for one that says otherwise it
    is."""
    path = tmp_path / "tries"
    with gu.init(num_cpus=1, priority=-20, preemption=["requeue"]):
        running = parent.remote(str(path))
        until(path.exists)
        gu.get(add.options(priority=0).remote(1, 2), timeout=20)
        until(lambda: len(path.read_text().split()) == 2)
        Path(f"{path}.end").touch()
        assert str(gu.get(running, timeout=20)) == path.read_text().split()[1]


@pytest.mark.parametrize(
    "name", ["priority", "preemption", "min_runtime", "max_suspended", "grace"]
)
def test_absurd_terms_of_a_session_are_refused_by_their_names(name: str) -> None:
    with pytest.raises(errors.UnknownOption, match=name):
        gu.init(num_cpus=1, **{name: 1e100})  # type: ignore[arg-type]
    assert not gu.is_initialized()
