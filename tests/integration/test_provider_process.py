"""A real provider process with real workers, under a hub that the test plays."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from guactors import home
from guactors.messages import (
    ActorEnded,
    ActorStarted,
    Endpoint,
    EndSession,
    Fault,
    Goodbye,
    Hello,
    LeaseEnded,
    LeaseStarted,
    Message,
    Offer,
    Output,
    ProviderToWorker,
    StopActor,
    StopLease,
    Versions,
    WorkerBlocked,
    WorkerResumed,
)
from guactors.transport.base import Lane
from guactors.transport.frames import Decoder, encode
from tests.integration.scripted_hub import (
    Hub,
    Provider,
    actor,
    eventually,
    gone,
    lease,
    zombie_or_gone,
)


@pytest.fixture
def place() -> Iterator[Path]:
    path = home.new_run_dir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hub(place: Path) -> Iterator[Hub]:
    made = Hub(place)
    yield made
    made.close()


@pytest.fixture
def provider(place: Path, hub: Hub) -> Iterator[Provider]:
    made = Provider(place, hub)
    yield made
    made.close()


def test_it_is_ready_after_the_welcome_and_the_first_worker(hub: Hub, provider: Provider) -> None:
    assert provider.report()["event"] == "ready"
    offer = hub.expect(Offer)
    assert offer.resources == {"CPU": 2.0}
    assert offer.info.cores > 0
    assert hub.hellos[0].role == "provider"


def test_a_lease_gets_the_warm_worker_and_another_is_started(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease("l-1"))
    first = hub.expect(LeaseStarted)
    hub.send(lease("l-2"))
    second = hub.expect(LeaseStarted)
    assert (first.lease, second.lease) == ("l-1", "l-2")
    assert first.worker != second.worker
    assert first.endpoints[0].control.endswith(first.worker)


def test_a_returned_lease_leaves_its_worker_to_its_session(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease("l-1", "s-1"))
    first = hub.expect(LeaseStarted)
    hub.send(StopLease("l-1"))
    hub.send(lease("l-2", "s-2"))
    hub.send(lease("l-3", "s-1"))
    other, same = hub.expect(LeaseStarted), hub.expect(LeaseStarted)
    if other.lease == "l-3":
        other, same = same, other
    assert same.worker == first.worker
    assert other.worker != first.worker


def test_output_comes_with_the_session_and_the_pid(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease(word="print:hello there"))
    started = hub.expect(LeaseStarted)
    output = hub.expect(Output)
    assert (output.session, output.worker, output.stream) == ("s-1", started.worker, 1)
    assert output.lines == ["hello there"]
    assert output.pid in [process.pid for process in provider.tree()]


def test_a_worker_killed_from_outside_is_reported_with_what_was_seen(
    hub: Hub, provider: Provider
) -> None:
    provider.report()
    hub.send(lease(word=f"die:{int(signal.SIGKILL)}"))
    worker = hub.expect(LeaseStarted).worker
    ended = hub.expect(LeaseEnded, within=2.0)
    assert ended.lease == "l-1"
    assert ended.death.cause == "signal"
    assert ended.death.signal == signal.SIGKILL
    assert "last words" in ended.death.stderr_tail
    assert ended.death.rss_bytes > 2**20
    assert (ended.death.worker, ended.death.provider) == (worker, "tester")


def test_stopping_a_lease_by_force_kills_the_workers_children_too(
    hub: Hub, provider: Provider, place: Path
) -> None:
    provider.report()
    pids = place / "pids"
    hub.send(lease(word=f"child:{pids}"))
    hub.expect(LeaseStarted)
    eventually(pids.exists, 5.0, "the worker has a child")
    worker, child = (psutil.Process(int(pid)) for pid in pids.read_text().split())
    hub.send(StopLease("l-1", kill=True))
    assert hub.expect(LeaseEnded).death.cause == "killed"
    eventually(lambda: gone([worker, child]), 1.0, "worker and child are gone")


def test_an_actors_life(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(actor("a-1"))
    started = hub.expect(ActorStarted)
    assert (started.actor, started.incarnation) == ("a-1", 1)
    hub.send(StopActor("a-1", "released", graceful=True))
    ended = hub.expect(ActorEnded)
    assert ended.death.cause == "released"
    assert ended.death.exit_code == 0


def test_a_constructor_that_raises(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(actor("a-1", word="raise"))
    ended = hub.expect(ActorEnded)
    assert (ended.death.cause, ended.error) == ("creation_failed", b"a pickled error")
    hub.send(lease())
    hub.expect(LeaseStarted)
    eventually(lambda: len(provider.tree()) <= 4, 3.0, "the failed worker is gone")


def test_the_end_of_a_session_spares_detached_actors(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(actor("a-kept", detached=True))
    hub.expect(ActorStarted)
    hub.send(actor("a-1"))
    hub.expect(ActorStarted)
    hub.send(lease("l-1"))
    hub.expect(LeaseStarted)
    hub.send(EndSession("s-1"))
    assert hub.expect(LeaseEnded).death.cause == "session_ended"
    ended = hub.expect(ActorEnded)
    assert (ended.actor, ended.death.cause) == ("a-1", "session_ended")
    hub.send(StopActor("a-kept", "killed"))
    assert hub.expect(ActorEnded).actor == "a-kept"


def test_waiting_in_get_is_passed_on_in_order(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease(word="block"))
    assert hub.expect(WorkerBlocked).lease == "l-1"
    assert hub.expect(WorkerResumed).lease == "l-1"


def test_a_stopped_worker_is_noticed_and_can_still_be_killed(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease(word="freeze"))
    hub.expect(LeaseStarted)

    def noticed() -> bool:
        hub.pump()
        return "is silent" in provider.log.read_text()

    eventually(noticed, 5.0, "the provider's log tells of the silence")
    hub.send(StopLease("l-1", kill=True))
    assert hub.expect(LeaseEnded, within=1.0).death.cause == "killed"


def test_the_death_of_the_provider_ends_everything_below_it(
    hub: Hub, provider: Provider, place: Path
) -> None:
    provider.report()
    pids = place / "pids"
    hub.send(lease(word=f"child:{pids}"))
    hub.expect(LeaseStarted)
    eventually(pids.exists, 5.0, "the worker has a child")
    below = provider.tree()
    grandchild = psutil.Process(int(pids.read_text().split()[1]))
    assert grandchild in below
    provider.process.kill()
    eventually(lambda: gone([*below[1:], grandchild]), 1.0, "workers and their children are gone")


def test_the_death_of_the_zygote_costs_its_workers_but_not_the_provider(
    hub: Hub, provider: Provider
) -> None:
    provider.report()
    hub.send(lease("l-1"))
    hub.expect(LeaseStarted)
    zygote = psutil.Process(provider.process.pid).children()[0]
    os.kill(zygote.pid, signal.SIGKILL)
    ended = hub.expect(LeaseEnded)
    assert "zygote" in ended.death.detail
    hub.send(lease("l-2"))
    assert hub.expect(LeaseStarted, within=10.0).lease == "l-2"


def test_after_a_new_link_the_offer_tells_what_runs_and_what_died(
    place: Path, hub: Hub, provider: Provider
) -> None:
    provider.report()
    hub.expect(Offer)
    hub.send(lease("l-kept"))
    kept = hub.expect(LeaseStarted)
    hub.send(actor("a-kept"))
    hub.expect(ActorStarted)
    hub.send(lease("l-lost"))
    lost = hub.expect(LeaseStarted)
    lost_pid = _pid_of(provider, lost.worker)
    hub.close()
    os.kill(lost_pid, signal.SIGKILL)
    eventually(lambda: zombie_or_gone(lost_pid), 2.0, "the worker is gone")
    again = Hub(place)
    try:
        offer = again.expect(Offer, within=10.0)
        assert [report.lease for report in offer.leases] == ["l-kept"]
        assert offer.leases[0].worker == kept.worker
        assert [report.spec.actor for report in offer.actors] == ["a-kept"]
        assert offer.actors[0].endpoints
        ended = again.expect(LeaseEnded)
        assert (ended.lease, ended.death.signal) == ("l-lost", signal.SIGKILL)
        again.send(StopLease("l-kept", kill=True))
        assert again.expect(LeaseEnded).lease == "l-kept"
    finally:
        again.close()


def _pid_of(provider: Provider, worker: str) -> int:
    """The process that has the worker's connection: its own name is not in its command line."""
    found = [line for line in provider.log.read_text().splitlines() if worker in line]
    pids = [int(line.rsplit("pid ", 1)[1]) for line in found if "pid " in line]
    assert pids, f"the log names no pid of {worker}"
    return pids[0]


