"""A provider with a key: what it says before and after it has shown who it is."""

from __future__ import annotations

import pytest

from guactors.config import Seal
from guactors.errors import Death, UsageError
from guactors.messages import (
    Challenge,
    Fault,
    Goodbye,
    Hello,
    LeaseEnded,
    MachineInfo,
    Message,
    Offer,
    Ping,
    Proof,
    Refusal,
    Report,
    StopLease,
    Vouch,
    Welcome,
)
from guactors.provider_state import Dial, DropHub, GiveUp, Note, Ready
from guactors.security.keys import Kind
from guactors.security.statements import check_statement
from tests.unit.provider.authority import HUB, NONCE, OWN, Guarded, public, secret
from tests.unit.provider.bench import EPOCH, VERSIONS

WELCOME = Welcome("h-1", VERSIONS, HUB.text)


def given_up(bench: Guarded) -> list[GiveUp]:
    return [effect for effect in bench.other if isinstance(effect, GiveUp)]


def dials(bench: Guarded) -> int:
    return sum(isinstance(effect, Dial) for effect in bench.other)


def test_before_the_welcome_it_says_nothing_but_hello_and_its_proof() -> None:
    bench = Guarded(up=False, invitation="come-in", seal=Seal(OWN.public.text, OWN.text, [b"link"]))
    bench.all_up()
    bench.link_up()
    assert [type(message) for message in bench.to_hub] == [Hello]
    bench.pass_time(3.0)
    bench.hub(Ping(1))
    bench.do(bench.core.on_sample(MachineInfo(), bench.now))
    bench.says("w-1", Refusal("somebody", "call", "f", "function_signer", "no"))
    assert [type(message) for message in bench.to_hub] == [Hello]
    bench.hub(Challenge(NONCE, HUB.text))
    (hello, proof) = bench.to_hub
    assert isinstance(hello, Hello)
    assert isinstance(proof, Proof)
    assert (hello.key, hello.transport) == (OWN.public.text, "provider-key")
    assert (proof.invitation, proof.successions) == ("come-in", [b"link"])
    check_statement(
        proof.statement,
        proof.signature,
        key=OWN.public,
        hub=HUB,
        nonce=NONCE,
        link="link-1",
        peer=hello.peer,
        role="provider",
        session="",
        transport="provider-key",
        now=EPOCH + bench.now,
    )
    bench.to_hub.clear()
    bench.hub(WELCOME)
    assert [type(message) for message in bench.to_hub] == [Offer, Report]


def test_its_goodbye_is_for_those_who_know_it() -> None:
    bench = Guarded(up=False)
    bench.link_up()
    bench.to_hub.clear()
    bench.do(bench.core.stop(bench.now))
    assert bench.to_hub == []
    bench = Guarded()
    bench.do(bench.core.stop(bench.now))
    assert [type(message) for message in bench.to_hub] == [Goodbye]


def test_a_second_welcome_is_no_second_offer() -> None:
    bench = Guarded()
    bench.hub(WELCOME)
    assert bench.said(Offer) == []


def test_it_is_ready_only_when_it_is_welcome() -> None:
    bench = Guarded(up=False)
    bench.all_up()
    bench.link_up()
    bench.hub(Challenge(NONCE, HUB.text))
    assert Ready() not in bench.other
    bench.hub(WELCOME)
    assert bench.other.count(Ready()) == 1


@pytest.mark.parametrize("word", ["challenge", "welcome"])
def test_another_hub_than_its_own_is_left_for_good(word: str) -> None:
    bench = Guarded(up=False)
    bench.link_up()
    other = public(Kind.HUB, 2).text
    message: Message = Challenge(NONCE, other)
    if word == "welcome":
        message = Welcome("h-1", VERSIONS, other)
    bench.hub(message)
    (effect,) = given_up(bench)
    assert effect.kind == "AuthFailed"
    assert "that is not the hub" in effect.detail
    assert other in effect.detail
    assert not [m for m in bench.to_hub if isinstance(m, Proof | Offer)]


