"""Who may run what on a machine with a policy: warrants, grants, the policy, quotas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors.errors import DEATH_CAUSES, UsageError
from guactors.messages import (
    ActorEnded,
    Bind,
    Blocked,
    Displaced,
    LeaseEnded,
    LeaseStarted,
    Offer,
    Report,
    Shape,
    StopLease,
    Warrant,
    WarrantWord,
)
from guactors.provider_state import permits
from guactors.provider_state.gate import QUOTA_PATIENCE, WARRANT_PATIENCE
from guactors.provider_state.permits import work_of
from guactors.security.grants import Quotas, sign_grant
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
    secret,
    warrant,
    wide,
)
from tests.unit.provider.bench import Bench, start_actor, start_lease
from tests.unit.security.grant_samples import IMAGE, NOW, OTHER_SIGNER, SIGNER

DAY = 86_400
ROOT = Path(__file__).parents[3]


def refusal(bench: Bench) -> Report:
    """The one refusal, told to the caller and to the audit log."""
    (ended,) = bench.said(LeaseEnded)
    (report,) = bench.said(Report)
    assert ended.death.cause == "refused"
    assert ended.death.cause in DEATH_CAUSES
    assert ended.death.detail == report.detail
    assert bench.said(LeaseStarted) == []
    return report


def runs(bench: Bench) -> bool:
    bench.all_up()
    return bool(bench.said(LeaseStarted))


def test_an_app_with_a_grant_runs() -> None:
    bench = Guarded()
    bench.show()
    bench.lease()
    assert runs(bench)
    assert bench.said(Report) == []


def test_a_refusal_says_who_may_not_do_what_and_is_for_the_audit_log() -> None:
    bench = Guarded()
    bench.show(wide(max_priority=3))
    bench.lease(priority=4)
    report = refusal(bench)
    assert (report.who, report.action, report.object) == (
        APP_KEY.public.text,
        "submit",
        "StartLease",
    )
    assert (report.reason, report.session) == ("priority", "s-1")
    assert "priority 4" in report.detail


def test_an_actor_is_refused_likewise() -> None:
    bench = Guarded()
    bench.show(wide(max_priority=3))
    bench.actor(priority=4)
    (ended,) = bench.said(ActorEnded)
    assert (ended.actor, ended.incarnation, ended.death.cause) == ("a-1", 1, "refused")
    assert bench.said(Report)[0].object == "StartActor"


@pytest.mark.parametrize(
    ("narrowed", "shape", "reason"),
    [
        ({"runtimes": ["docker"]}, {}, "runtime"),
        ({"providers": [public(Kind.PROVIDER, 2).text]}, {}, "provider"),
        ({"providers": ["label:zone=lab"]}, {}, "provider"),
        ({"max_priority": 0}, {"priority": 1}, "priority"),
        (
            {"preemption": ["suspend"]},
            {"displaces": [Displaced("l-7", 1, "stop")]},
            "preemption",
        ),
        ({"actions": ["read_stats"]}, {}, "action"),
        ({"quotas": Quotas(cpu=500, memory="*", gpu="*", instances="*")}, {}, "quota"),
        ({"quotas": Quotas(cpu="*", memory="*", gpu="*", instances=0)}, {}, "quota"),
        ({"quotas": Quotas("*", 10, "*", "*", "*")}, {"resources": {"memory": 10.5}}, "quota"),
        ({"now": NOW + DAY}, {}, "not_yet_valid"),
        ({"expires": int(NOW) + 1}, {}, "expired"),
    ],
    ids=str,
)
def test_a_grant_allows_only_what_it_says(
    narrowed: dict[str, Any], shape: dict[str, Any], reason: str
) -> None:
    bench = Guarded()
    bench.show(wide(**narrowed))
    bench.lease(**shape)
    bench.pass_time(QUOTA_PATIENCE)
    assert refusal(bench).reason == reason


@pytest.mark.parametrize("providers", [[OWN.public.text], ["label:zone=lab"]], ids=["key", "label"])
def test_a_grant_for_this_machine_counts_here(providers: list[str]) -> None:
    bench = Guarded(labels={"zone": "lab"})
    bench.show(wide(providers=providers))
    bench.lease()
    assert runs(bench)


# --- warrants -------------------------------------------------------------------------------------


def test_an_order_that_overtook_its_warrant_waits_for_it() -> None:
    bench = Guarded()
    bench.hub(start_actor())
    bench.pass_time(WARRANT_PATIENCE - 0.1)
    assert bench.said(ActorEnded) == []
    bench.show()
    bench.all_up()
    assert bench.core.counts()["actors"] == 1


@pytest.mark.parametrize("kind", [Guarded, Bench])
def test_an_order_without_a_warrant_is_refused_in_the_end(kind: type[Bench]) -> None:
    bench = kind()
    bench.hub(start_lease())
    bench.pass_time(WARRANT_PATIENCE - 0.1)
    assert bench.said(LeaseEnded) == []
    bench.pass_time(0.2)
    assert refusal(bench).reason == "session"


def _forged(name: str) -> Warrant:
    good = warrant(wide()).warrant
    changes: dict[str, dict[str, Any]] = {
        "no statement": {"statement": b""},
        "no signature": {"signature": b""},
        "another's signature": {"signature": warrant(key=secret(Kind.APP, 2)).warrant.signature},
        "another's key": {"key": public(Kind.APP, 2).text},
        "a signer's key": {"key": SIGNER},
        "no key at all": {"key": "mallory"},
        "another session": {"session": "s-2"},
    }
    return Warrant(msgspec.structs.replace(good, **changes[name]))


@pytest.mark.parametrize(
    "name",
    [
        "no statement",
        "no signature",
        "another's signature",
        "another's key",
        "a signer's key",
        "no key at all",
        "another session",
    ],
)
def test_a_hub_that_makes_up_a_warrant_gains_nothing(name: str) -> None:
    bench = Guarded()
    bench.hub(_forged(name))
    bench.lease("l-1", "s-2" if name == "another session" else "s-1")
    assert refusal(bench).reason == "bad_signature"


@pytest.mark.parametrize(
    "changes",
    [
        {"hub": public(Kind.HUB, 2).text},
        {"role": "provider"},
        {"at": NOW - 31 * DAY},
        {"at": NOW + DAY},
    ],
    ids=str,
)
def test_a_statement_for_something_else_gains_nothing(changes: dict[str, Any]) -> None:
    bench = Guarded()
    bench.hub(warrant(wide(), **changes))
    bench.lease()
    assert refusal(bench).reason == "bad_signature"


def test_a_session_without_a_key_is_for_the_policy_to_admit() -> None:
    local = Warrant(WarrantWord("s-1", ""))
    bench = Guarded()
    bench.hub(local)
    bench.lease()
    assert refusal(bench).reason == "local_policy"
    bench = Guarded(policy=policy_bytes(hub_sessions=True))
    bench.hub(local)
    bench.lease()
    assert runs(bench)


def test_an_owner_of_the_policy_may_all_that_the_policy_allows() -> None:
    bench = Guarded(policy=policy_bytes(apps=[public(Kind.APP, 7).text], max_priority=5))
    bench.hub(warrant(key=OWNER))
    bench.lease("l-1", priority=5)
    assert runs(bench)
    bench.lease("l-2", priority=6)
    assert refusal(bench).reason == "local_policy"


def test_an_owner_that_only_the_hub_knows_may_nothing() -> None:
    bench = Guarded()
    bench.hub(warrant(key=secret(Kind.OWNER, 2)))
    bench.lease()
    assert refusal(bench).reason == "bad_signature"


# --- grants ---------------------------------------------------------------------------------------


def test_without_a_grant_nothing_runs() -> None:
    bench = Guarded()
    bench.hub(warrant())
    bench.lease()
    assert refusal(bench).reason == "no_grant"


def test_a_grant_of_another_app_lends_nothing() -> None:
    bench = Guarded()
    bench.show(wide(app=public(Kind.APP, 2).text))
    bench.lease()
    assert refusal(bench).reason == "no_grant"


def test_a_grant_by_an_owner_that_the_policy_does_not_name_counts_for_nothing_and_it_is_said() -> (
    None
):
    stranger = secret(Kind.OWNER, 2)
    bench = Guarded()
    bench.show(wide(issuer=stranger.public.text), issuer=stranger)
    bench.lease()
    report = refusal(bench)
    assert report.reason == "no_grant"
    assert "owners known here" in report.detail


def test_a_grant_for_another_hub_counts_for_nothing() -> None:
    bench = Guarded()
    bench.show(wide(hub=public(Kind.HUB, 2).text))
    bench.lease()
    assert refusal(bench).reason == "no_grant"


def test_a_bad_grant_beside_a_good_one_does_no_harm() -> None:
    bench = Guarded()
    good = warrant(wide()).warrant
    bench.hub(Warrant(msgspec.structs.replace(good, grants=[b"{}", *good.grants])))
    bench.lease()
    assert runs(bench)


def test_a_key_that_follows_another_has_its_grants() -> None:
    new = secret(Kind.APP, 3)
    link = envelope_text(name_successor(APP_KEY, new, int(NOW)))
    bench = Guarded()
    bench.show(wide(), key=new, successions=[link])
    bench.lease()
    assert runs(bench)
    bench = Guarded()
    bench.show(wide(), key=new)
    bench.lease()
    assert refusal(bench).reason == "no_grant"


def test_an_owner_that_follows_one_of_the_policy_is_trusted_like_that() -> None:
    new = secret(Kind.OWNER, 3)
    link = envelope_text(name_successor(OWNER, new, int(NOW)))
    bench = Guarded()
    bench.show(wide(issuer=new.public.text), issuer=new, successions=[link])
    bench.lease()
    assert runs(bench)
    bench = Guarded()
    bench.hub(warrant(key=new, successions=[link]))
    bench.lease()
    assert runs(bench)


# --- the policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "shape"),
    [
        ({"max_priority": 1}, {"priority": 2}),
        ({"runtimes": ["native"]}, {}),
        ({"apps": [public(Kind.APP, 2).text]}, {}),
        ({"deny_apps": [APP_KEY.public.text]}, {}),
    ],
    ids=str,
)
def test_the_owner_of_the_machine_has_the_last_word(
    policy: dict[str, Any], shape: dict[str, Any]
) -> None:
    bench = Guarded(policy=policy_bytes(**policy))
    bench.show()
    bench.lease(**shape)
    assert refusal(bench).reason == "local_policy"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": b"{"}, "no JSON"),
        ({"policy": b'{"format":"guactors.policy/9"}'}, "cannot be used"),
        ({"hub_key": ""}, "join again"),
        ({"hub_key": OWNER.public.text}, "a hub key is needed"),
    ],
)
def test_a_policy_that_cannot_be_used_stops_the_start(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Guarded(**options)


@pytest.mark.parametrize(
    ("grant", "policy", "signers"),
    [
        (["*"], ["*"], None),
        ([SIGNER], ["*"], [SIGNER]),
        (["*"], [SIGNER], [SIGNER]),
        ([SIGNER, OTHER_SIGNER], [SIGNER], [SIGNER]),
        ([SIGNER], [OTHER_SIGNER], []),
    ],
)
def test_a_worker_is_told_whose_code_it_may_open(
    grant: list[str], policy: list[str], signers: list[str] | None
) -> None:
    bench = Guarded(policy=policy_bytes(function_signers=policy))
    (worker,) = bench.all_up()
    bench.show(wide(function_signers=grant))
    bench.lease()
    (bind,) = bench.told(worker, Bind)
    assert bind.signers == signers


# --- quotas ---------------------------------------------------------------------------------------


def two_cpus(**amounts: Any) -> Quotas:
    return Quotas(**{"cpu": 2000, "memory": "*", "gpu": "*", "instances": "*", **amounts})


def test_what_all_sessions_of_an_app_hold_here_counts_together() -> None:
    bench = Guarded(warm=0)
    for session in ("s-1", "s-2"):
        bench.show(wide(quotas=two_cpus()), session=session)
    bench.lease("l-1", "s-1")
    bench.actor("a-1", "s-2", resources={"CPU": 1.0})
    bench.all_up()
    bench.said(LeaseStarted)
    bench.lease("l-2", "s-2", resources={"CPU": 0.001})
    bench.pass_time(QUOTA_PATIENCE)
    report = refusal(bench)
    assert report.reason == "quota"
    assert "2 CPU in all" in report.detail


def test_another_apps_work_does_not_count() -> None:
    other = secret(Kind.APP, 2)
    bench = Guarded()
    bench.show(wide(quotas=two_cpus()))
    bench.show(wide(app=other.public.text), session="s-2", key=other)
    bench.lease("l-other", "s-2", resources={"CPU": 8.0})
    bench.lease("l-1", resources={"CPU": 2.0})
    bench.all_up()
    assert len(bench.said(LeaseStarted)) == 2


def test_an_order_that_overtook_the_end_which_makes_room_for_it_waits() -> None:
    bench = Guarded()
    bench.show(wide(quotas=two_cpus(instances=1)))
    bench.lease("l-1")
    bench.all_up()
    bench.actor("a-1")
    bench.pass_time(QUOTA_PATIENCE / 2)
    assert bench.said(ActorEnded) == []
    bench.hub(StopLease("l-1"))
    bench.all_up()
    assert bench.core.counts()["actors"] == 1


def test_the_cpu_of_a_task_that_waits_in_get_is_free_for_others() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show(wide(quotas=two_cpus()))
    bench.lease("l-1", resources={"CPU": 2.0})
    bench.says(worker, Blocked(True))
    bench.lease("l-2", resources={"CPU": 2.0})
    bench.all_up()
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-1", "l-2"]


@pytest.mark.parametrize(
    ("amount", "thousandths"), [(0.0, 0), (0.1, 100), (1.0, 1000), (0.0001, 1), (2.5, 2500)]
)
def test_amounts_are_rounded_up_but_not_for_binary_fractions(
    amount: float, thousandths: int
) -> None:
    work = work_of(Shape({"CPU": amount, "GPU": amount}))
    assert (work.cpu, work.gpu) == (thousandths, thousandths)


# --- a provider of the hub's own machine ----------------------------------------------------------


def test_the_hubs_own_machine_takes_its_word_for_who_and_what() -> None:
    """An app came to the hub by TCP; nobody here has to see its statement again. What its grant
    limits is limited all the same."""
    bench = Bench()
    (worker,) = bench.all_up()
    grants = [sign_grant(wide(max_priority=3, function_signers=[SIGNER]), OWNER)]
    bench.hub(Warrant(WarrantWord("s-1", APP_KEY.public.text, grants=grants)))
    bench.hub(start_lease("l-1"))
    assert bench.told(worker, Bind)[0].signers == [SIGNER]
    bench.said(LeaseStarted)
    bench.hub(start_lease("l-2", priority=4))
    assert refusal(bench).reason == "priority"


def test_an_owner_of_the_hub_may_everything_on_its_machine() -> None:
    bench = Bench()
    bench.hub(Warrant(WarrantWord("s-1", secret(Kind.OWNER, 9).public.text)))
    bench.hub(start_lease())
    assert runs(bench)


@pytest.mark.parametrize("runtime", ["docker", "qemu", "firecracker", "basic"])
@pytest.mark.parametrize("kind", [Guarded, Bench])
def test_a_runtime_that_is_not_here_is_refused(kind: type[Bench], runtime: str) -> None:
    bench = kind()
    if isinstance(bench, Guarded):
        bench.show()
    bench.lease(runtime=runtime, image=IMAGE)
    assert refusal(bench).reason == "runtime"


def test_native_needs_an_image_even_of_the_local_user() -> None:
    bench = Bench()
    bench.lease(runtime="native")
    assert refusal(bench).reason == "image"


# --- what the hub is told again -------------------------------------------------------------------


def test_reports_of_refusals_wait_for_a_hub_that_is_away() -> None:
    bench = Guarded()
    bench.hub(start_actor())
    bench.hub_down()
    bench.pass_time(WARRANT_PATIENCE + 1)
    assert bench.said(Report) == []
    bench.hub_up()
    assert [type(m) for m in bench.to_hub if isinstance(m, Offer | ActorEnded | Report)] == [
        Offer,
        ActorEnded,
        Report,
    ]


def test_an_offer_returns_the_marks_of_the_hub_and_the_warrants_of_actors() -> None:
    bench = Guarded(warm=2)
    bench.all_up()
    shown = warrant(wide())
    bench.hub(shown)
    bench.hub(msgspec.structs.replace(start_lease(), principal="whose", seal=b"mark"))
    bench.actor()
    bench.hub_down()
    bench.hub_up()
    (offer,) = bench.said(Offer)
    (lease,), (actor,) = offer.leases, offer.actors
    assert (lease.principal, lease.seal) == ("whose", b"mark")
    assert actor.warrant == shown.warrant


def test_warrants_outlive_the_link() -> None:
    bench = Guarded()
    bench.show()
    bench.hub_down()
    bench.hub_up()
    bench.lease()
    assert runs(bench)


def test_the_sessions_that_are_remembered_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "MOST_SESSIONS", 20)
    bench = Bench()
    bench.all_up()
    bench.lease("l-kept", "s-kept")
    for number in range(permits.MOST_SESSIONS + 5):
        bench.warrant(f"s-{number}")
    bench.hub(start_lease("l-old", "s-0"))
    bench.hub(start_lease("l-new", f"s-{permits.MOST_SESSIONS + 4}"))
    bench.hub(start_lease("l-again", "s-kept"))
    bench.all_up()
    bench.pass_time(WARRANT_PATIENCE)
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-old"]


def test_a_grid_on_one_machine_never_loads_the_library_that_verifies() -> None:
    script = """
import sys
from tests.unit.provider.bench import Bench
from guactors.messages import LeaseStarted
import guactors.provider_actor
bench = Bench()
bench.all_up()
bench.lease()
assert bench.said(LeaseStarted)
print([name for name in sys.modules if name.split(".")[0] in ("nacl", "zmq")])
"""
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False
    )
    assert (told.stdout.strip(), told.stderr) == (b"[]", b"")