def test_it_ends_in_good_order_on_sigterm(hub: Hub, provider: Provider) -> None:
    provider.report()
    hub.send(lease())
    hub.expect(LeaseStarted)
    below = provider.tree()[1:]
    provider.process.terminate()
    assert provider.process.wait(5.0) == 0
    assert gone(below)
    hub.expect(Goodbye)


def test_workers_that_never_come_up_are_an_error_at_the_start(place: Path, hub: Hub) -> None:
    provider = Provider(place, hub, "tests.integration.obedient_worker:never_ready")
    try:
        report = provider.report()
        assert report["event"] == "error"
        assert "no such luck" in report["text"]
        assert provider.process.wait(5.0) == 1
    finally:
        provider.close()


def test_a_provider_that_the_hub_refuses_says_so_and_ends(place: Path) -> None:
    hub = Hub(place, refuse=Fault("VersionMismatch", "the hub has 3.12, this provider 3.11"))
    provider = Provider(place, hub)
    try:
        report = provider.report()
        assert (report["event"], report["kind"]) == ("error", "VersionMismatch")
        assert "3.12" in report["text"]
        assert provider.process.wait(5.0) == 1
    finally:
        provider.close()
        hub.close()


def test_a_directory_that_others_can_enter_is_refused_in_one_line(place: Path, hub: Hub) -> None:
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    provider = Provider(open_to_all, hub)
    try:
        report = provider.report()
        assert report["event"] == "error"
        assert str(open_to_all) in report["text"]
        assert provider.process.wait(5.0) == 1
    finally:
        provider.close()