def test_a_hub_that_never_answers_is_left_and_dialled_again() -> None:
    bench = Guarded(up=False)
    bench.link_up()
    bench.pass_time(10.5)
    assert any(isinstance(effect, DropHub) for effect in bench.other)
    bench.pass_time(1.0)
    assert dials(bench) == 2


def test_waiting_for_approval_it_says_so_once_and_comes_back_every_two_seconds() -> None:
    bench = Guarded(up=False)
    for _ in range(5):
        bench.link_up()
        before = dials(bench)
        bench.hub(Fault("PendingApproval", "not yet"))
        bench.pass_time(1.4)
        assert dials(bench) == before
        bench.pass_time(1.2)
        assert dials(bench) == before + 1
    notes = [effect for effect in bench.other if isinstance(effect, Note)]
    (told,) = [note for note in notes if "gu key approve" in note.text]
    assert OWN.public.text in told.text
    assert told.level == "warning"
    assert given_up(bench) == []


def test_a_key_that_is_refused_at_first_is_refused_for_good() -> None:
    bench = Guarded(up=False)
    bench.link_up()
    bench.hub(Fault("AuthFailed", "revoked"))
    assert given_up(bench) == [GiveUp("AuthFailed", "revoked")]


def test_a_known_key_has_a_second_try_but_not_a_third() -> None:
    bench = Guarded()
    bench.hub(Fault("AuthFailed", "the answer to the challenge took over 10 seconds"))
    assert given_up(bench) == []
    bench.pass_time(1.0)
    bench.hub_up()
    bench.hub(Fault("AuthFailed", "late again"))
    assert given_up(bench) == []
    bench.pass_time(1.0)
    bench.link_up()
    bench.hub(Fault("AuthFailed", "revoked"))
    assert given_up(bench) == [GiveUp("AuthFailed", "revoked")]


def test_a_challenge_of_a_key_that_it_does_not_claim_is_not_answered() -> None:
    bench = Guarded(seal=Seal(), up=False)
    bench.link_up()
    bench.to_hub.clear()
    bench.hub(Challenge(NONCE, HUB.text))
    assert bench.to_hub == []


@pytest.mark.parametrize(
    ("seal", "said"),
    [
        (Seal(OWN.public.text, secret(Kind.PROVIDER, 2).text), "has the secret of"),
        (Seal(OWN.public.text, secret(Kind.APP).text), "provider key is needed"),
        (Seal(OWN.public.text, OWN.text[:-3]), "cut short"),
    ],
)
def test_a_key_that_cannot_be_used_stops_the_start_and_is_not_quoted(seal: Seal, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Guarded(seal=seal)
    assert seal.secret not in str(caught.value)
    assert seal.secret not in repr(seal)


def test_what_happened_before_the_welcome_is_told_after_it() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.lease()
    bench.hub_down()
    bench.link_up()
    bench.to_hub.clear()
    bench.ends(worker, Death("signal", signal=9))
    assert bench.to_hub == []
    bench.hub(WELCOME)
    assert [type(message) for message in bench.to_hub] == [Offer, LeaseEnded]


def test_it_vouches_for_a_worker_before_it_is_bound_and_again_on_each_new_link() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    effects = bench.lease()
    kinds = [type(getattr(effect, "message", None)).__name__ for effect in effects]
    assert kinds.index("Vouch") < kinds.index("Bind") < kinds.index("LeaseStarted")
    vouch = Vouch(worker, "public-1", "s-1")
    assert bench.said(Vouch) == [vouch]
    bench.hub_down()
    bench.pass_time(0.2)
    assert bench.said(Vouch) == []
    bench.hub_up()
    assert bench.said(Vouch) == [vouch]


def test_it_vouches_for_an_idle_worker_with_its_next_lease_and_not_before() -> None:
    """A new hub believes it only for sessions that it has given work here."""
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.lease()
    bench.hub(StopLease("l-1"))
    bench.hub_down()
    bench.pass_time(0.2)
    bench.to_hub.clear()
    bench.hub_up()
    assert bench.said(Vouch) == []
    bench.show()
    bench.lease("l-2")
    assert bench.said(Vouch) == [Vouch(worker, "public-1", "s-1")]
