"""Rights: one grant fits the work as a whole, or the work does not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guactors.security.grants import ACTIONS, Grant, Quotas, Reason
from guactors.security.keys import Kind
from guactors.security.rights import ALL, Rights, Site, Usage, Verdict, Work, rights_of
from guactors.security.words import RUNTIMES
from tests.unit.security.grant_samples import (
    APP,
    HERE,
    IMAGE,
    NOW,
    OTHER_APP,
    OTHER_IMAGE,
    OTHER_PROVIDER,
    OTHER_SIGNER,
    PROVIDER,
    SIGNER,
    THERE,
    grant,
    grants,
    sites,
    times,
    usages,
    wide,
    works,
)
from tests.unit.security.samples import public

DOCKER = Work("docker", IMAGE)
SIGNED = frozenset({SIGNER})


def rights(*found: Grant) -> Rights:
    return rights_of(APP, found)


def verdict(fields: dict[str, Any], work: Work, site: Site = HERE, now: float = NOW) -> Verdict:
    return rights(wide(**fields)).judge_site(work, site, now)


# --- deny by default ------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [Rights(), Rights(principal=APP), rights()])
def test_without_a_grant_nothing_is_allowed(empty: Rights) -> None:
    for found in (
        *(empty.may(action, NOW) for action in ACTIONS),
        empty.judge_work(Work(), NOW),
        empty.judge_site(Work(), HERE, NOW),
        empty.judge_quota(Work(), Usage(), NOW),
    ):
        assert not found.allowed
        assert found.reason is Reason.NO_GRANT
        assert found.serial == 0
        assert "ask the owner of the grid" in found.detail
    assert empty.function_signers(NOW) == frozenset()
    assert empty.function_signers_for(Work(), HERE, NOW) == frozenset()
    assert empty.storage_left(0, NOW) == 0
    assert not empty.fits_site(Work(), HERE, NOW)


def test_an_empty_grant_allows_nothing() -> None:
    nothing = rights(grant())
    assert not any(nothing.may(action, NOW).allowed for action in (*ACTIONS, "*", ""))
    assert nothing.judge_work(Work(), NOW).reason is Reason.ACTION
    assert nothing.function_signers(NOW) == frozenset()
    assert nothing.storage_left(0, NOW) == 0


NARROW: dict[str, tuple[Any, Reason]] = {
    "actions": ([], Reason.ACTION),
    "runtimes": ([], Reason.RUNTIME),
    "max_priority": (-1, Reason.PRIORITY),
    "preemption": ([], Reason.PREEMPTION),
    "providers": ([], Reason.PROVIDER),
    "quotas": (Quotas(), Reason.QUOTA),
    "not_before": (int(NOW) + 1, Reason.NOT_YET_VALID),
}
ASKING = Work(preemption=("suspend",), cpu=1)


@pytest.mark.parametrize("field", NARROW)
def test_one_missing_right_is_enough_to_refuse(field: str) -> None:
    value, reason = NARROW[field]
    assert verdict({}, ASKING).allowed
    assert verdict({field: value}, ASKING).reason is reason


def test_image_lists_that_are_empty_allow_no_image() -> None:
    for mode in ("any", "all"):
        fields = {"image_hashes": [], "image_signers": [], "image_mode": mode}
        signed = Work("docker", IMAGE, SIGNED)
        assert verdict(fields, signed).reason is Reason.IMAGE


def test_everything_is_everything() -> None:
    greedy = Work("vax", "?", frozenset(), 10**9, ("stop",), 10**9, 10**18, 10**9)
    held = Usage(10**18, 10**18, 10**18, 10**18, 10**18)
    for now in (0, NOW, 1e18):
        assert all(ALL.may(action, now).allowed for action in (*ACTIONS, "whatever"))
        assert ALL.judge_work(greedy, now).allowed
        assert ALL.judge_site(greedy, Site(), now).allowed
        assert ALL.judge_quota(greedy, held, now).allowed
        assert ALL.fits_site(greedy, Site(), now)
        assert ALL.function_signers(now) is None
        assert ALL.function_signers_for(greedy, Site(), now) is None
        assert ALL.storage_left(10**18, now) is None


def test_the_grant_of_another_app_is_left_out() -> None:
    mine, theirs = wide(serial=1, runtimes=["python"]), wide(serial=2, app=OTHER_APP)
    found = rights_of(APP, [theirs, mine])
    assert found.grants == (mine,)
    assert found.principal == APP
    assert not found.judge_site(DOCKER, HERE, NOW).allowed
    assert not rights_of(public(Kind.APP, 3).text, [mine, theirs]).grants


# --- one field at a time --------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_allowed_by_its_own_word_only(action: str) -> None:
    found = rights(grant(serial=7, actions=[action]))
    assert found.may(action, NOW) == Verdict(allowed=True, reason=Reason.ALLOWED, serial=7)
    for other in (*ACTIONS, "*", ""):
        if other != action:
            assert found.may(other, NOW).reason is Reason.ACTION


def test_only_the_right_to_submit_lets_work_run() -> None:
    others = [action for action in ACTIONS if action != "submit"]
    assert verdict({"actions": others}, Work()).reason is Reason.ACTION


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_is_allowed_by_its_own_word_or_all(runtime: str) -> None:
    work = Work(runtime, IMAGE)
    others = [other for other in RUNTIMES if other != runtime]
    assert verdict({"runtimes": [runtime]}, work).allowed
    assert verdict({"runtimes": ["*"]}, work).allowed
    assert verdict({"runtimes": others}, work).reason is Reason.RUNTIME


def images() -> Iterator[tuple[str, list[str], list[str], frozenset[str], Reason]]:
    """Mode, hashes and signers of a grant, who signed IMAGE, what comes out."""
    ok, no, unsigned = Reason.ALLOWED, Reason.IMAGE, Reason.IMAGE_SIGNER
    nobody: frozenset[str] = frozenset()
    by_other = frozenset({OTHER_SIGNER})
    for mode, both in (("any", False), ("all", True)):
        yield mode, [IMAGE], [SIGNER], SIGNED, ok
        yield mode, ["*"], ["*"], SIGNED, ok
        yield mode, [OTHER_IMAGE, IMAGE], [SIGNER, OTHER_SIGNER], by_other, ok
        # Listed, but nobody listed signed it.
        yield mode, [IMAGE], [SIGNER], nobody, unsigned if both else ok
        yield mode, [IMAGE], [SIGNER], by_other, unsigned if both else ok
        yield mode, ["*"], ["*"], nobody, unsigned if both else ok
        yield mode, [IMAGE], [], SIGNED, no if both else ok
        # Signed, but not listed.
        yield mode, [OTHER_IMAGE], [SIGNER], SIGNED, no if both else ok
        yield mode, [], [SIGNER], SIGNED, no if both else ok
        yield mode, [], ["*"], by_other, no if both else ok
        # Neither.
        yield mode, [OTHER_IMAGE], [SIGNER], by_other, no if both else unsigned
        yield mode, [], [SIGNER], nobody, no if both else unsigned
        yield mode, [], [SIGNER], by_other, no if both else unsigned
        yield mode, [], ["*"], nobody, no if both else unsigned
        yield mode, [OTHER_IMAGE], [], SIGNED, no
        yield mode, [], [], nobody, no


@pytest.mark.parametrize("runtime", ["docker", "native", "qemu", "firecracker", "python"])
@pytest.mark.parametrize(("mode", "hashes", "signers", "by", "reason"), list(images()))
def test_the_image_rule(
    runtime: str,
    mode: str,
    hashes: list[str],
    signers: list[str],
    by: frozenset[str],
    reason: Reason,
) -> None:
    """The same in every runtime: a Python function in an image is no exception."""
    fields = {"image_mode": mode, "image_hashes": hashes, "image_signers": signers}
    assert verdict(fields, Work(runtime, IMAGE, by)).reason is reason


@pytest.mark.parametrize("mode", ["any", "all"])
@pytest.mark.parametrize("hashes", [[], [IMAGE], ["*"]])
@pytest.mark.parametrize("runtime", [*RUNTIMES, "", "Python", "*"])
def test_work_without_an_image(runtime: str, hashes: list[str], mode: str) -> None:
    fields = {"image_mode": mode, "image_hashes": hashes}
    allowed = runtime == "python" or (runtime == "native" and hashes == ["*"] and mode == "any")
    for signers in (frozenset[str](), SIGNED):
        found = verdict(fields, Work(runtime, "", signers))
        assert found.reason is (Reason.ALLOWED if allowed else Reason.IMAGE)


@pytest.mark.parametrize(("priority", "allowed"), [(-9, True), (4, True), (5, True), (6, False)])
def test_the_highest_priority_is_still_allowed(priority: int, allowed: bool) -> None:
    assert verdict({"max_priority": 5}, Work(priority=priority)).allowed is allowed


@pytest.mark.parametrize(
    ("modes", "asked", "allowed"),
    [
        ([], (), True),
        ([], ("suspend",), False),
        (["suspend"], ("suspend",), True),
        (["suspend"], ("suspend", "stop"), False),
        (["suspend", "stop"], ("stop", "suspend"), True),
        (["suspend"], ("*",), False),
        (["*"], ("checkpoint", "requeue"), True),
    ],
)
def test_every_mode_of_preemption_must_be_allowed(
    modes: list[str], asked: tuple[str, ...], allowed: bool
) -> None:
    found = verdict({"preemption": modes}, Work(preemption=asked))
    assert found.reason is (Reason.ALLOWED if allowed else Reason.PREEMPTION)


@pytest.mark.parametrize(
    ("providers", "site", "allowed"),
    [
        (["*"], HERE, True),
        (["*"], Site(), True),
        ([PROVIDER], HERE, True),
        ([PROVIDER], THERE, False),
        ([PROVIDER], Site(), False),
        ([OTHER_PROVIDER, PROVIDER], HERE, True),
        (["label:zone=lab"], HERE, True),
        (["label:zone=lab"], THERE, False),
        (["label:zone=lab"], Site(PROVIDER, {"zone": "lab2"}), False),
        (["label:zone=lab"], Site(PROVIDER, {"Zone": "lab"}), False),
        (["label:zone=lab"], Site("label:zone=lab"), False),
        (["label:zone="], Site(PROVIDER, {"zone": ""}), True),
        (["label:zone="], Site(PROVIDER), False),
        (["label:a=b=c"], Site(PROVIDER, {"a": "b=c"}), True),
        (["label:a=b=c"], Site(PROVIDER, {"a=b": "c"}), False),
        ([], HERE, False),
        ([], Site("*", {"*": "*"}), False),
    ],
)
def test_a_provider_is_named_or_labelled(providers: list[str], site: Site, allowed: bool) -> None:
    found = verdict({"providers": providers}, Work(), site)
    assert found.reason is (Reason.ALLOWED if allowed else Reason.PROVIDER)
    somewhere = rights(wide(providers=providers)).judge_work(Work(), NOW)
    assert somewhere.allowed is bool(providers)


@pytest.mark.parametrize("name", ["cpu", "memory", "gpu"])
@pytest.mark.parametrize(
    ("most", "held", "more", "allowed"),
    [
        (0, 0, 0, True),
        (0, 0, 1, False),
        (4000, 0, 4000, True),
        (4000, 1, 4000, False),
        (4000, 3000, 1000, True),
        (4000, 5000, 0, False),
        (4000, 0, -1, False),
        ("*", 10**18, 10**18, True),
        ("*", 0, -1, False),
    ],
)
def test_a_quota_is_for_what_is_held_and_what_comes(
    name: str, most: int | str, held: int, more: int, allowed: bool
) -> None:
    unlimited = Quotas("*", "*", "*", "*", "*")
    found = rights(wide(quotas=msgspec.structs.replace(unlimited, **{name: most})))
    work, usage = Work(**{name: more}), Usage(**{name: held})
    assert found.judge_quota(work, usage, NOW).allowed is allowed
    assert found.judge_quota(work, usage, NOW, HERE).allowed is allowed
    unused = found.judge_quota(work, Usage(), NOW, HERE)
    assert found.judge_site(work, HERE, NOW) == unused
    assert unused.allowed or not allowed


@pytest.mark.parametrize(
    ("most", "held", "allowed"), [(0, 0, False), (1, 0, True), (1, 1, False), ("*", 10**9, True)]
)
def test_work_is_one_more_instance(most: int | str, held: int, allowed: bool) -> None:
    found = rights(wide(quotas=Quotas("*", "*", "*", "*", most)))
    assert found.judge_quota(Work(), Usage(instances=held), NOW).allowed is allowed


@pytest.mark.parametrize("ask", ["may", "judge_work", "judge_site", "judge_quota"])
@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (99, Reason.NOT_YET_VALID),
        (100, Reason.ALLOWED),
        (199.9, Reason.ALLOWED),
        (200, Reason.EXPIRED),
        (float("nan"), Reason.NOT_YET_VALID),
        (float("inf"), Reason.EXPIRED),
    ],
)
def test_a_grant_counts_while_it_is_valid(ask: str, now: float, reason: Reason) -> None:
    found = rights(wide(actions=["submit", "upload_images"], not_before=100, expires=200))
    arguments: dict[str, tuple[Any, ...]] = {
        "may": ("submit",),
        "judge_work": (Work(),),
        "judge_site": (Work(), HERE),
        "judge_quota": (Work(), Usage()),
    }
    assert getattr(found, ask)(*arguments[ask], now).reason is reason
    valid = reason is Reason.ALLOWED
    assert found.function_signers(now) == (None if valid else frozenset())
    assert found.storage_left(5, now) == (None if valid else 0)


def test_storage_is_that_of_a_grant_to_upload() -> None:
    gives = [
        wide(actions=["upload_images"], quotas=Quotas(storage=100)),
        wide(actions=["upload_images"], quotas=Quotas(storage=300)),
        wide(actions=["submit"], quotas=Quotas(storage="*")),
    ]
    found = rights(*gives)
    assert [found.storage_left(used, NOW) for used in (0, 299, 300, 999)] == [300, 1, 0, 0]
    assert rights(gives[2]).storage_left(0, NOW) == 0


# --- one grant as a whole -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "work"),
    [
        ({"providers": [OTHER_PROVIDER]}, {"max_priority": 5}, Work(priority=9)),
        ({"providers": [OTHER_PROVIDER]}, {"preemption": []}, Work(preemption=("stop",))),
        ({"providers": [OTHER_PROVIDER]}, {"quotas": Quotas(1, instances=1)}, Work(cpu=2)),
        ({"runtimes": ["python"]}, {"image_hashes": [], "image_signers": []}, DOCKER),
        ({"actions": ["admin"]}, {"runtimes": ["docker"]}, Work()),
        ({"expires": int(NOW) + 1}, {"max_priority": -1}, Work()),
        (
            {"quotas": Quotas(0, "*", 9, 9, 9)},
            {"quotas": Quotas(9, 0, 9, 9, 9)},
            Work(cpu=1, memory=1),
        ),
        (
            {"image_mode": "all", "image_signers": []},
            {"image_mode": "all", "image_hashes": []},
            Work("docker", IMAGE, SIGNED),
        ),
    ],
)
def test_two_grants_do_not_make_a_third(
    one: dict[str, Any], other: dict[str, Any], work: Work
) -> None:
    """Each has what the other lacks."""
    now = NOW + 2
    for first, second in ((one, other), (other, one)):
        found = rights(wide(**first), wide(**second))
        assert not found.judge_site(work, HERE, now).allowed
        assert not found.fits_site(work, HERE, now)
    assert (
        rights(wide(**one), wide(**other), wide(serial=3)).judge_site(work, HERE, now).serial == 3
    )


def test_the_quota_of_a_grant_for_another_provider_does_not_count() -> None:
    here = wide(serial=1, providers=[PROVIDER], quotas=Quotas(1000, instances=9))
    there = wide(serial=2, providers=[OTHER_PROVIDER], quotas=Quotas(9000, instances=9))
    work, held = Work(cpu=1000), Usage(cpu=500)
    found = rights(here, there)
    assert found.judge_quota(work, held, NOW).serial == 2
    assert found.judge_quota(work, held, NOW, THERE).serial == 2
    assert found.judge_quota(work, held, NOW, HERE).reason is Reason.QUOTA


def test_quotas_do_not_add_up() -> None:
    found = rights(*(wide(serial=n, quotas=Quotas(1000, instances=9)) for n in (1, 2)))
    assert found.judge_quota(Work(cpu=1000), Usage(), NOW).allowed
    assert found.judge_quota(Work(cpu=1000), Usage(cpu=1000), NOW).reason is Reason.QUOTA


ORDER = [
    ({"not_before": int(NOW) + 9}, Reason.NOT_YET_VALID),
    ({"actions": []}, Reason.ACTION),
    ({"runtimes": ["qemu"]}, Reason.RUNTIME),
    ({"image_hashes": [], "image_signers": []}, Reason.IMAGE),
    ({"max_priority": 0}, Reason.PRIORITY),
    ({"preemption": []}, Reason.PREEMPTION),
    ({"providers": [OTHER_PROVIDER]}, Reason.PROVIDER),
    ({"quotas": Quotas()}, Reason.QUOTA),
]
GREEDY = Work("docker", IMAGE, priority=1, preemption=("stop",), cpu=1)


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_checks_run_in_order(first: int) -> None:
    """All later ones would fail, too."""
    fields: dict[str, Any] = {}
    for more, _ in ORDER[first:]:
        fields |= more
    assert verdict(fields, GREEDY).reason is ORDER[first][1]


@pytest.mark.parametrize("far", range(1, len(ORDER)))
@pytest.mark.parametrize("near", range(len(ORDER) - 1))
def test_the_reason_is_of_the_grant_that_came_furthest(near: int, far: int) -> None:
    if near >= far:
        near, far = far - 1, near + 1
    close, distant = wide(serial=1, **ORDER[near][0]), wide(serial=2, **ORDER[far][0])
    for found in (rights(close, distant), rights(distant, close)):
        refusal = found.judge_site(GREEDY, HERE, NOW)
        assert refusal.serial == 2
        assert refusal.reason is ORDER[far][1]
        assert "grant 2" in refusal.detail


def test_of_grants_that_came_equally_far_the_first_is_told() -> None:
    found = rights(wide(serial=1, max_priority=3), wide(serial=2, max_priority=4))
    assert found.judge_site(Work(priority=9), HERE, NOW).serial == 1


def test_a_refused_action_tells_of_a_valid_grant() -> None:
    old = grant(serial=1, actions=["admin"], not_before=1, expires=2)
    new = grant(serial=2, actions=["submit"])
    assert rights(old, new).may("admin", NOW).reason is Reason.ACTION
    assert rights(old, new).may("admin", NOW).serial == 2
    assert rights(old).may("admin", NOW).reason is Reason.EXPIRED


# --- what people read -----------------------------------------------------------------------------

WHO = public(Kind.APP).short


@pytest.mark.parametrize(
    ("fields", "work", "site", "words"),
    [
        ({"not_before": 4_102_444_800}, Work(), HERE, ["valid only from 2100-01-01 00:00:00 UTC"]),
        ({"not_before": 0, "expires": 86400}, Work(), HERE, ["ended at 1970-01-02", "a new one"]),
        ({"actions": ["admin"]}, Work(), HERE, ["may not submit", "allows admin"]),
        ({"actions": []}, Work(), HERE, ["may not submit", "allows nothing"]),
        (
            {"runtimes": ["python", "qemu"]},
            DOCKER,
            HERE,
            ["run in the runtime 'docker'", "allows the runtimes python, qemu"],
        ),
        (
            {"image_hashes": [OTHER_IMAGE], "image_signers": [SIGNER]},
            DOCKER,
            HERE,
            [IMAGE, "signed by nobody", "sha3-256:000000000000...", "or signed by gu_signer_"],
        ),
        (
            {"image_mode": "all", "image_signers": [SIGNER]},
            Work("docker", IMAGE, frozenset({OTHER_SIGNER})),
            HERE,
            [public(Kind.SIGNER, 2).short, "and at the same time", public(Kind.SIGNER).short],
        ),
        ({}, Work("docker"), HERE, ["docker program without an image", "only programs in images"]),
        ({"max_priority": 5}, Work(priority=7), HERE, ["at priority 7", "priority 5 at most"]),
        (
            {"preemption": ["suspend"]},
            Work(preemption=("stop",)),
            HERE,
            ["push other work aside (stop)", "allows suspend"],
        ),
        (
            {"providers": [OTHER_PROVIDER, "label:zone=attic"]},
            Work(),
            HERE,
            [public(Kind.PROVIDER).short, "zone=lab", "label:zone=attic"],
        ),
        ({"providers": [PROVIDER]}, Work(), Site(), ["the provider without a key"]),
        ({"quotas": Quotas(1500)}, Work(cpu=2000), HERE, ["2 CPU", "1.5 CPU in all"]),
        ({"quotas": Quotas("*", 7)}, Work(memory=8), HERE, ["8 bytes of memory", "7 bytes"]),
        ({"quotas": Quotas("*", "*", 0)}, Work(gpu=500), HERE, ["0.5 GPU", "0 GPU in all"]),
        ({"quotas": Quotas()}, Work(), HERE, ["1 instances", "0 instances in all"]),
        ({"quotas": Quotas("*")}, Work(cpu=-1), HERE, ["-0.001 CPU"]),
        (
            {"providers": [f"label:n={number}" for number in range(9)]},
            Work(),
            HERE,
            ["label:n=3", "5 more"],
        ),
    ],
)
def test_a_refusal_says_who_what_and_what_to_do(
    fields: dict[str, Any], work: Work, site: Site, words: list[str]
) -> None:
    refusal = verdict({"serial": 42, **fields}, work, site)
    assert not refusal.allowed
    for word in (WHO, "grant 42", "ask the owner of the grid", *words):
        assert word in refusal.detail
    assert len(refusal.detail) < 512


def test_a_refusal_repeats_no_control_characters() -> None:
    evil = "\x1b[2J\n"
    site = Site(evil, {evil: evil})
    for fields, work in (
        ({"runtimes": ["python"]}, Work(evil * 1000)),
        ({"image_hashes": [], "image_signers": []}, Work("docker", evil * 1000)),
        ({"preemption": []}, Work(preemption=(evil,) * 1000)),
        ({"providers": []}, Work()),
    ):
        refusal = verdict(fields, work, site)
        assert not refusal.allowed
        assert refusal.detail.isprintable()
        assert len(refusal.detail) < 2000


def test_whoever_has_no_key_is_somebody() -> None:
    assert "somebody without a key may not run work" in Rights().judge_work(Work(), NOW).detail
    assert "somebody without a key may not admin" in Rights().may("admin", NOW).detail
    assert "maria may not" in Rights(principal="maria").may("admin", NOW).detail


# --- function signers -----------------------------------------------------------------------------


def test_signers_of_known_work_are_those_of_the_grants_it_fits() -> None:
    here = wide(providers=[PROVIDER], function_signers=[SIGNER])
    there = wide(providers=[OTHER_PROVIDER], function_signers=[OTHER_SIGNER])
    loose = wide(providers=[OTHER_PROVIDER], function_signers=["*"], max_priority=0)
    found = rights(here, there, loose)
    assert found.function_signers_for(Work(), HERE, NOW) == {SIGNER}
    assert found.function_signers_for(Work(priority=1), THERE, NOW) == {OTHER_SIGNER}
    assert found.function_signers_for(Work(), THERE, NOW) is None
    assert found.function_signers_for(Work(), Site(), NOW) == frozenset()
    both = rights(here, wide(function_signers=[OTHER_SIGNER]))
    assert both.function_signers_for(Work(), HERE, NOW) == {SIGNER, OTHER_SIGNER}


@pytest.mark.parametrize(
    ("lists", "signers"),
    [
        ([["*"]], None),
        ([["*"], ["*", SIGNER]], None),
        ([["*"], [SIGNER]], {SIGNER}),
        ([[SIGNER, OTHER_SIGNER], [SIGNER]], {SIGNER}),
        ([[SIGNER], [OTHER_SIGNER]], set()),
        ([["*"], []], set()),
        ([[]], set()),
    ],
)
def test_signers_of_unknown_work_are_those_that_every_grant_admits(
    lists: list[list[str]], signers: set[str] | None
) -> None:
    found = rights(*(wide(function_signers=entries) for entries in lists))
    assert found.function_signers(NOW) == signers


@pytest.mark.parametrize(
    "fields",
    [{"actions": ["admin"]}, {"runtimes": ["docker"]}, {"not_before": int(NOW) + 1}],
)
def test_a_grant_that_is_not_for_functions_now_has_no_say(fields: dict[str, Any]) -> None:
    found = rights(wide(**fields), wide(function_signers=[SIGNER]))
    assert found.function_signers(NOW) == {SIGNER}
    assert rights(wide(**fields)).function_signers(NOW) == frozenset()


# --- laws -----------------------------------------------------------------------------------------

many = st.lists(grants(), max_size=4)


def plainly(found: Grant, work: Work, site: Site, usage: Usage, now: float) -> bool:
    """Whether the work fits the grant: the rules again, in the shortest words."""

    def has(entries: list[str], entry: str) -> bool:
        return "*" in entries or entry in entries

    listed = has(found.image_hashes, work.image)
    signed = any(has(found.image_signers, signer) for signer in work.signers)
    if work.image:
        image = (listed or signed) if found.image_mode == "any" else (listed and signed)
    else:
        bare = "*" in found.image_hashes and found.image_mode == "any"
        image = work.runtime == "python" or (work.runtime == "native" and bare)
    labels = {f"label:{name}={value}" for name, value in site.labels.items()}
    room = all(
        more >= 0 and (most == "*" or held + more <= most)
        for most, held, more in (
            (found.quotas.cpu, usage.cpu, work.cpu),
            (found.quotas.memory, usage.memory, work.memory),
            (found.quotas.gpu, usage.gpu, work.gpu),
            (found.quotas.instances, usage.instances, 1),
        )
    )
    return (
        found.not_before <= now
        and (found.expires is None or now < found.expires)
        and "submit" in found.actions
        and has(found.runtimes, work.runtime)
        and image
        and work.priority <= found.max_priority
        and all(has(found.preemption, mode) for mode in work.preemption)
        and (has(found.providers, site.key) or bool(labels & set(found.providers)))
        and room
    )


@given(many, works, sites, usages, times)
def test_work_is_allowed_exactly_if_it_fits_one_grant(
    found: list[Grant], work: Work, site: Site, usage: Usage, now: float
) -> None:
    fitting = [one.serial for one in found if plainly(one, work, site, usage, now)]
    judged = rights(*found).judge_quota(work, usage, now, site)
    assert judged.allowed is bool(fitting)
    assert judged.serial in fitting if fitting else judged.detail
    assert (judged.reason is Reason.ALLOWED) is judged.allowed


@given(many, works, sites, usages, times)
def test_each_judgement_is_stricter_than_the_one_before(
    found: list[Grant], work: Work, site: Site, usage: Usage, now: float
) -> None:
    mine = rights(*found)
    steps = [
        mine.may("submit", now).allowed,
        mine.judge_work(work, now).allowed,
        mine.judge_site(work, site, now).allowed,
        mine.judge_quota(work, usage, now, site).allowed,
    ]
    assert steps == sorted(steps, reverse=True)
    assert mine.fits_site(work, site, now) is steps[2]
    assert mine.judge_quota(work, usage, now).allowed >= steps[3]


def allowed_things(mine: Rights, work: Work, site: Site, usage: Usage, now: float) -> set[str]:
    """Names of all rights in one situation; a larger set is more rights."""
    found = {action for action in ACTIONS if mine.may(action, now).allowed}
    for name, judged in (
        ("work", mine.judge_work(work, now)),
        ("site", mine.judge_site(work, site, now)),
        ("quota", mine.judge_quota(work, usage, now)),
        ("site and quota", mine.judge_quota(work, usage, now, site)),
    ):
        if judged.allowed:
            found.add(name)
    signers = mine.function_signers_for(work, site, now)
    found |= {SIGNER, OTHER_SIGNER, "unsigned"} if signers is None else signers
    left = mine.storage_left(1, now)
    return found | {f"{size} bytes" for size in range(1, 4) if left is None or size <= left}


@given(many, grants(), st.integers(0, 4), works, sites, usages, times)
def test_one_more_grant_takes_nothing_away(
    found: list[Grant],
    more: Grant,
    place: int,
    work: Work,
    site: Site,
    usage: Usage,
    now: float,
) -> None:
    before = allowed_things(rights(*found), work, site, usage, now)
    after = allowed_things(rights(*found[:place], more, *found[place:]), work, site, usage, now)
    assert before <= after


LISTS = [
    "providers", "runtimes", "image_hashes", "image_signers", "function_signers", "preemption",
    "actions",
]  # fmt: skip


@given(many, grants(), st.data(), works, sites, usages, times)
def test_one_entry_less_adds_nothing(
    found: list[Grant],
    one: Grant,
    data: st.DataObject,
    work: Work,
    site: Site,
    usage: Usage,
    now: float,
) -> None:
    name = data.draw(st.sampled_from([name for name in LISTS if getattr(one, name)] or [""]))
    assume(name)
    entries = list(getattr(one, name))
    entries.remove(data.draw(st.sampled_from(entries)))
    less = msgspec.structs.replace(one, **{name: entries})
    before = allowed_things(rights(one, *found), work, site, usage, now)
    after = allowed_things(rights(less, *found), work, site, usage, now)
    assert after <= before


@given(many, works, sites, times)
def test_who_may_sign_for_all_work_may_sign_for_each(
    found: list[Grant], work: Work, site: Site, now: float
) -> None:
    """The answer for unknown work never goes beyond what known work, that may run, would get."""
    mine = rights(*found)
    python = msgspec.structs.replace(work, runtime="python")
    assume(mine.fits_site(python, site, now))
    anyhow, exactly = mine.function_signers(now), mine.function_signers_for(python, site, now)
    assert exactly is None or (anyhow is not None and anyhow <= exactly)
