"""Tokens: who gets one, what it is good for, and when it is good no more."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.gatekeeper_state import tokens as limits
from guactors.gatekeeper_state.tickets import LONGEST_RESERVATION, UNLIMITED
from guactors.gatekeeper_state.tokens import LIFETIME, PATIENCE, TokenBook
from guactors.scheduling import events as e
from guactors.security.keys import Kind, SecretKey
from guactors.security.rights import Reason
from guactors.security.statements import HELLO_TYPE, make_statement
from tests.unit.hub.gatekeeper_bench import (
    APP,
    HUB,
    LOCAL,
    OTHER_OWNER,
    OWNER,
    PROVIDER,
    Bench,
    follows,
    public,
    secret,
)

SERVER = e.Standing(OTHER_OWNER.public.text, "owner")
NEW = secret(Kind.APP, 2)


def fault(answer: Any, kind: str, reason: Reason | None = None) -> str:
    assert isinstance(answer, m.Fault), answer
    assert answer.kind == kind, answer
    assert reason is None or answer.detail.endswith(f"[{reason}]"), answer
    return answer.detail


def challenge(bench: Bench, key: SecretKey, standing: e.Standing = LOCAL) -> m.ChallengeIs:
    answer = bench.ask(m.AskChallenge(1, key.public.text), standing)
    assert isinstance(answer, m.ChallengeIs), answer
    return answer


def signed(
    bench: Bench, signer: SecretKey, nonce: bytes, /, by: Any = None, **other: Any
) -> m.AskToken:
    fields: dict[str, Any] = {
        "hub": HUB.public.text, "key": signer.public.text, "link": "", "nonce": nonce, "peer": "",
        "role": "http", "session": "", "transport": "", "at": bench.wall(),
    }  # fmt: skip
    statement = make_statement(**fields | other)
    return m.AskToken(1, statement, (by or signer).sign(HELLO_TYPE, statement))


def token_of(bench: Bench, key: SecretKey, standing: e.Standing = LOCAL) -> str:
    nonce = challenge(bench, key, standing).nonce
    answer = bench.ask(signed(bench, key, nonce), standing)
    assert isinstance(answer, m.TokenIs), answer
    return answer.token


def ready() -> Bench:
    """A bench with an approved app that may submit."""
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    return bench


def good(bench: Bench, token: str) -> bool:
    answer = bench.ask(m.UseToken(1, token, "submit"))
    return isinstance(answer, m.Allowed)


# --- getting one --------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [LOCAL, SERVER], ids=["local", "owner"])
@pytest.mark.parametrize("key", [APP, OWNER], ids=["app", "owner"])
def test_a_signature_gets_a_token(server: e.Standing, key: SecretKey) -> None:
    bench = ready()
    asked = challenge(bench, key, server)
    assert (asked.hub, len(asked.nonce)) == (HUB.public.text, 32)
    answer = bench.ask(signed(bench, key, asked.nonce), server)
    assert isinstance(answer, m.TokenIs)
    assert answer.token.startswith("gu_token_")
    assert (answer.key, answer.expires) == (key.public.text, bench.wall() + LIFETIME)
    assert (bench.lines[-1].who, bench.lines[-1].action) == (key.public.text, "token")
    assert bench.ask(m.UseToken(1, answer.token, "submit"), server).key == key.public.text


def test_the_text_of_a_token_is_kept_nowhere() -> None:
    bench = ready()
    token = token_of(bench, APP)
    good(bench, token)
    assert token not in repr(bench.lines) + repr(bench.store.load()) + repr(vars(bench.room))


@pytest.mark.parametrize("key", [PROVIDER, HUB, secret(Kind.SIGNER)])
def test_a_token_is_for_apps_and_owners(key: SecretKey) -> None:
    bench = Bench()
    fault(bench.ask(m.AskChallenge(1, key.public.text)), "UsageError")
    fault(bench.ask(m.AskChallenge(1, key.text)), "UsageError")
    assert key.text not in repr(bench.effects)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hub": public(Kind.HUB, 2).text}, Reason.WRONG_HUB),
        ({"key": NEW.public.text}, Reason.BAD_SIGNATURE),
        ({"link": "k-1"}, Reason.REPLAY),
        ({"peer": "c-1"}, Reason.REPLAY),
        ({"role": "caller"}, Reason.REPLAY),
        ({"session": "s-1"}, Reason.SESSION),
        ({"transport": "t" * 40}, Reason.REPLAY),
        ({"at": 0}, Reason.EXPIRED),
        ({"by": NEW}, Reason.BAD_SIGNATURE),
    ],
)
def test_a_statement_for_something_else_gets_none(other: dict[str, Any], reason: Reason) -> None:
    bench = ready()
    nonce = challenge(bench, APP).nonce
    fault(bench.ask(signed(bench, APP, nonce, **other)), "AuthFailed", reason)
    assert bench.refusals()[-1] == (APP.public.text, "token", reason.value)
    fault(bench.ask(signed(bench, APP, nonce)), "AuthFailed", Reason.REPLAY)


def test_a_proof_at_the_door_gets_no_token() -> None:
    bench = ready()
    hello = bench.hello(APP)
    link, asked = bench.knock(hello)
    assert asked is not None
    proof = bench.sign(APP, asked, hello, link)
    answer = bench.ask(m.AskToken(1, proof.statement, proof.signature))
    fault(answer, "AuthFailed", Reason.REPLAY)


@pytest.mark.parametrize("statement", [b"", b"{}", b"nonsense"])
def test_nonsense_gets_none(statement: bytes) -> None:
    fault(ready().ask(m.AskToken(1, statement, b"")), "AuthFailed", Reason.MALFORMED)


def test_a_nonce_that_is_no_hex_gets_none() -> None:
    bench = ready()
    asked = signed(bench, APP, bytes(32))
    broken = m.AskToken(1, asked.statement.replace(b"00", b"zz"), asked.signature)
    fault(bench.ask(broken), "AuthFailed", Reason.MALFORMED)


def test_a_challenge_is_answered_once_and_in_time() -> None:
    bench = ready()
    asked = signed(bench, APP, challenge(bench, APP).nonce)
    assert isinstance(bench.ask(asked), m.TokenIs)
    fault(bench.ask(asked), "AuthFailed", Reason.REPLAY)
    late = challenge(bench, APP).nonce
    bench.now += PATIENCE
    fault(bench.ask(signed(bench, APP, late)), "AuthFailed", Reason.REPLAY)


@pytest.mark.parametrize(
    ("state", "reason"),
    [("unknown", Reason.UNKNOWN_KEY), ("pending", Reason.PENDING), ("revoked", Reason.REVOKED)],
)
def test_only_approved_keys_get_one(state: str, reason: Reason) -> None:
    bench = Bench()
    if state == "pending":
        bench.join(APP)
    elif state == "revoked":
        bench.ask(m.RevokeKey(1, APP.public.text))
    answer = bench.ask(signed(bench, APP, challenge(bench, APP).nonce))
    fault(answer, "AuthFailed", reason)


# --- the counter is for the HTTP server ---------------------------------------------------------


@pytest.mark.parametrize("key", [APP, PROVIDER])
@pytest.mark.parametrize(
    "message",
    [
        m.AskChallenge(1, APP.public.text), m.AskToken(1, b"", b""), m.UseToken(1, "?", "submit"),
        m.DropToken(1, "?"), m.ReserveSession(1, "?"), m.CloseSession(1, "s-1", "?"),
        m.AskSessions(1, "?"), m.OfferImage(1, b"", token="?"), m.AskImages(1, "?"),
        m.AskImage(1, "i", "?"), m.RemoveImage(1, "i", "?"),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_whoever_has_a_key_acts_by_it_and_not_by_tokens(key: SecretKey, message: Any) -> None:
    bench = ready()
    bench.approve(PROVIDER)
    fault(bench.ask(message, bench.standing(key)), "PermissionDenied", Reason.WRONG_KIND)
    assert bench.refusals()[-1] == (key.public.text, "token", "wrong_kind")


# --- using it -----------------------------------------------------------------------------------


def test_a_token_is_judged_by_the_rights_of_its_bearer() -> None:
    bench = ready()
    token = token_of(bench, APP)
    assert bench.ask(m.UseToken(1, token, "submit", "s-1")) == m.Allowed(1, APP.public.text, 0)
    answer = bench.ask(m.UseToken(1, token, "admin"), SERVER)
    fault(answer, "PermissionDenied", Reason.ACTION)
    assert bench.refusals()[-1] == (APP.public.text, "admin", "action")


def test_a_token_tells_the_storage_that_is_granted() -> None:
    bench = ready()
    bench.grant(actions=["upload_images"], quotas={"storage": 1000})
    token = token_of(bench, APP)
    assert bench.ask(m.UseToken(1, token, "upload_images")).storage == 1000
    bench.grant(actions=["upload_images"], quotas={"storage": "*"})
    assert bench.ask(m.UseToken(1, token, "upload_images")).storage == UNLIMITED
    assert bench.ask(m.UseToken(1, token_of(bench, OWNER), "submit")).storage == UNLIMITED


def test_what_a_token_is_often_used_for_is_written_once_a_minute() -> None:
    bench = ready()
    token = token_of(bench, APP)
    before = len(bench.lines)
    for _ in range(50):
        bench.ask(m.UseToken(1, token, "submit", "s-1"))
    bench.ask(m.UseToken(1, token, "submit", "s-2"))
    assert [line.object for line in bench.lines[before:]] == ["s-1", "s-2"]
    bench.sleep(60.0)
    assert bench.lines[-1].detail.startswith("repeated: 49")


def end(bench: Bench, how: str, token: str) -> None:
    match how:
        case "time":
            bench.now += LIFETIME
        case "drop":
            assert isinstance(bench.ask(m.DropToken(1, token)), m.Done)
        case "revocation":
            bench.ask(m.RevokeKey(1, APP.public.text))
        case "succession":
            bench.ask(m.PutSuccession(1, follows(APP, NEW)), bench.standing(APP))
        case "start":
            bench.start()


@pytest.mark.parametrize("how", ["time", "drop", "revocation", "succession", "start"])
@pytest.mark.parametrize(
    "use",
    [
        lambda token: m.UseToken(1, token, "submit"), lambda token: m.ReserveSession(1, token),
        lambda token: m.CloseSession(1, "s-1", token), lambda token: m.AskSessions(1, token),
        lambda token: m.OfferImage(1, b"", token=token), lambda token: m.AskImages(1, token),
        lambda token: m.AskImage(1, "i", token), lambda token: m.RemoveImage(1, "i", token),
    ],
)  # fmt: skip
def test_a_token_ends(how: str, use: Any) -> None:
    bench = ready()
    token = token_of(bench, APP)
    end(bench, how, token)
    answer = bench.ask(use(token))
    fault(answer, "AuthFailed", Reason.UNKNOWN_KEY)
    assert not any(isinstance(x, e.ToRoom) for x in bench.effects)
    assert bench.refusals()[-1] == ("unknown", "token", "unknown_key")


def test_a_token_lives_until_its_last_moment() -> None:
    bench = ready()
    token = token_of(bench, APP)
    bench.now += LIFETIME - 0.001
    assert good(bench, token)


def test_a_revoked_grant_ends_what_the_token_may() -> None:
    bench = ready()
    token = token_of(bench, APP)
    bench.ask(m.RevokeGrant(1, OWNER.public.text, 1))
    answer = bench.ask(m.UseToken(1, token, "submit"))
    fault(answer, "PermissionDenied", Reason.NO_GRANT)


@pytest.mark.parametrize("token", ["", "gu_token_", "x", APP.public.text, "\udc80"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    fault(ready().ask(m.UseToken(1, token, "submit")), "AuthFailed", Reason.UNKNOWN_KEY)


def test_dropping_what_is_none_tells_nothing() -> None:
    assert isinstance(ready().ask(m.DropToken(1, "gu_token_x")), m.Done)


# --- sessions and images ------------------------------------------------------------------------


def test_a_session_is_reserved_for_the_bearer() -> None:
    bench = ready()
    token = token_of(bench, APP)
    answer = bench.ask(m.ReserveSession(1, token, "night run", 60.0), SERVER)
    assert isinstance(answer, m.Done)
    assert len(answer.text) == len("s-0123456789abcdef")
    assert answer.text.startswith("s-")
    (event,) = bench.told(e.SessionReserved)
    assert (event.session, event.name, event.seconds) == (answer.text, "night run", 60.0)
    assert event.standing.principal == APP.public.text
    assert (bench.lines[-1].action, bench.lines[-1].object) == ("session", answer.text)
    again = bench.ask(m.ReserveSession(1, token))
    assert again.text != answer.text


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST_RESERVATION + 1, float("nan")])
def test_a_reservation_ends_within_a_day(seconds: float) -> None:
    bench = ready()
    answer = bench.ask(m.ReserveSession(1, token_of(bench, APP), seconds=seconds))
    fault(answer, "UsageError")
    assert not bench.told(e.SessionReserved)


def test_a_session_needs_the_right_to_submit() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(actions=["read_logs"])
    answer = bench.ask(m.ReserveSession(1, token_of(bench, APP)))
    fault(answer, "PermissionDenied", Reason.ACTION)
    assert not bench.told(e.SessionReserved)
    assert bench.refusals()[-1] == (APP.public.text, "session", "action")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda token: m.CloseSession(1, "s-1", token), e.SessionAsked),
        (lambda token: m.AskSessions(1, token), e.SessionAsked),
        (lambda token: m.OfferImage(1, b"", token=token), e.ImagesAsked),
        (lambda token: m.AskImages(1, token), e.ImagesAsked),
        (lambda token: m.AskImage(1, "i", token), e.ImagesAsked),
        (lambda token: m.RemoveImage(1, "i", token), e.ImagesAsked),
    ],
)
@pytest.mark.parametrize("bearer", [True, False])
def test_sessions_and_images_are_asked_for_in_the_bearers_name(
    make: Any, kind: Any, bearer: bool
) -> None:
    bench = ready()
    message = make(token_of(bench, APP) if bearer else "")
    assert bench.ask(message, SERVER) is None
    (event,) = bench.told(kind)
    assert (event.peer, event.message) == ("c-9", message)
    assert event.standing.principal == (APP if bearer else OTHER_OWNER).public.text
    assert event.standing.rights.everything is not bearer


# --- limits -------------------------------------------------------------------------------------


def test_a_key_pushes_out_its_own_tokens_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_OF_KEY", 3)
    book = TokenBook()
    other = book.issue("other", b"o" * 32, 0.0)
    issued = [book.issue("greedy", bytes([n]) * 32, 1.0) for n in range(5)]
    assert [book.bearer(text, 2.0) for text in issued] == [None, None, *["greedy"] * 3]
    assert book.bearer(other, 2.0) == "other"
    book.check()


def test_there_is_an_end_to_tokens_and_challenges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_TOKENS", 3)
    monkeypatch.setattr(limits, "MOST_CHALLENGES", 3)
    book = TokenBook()
    issued = [book.issue(f"key {n}", bytes([n]) * 32, float(n)) for n in range(5)]
    assert [book.bearer(text, 5.0) is not None for text in issued] == [False] * 2 + [True] * 3
    nonces = [bytes([n]) for n in range(5)]
    for nonce in nonces:
        book.challenge(APP.public, nonce, 0.0)
    assert [book.redeem(nonce, 0.0) is not None for nonce in nonces] == [False] * 2 + [True] * 3
    book.check()


def test_what_is_over_is_forgotten() -> None:
    book = TokenBook()
    for n in range(3):
        book.issue("key", bytes([n]) * 32, 0.0)
        book.challenge(APP.public, bytes([n]), 0.0)
    book.issue("key", b"x" * 32, LIFETIME)
    book.challenge(APP.public, b"x", LIFETIME)
    assert repr(book) == "<TokenBook tokens=1 challenges=1>"
