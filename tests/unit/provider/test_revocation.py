"""Rights that are taken back: what becomes of what runs, waits, or is idle, within two seconds."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.errors import DEATH_CAUSES
from guactors.messages import (
    ActorEnded,
    Admit,
    AdmitCaller,
    Bind,
    Expel,
    LeaseEnded,
    LeaseStarted,
    Leave,
    Report,
    StopLease,
)
from guactors.provider_state import GiveUp, ImageFacts
from guactors.provider_state.review import PAUSE
from guactors.security.grants import Grant
from guactors.security.keys import Kind
from guactors.security.signing import envelope_text
from guactors.security.succession import name_successor
from tests.unit.provider.authority import (
    APP_KEY,
    OWN,
    OWNER,
    Guarded,
    policy_bytes,
    public,
    revoked,
    secret,
    wide,
)
from tests.unit.provider.bench import Bench
from tests.unit.security.grant_samples import IMAGE, NOW, OTHER_SIGNER, SIGNER

APP = APP_KEY.public.text
GRANT = wide()
OTHER = wide(serial=2)


def busy(*grants: Grant, **options: Any) -> tuple[Guarded, str]:
    """A lease of an app runs; its worker."""
    bench = Guarded(**options)
    bench.all_up()
    bench.show(*grants)
    bench.lease()
    (started,) = bench.said(LeaseStarted)
    bench.pass_time(0.1)
    bench.all_up()
    return bench, started.worker


def stopped(bench: Bench, worker: str) -> bool:
    if worker not in bench.killed:
        return False
    bench.ends(worker)
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "revoked"
    assert ended.death.cause in DEATH_CAUSES
    return True


@pytest.mark.parametrize(
    "message",
    [
        revoked(APP),
        revoked(OWNER.public.text),
        revoked(grants=[GRANT]),
        revoked(APP, running="whatever"),
    ],
    ids=["the app", "the issuer", "the grant", "an unknown word"],
)
def test_what_runs_is_stopped_at_once(message: Any) -> None:
    bench, worker = busy(GRANT)
    bench.hub(message)
    assert bench.killed == {worker: "revoked"}
    assert stopped(bench, worker)


@pytest.mark.parametrize(
    "message",
    [
        revoked(public(Kind.APP, 2).text),
        revoked(public(Kind.OWNER, 2).text),
        revoked(grants=[wide(serial=7)]),
        revoked(public(Kind.PROVIDER, 2).text),
    ],
    ids=["another app", "another owner", "another grant", "another provider"],
)
def test_what_has_nothing_to_do_with_it_goes_on(message: Any) -> None:
    bench, worker = busy(GRANT)
    bench.hub(message)
    bench.pass_time(2.0)
    assert bench.killed == {}
    bench.hub(StopLease("l-1"))
    bench.lease("l-2")
    assert [one.worker for one in bench.said(LeaseStarted)] == [worker]


def test_a_grant_that_is_left_keeps_it_alive_until_that_is_revoked_too() -> None:
    bench, worker = busy(GRANT, OTHER)
    bench.hub(revoked(grants=[GRANT]))
    assert bench.killed == {}
    bench.hub(revoked(grants=[GRANT, OTHER], epoch=2))
    assert stopped(bench, worker)


def test_a_grant_that_is_left_but_is_too_small_does_not() -> None:
    bench, worker = busy(GRANT, wide(serial=2, max_priority=-1))
    bench.hub(revoked(grants=[GRANT]))
    assert stopped(bench, worker)


def test_finish_lets_run_what_runs_but_nothing_new() -> None:
    bench, worker = busy(GRANT)
    bench.hub(revoked(APP, running="finish"))
    bench.pass_time(30.0)
    assert bench.killed == {}
    bench.lease("l-2")
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-2", "refused")
    assert bench.said(Report)[0].reason == "revoked"
    bench.hub(StopLease("l-1"))
    assert bench.told(worker, Leave) == [Leave(graceful=True)]


def test_what_may_finish_does_not_when_a_later_word_says_stop() -> None:
    bench, worker = busy(GRANT, OTHER)
    bench.hub(revoked(grants=[GRANT, OTHER], running="finish"))
    assert bench.killed == {}
    bench.hub(revoked(public(Kind.APP, 5).text, epoch=2))
    assert bench.killed == {}
    bench.hub(revoked(APP, epoch=3))
    assert stopped(bench, worker)


def test_actors_end_likewise() -> None:
    bench = Guarded()
    bench.all_up()
    bench.show(GRANT)
    bench.actor(detached=True)
    bench.hub(revoked(APP))
    ((worker, cause),) = bench.killed.items()
    assert cause == "revoked"
    bench.ends(worker)
    assert [one.death.cause for one in bench.said(ActorEnded)] == ["revoked"]


def test_what_waits_for_a_worker_is_refused() -> None:
    bench = Guarded(warm=0)
    bench.show(GRANT)
    bench.lease()
    assert bench.starting
    bench.hub(revoked(APP))
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "refused"
    bench.all_up()
    assert bench.said(LeaseStarted) == []


def test_idle_workers_of_the_session_are_ended_for_something_may_be_at_work_in_them() -> None:
    bench, worker = busy(GRANT)
    bench.hub(StopLease("l-1"))
    bench.hub(revoked(APP))
    assert bench.killed == {worker: "revoked"}
    bench, worker = busy(GRANT)
    bench.hub(StopLease("l-1"))
    bench.hub(revoked(APP, running="finish"))
    assert bench.told(worker, Leave) == [Leave(graceful=True)]


@pytest.mark.parametrize("epoch", [3, 2, 0])
def test_a_list_counts_whatever_its_epoch_for_a_restored_hub_is_behind(epoch: int) -> None:
    bench, worker = busy(GRANT)
    bench.hub(revoked(epoch=3))
    bench.hub(revoked(APP, epoch=epoch))
    assert bench.killed == {worker: "revoked"}
    bench.killed.clear()
    bench.hub(revoked(APP, epoch=epoch))
    assert bench.killed == {}


def test_what_was_revoked_stays_so_where_a_later_list_leaves_it_out() -> None:
    bench = Guarded()
    bench.hub(revoked(APP, epoch=1))
    bench.hub(revoked(epoch=2))
    bench.show(GRANT)
    bench.lease()
    assert bench.said(Report)[0].reason == "revoked"


def test_a_list_that_comes_before_the_warrant_counts() -> None:
    bench = Guarded()
    bench.hub(revoked(grants=[GRANT]))
    bench.show(GRANT)
    bench.lease()
    assert bench.said(Report)[0].reason == "no_grant"


def test_an_owners_own_session_ends_with_its_key() -> None:
    bench = Guarded()
    bench.all_up()
    bench.show(key=OWNER)
    bench.lease()
    (started,) = bench.said(LeaseStarted)
    bench.hub(revoked(OWNER.public.text))
    assert stopped(bench, started.worker)


def test_whom_a_revoked_owner_named_as_its_successor_is_trusted_no_more() -> None:
    new = secret(Kind.OWNER, 3)
    link = envelope_text(name_successor(OWNER, new, int(NOW)))
    bench = Guarded()
    bench.hub(revoked(OWNER.public.text))
    bench.show(wide(issuer=new.public.text), issuer=new, successions=[link])
    bench.lease()
    assert bench.said(Report)[0].reason == "no_grant"


def test_while_the_hub_is_away_nothing_is_lost_of_it() -> None:
    bench, worker = busy(GRANT)
    bench.hub_down()
    bench.pass_time(5.0)
    assert bench.killed == {}
    bench.hub_up()
    bench.hub(revoked(APP))
    assert stopped(bench, worker)


# --- warrants that give less ----------------------------------------------------------------------


def test_a_warrant_that_gives_less_ends_what_it_does_not_give_within_two_seconds() -> None:
    bench, worker = busy(GRANT)
    bench.show(wide(serial=2, max_priority=-1))
    bench.lease("l-2")
    assert bench.said(Report)[0].reason == "priority"
    bench.said(LeaseEnded)
    bench.pass_time(PAUSE + 0.01)
    assert PAUSE < 2.0
    assert stopped(bench, worker)


def test_the_revocation_behind_it_says_whether_what_runs_may_finish() -> None:
    bench, _ = busy(GRANT)
    bench.show(wide(serial=2, max_priority=-1))
    bench.hub(revoked(grants=[GRANT], running="finish"))
    bench.pass_time(5.0)
    assert bench.killed == {}
    bench, worker = busy(GRANT)
    bench.show(wide(serial=2, max_priority=-1))
    bench.hub(revoked(grants=[GRANT]))
    assert stopped(bench, worker)


def test_a_warrant_that_is_only_shown_again_changes_nothing() -> None:
    bench, _ = busy(GRANT)
    bench.hub(StopLease("l-1"))
    bench.show(GRANT)
    bench.pass_time(2.0)
    assert bench.killed == {}


def test_a_warrant_that_gives_more_ends_nothing_that_runs() -> None:
    bench, _ = busy(wide(max_priority=3))
    bench.show(wide(max_priority=3), wide(serial=2))
    bench.pass_time(2.0)
    assert bench.killed == {}
    bench.lease("l-2", priority=9)
    assert bench.said(LeaseStarted)


def test_a_grant_that_is_replaced_by_one_that_begins_now_ends_nothing() -> None:
    bench, _ = busy(GRANT)
    bench.show(wide(serial=2, now=NOW + bench.now))
    bench.pass_time(2.0)
    assert bench.killed == {}


def test_the_end_of_a_grants_time_ends_nothing_that_runs_but_its_revocation_does() -> None:
    brief = wide(expires=int(NOW) + 1010)
    bench, worker = busy(brief)
    bench.pass_time(20.0)
    bench.lease("l-2")
    assert bench.said(Report)[0].reason == "expired"
    bench.said(LeaseEnded)
    bench.show(wide(serial=2, max_priority=-1))
    bench.pass_time(5.0)
    assert bench.killed == {}
    bench.hub(revoked(grants=[brief]))
    assert stopped(bench, worker)


def test_a_worker_that_is_bound_to_more_signers_than_are_left_is_stopped() -> None:
    bench, worker = busy(GRANT, wide(serial=2, function_signers=[SIGNER]))
    bench.hub(revoked(grants=[GRANT]))
    assert stopped(bench, worker)


def test_an_idle_worker_that_is_bound_to_other_signers_is_not_used_again() -> None:
    bench, worker = busy(wide(function_signers=[SIGNER]))
    bench.hub(StopLease("l-1"))
    bench.show(wide(function_signers=[SIGNER, OTHER_SIGNER]))
    bench.lease("l-2")
    (started,) = bench.said(LeaseStarted)
    assert started.worker != worker


# --- signers --------------------------------------------------------------------------------------


def test_a_signer_of_functions_that_is_revoked_costs_the_workers_that_trust_it() -> None:
    bench, worker = busy(wide(function_signers=[SIGNER, OTHER_SIGNER]))
    bench.hub(revoked(OTHER_SIGNER))
    assert stopped(bench, worker)


def test_a_signer_of_the_policy_that_is_revoked_counts_no_more() -> None:
    policy = policy_bytes(image_hashes=[], image_signers=[SIGNER])
    bench = Guarded(policy=policy, warm=0)
    bench.show(GRANT)
    bench.lease(image=IMAGE)
    bench.image_here(ImageFacts(IMAGE, frozenset({SIGNER})))
    (worker,) = bench.all_up()
    bench.root_ready(worker)
    assert bench.said(LeaseStarted)
    bench.hub(revoked(SIGNER))
    assert stopped(bench, worker)
    bench.lease("l-2", image=IMAGE)
    assert bench.said(Report)[0].reason == "local_policy"


# --- transport keys, and our own ------------------------------------------------------------------


def test_revoked_transport_keys_are_expelled_by_every_worker_within_the_same_breath() -> None:
    bench = Guarded(warm=3)
    first, second, third = bench.all_up()
    bench.show(GRANT)
    bench.lease()
    bench.hub(revoked(transports=["caller-key", ""]))
    for worker in (first, second, third):
        assert bench.told(worker, Expel) == [Expel(["caller-key"])]


def test_a_revoked_transport_key_is_admitted_nowhere_later() -> None:
    bench = Guarded(warm=2)
    first, second = bench.all_up()
    bench.show(GRANT)
    bench.hub(revoked(transports=["bad"]))
    bench.lease(key="bad")
    bench.actor(keys=["good", "bad"])
    assert bench.told(first, Bind)[0].keys == []
    assert bench.told(second, Bind)[0].keys == ["good"]
    bench.hub(AdmitCaller("a-1", "bad"))
    assert bench.told(second, Admit) == []


def test_a_provider_whose_own_key_is_revoked_ends() -> None:
    bench = Guarded()
    bench.hub(revoked(OWN.public.text))
    (effect,) = [effect for effect in bench.other if isinstance(effect, GiveUp)]
    assert effect.kind == "AuthFailed"
    assert "revoked" in effect.detail


def test_a_local_provider_is_not_revoked_by_an_empty_name() -> None:
    bench = Bench()
    bench.hub(revoked(""))
    assert not [effect for effect in bench.other if isinstance(effect, GiveUp)]
