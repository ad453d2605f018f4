"""The policy of a machine's owner: read strictly, tested by itself, asked beside every grant."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import UsageError
from guactors.security import canonical
from guactors.security.grants import Reason
from guactors.security.keys import Kind
from guactors.security.policy import (
    Policy,
    default_policy,
    judge,
    open_policy,
    parse_policy,
    policy_text,
    required_signers,
    trusted_owners,
)
from guactors.security.rights import ALL, Rights, Signers, Site, Work, rights_of
from tests.unit.security.grant_samples import (
    APP,
    FIELDS,
    HERE,
    IMAGE,
    NOW,
    OTHER_APP,
    OTHER_IMAGE,
    OTHER_SIGNER,
    OWNER,
    SIGNER,
    grants,
    sites,
    some,
    wide,
    works,
)
from tests.unit.security.samples import public, secret

OWNER_TEXT = OWNER.public.text
SIGNED = frozenset({SIGNER})
CAREFUL: dict[str, Any] = {
    "format": "guactors.policy/1",
    "owners": [OWNER_TEXT],
    "apps": [APP],
    "runtimes": ["python", "docker"],
    "image_hashes": [IMAGE],
    "function_signers": [SIGNER],
    "max_priority": 5,
    "tests": [
        {"app": APP, "runtime": "docker", "image": IMAGE, "expect": "allowed"},
        {"app": APP, "function_signer": SIGNER, "priority": 5, "expect": "allowed"},
        {"app": OTHER_APP, "expect": "app"},
    ],
}


def file(**changes: Any) -> bytes:
    """The careful policy as a person would write it, with some fields changed."""
    return json.dumps({**CAREFUL, **changes}, indent=4).encode()


def policy(**changes: Any) -> Policy:
    return parse_policy(file(**{"tests": [], **changes}))


# --- deny by default ------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["", APP])
def test_an_empty_policy_allows_nothing(app: str) -> None:
    empty = parse_policy(b'{"format": "guactors.policy/1"}')
    assert not judge(empty, app, Work()).allowed
    assert trusted_owners(empty) == frozenset()
    assert required_signers(ALL, empty, NOW) == frozenset()


def test_an_empty_policy_with_open_doors_runs_nothing() -> None:
    doors = parse_policy(b'{"format":"guactors.policy/1","apps":["*"],"hub_sessions":true}')
    for app in ("", APP):
        found = judge(doors, app, Work())
        assert not found.allowed
        assert "may not run in the runtime 'python'" in found.detail


GREEDY = Work("qemu", IMAGE, priority=2**31 - 1)


def test_the_default_leaves_it_to_the_owners_of_the_grid() -> None:
    found = default_policy([OWNER_TEXT])
    assert trusted_owners(found) == {OWNER.public}
    for work in (Work(), Work("native"), GREEDY):
        assert judge(found, APP, work).allowed
        assert not judge(found, "", work).allowed
    assert required_signers(ALL, found, NOW) is None


def test_the_policy_of_a_grid_on_one_machine_needs_no_keys() -> None:
    for work in (Work(), Work("native"), GREEDY):
        assert judge(open_policy(), "", work).allowed
    assert trusted_owners(open_policy()) == frozenset()


def test_the_default_takes_owner_keys_only() -> None:
    with pytest.raises(UsageError, match="owners: that is an app key, an owner key is needed"):
        default_policy([APP])


@pytest.mark.parametrize("found", [default_policy([OWNER_TEXT]), open_policy(), policy()])
def test_a_written_policy_reads_the_same(found: Policy) -> None:
    assert parse_policy(policy_text(found)) == found
    assert policy_text(found).startswith(b'{\n  "format": "guactors.policy/1"')


# --- judging --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "app", "work", "words"),
    [
        ({}, APP, Work(priority=5), None),
        ({}, APP, Work("docker", IMAGE), None),
        ({}, APP, Work(priority=6), "priority 5 at most"),
        ({}, APP, Work("native", IMAGE), "the runtimes python, docker"),
        ({}, APP, Work("docker", OTHER_IMAGE), "may not run the image sha3-256:0000"),
        ({}, APP, Work("docker", OTHER_IMAGE, SIGNED), "or signed by (none)"),
        ({}, APP, Work("docker"), "only programs in images"),
        ({"image_signers": [SIGNER]}, APP, Work("docker", OTHER_IMAGE, SIGNED), None),
        ({"image_mode": "all"}, APP, Work("docker", IMAGE, SIGNED), "and at the same time"),
        ({"runtimes": ["*"], "image_hashes": ["*"]}, APP, Work("native"), None),
        ({"runtimes": ["*"]}, APP, Work("native"), "only programs in images"),
        ({}, OTHER_APP, Work(), "only the apps it lists"),
        ({"apps": []}, APP, Work(), "only the apps it lists"),
        ({"apps": ["*"]}, OTHER_APP, Work(), None),
        ({"apps": ["*"]}, "", Work(), "only apps with a key"),
        ({"apps": ["*"], "deny_apps": [OTHER_APP]}, OTHER_APP, Work(), "no app that it denies"),
        ({"apps": ["*"], "deny_apps": [OTHER_APP]}, APP, Work(), None),
        ({"deny_apps": [APP]}, APP, Work(), "no app that it denies"),
        ({"apps": ["*"], "deny_apps": ["*"]}, APP, Work(), "no app that it denies"),
        ({"hub_sessions": True}, "", Work(), None),
        ({"hub_sessions": True, "apps": []}, "", Work(), None),
        ({"hub_sessions": True}, "", Work("qemu", IMAGE), "the runtimes python, docker"),
        ({"hub_sessions": True, "apps": []}, APP, Work(), "only the apps it lists"),
        ({"apps": []}, "*", Work(), "only the apps it lists"),
    ],
)
def test_the_owner_of_the_machine_decides(
    changes: dict[str, Any], app: str, work: Work, words: str | None
) -> None:
    found = judge(policy(**changes), app, work)
    assert found.allowed is (words is None)
    assert found.reason is (Reason.ALLOWED if words is None else Reason.LOCAL_POLICY)
    if words is not None:
        assert words in found.detail
        assert "on this machine" in found.detail
        assert "ask the owner of the machine" in found.detail
        who = "a session without an app key" if not app else public(Kind.APP).short[:7]
        assert app == "*" or who in found.detail


# --- whose functions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "local", "required"),
    [
        (["*"], ["*"], None),
        (["*"], [SIGNER], {SIGNER}),
        ([SIGNER], ["*"], {SIGNER}),
        ([SIGNER], [SIGNER, OTHER_SIGNER], {SIGNER}),
        ([SIGNER], [OTHER_SIGNER], set()),
        (["*"], [], set()),
        ([], ["*"], set()),
        (["*", SIGNER], ["*", OTHER_SIGNER], None),
    ],
)
def test_a_signer_must_suit_both(
    granted: list[str], local: list[str], required: set[str] | None
) -> None:
    rights, found = rights_of(APP, [wide(function_signers=granted)]), policy(function_signers=local)
    assert required_signers(rights, found, NOW) == required
    assert required_signers(rights, found, NOW, Work(), HERE) == required


def test_known_work_is_asked_about_as_such() -> None:
    grants = [wide(function_signers=[SIGNER]), wide(providers=["label:zone=hall"])]
    rights, found = rights_of(APP, grants), open_policy()
    assert required_signers(rights, found, NOW) == {SIGNER}
    assert required_signers(rights, found, NOW, Work(), HERE) == {SIGNER}
    assert required_signers(rights, found, NOW, Work(), Site("", {"zone": "hall"})) is None


# --- the file -------------------------------------------------------------------------------------


def test_a_person_may_use_spaces_and_any_order() -> None:
    text = json.dumps(dict(reversed(CAREFUL.items())), indent="\t").encode()
    assert parse_policy(b"\n" + text + b"\n") == parse_policy(file())


def test_a_missing_list_is_an_empty_one() -> None:
    changed = {name: value for name, value in CAREFUL.items() if name not in {"apps", "tests"}}
    assert parse_policy(json.dumps(changed).encode()) == policy(apps=[])


LISTS = [
    "owners", "apps", "deny_apps", "runtimes", "image_hashes", "image_signers",
    "function_signers", "environments",
]  # fmt: skip
WRONG: dict[str, list[Any]] = {
    **{name: ["*", None, {}, [1], [True], [None], [["*"]], [""], ["?"], 1] for name in LISTS},
    "format": ["guactors.policy/2", "guactors.grant/1", 1, None, ["guactors.policy/1"], ""],
    "image_mode": ["ANY", "", True, None, ["any"], "*", "both"],
    "max_priority": ["5", 5.0, 5e0, True, None, [5], "*", 2**31, 10**400, float("nan")],
    "hub_sessions": ["true", "True", 1, 0, None, [], "yes", [True]],
    "tests": [{}, [[]], ["x"], [{}], [{"expect": "allowed", "user": "x"}], None],
}


def test_every_field_is_in_the_list_of_wrong_values() -> None:
    assert set(WRONG) == set(Policy.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match="policy") as caught:
        parse_policy(file(**{name: value}))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [*LISTS, "hub_sessions", "max_priority", "format"])
def test_a_field_that_is_there_twice_is_refused(name: str) -> None:
    twice = json.dumps({name: {**CAREFUL, "hub_sessions": False}.get(name, [])})[1:-1]
    text = file(**{name: CAREFUL.get(name, False if name == "hub_sessions" else [])})
    with pytest.raises(UsageError, match=f"the field '{name}' is there twice"):
        parse_policy(b"{" + twice.encode() + b"," + text[1:])


def test_a_field_that_is_there_twice_in_a_test_is_refused() -> None:
    text = file().replace(b'"expect": "app"', b'"expect": "app", "expect": "allowed"')
    with pytest.raises(UsageError, match="the field 'expect' is there twice"):
        parse_policy(text)


@pytest.mark.parametrize("name", ["allow_apps", "Apps", "app", "", "#"])
def test_an_unknown_field_is_refused(name: str) -> None:
    """A misspelt restriction must not be one that is not there."""
    with pytest.raises(UsageError, match="unknown field"):
        parse_policy(file(**{name: []}))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no JSON"),
        (b"null", "cannot be used"),
        (b"[]", "cannot be used"),
        (b"{}", "missing required field `format`"),
        (file()[:-1], "no JSON: .* in line"),
        (file() + b"{}", "no JSON: Extra data"),
        (b"\xef\xbb\xbf" + file(), "no JSON"),
        (file() + b"# fine", "no JSON"),
        (file().replace(b"]", b",]", 1), "no JSON"),
        (file().decode().encode("utf-16"), "not UTF-8"),
        (b"\xff" + file(), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 40_000, "nested too deeply"),
        (b" " * canonical.LIMIT + file(), "too large"),
        (b'{"max_priority": ' + b"9" * 5000 + b"}", "cannot be used"),
        (b'{"max_priority": Infinity}', "only whole numbers"),
        (b'{"max_priority": 1.0}', "1.0 is there, but only whole numbers"),
    ],
)
def test_a_damaged_file_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_policy(data)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"owners": ["*"]}, "owners: that is no public key"),
        ({"owners": [APP]}, "owners: that is an app key, an owner key is needed"),
        ({"apps": [OWNER_TEXT]}, "apps: that is an owner key, an app key is needed"),
        ({"deny_apps": [APP[:-1]]}, "deny_apps: the app key .* is cut short"),
        ({"deny_apps": [APP, APP]}, "deny_apps: an entry is there twice"),
        ({"deny_apps": [APP + " "]}, "deny_apps: "),
        ({"runtimes": ["pyhton"]}, "runtimes: 'pyhton' is none of python"),
        ({"image_hashes": ["nginx:latest"]}, "'nginx:latest' is no image hash"),
        ({"tests": [{"expect": "allowed"}] * 1001}, "1001 tests"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_policy(file(**changes))


def test_a_secret_in_the_file_is_not_repeated() -> None:
    text = secret(Kind.APP).text
    test = {"app": text, "expect": "app"}
    for changes in (*({name: [text]} for name in LISTS), {"tests": [test]}):
        with pytest.raises(UsageError) as caught:
            parse_policy(file(**changes))
        assert text[16:] not in str(caught.value)


# --- its own tests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"app": APP, "function_signer": SIGNER}, "allowed"),
        ({"app": APP, "runtime": "docker", "image": IMAGE}, "allowed"),
        ({"app": APP}, "function_signer"),
        ({"app": APP, "function_signer": OTHER_SIGNER}, "function_signer"),
        ({"app": APP, "function_signer": SIGNER, "priority": 6}, "priority"),
        ({"app": APP, "runtime": "qemu", "image": IMAGE}, "runtime"),
        ({"app": APP, "runtime": "docker", "image": OTHER_IMAGE}, "image"),
        ({"app": APP, "runtime": "docker"}, "image"),
        ({"app": OTHER_APP}, "app"),
        ({}, "session"),
    ],
)
def test_a_test_passes_for_its_own_outcome_only(test: dict[str, Any], reason: str) -> None:
    outcomes = [
        "allowed", "local_policy", "session", "app", "runtime", "image", "image_signer",
        "priority", "function_signer",
    ]  # fmt: skip
    right = {reason} if reason == "allowed" else {reason, "local_policy"}
    for expect in outcomes:
        data = file(tests=[{**test, "expect": expect}])
        if expect in right:
            assert parse_policy(data).tests[0].expect == expect
        else:
            with pytest.raises(UsageError, match=f"expects '{expect}', but came out '{reason}'"):
                parse_policy(data)


def test_the_signers_of_a_test_count() -> None:
    test = {"app": APP, "runtime": "docker", "image": OTHER_IMAGE}
    tests = [
        {**test, "signers": [SIGNER], "expect": "allowed"},
        {**test, "expect": "image_signer"},
    ]
    parse_policy(file(image_hashes=[], image_signers=[SIGNER], tests=tests))


def test_unsigned_functions_run_where_the_star_says_so() -> None:
    parse_policy(file(function_signers=["*"], tests=[{"app": APP, "expect": "allowed"}]))


def test_the_failing_test_is_named_with_what_came_instead() -> None:
    tests = [*CAREFUL["tests"], {"name": "strangers", "app": OTHER_APP, "expect": "allowed"}]
    with pytest.raises(UsageError) as caught:
        parse_policy(file(tests=tests))
    for words in (
        "test 4 (strangers) of the policy",
        "expects 'allowed', but came out 'app'",
        public(Kind.APP, 2).short,
        "correct the policy, or the test",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ({"app": APP[:-1]}, "test 1 of the policy, app: the app key .* is cut short"),
        ({"app": "*"}, "test 1 of the policy, app: that is no public key"),
        ({"runtime": "dokcer"}, "runtime: 'dokcer' is none of"),
        ({"runtime": "*"}, "runtime: "),
        ({"image": "nginx"}, "'nginx' is no image hash"),
        ({"signers": ["*"]}, "signers: that is no public key"),
        ({"function_signer": APP}, "function_signer: that is an app key"),
        ({"expect": "refused"}, "expect: 'refused' is none of allowed, local_policy"),
        ({"expect": "quota"}, "expect: 'quota' is none of"),
        ({"priority": "1"}, "Expected `int`"),
    ],
)
def test_a_mistyped_test_is_refused(test: dict[str, Any], complaint: str) -> None:
    """It would expect a refusal and get one, for the wrong reason."""
    with pytest.raises(UsageError, match=complaint):
        parse_policy(file(tests=[{"expect": "local_policy", **test}]))


# --- laws -----------------------------------------------------------------------------------------

TERMS = ("runtimes", "image_hashes", "image_signers", "image_mode", "function_signers",
         "max_priority")  # fmt: skip
policies = st.builds(
    Policy,
    format=st.just("guactors.policy/1"),
    apps=some("*", APP, OTHER_APP),
    deny_apps=some(APP, OTHER_APP),
    hub_sessions=st.booleans(),
    **{name: FIELDS[name] for name in TERMS},
)


def agreed(rights: Rights, found: Policy, app: str, work: Work, site: Site) -> bool:
    """What a provider does: both are asked, both must agree."""
    return rights.judge_site(work, site, NOW).allowed and judge(found, app, work).allowed


@given(
    st.lists(grants(), max_size=3), policies, st.sampled_from(["", APP, OTHER_APP]), works, sites
)
def test_a_policy_only_takes_away(
    given_grants: list[Any], found: Policy, app: str, work: Work, site: Site
) -> None:
    rights = rights_of(APP, given_grants)
    if agreed(rights, found, app, work, site):
        assert agreed(rights, open_policy(), app, work, site)
        assert agreed(ALL, found, app, work, site)
    both = required_signers(rights, found, NOW, work, site)
    for one in (
        required_signers(rights, open_policy(), NOW, work, site),
        required_signers(ALL, found, NOW, work, site),
    ):
        assert within(both, one)


def within(inner: Signers, outer: Signers) -> bool:
    return outer is None or (inner is not None and inner <= outer)


@given(policies, st.sampled_from(["", APP, OTHER_APP]), works)
def test_a_policy_judges_terms_as_a_grant_does(found: Policy, app: str, work: Work) -> None:
    """One rule for both: a policy and a grant with equal terms agree on every image."""
    grant = wide(**{name: getattr(found, name) for name in TERMS})
    plain = msgspec.structs.replace(work, cpu=0, memory=0, gpu=0, preemption=())
    reason = rights_of(APP, [grant]).judge_site(plain, HERE, NOW).reason
    if app:
        admitted = app not in found.deny_apps and ("*" in found.apps or app in found.apps)
    else:
        admitted = found.hub_sessions
    assert judge(found, app, plain).allowed is (admitted and reason is Reason.ALLOWED)


@given(policies, st.data(), works)
def test_one_entry_less_adds_nothing(found: Policy, data: st.DataObject, work: Work) -> None:
    lists = [name for name in ("apps", *TERMS) if isinstance(getattr(found, name), list)]
    name = data.draw(st.sampled_from(lists))
    entries = getattr(found, name)
    if not entries:
        return
    gone = data.draw(st.sampled_from(entries))
    less = msgspec.structs.replace(found, **{name: [x for x in entries if x != gone]})
    for app in ("", APP, OTHER_APP):
        assert judge(found, app, work).allowed >= judge(less, app, work).allowed
    assert within(required_signers(ALL, less, NOW), required_signers(ALL, found, NOW))