def test_it_starts_before_its_hub_does(place: Path) -> None:
    early = Hub(place)
    address = early.listener.endpoint
    early.close()
    provider = Provider(place, early)
    hub = Hub(place)
    try:
        assert hub.listener.endpoint == address
        provider.hub = hub
        assert provider.report()["event"] == "ready"
    finally:
        provider.close()
        hub.close()


def test_a_stranger_at_the_workers_door_is_answered_with_a_fault(
    place: Path, hub: Hub, provider: Provider
) -> None:
    provider.report()
    door = f"ipc://{place}/p-0123456789abcdef"
    link = hub.transport.dial(Endpoint(f"{door}", f"{door}.d"))
    try:
        for lane in Lane:
            link.send(lane, [encode(Hello("w-stranger", "worker", Versions("0", "3"), 1, "here"))])
        answers: list[Message] = []

        def answered() -> bool:
            hub.pump(0.01)
            got = link.receive()
            if got is not None:
                answers.append(Decoder[Message](ProviderToWorker).decode(got[1])[0])
            return bool(answers)

        eventually(answered, 5.0, "an answer to the stranger")
        assert isinstance(answers[0], Fault)
        assert "w-stranger" in answers[0].detail
    finally:
        link.close()
    hub.send(lease())
    hub.expect(LeaseStarted)
