"""Who comes in at the hub's door: by what proof, by what introduction, and why not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from guactors import messages as m
from guactors.errors import UsageError
from guactors.gatekeeper_state import GatekeeperState, approve_listed
from guactors.gatekeeper_state.keys import MOST_PENDING, KeyBook
from guactors.gatekeeper_state.knocks import MOST, PATIENCE
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.keys import Kind, PublicKey
from guactors.security.rights import Reason
from guactors.security.statements import SKEW, check_warrant
from guactors.store.base import DropInvitation, KeyRecord, PutInvitation, PutKey, Snapshot
from guactors.store.memory import MemoryStore
from tests.unit.hub.gatekeeper_bench import (
    APP,
    HUB,
    LOCAL,
    OWNER,
    PROVIDER,
    Bench,
    follows,
    public,
    secret,
    transport_of,
)


def refused(verdict: Any, reason: Reason, kind: str = "AuthFailed") -> str:
    """The text of a refusal, which must be for this reason."""
    assert isinstance(verdict, e.TurnedAway), verdict
    assert verdict.kind == kind
    assert verdict.detail.endswith(f"[{reason}]"), verdict.detail
    return verdict.detail


# --- coming in ----------------------------------------------------------------------------------


def test_an_approved_app_comes_in_with_its_rights_and_a_warrant_for_providers() -> None:
    bench = Bench()
    bench.approve(APP)
    envelope = bench.grant()
    standing = bench.enter(APP)
    assert (standing.principal, standing.kind) == (APP.public.text, "app")
    assert standing.transport == transport_of(APP)
    assert standing.rights.may("submit", bench.wall()).allowed
    assert not standing.rights.may("admin", bench.wall()).allowed
    assert standing.warrant is not None
    assert standing.warrant.grants == [envelope]
    assert (
        check_warrant(standing.warrant, hub=HUB.public, owners=[], now=bench.wall()) == APP.public
    )


def test_an_app_without_a_grant_comes_in_to_be_told_why() -> None:
    bench = Bench()
    bench.approve(APP)
    standing = bench.enter(APP)
    verdict = standing.rights.may("submit", bench.wall())
    assert (verdict.allowed, verdict.reason) == (False, Reason.NO_GRANT)


def test_an_owner_needs_no_approval_and_may_do_everything() -> None:
    standing = Bench().enter(OWNER)
    assert standing.kind == "owner"
    assert standing.rights.everything
    assert standing.warrant is not None


def test_a_provider_has_no_rights_and_no_warrant() -> None:
    bench = Bench()
    bench.approve(PROVIDER)
    standing = bench.enter(PROVIDER, name="box")
    assert (standing.kind, standing.name) == ("provider", "box")
    assert not standing.rights.everything
    assert not standing.rights.grants
    assert standing.warrant is None


@pytest.mark.parametrize("hello", [{"root": False}, {"session": ""}])
def test_only_the_root_of_a_session_brings_a_warrant(hello: dict[str, Any]) -> None:
    bench = Bench()
    bench.approve(APP)
    assert bench.enter(APP, **hello).warrant is None


def test_a_key_may_come_over_a_socket_file_too() -> None:
    bench = Bench()
    hello = bench.hello(OWNER, transport="")
    link, challenge = bench.knock(hello, user="")
    assert challenge is not None
    assert isinstance(bench.prove(link, bench.sign(OWNER, challenge, hello, link), ""), e.Admitted)


def test_it_is_written_down_before_the_hub_is_told() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.join(APP)
    kinds = [type(effect) for effect in bench.effects]
    assert kinds == [e.Persist, e.Record, e.ToRoom]
    line = bench.lines[-1]
    assert (line.who, line.action, line.object, line.decision) == (
        APP.public.text, "session", "s-1", "allowed",
    )  # fmt: skip


def test_the_hello_of_the_other_lane_changes_nothing() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    assert bench.knock(hello, link) == (link, None)
    assert not bench.effects
    verdict = bench.prove(link, bench.sign(OWNER, challenge, hello, link), hello.transport)
    assert isinstance(verdict, e.Admitted)


def test_challenges_differ_and_name_the_hub() -> None:
    bench = Bench()
    challenges = [bench.knock(bench.hello(OWNER))[1] for _ in range(3)]
    assert len({c.nonce for c in challenges if c is not None}) == 3
    assert all(c is not None and len(c.nonce) == 32 for c in challenges)
    assert {c.hub for c in challenges if c is not None} == {HUB.public.text}


# --- refused at the knock -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "role", "named"),
    [
        (PROVIDER, "caller", "app or owner"),
        (APP, "provider", "kind provider"),
        (OWNER, "provider", "kind provider"),
        (HUB, "caller", "app or owner"),
        (secret(Kind.SIGNER), "caller", "app or owner"),
        (HUB, "provider", "kind provider"),
        (APP, "worker", "nobody comes with a key"),
        (APP, "hub", "nobody comes with a key"),
    ],
)
def test_a_role_needs_a_key_of_its_kind(key: Any, role: str, named: str) -> None:
    bench = Bench()
    detail = refused(bench.join(key, role=role), Reason.WRONG_KIND)
    assert named in detail
    assert bench.refusals() == [(key.public.text, "join", "wrong_kind")]


@pytest.mark.parametrize(
    "text",
    ["", "x" * 256, APP.public.text[:-1], APP.public.text.upper(), "gu_app_" + "a" * 63],
)
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    bench = Bench()
    refused(bench.join(APP, key=text), Reason.UNKNOWN_KEY)
    assert bench.refusals() == [("unreadable key", "join", "unknown_key")]


def test_a_secret_key_in_place_of_a_public_one_is_repeated_nowhere() -> None:
    bench = Bench()
    detail = refused(bench.join(APP, key=APP.text), Reason.UNKNOWN_KEY)
    assert "SECRET" in detail
    assert APP.text not in repr(bench.effects) + repr(bench.lines) + repr(bench.room)


def test_the_hello_must_name_the_transport_key_it_came_with() -> None:
    bench = Bench()
    bench.knock(bench.hello(OWNER), user="u" * 40)
    refused(bench.verdict(), Reason.BAD_SIGNATURE)


def test_a_line_about_an_unproved_claim_says_so() -> None:
    bench = Bench()
    bench.join(APP, role="provider")
    assert bench.lines[-1].detail.startswith("not proved: ")


# --- refused at the proof -----------------------------------------------------------------------


def test_a_proof_without_a_challenge_is_refused() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    proof = bench.sign(OWNER, m.Challenge(bytes(32), HUB.public.text), hello, "k-1")
    refused(bench.prove("k-1", proof, hello.transport), Reason.REPLAY)
    assert bench.refusals() == [("unknown", "join", "replay")]


def test_a_nonce_is_good_once() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    proof = bench.sign(OWNER, challenge, hello, link)
    assert isinstance(bench.prove(link, proof, hello.transport), e.Admitted)
    refused(bench.prove(link, proof, hello.transport), Reason.REPLAY)
    bench.knock(hello, link)
    refused(bench.prove(link, proof, hello.transport), Reason.REPLAY)


def test_a_bad_proof_uses_the_challenge_up() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    good = bench.sign(OWNER, challenge, hello, link)
    bench.prove(link, replace(good, signature=bytes(64)), hello.transport)
    refused(bench.prove(link, good, hello.transport), Reason.REPLAY)


@pytest.mark.parametrize("late", [PATIENCE, PATIENCE + 100])
@pytest.mark.parametrize("ticked", [True, False])
def test_a_late_proof_is_refused(late: float, ticked: bool) -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    proof = bench.sign(OWNER, challenge, hello, link)
    bench.now += late
    if ticked:
        bench.tick()
        refused(bench.verdict(), Reason.NO_KEY)
    refused(bench.prove(link, proof, hello.transport), Reason.REPLAY)


def test_a_proof_in_the_last_moment_is_in_time() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    bench.sleep(PATIENCE - 0.001)
    verdict = bench.prove(link, bench.sign(OWNER, challenge, hello, link), hello.transport)
    assert isinstance(verdict, e.Admitted)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hub": public(Kind.HUB, 2).text}, Reason.WRONG_HUB),
        ({"key": APP.public.text}, Reason.BAD_SIGNATURE),
        ({"nonce": bytes(32)}, Reason.REPLAY),
        ({"link": "k-other"}, Reason.REPLAY),
        ({"peer": "c-other"}, Reason.REPLAY),
        ({"role": "provider"}, Reason.REPLAY),
        ({"session": "s-other"}, Reason.SESSION),
        ({"transport": "u" * 40}, Reason.REPLAY),
        ({"at": 0}, Reason.EXPIRED),
        ({"at": 1_800_000_000 + SKEW + 60}, Reason.NOT_YET_VALID),
    ],
)
def test_a_proof_for_something_else_is_refused(other: dict[str, Any], reason: Reason) -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    proof = bench.sign(OWNER, challenge, hello, link, **other)
    refused(bench.prove(link, proof, hello.transport), reason)
    assert bench.refusals() == [(OWNER.public.text, "join", reason.value)]


def test_a_proof_by_another_key_is_refused() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    proof = bench.sign(secret(Kind.OWNER, 9), challenge, hello, link)
    refused(bench.prove(link, proof, hello.transport), Reason.BAD_SIGNATURE)


def test_a_proof_of_another_link_or_user_is_refused() -> None:
    bench = Bench()
    first, second = bench.hello(OWNER), bench.hello(OWNER)
    one, challenge = bench.knock(first)
    other, _ = bench.knock(second)
    assert challenge is not None
    proof = bench.sign(OWNER, challenge, first, one)
    refused(bench.prove(other, proof, second.transport), Reason.REPLAY)
    refused(bench.prove(one, proof, "u" * 40), Reason.REPLAY)


def test_another_hello_on_a_link_that_knocked_gets_another_challenge() -> None:
    bench = Bench()
    first, second = bench.hello(OWNER), bench.hello(OWNER)
    link, old = bench.knock(first)
    _, new = bench.knock(second, link)
    assert old is not None
    assert new is not None
    assert old.nonce != new.nonce
    refused(
        bench.prove(link, bench.sign(OWNER, old, second, link), second.transport), Reason.REPLAY
    )


def test_a_revocation_between_knock_and_proof_counts() -> None:
    bench = Bench()
    bench.approve(APP)
    hello = bench.hello(APP)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    bench.ask(m.RevokeKey(1, APP.public.text))
    proof = bench.sign(APP, challenge, hello, link)
    refused(bench.prove(link, proof, hello.transport), Reason.REVOKED)
    assert [r.state for r in bench.ask(m.AskKeys(1)).keys if r.kind == "app"] == ["revoked"]


def test_a_link_that_is_gone_is_forgotten() -> None:
    bench = Bench()
    hello = bench.hello(OWNER)
    link, challenge = bench.knock(hello)
    assert challenge is not None
    bench.feed(e.KnockEnded(LinkKey(link)))
    assert bench.room.next_wake(bench.now) is None
    proof = bench.sign(OWNER, challenge, hello, link)
    refused(bench.prove(link, proof, hello.transport), Reason.REPLAY)


def test_who_does_not_answer_is_turned_away() -> None:
    bench = Bench()
    link, _ = bench.knock(bench.hello(OWNER))
    effects = bench.sleep(PATIENCE)
    (away,) = bench.told(e.TurnedAway, effects)
    assert away.link == link
    assert bench.refusals() == [(OWNER.public.text, "join", "no_key")]


def test_a_crowd_at_the_door_pushes_out_the_oldest_with_a_line() -> None:
    bench = Bench()
    first, _ = bench.knock(bench.hello(OWNER))
    for _ in range(MOST - 1):
        bench.knock(bench.hello(APP))
        assert not bench.told(e.TurnedAway)
    bench.knock(bench.hello(APP))
    (away,) = bench.told(e.TurnedAway)
    assert away.link == first
    assert bench.refusals() == [(OWNER.public.text, "join", "no_key")]


# --- keys that nobody has approved --------------------------------------------------------------


@pytest.mark.parametrize("key", [APP, PROVIDER])
def test_an_unknown_key_waits_for_approval(key: Any) -> None:
    bench = Bench()
    detail = refused(bench.join(key, name="new"), Reason.PENDING, "PendingApproval")
    assert f"gu key approve {key.public.text}" in detail
    (row,) = [r for r in bench.ask(m.AskKeys(1)).keys if r.key == key.public.text]
    assert (row.state, row.name, row.kind) == ("pending", "new", key.kind.value)
    refused(bench.join(key), Reason.PENDING, "PendingApproval")
    bench.approve(key)
    assert bench.enter(key).name == "new"


def test_pending_survives_the_hub_and_is_persisted_once() -> None:
    bench = Bench()
    bench.join(APP, name="new")
    assert any(isinstance(effect, e.Persist) for effect in bench.effects)
    bench.join(APP, name="new")
    assert not any(isinstance(effect, e.Persist) for effect in bench.effects)
    bench.start()
    assert [r.state for r in bench.ask(m.AskKeys(1)).keys if r.kind == "app"] == ["pending"]


def test_an_unknown_owner_is_not_noted() -> None:
    bench = Bench()
    refused(bench.join(secret(Kind.OWNER, 9)), Reason.UNKNOWN_KEY)
    assert len(bench.ask(m.AskKeys(1)).keys) == len(bench.owners)


def test_strangers_fill_neither_memory_nor_disk() -> None:
    # The keys' own work is done elsewhere: here are only records.
    records = [
        KeyRecord(public(Kind.APP, 255).text[:-4] + f"{n:04}", "app", "", "pending", "", float(n))
        for n in range(MOST_PENDING)
    ]
    bench = Bench(ops=[PutKey(record) for record in records])
    bench.join(APP)
    rows = {row.key for row in bench.ask(m.AskKeys(1)).keys if row.state == "pending"}
    assert len(rows) == MOST_PENDING
    assert APP.public.text in rows
    assert records[0].key not in rows
    stored = {record.key for record in bench.store.load().keys}
    assert stored == {record.key for record in records[1:]}, "forgotten there as well"
    bench.approve(APP)
    assert bench.enter(APP)
    bench.start()
    assert bench.enter(APP)


def test_a_crowd_of_strangers_does_not_make_the_hub_write_for_ever() -> None:
    keys = KeyBook([OWNER.public], [])
    store = MemoryStore()
    crowd = [PublicKey(Kind.APP, n.to_bytes(32, "big")) for n in range(3 * MOST_PENDING)]
    wrote = []
    for key in crowd:
        ops = keys.wait(key, "", "", 0.0)
        wrote.append(len(ops))
        store.apply(ops)
        keys.check()
    assert wrote == [1] * 2 * MOST_PENDING + [0] * MOST_PENDING
    assert {row.key for row in keys.rows()} - {OWNER.public.text} == {
        key.text for key in crowd[-MOST_PENDING:]
    }
    assert store.load().keys == ()


def test_names_of_strangers_are_made_harmless() -> None:
    bench = Bench()
    bench.join(APP, name="\x1b[2J" + "n" * 300)
    (row,) = [row for row in bench.ask(m.AskKeys(1)).keys if row.key == APP.public.text]
    assert row.name.isprintable()
    assert len(row.name) <= 64


def test_a_change_of_the_transport_key_is_kept() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(APP)
    standing = bench.enter(APP, transport="u" * 40)
    assert standing.transport == "u" * 40
    bench.start()
    bench.ask(m.RevokeKey(1, APP.public.text))
    (told,) = bench.told(e.RevocationsAre)
    assert told.message.transports == ["u" * 40]


def test_transport_keys_of_before_are_revoked_with_the_newest() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(APP)
    bench.enter(APP, transport="u" * 40)
    bench.ask(m.RevokeKey(1, APP.public.text))
    (told,) = bench.told(e.RevocationsAre)
    assert set(told.message.transports) == {"u" * 40, transport_of(APP)}


# --- the hub's own configuration ----------------------------------------------------------------


def test_listed_keys_are_approved_but_for_those_that_are_revoked() -> None:
    out = KeyRecord(APP.public.text, "app", "", "revoked", "", 1.0)
    waits = KeyRecord(PROVIDER.public.text, "provider", "box", "pending", "t", 1.0)
    new = public(Kind.APP, 2).text
    ops = approve_listed([out.key, waits.key, new], [out, waits], 5.0)
    assert [(op.record.key, op.record.state) for op in ops if isinstance(op, PutKey)] == [
        (waits.key, "approved"), (new, "approved"),
    ]  # fmt: skip
    bench = Bench(ops=[PutKey(out), PutKey(waits), *ops])
    assert bench.enter(PROVIDER).name == "box"
    refused(bench.join(APP), Reason.REVOKED)


@pytest.mark.parametrize("text", [OWNER.public.text, HUB.public.text, "gu_app_x", APP.text])
def test_only_keys_of_apps_and_providers_can_be_listed(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        approve_listed([text], [], 0.0)
    assert APP.text not in str(caught.value)


# --- invitations --------------------------------------------------------------------------------


def invite(bench: Bench, role: str = "app", **more: Any) -> str:
    answer = bench.ask(m.MakeInvitation(1, role, **more))
    assert isinstance(answer, m.Invitation), answer
    return answer.token


@pytest.mark.parametrize("key", [APP, PROVIDER])
def test_an_invitation_lets_a_key_in_and_keeps_it_in(key: Any) -> None:
    bench = Bench()
    token = invite(bench, key.kind.value, name="guest")
    assert bench.enter(key, invitation=token, name="me").name == "guest"
    bench.start()
    assert bench.enter(key)
    (row,) = [row for row in bench.ask(m.AskKeys(1)).keys if row.key == key.public.text]
    assert row.by == "invitation"


def test_an_invitation_is_used_once_also_by_a_new_hub() -> None:
    bench = Bench()
    token = invite(bench)
    bench.enter(APP, invitation=token)
    for _ in range(2):
        refused(bench.join(secret(Kind.APP, 2), invitation=token), Reason.REPLAY)
        bench.start()
    assert bench.enter(APP, invitation=token), "an approved key needs none"


def test_a_refused_invitation_is_no_way_to_wait() -> None:
    bench = Bench()
    token = invite(bench, seconds=60.0)
    refused(bench.join(PROVIDER, invitation=token), Reason.WRONG_KIND)
    refused(bench.join(APP, invitation=token + "x"), Reason.UNKNOWN_KEY)
    refused(bench.join(APP, invitation="gu_invite_\udc80"), Reason.UNKNOWN_KEY)
    bench.now += 60.0
    refused(bench.join(APP, invitation=token), Reason.EXPIRED)
    assert len(bench.ask(m.AskKeys(1)).keys) == len(bench.owners), "nobody waits"
    found = [reason for who, _, reason in bench.refusals() if who == APP.public.text]
    assert found == ["unknown_key", "unknown_key", "expired"], "the second one is a count"


def test_an_invitation_lets_in_who_waits_already() -> None:
    bench = Bench()
    bench.join(APP)
    assert bench.enter(APP, invitation=invite(bench))


def test_an_owner_cannot_be_invited() -> None:
    bench = Bench()
    refused(bench.join(secret(Kind.OWNER, 9), invitation=invite(bench)), Reason.UNKNOWN_KEY)


def test_the_store_has_only_the_digest_of_an_invitation() -> None:
    bench = Bench()
    token = invite(bench)
    assert token.startswith("gu_invite_")
    assert token not in repr(bench.store.load()) + repr(bench.lines)


def test_invitations_long_over_are_dropped() -> None:
    bench = Bench()
    invite(bench, seconds=1.0)
    bench.now += 2 * 86_400.0
    invite(bench)
    (ops,) = [x.ops for x in bench.effects if isinstance(x, e.Persist)]
    assert [type(op) for op in ops] == [DropInvitation, PutInvitation]
    assert len(bench.store.load().invitations) == 1


# --- succession ---------------------------------------------------------------------------------

NEW, NEWER = secret(Kind.APP, 2), secret(Kind.APP, 3)


@pytest.mark.parametrize("approved_before", [True, False])
def test_a_successor_takes_over_record_and_grants(approved_before: bool) -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(APP)
    bench.ask(m.ApproveKey(1, APP.public.text, "prod"))
    envelope = bench.grant()
    if approved_before:
        bench.approve(NEW)
        assert not bench.may(NEW, "submit")
    statement = follows(APP, NEW)
    standing = bench.enter(NEW, successions=[statement])
    old, new = bench.told(e.StandingChanged)
    assert (old.principal, old.standing, old.running) == (APP.public.text, None, "finish")
    assert new.principal == NEW.public.text
    assert new.standing is not None
    assert new.standing.rights.may("submit", bench.wall()).allowed
    assert standing.name == "prod"
    assert standing.rights.may("submit", bench.wall()).allowed
    assert standing.warrant is not None
    assert standing.warrant.grants == [envelope]
    assert standing.warrant.successions == [statement]
    for _ in range(2):
        refused(bench.join(APP), Reason.REVOKED)
        assert bench.may(NEW, "submit")
        bench.start()
    rows = {row.key: row for row in bench.ask(m.AskKeys(1)).keys}
    assert (rows[APP.public.text].state, rows[APP.public.text].reason) == ("revoked", "rotated")


def test_a_chain_may_be_longer_than_the_hub_knew() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    chain = [follows(APP, NEW), follows(NEW, NEWER)]
    assert bench.enter(NEWER, successions=chain).rights.may("submit", bench.wall()).allowed
    refused(bench.join(NEW, successions=chain[:1]), Reason.PENDING, "PendingApproval")


def test_grants_go_on_over_any_number_of_keys() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    bench.enter(NEW, successions=[follows(APP, NEW)])
    bench.enter(NEWER, successions=[follows(NEW, NEWER)])
    for _ in range(2):
        assert bench.may(NEWER, "submit")
        bench.start()


def test_an_owner_that_is_followed_stays_an_issuer_but_signs_no_more() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    successor = secret(Kind.OWNER, 7)
    assert bench.enter(successor, successions=[follows(OWNER, successor)]).rights.everything
    for _ in range(2):
        assert bench.may(APP, "submit")
        fault = bench.ask(m.PutGrant(1, bench.envelope(serial=50)))
        assert fault.kind == "PermissionDenied"
        bench.start()
    bench.grant(owner=successor)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([b"nonsense"], Reason.BAD_SIGNATURE),
        ([follows(APP, NEW), follows(APP, NEWER)], Reason.BAD_SIGNATURE),
    ],
)
def test_a_wrong_chain_is_refused(steps: list[bytes], reason: Reason) -> None:
    bench = Bench()
    bench.approve(APP)
    refused(bench.join(NEW, successions=steps), reason)
    assert bench.enter(APP)


def test_who_follows_a_revoked_or_unknown_key_is_a_stranger() -> None:
    bench = Bench()
    refused(bench.join(NEW, successions=[follows(APP, NEW)]), Reason.PENDING, "PendingApproval")
    bench.approve(APP)
    bench.ask(m.RevokeKey(1, APP.public.text))
    refused(bench.join(NEW, successions=[follows(APP, NEW)]), Reason.PENDING, "PendingApproval")


def test_a_second_successor_is_a_stranger() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    bench.enter(NEW, successions=[follows(APP, NEW)])
    refused(bench.join(NEWER, successions=[follows(APP, NEWER)]), Reason.PENDING, "PendingApproval")


# --- a grid of one machine ----------------------------------------------------------------------


def keyless() -> GatekeeperState:
    return GatekeeperState(None, [], Snapshot(), random=bytes, wall=float)


def test_without_a_key_of_the_hub_whoever_shows_one_is_turned_away() -> None:
    room = keyless()
    hello = Bench().hello(APP)
    (effect,) = room.handle(e.Knocked(LinkKey("k-1"), "u", hello), 1.0)
    assert isinstance(effect, e.ToRoom)
    refused(effect.event, Reason.UNKNOWN_KEY)
    assert room.next_wake(1.0) is None
    assert room.on_tick(1.0) == []
    room.check()


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (m.AskKeys(7), m.KeyList(7, [])),
        (m.AskGrants(7), m.GrantList(7, [])),
        (m.ApproveKey(7, APP.public.text), "UsageError"),
        (m.PutGrant(7, b"{}"), "UsageError"),
        (m.MakeInvitation(7, "app"), "UsageError"),
        (m.AskChallenge(7, APP.public.text), "UsageError"),
        (m.UseToken(7, "gu_token_x", "submit"), "UsageError"),
        (m.CloseSession(7, "s-1", "gu_token_x"), "UsageError"),
        (m.OfferImage(7, b"{}", token="gu_token_x"), "UsageError"),
    ],
)
def test_a_grid_of_one_machine_has_no_keys_to_ask_about(message: m.Message, answer: Any) -> None:
    (effect,) = keyless().handle(e.AuthorityAsked("c-1", LOCAL, message), 1.0)
    assert isinstance(effect, e.ToPeer)
    if isinstance(answer, str):
        assert isinstance(effect.message, m.Fault)
        assert (effect.message.kind, effect.message.request) == (answer, 7)
    else:
        assert effect.message == answer


@pytest.mark.parametrize(
    ("message", "room", "event"),
    [
        (m.CloseSession(7, "s-1"), e.RoomName.HUB, e.SessionAsked),
        (m.AskSessions(7), e.RoomName.HUB, e.SessionAsked),
        (m.AskImages(7), e.RoomName.IMAGES, e.ImagesAsked),
    ],
)
def test_a_grid_of_one_machine_has_sessions_and_images(
    message: m.Message, room: e.RoomName, event: Any
) -> None:
    asked = e.AuthorityAsked("c-1", LOCAL, message)
    assert keyless().handle(asked, 1.0) == [e.ToRoom(room, event("c-1", LOCAL, message))]


def test_a_grid_of_one_machine_does_not_load_cryptography() -> None:
    code = (
        "import sys; from guactors.gatekeeper_state import GatekeeperState as G; "
        "from guactors.store.base import Snapshot; "
        "room = G(None, [], Snapshot(), random=bytes, wall=float); room.on_tick(1.0); "
        "sys.exit('nacl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
