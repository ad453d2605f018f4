"""Images: judged before they are fetched and again when their signers are known; unpacked for one
worker each."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.errors import Death
from guactors.messages import (
    ActorEnded,
    ActorStarted,
    Bind,
    EndSession,
    LeaseEnded,
    LeaseStarted,
    Limits,
    Offer,
    Report,
    StopActor,
    StopLease,
    Vouch,
)
from guactors.provider_state import ImageFacts, LimitWorker, NeedImage, PrepareRoot, RemoveRoot
from tests.unit.provider.authority import Guarded, policy_bytes, revoked, wide
from tests.unit.provider.bench import Bench
from tests.unit.security.grant_samples import IMAGE, NOW, OTHER_IMAGE, OTHER_SIGNER, SIGNER

SIGNED = ImageFacts(IMAGE, frozenset({SIGNER}))


def only(bench: Bench, kind: type[Any]) -> list[Any]:
    """The effects of this kind so far; taken out of the tray."""
    found = [effect for effect in bench.other if isinstance(effect, kind)]
    bench.other = [effect for effect in bench.other if not isinstance(effect, kind)]
    return found


def arrives(bench: Bench, facts: ImageFacts = SIGNED) -> None:
    bench.image_here(facts)


def unpacked(bench: Bench, worker: str) -> None:
    bench.root_ready(worker)


def granted(**fields: Any) -> Guarded:
    bench = Guarded(warm=0)
    bench.show(wide(**fields))
    return bench


def started(bench: Bench, **shape: Any) -> str:
    """A lease with the image runs; its worker."""
    bench.lease(image=IMAGE, **shape)
    arrives(bench)
    (worker,) = bench.all_up()
    unpacked(bench, worker)
    return worker


def refusal(bench: Bench) -> Report:
    (ended,) = bench.said(LeaseEnded)
    (report,) = bench.said(Report)
    assert ended.death.cause == "refused"
    return report


# --- the way of an order --------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["", "python", "native"])
def test_it_is_fetched_then_unpacked_and_then_the_worker_is_bound(runtime: str) -> None:
    bench = granted()
    bench.lease(image=IMAGE, runtime=runtime, key="caller")
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    assert bench.starting == []
    arrives(bench)
    (worker,) = bench.all_up()
    assert only(bench, PrepareRoot) == [PrepareRoot(worker, IMAGE)]
    assert bench.told(worker, Bind) == []
    assert bench.said(LeaseStarted) == []
    assert bench.said(Vouch) == []
    unpacked(bench, worker)
    (bind,) = bench.told(worker, Bind)
    assert (bind.root, bind.keys) == (f"/roots/{worker}", ["caller"])
    assert bind.runtime == ("native" if runtime == "native" else "")
    assert len(bench.said(LeaseStarted)) == 1
    assert len(bench.said(Vouch)) == 1


def test_a_runtime_that_takes_images_as_they_are_has_them_in_the_store() -> None:
    bench = Guarded(warm=0, runtimes=["docker"])
    bench.show(wide(runtimes=["docker"]))
    bench.lease(image=IMAGE, runtime="docker", limits=Limits(0.5, 1 << 26))
    arrives(bench)
    (worker,) = bench.all_up()
    assert only(bench, PrepareRoot) == [PrepareRoot(worker, IMAGE, unpack=False)]
    unpacked(bench, worker)
    (bind,) = bench.told(worker, Bind)
    assert (bind.runtime, bind.image, bind.limits) == ("docker", IMAGE, Limits(0.5, 1 << 26))
    assert only(bench, LimitWorker) == [], "its instance is held to them, and not who keeps that"


@pytest.mark.parametrize("runtime", ["native", "docker"])
def test_programs_of_the_machine_are_not_for_others(runtime: str) -> None:
    bench = Bench(runtimes=["docker"])
    bench.lease(runtime=runtime)
    assert refusal(bench).reason == "image"


def test_an_actor_goes_the_same_way() -> None:
    bench = granted()
    bench.actor(image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    unpacked(bench, worker)
    bench.alive(worker)
    assert len(bench.said(ActorStarted)) == 1


def test_many_orders_make_one_fetch() -> None:
    bench = granted()
    for number in range(3):
        bench.lease(f"l-{number}", image=IMAGE)
    bench.lease("l-other", image=OTHER_IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE), NeedImage(OTHER_IMAGE)]
    arrives(bench)
    workers = bench.all_up()
    assert only(bench, PrepareRoot) == [PrepareRoot(worker, IMAGE) for worker in workers]
    assert len(workers) == 3


def test_what_is_here_is_not_fetched_again() -> None:
    bench = granted()
    started(bench)
    only(bench, NeedImage)
    bench.lease("l-2", image=IMAGE)
    assert only(bench, NeedImage) == []


def test_an_idle_worker_with_the_same_image_needs_no_unpacking() -> None:
    bench = granted()
    worker = started(bench)
    bench.hub(StopLease("l-1"))
    only(bench, PrepareRoot)
    bench.lease("l-2", image=IMAGE)
    assert [one.worker for one in bench.said(LeaseStarted)] == [worker, worker]
    assert only(bench, PrepareRoot) == []


@pytest.mark.parametrize(
    "shape", [{}, {"image": OTHER_IMAGE}, {"image": IMAGE, "runtime": "native"}]
)
def test_an_idle_worker_is_not_used_for_another_image_or_runtime(shape: dict[str, Any]) -> None:
    bench = granted()
    worker = started(bench)
    bench.hub(StopLease("l-1"))
    bench.said(LeaseStarted)
    bench.lease("l-2", **shape)
    arrives(bench, ImageFacts(OTHER_IMAGE))
    for other in bench.all_up():
        unpacked(bench, other)
    (one,) = bench.said(LeaseStarted)
    assert one.worker != worker


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_hashes": [OTHER_IMAGE], "image_signers": []}, "image"),
        ({"image_hashes": [], "image_signers": []}, "image"),
        ({"image_mode": "all", "image_signers": []}, "image"),
        ({"image_mode": "all", "image_hashes": [OTHER_IMAGE]}, "image"),
        ({"runtimes": ["docker"]}, "runtime"),
        ({"max_priority": -1}, "priority"),
    ],
    ids=str,
)
def test_nothing_is_fetched_for_who_may_not_run_it_in_any_case(
    fields: dict[str, Any], reason: str
) -> None:
    bench = granted(**fields)
    bench.lease(image=IMAGE)
    assert only(bench, NeedImage) == []
    report = refusal(bench)
    assert report.reason == reason
    assert "signed by *" not in report.detail


def test_nor_where_the_machines_owner_would_not_have_it() -> None:
    bench = Guarded(policy=policy_bytes(image_hashes=[OTHER_IMAGE], image_signers=[]))
    bench.show()
    bench.lease(image=IMAGE)
    assert only(bench, NeedImage) == []
    assert refusal(bench).reason == "local_policy"


@pytest.mark.parametrize(
    ("grant", "policy", "signers", "runs"),
    [
        ({"image_hashes": [IMAGE], "image_signers": []}, {}, [], True),
        ({"image_hashes": [], "image_signers": [SIGNER]}, {}, [SIGNER], True),
        ({"image_hashes": [], "image_signers": [SIGNER]}, {}, [OTHER_SIGNER], False),
        ({"image_hashes": [], "image_signers": [SIGNER]}, {}, [], False),
        ({"image_hashes": [], "image_signers": ["*"]}, {}, [OTHER_SIGNER], True),
        ({"image_hashes": [], "image_signers": ["*"]}, {}, [], False),
        ({"image_mode": "all", "image_signers": [SIGNER]}, {}, [SIGNER], True),
        ({"image_mode": "all", "image_signers": [SIGNER]}, {}, [], False),
        ({}, {"image_hashes": [], "image_signers": [SIGNER]}, [SIGNER], True),
        ({}, {"image_hashes": [], "image_signers": [SIGNER]}, [OTHER_SIGNER], False),
        (
            {"image_hashes": [], "image_signers": [OTHER_SIGNER]},
            {"image_hashes": [], "image_signers": [SIGNER]},
            [SIGNER, OTHER_SIGNER],
            True,
        ),
        (
            {"image_hashes": [], "image_signers": [OTHER_SIGNER]},
            {"image_hashes": [], "image_signers": [SIGNER]},
            [OTHER_SIGNER],
            False,
        ),
    ],
)
def test_grant_and_policy_must_both_know_the_hash_or_a_signer(
    grant: dict[str, Any], policy: dict[str, Any], signers: list[str], runs: bool
) -> None:
    bench = Guarded(policy=policy_bytes(**policy), warm=0)
    bench.show(wide(**grant))
    bench.lease(image=IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    arrives(bench, ImageFacts(IMAGE, frozenset(signers)))
    assert bool(bench.all_up()) is runs
    if not runs:
        assert refusal(bench).reason in {"image", "image_signer", "local_policy"}


def test_a_signature_that_was_made_since_is_asked_for_once_per_order() -> None:
    bench = granted(image_hashes=[])
    bench.lease("l-1", image=IMAGE)
    only(bench, NeedImage)
    arrives(bench, ImageFacts(IMAGE))
    refusal(bench)
    bench.pass_time(1.0)
    bench.lease("l-2", image=IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    arrives(bench)
    assert len(bench.all_up()) == 1


def test_signatures_end_with_the_image() -> None:
    bench = granted(image_hashes=[])
    bench.lease(image=IMAGE)
    arrives(bench, ImageFacts(IMAGE, frozenset({SIGNER}), not_after=int(NOW) + 10))
    assert refusal(bench).reason in {"image", "image_signer"}


def test_an_image_for_other_runtimes_is_refused() -> None:
    bench = granted()
    bench.lease(image=IMAGE)
    arrives(bench, ImageFacts(IMAGE, runtimes=("docker", "qemu")))
    assert refusal(bench).reason == "runtime"


def test_the_local_user_may_run_any_image() -> None:
    bench = Bench(warm=0)
    bench.lease(image=IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    arrives(bench, ImageFacts(IMAGE))
    assert len(bench.all_up()) == 1


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "cause"), [("image", "refused"), ("failed", "start_failed")])
def test_an_image_that_cannot_be_had_ends_who_waits_for_it(reason: str, cause: str) -> None:
    bench = granted()
    bench.lease("l-1", image=IMAGE)
    bench.actor("a-1", image=IMAGE)
    bench.image_failed(IMAGE, reason, "no such image")
    deaths = [ended.death for ended in bench.said(LeaseEnded)]
    deaths += [ended.death for ended in bench.said(ActorEnded)]
    assert [(death.cause, death.detail) for death in deaths] == [(cause, "no such image")] * 2
    assert [one.reason for one in bench.said(Report)] == [reason, reason]
    only(bench, NeedImage)
    bench.pass_time(0.1)
    bench.lease("l-2", image=IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]


def test_a_fetch_that_the_link_cost_is_begun_again_on_the_next_one() -> None:
    bench = granted()
    bench.lease("l-1", image=IMAGE)
    bench.actor("a-1", image=IMAGE)
    only(bench, NeedImage)
    bench.hub_down()
    bench.image_failed(IMAGE, "link_lost", "the link broke")
    assert only(bench, NeedImage) == []
    bench.hub_up()
    (offer,) = bench.said(Offer)
    assert [one.spec.actor for one in offer.actors] == ["a-1"]
    assert [(e.lease, e.death.cause) for e in bench.said(LeaseEnded)] == [("l-1", "link_lost")]
    bench.pass_time(0.1)
    bench.lease("l-2", image=IMAGE)
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    arrives(bench)
    assert len(bench.all_up()) == 2


@pytest.mark.parametrize(("reason", "cause"), [("image", "refused"), ("failed", "start_failed")])
def test_an_image_that_cannot_be_unpacked_costs_the_worker(reason: str, cause: str) -> None:
    bench = granted()
    bench.lease(image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.root_failed(worker, reason, "a hostile archive")
    (ended,) = bench.said(LeaseEnded)
    assert (ended.death.cause, ended.death.detail) == (cause, "a hostile archive")
    assert worker in bench.killed
    bench.ends(worker)
    assert bench.said(LeaseEnded) == []


def test_an_image_that_is_gone_when_it_is_unpacked_is_fetched_again() -> None:
    bench = granted()
    bench.lease(image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    only(bench, NeedImage)
    bench.root_failed(worker, "gone", "made room")
    assert only(bench, NeedImage) == [NeedImage(IMAGE)]
    assert bench.said(LeaseEnded) == []
    arrives(bench)
    (other,) = bench.all_up()
    unpacked(bench, other)
    assert [one.worker for one in bench.said(LeaseStarted)] == [other]


def test_a_worker_that_dies_while_its_image_is_unpacked() -> None:
    bench = granted()
    bench.lease(image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.ends(worker, Death("signal", signal=9))
    assert [one.death.signal for one in bench.said(LeaseEnded)] == [9]
    assert only(bench, RemoveRoot) == [RemoveRoot(worker, IMAGE)]
    unpacked(bench, worker)
    assert bench.said(LeaseStarted) == []


def test_its_directory_goes_with_the_worker() -> None:
    bench = granted()
    worker = started(bench)
    bench.hub(StopLease("l-1"))
    assert only(bench, RemoveRoot) == []
    bench.ends(worker)
    assert only(bench, RemoveRoot) == [RemoveRoot(worker, IMAGE)]


# --- withdrawn meanwhile --------------------------------------------------------------------------


def test_a_lease_stopped_while_its_image_is_fetched() -> None:
    bench = granted()
    bench.lease("l-1", image=IMAGE)
    bench.lease("l-2", image=IMAGE)
    bench.hub(StopLease("l-1"))
    bench.hub(StopLease("l-2", kill=True))
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-2"]
    arrives(bench)
    assert bench.all_up() == []


@pytest.mark.parametrize("kill", [True, False])
def test_a_lease_stopped_while_its_image_is_unpacked(kill: bool) -> None:
    bench = granted()
    bench.lease(image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.hub(StopLease("l-1", kill=kill))
    unpacked(bench, worker)
    assert bench.told(worker, Bind) == []
    assert worker in bench.killed
    bench.ends(worker)
    assert [one.lease for one in bench.said(LeaseEnded)] == (["l-1"] if kill else [])
    assert bench.said(LeaseStarted) == []


def test_an_actor_stopped_while_its_image_is_fetched_or_unpacked() -> None:
    bench = granted()
    bench.actor("a-1", image=IMAGE)
    bench.hub(StopActor("a-1", "killed"))
    bench.actor("a-2", image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.hub(StopActor("a-2", "killed"))
    bench.ends(worker)
    assert [one.actor for one in bench.said(ActorEnded)] == ["a-1", "a-2"]


def test_the_end_of_a_session_while_images_are_fetched_and_unpacked() -> None:
    bench = granted()
    bench.lease("l-1", image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.lease("l-2", image=OTHER_IMAGE)
    bench.actor("a-kept", image=OTHER_IMAGE, detached=True)
    bench.hub(EndSession("s-1"))
    bench.ends(worker)
    ended = bench.said(LeaseEnded)
    assert {(one.lease, one.death.cause) for one in ended} == {
        ("l-1", "session_ended"),
        ("l-2", "session_ended"),
    }
    assert bench.said(ActorEnded) == []
    bench.hub(EndSession("s-1", detached=True))
    assert [one.actor for one in bench.said(ActorEnded)] == ["a-kept"]


def test_the_line_breaks_while_an_image_is_unpacked() -> None:
    bench = granted()
    bench.lease("l-1", image=IMAGE)
    bench.actor("a-1", image=IMAGE)
    arrives(bench)
    first, second = bench.all_up()
    bench.hub_down()
    assert first in bench.killed
    bench.hub_up()
    (offer,) = bench.said(Offer)
    assert offer.leases == []
    assert [(one.spec.actor, one.worker, one.endpoints) for one in offer.actors] == [
        ("a-1", second, [])
    ]
    assert [(e.lease, e.death.cause) for e in bench.said(LeaseEnded)] == [("l-1", "link_lost")]
    assert bench.said(Vouch) == []
    unpacked(bench, second)
    bench.alive(second)
    assert len(bench.said(ActorStarted)) == 1
    bench.ends(first)
    assert bench.said(LeaseEnded) == []


@pytest.mark.parametrize("running", ["stop", "finish"])
def test_what_has_not_begun_when_the_right_is_taken_back_does_not_begin(running: str) -> None:
    grant = wide()
    bench = Guarded(warm=0)
    bench.show(grant)
    bench.lease("l-1", image=IMAGE)
    arrives(bench)
    (worker,) = bench.all_up()
    bench.lease("l-2", image=OTHER_IMAGE)
    bench.hub(revoked(grants=[grant], running=running))
    unpacked(bench, worker)
    assert bench.told(worker, Bind) == []
    bench.ends(worker)
    assert {one.lease for one in bench.said(LeaseEnded)} == {"l-1", "l-2"}
