"""The HTTP server's caller in the session of a token's bearer: it works by the bearer's rights, in
no other session, and providers are shown the bearer's own signature."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.security.keys import SecretKey
from guactors.security.statements import HELLO_TYPE, make_statement
from tests.unit.hub.bench import VERSIONS, spec
from tests.unit.hub.keyed_bench import APP, HUB, OTHER, PROVIDER, KeyedBench

SERVER = "c-http"


def local(bench: KeyedBench, peer: str, session: str = "", whose: str = "") -> None:
    """A process of the hub's own user, which shows no key."""
    link = f"k-{peer}-{len(bench.link_of)}"
    bench.link_of[peer] = link
    hello = m.Hello(peer, "caller", VERSIONS, 1, "here", session, transport=f"T-{peer}",
                    whose=whose)  # fmt: skip
    bench.feed(link, hello, None)


def statement(
    bench: KeyedBench, key: SecretKey, session: str, /, **changes: Any
) -> dict[str, bytes]:
    fields = {
        "hub": HUB.public.text, "key": key.public.text, "link": "", "nonce": b"", "peer": "",
        "role": "caller", "session": session, "transport": "", "at": bench.wall(bench.now),
    }  # fmt: skip
    said = make_statement(**{**fields, **changes})
    return {"statement": said, "signature": key.sign(HELLO_TYPE, said)}


def token(bench: KeyedBench, key: SecretKey) -> str:
    asked = bench.ask(m.AskChallenge(0, key.public.text), SERVER)
    assert isinstance(asked, m.ChallengeIs)
    signed = statement(bench, key, "", role="http", nonce=asked.nonce)
    given = bench.ask(m.AskToken(0, **signed), SERVER)
    assert isinstance(given, m.TokenIs), given
    return given.token


def sign(bench: KeyedBench, key: SecretKey, session: str, /, **changes: Any) -> m.Message:
    signed = statement(bench, key, session, **changes)
    return bench.ask(m.SignSession(0, token(bench, key), session, **signed), SERVER)


def reserve(bench: KeyedBench, key: SecretKey = APP) -> str:
    made = bench.ask(m.ReserveSession(0, token(bench, key)), SERVER)
    assert isinstance(made, m.Done), made
    return made.text


@pytest.fixture
def bench() -> KeyedBench:
    made = KeyedBench()
    made.owner()
    made.approve(APP, OTHER, PROVIDER)
    made.grant(APP, runtimes=["native"], max_priority=3)
    made.grant(OTHER)
    made.keyed_provider("p-1")
    local(made, SERVER)
    made.one(SERVER, m.Welcome)
    return made


def actor(session: str, **shape: Any) -> m.CreateActor:
    shaped = m.Shape(
        {"CPU": 1.0}, **{"runtime": "native", "image": "sha3-256:" + "a" * 64, **shape}
    )
    made = spec("a-9", "c-deputy", session=session, shape=shaped)
    return m.CreateActor(0, made, b"payload")


def test_it_works_by_the_rights_of_whose_session_it_is(bench: KeyedBench) -> None:
    session = reserve(bench)
    local(bench, "c-deputy", session, APP.public.text)
    bench.one("c-deputy", m.Welcome)
    bench.say("c-deputy", actor(session))
    started = bench.one("p-1", m.StartActor)
    assert started.spec.principal == APP.public.text
    assert started.keys == ["T-c-deputy"]
    refused = actor(session, runtime="python", image="")
    bench.say("c-deputy", m.CreateActor(0, m.ActorSpec("a-8", *_rest(refused)), b""))
    assert bench.one("c-deputy", m.DemandInfeasible).kind == "PermissionDenied"
    assert not bench.heard("p-1", m.StartActor)


def _rest(message: m.CreateActor) -> tuple[Any, ...]:
    made = message.spec
    return tuple(getattr(made, name) for name in made.__struct_fields__[1:])


@pytest.mark.parametrize("whose", [OTHER.public.text, "local", "nobody"])
def test_it_comes_into_no_session_of_somebody_else(bench: KeyedBench, whose: str) -> None:
    session = reserve(bench)
    local(bench, "c-deputy", session, whose)
    assert bench.one("c-deputy", m.Fault).kind == "AuthFailed"
    assert not bench.heard("c-deputy", m.Welcome)


def test_it_comes_into_no_session_that_nobody_knows(bench: KeyedBench) -> None:
    session = reserve(bench)
    bench.restart()
    local(bench, "c-deputy", session, APP.public.text)
    assert bench.one("c-deputy", m.Fault).kind == "AuthFailed"
    assert not bench.heard("c-deputy", m.Welcome)


def test_it_has_no_say_in_the_affairs_of_the_grid(bench: KeyedBench) -> None:
    session = reserve(bench)
    local(bench, "c-deputy", session, APP.public.text)
    bench.one("c-deputy", m.Welcome)
    bench.say("c-deputy", m.AskKeys(1))
    assert bench.one("c-deputy", m.Fault)
    assert not bench.heard("c-deputy", m.KeyList)


def test_providers_are_shown_the_signature(bench: KeyedBench) -> None:
    session = reserve(bench)
    local(bench, "c-deputy", session, APP.public.text)
    bench.say("c-deputy", actor(session))
    [first] = bench.warrants["p-1"]
    assert (first.session, first.key, first.signature) == (session, APP.public.text, b"")
    assert first.grants
    assert isinstance(sign(bench, APP, session), m.Done)
    [_, second] = bench.warrants["p-1"]
    assert (second.session, second.key) == (session, APP.public.text)
    assert len(second.signature) == 64
    assert second.grants == first.grants


@pytest.mark.parametrize(
    "changes",
    [{"role": "http"}, {"session": "s-other"}, {"hub": "gu_hub_x"}, {"at": 0.0},
     {"key": OTHER.public.text}],
)  # fmt: skip
def test_another_statement_is_refused(bench: KeyedBench, changes: dict[str, Any]) -> None:
    session = reserve(bench)
    answer = sign(bench, APP, session, **changes)
    assert isinstance(answer, m.Fault)
    assert answer.kind == "AuthFailed"


def test_nobody_signs_for_a_session_of_somebody_else(bench: KeyedBench) -> None:
    session = reserve(bench)
    answer = sign(bench, OTHER, session)
    assert isinstance(answer, m.Fault)
    assert answer.kind == "UsageError"
    title = bench.core.hub.sessions.find(session)
    assert title is not None
    assert title.standing is not None
    assert title.standing.principal == APP.public.text


def test_its_owner_comes_to_the_session_himself(bench: KeyedBench) -> None:
    session = reserve(bench)
    assert isinstance(sign(bench, APP, session), m.Done)
    bench.come(APP, "c-1", session)
    assert bench.core.hub.sessions.find(session) is not None


def test_who_is_revoked_is_cut_off(bench: KeyedBench) -> None:
    session = reserve(bench)
    local(bench, "c-deputy", session, APP.public.text)
    bench.one("c-deputy", m.Welcome)
    bench.done(m.RevokeKey(0, APP.public.text, "stop", "lost"))
    assert bench.one("c-deputy", m.Fault).kind == "AuthFailed"
    assert "c-deputy" not in bench.core.hub.peers.by_id
