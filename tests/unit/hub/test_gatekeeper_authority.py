"""What may be asked of the gatekeeper, by whom, and what each order does."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.gatekeeper_state.grants import GrantBook
from guactors.gatekeeper_state.invitations import LONGEST, MOST_OPEN
from guactors.gatekeeper_state.keys import KeyBook
from guactors.gatekeeper_state.state import GLANCE
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.grants import open_grant
from guactors.security.keys import Kind
from guactors.security.rights import ALL, Reason, Rights
from guactors.store.base import GrantRecord, KeyRecord, PutGrant, PutKey
from tests.unit.hub.gatekeeper_bench import (
    APP,
    EPOCH,
    HUB,
    LOCAL,
    OTHER_OWNER,
    OWNER,
    PROVIDER,
    Bench,
    follows,
    public,
    secret,
    transport_of,
)

ADMIN_APP, NEW = secret(Kind.APP, 4), secret(Kind.APP, 2)
DAY = 86_400.0


def fault(answer: Any, kind: str, reason: Reason | None = None) -> str:
    assert isinstance(answer, m.Fault), answer
    assert answer.kind == kind, answer
    assert reason is None or answer.detail.endswith(f"[{reason}]"), answer
    return answer.detail


def done(answer: Any) -> None:
    assert isinstance(answer, m.Done), answer


def rows(bench: Bench) -> dict[str, m.KeyRow]:
    return {row.key: row for row in bench.ask(m.AskKeys(1)).keys}


def with_admin(bench: Bench) -> e.Standing:
    """An app with the right to administer."""
    bench.approve(ADMIN_APP)
    bench.grant(ADMIN_APP, actions=["admin"])
    return bench.standing(ADMIN_APP)


# --- who may ask --------------------------------------------------------------------------------

ORDERS = [
    m.AskKeys(7),
    m.ApproveKey(7, NEW.public.text),
    m.RevokeKey(7, PROVIDER.public.text),
    m.MakeInvitation(7, "app"),
    m.PutGrant(7, Bench().envelope(serial=99)),
    m.RevokeGrant(7, OWNER.public.text, 1),
    m.AskAudit(7),
]


def order_id(order: object) -> str:
    return type(order).__name__


@pytest.mark.parametrize("order", ORDERS, ids=order_id)
def test_orders_need_the_right_to_administer(order: m.Message) -> None:
    bench = Bench()
    bench.approve(APP, PROVIDER)
    bench.grant()
    before = bench.store.load()
    for key, reason in ((APP, Reason.ACTION), (PROVIDER, Reason.NO_GRANT)):
        fault(bench.ask(order, bench.standing(key)), "PermissionDenied", reason)
        assert bench.lines[-1].who == key.public.text
        assert (bench.lines[-1].decision, bench.lines[-1].reason) == ("refused", reason.value)
    assert bench.store.load() == before


@pytest.mark.parametrize("order", ORDERS, ids=order_id)
@pytest.mark.parametrize("who", ["local", "owner", "admin"])
def test_administrators_may_give_orders(order: m.Message, who: str) -> None:
    bench = Bench()
    admin = with_admin(bench)
    standing = {"local": LOCAL, "owner": bench.standing(OWNER), "admin": admin}[who]
    assert not isinstance(bench.ask(order, standing), m.Fault)


@pytest.mark.parametrize("claim", [ALL, Rights(everything=True, principal=APP.public.text)])
def test_rights_that_the_hub_remembers_do_not_count(claim: Any) -> None:
    bench = Bench()
    bench.approve(APP)
    claimed = e.Standing(APP.public.text, "app", rights=claim)
    fault(bench.ask(m.AskKeys(1), claimed), "PermissionDenied", Reason.NO_GRANT)


@pytest.mark.parametrize("order", [*ORDERS, m.AskGrants(7), m.AskSessions(7), m.AskImages(7)],
                         ids=order_id)  # fmt: skip
@pytest.mark.parametrize("state", ["revoked", "unknown", "rotated"])
def test_who_is_out_has_nothing_to_ask(order: m.Message, state: str) -> None:
    bench = Bench()
    admin = with_admin(bench)
    if state == "revoked":
        bench.ask(m.RevokeKey(1, ADMIN_APP.public.text))
    elif state == "rotated":
        bench.enter(NEW, successions=[follows(ADMIN_APP, NEW)])
    else:
        admin = bench.standing(secret(Kind.OWNER, 9))
    fault(bench.ask(order, admin), "AuthFailed", Reason.REVOKED)
    assert bench.lines[-1].decision == "refused"


def test_a_question_that_is_none_is_answered() -> None:
    assert "AskGrid" in fault(Bench().ask(m.AskGrid(3)), "UsageError")


# --- keys ---------------------------------------------------------------------------------------


def test_approving_is_persisted_then_recorded_then_answered() -> None:
    bench = Bench()
    done(bench.ask(m.ApproveKey(1, APP.public.text, "prod"), bench.standing(OWNER)))
    assert [type(x) for x in bench.effects] == [e.Persist, e.Record, e.ToPeer]
    row = rows(bench)[APP.public.text]
    assert (row.state, row.name, row.by) == ("approved", "prod", OWNER.public.text)
    assert (bench.lines[-1].action, bench.lines[-1].object) == ("approve", APP.public.text)


def test_approving_again_only_names() -> None:
    bench = Bench()
    bench.approve(APP)
    lines = len(bench.lines)
    done(bench.ask(m.ApproveKey(1, APP.public.text, "prod")))
    done(bench.ask(m.ApproveKey(1, APP.public.text)))
    assert rows(bench)[APP.public.text].name == "prod"
    assert len(bench.lines) == lines


@pytest.mark.parametrize("key", [secret(Kind.OWNER, 9), HUB])
def test_owners_and_hubs_are_not_approved_over_the_wire(key: Any) -> None:
    bench = Bench()
    answer = bench.ask(m.ApproveKey(1, key.public.text))
    fault(answer, "PermissionDenied", Reason.WRONG_KIND)
    assert key.public.text not in rows(bench)


@pytest.mark.parametrize("order", [m.ApproveKey, m.RevokeKey])
def test_a_text_that_is_no_key_is_not_repeated(order: Any) -> None:
    bench = Bench()
    for text in ("", "x", APP.public.text[:-2], APP.text):
        detail = fault(bench.ask(order(1, text)), "UsageError")
        assert APP.text not in detail


def test_revoking_takes_effect_in_order_and_everywhere() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    bench.enter(APP)
    done(bench.ask(m.RevokeKey(1, APP.public.text, "finish", "lost laptop")))
    assert [type(x) for x in bench.effects] == [
        e.Persist, e.Record, e.ToRoom, e.ToRoom, e.ToPeer,
    ]  # fmt: skip
    (change,) = bench.told(e.StandingChanged)
    assert (change.principal, change.standing) == (APP.public.text, None)
    assert change.running == "finish"
    assert "lost laptop" in change.reason
    (told,) = bench.told(e.RevocationsAre)
    assert told.message == m.Revoked(1, [APP.public.text], [transport_of(APP)], [], "finish")
    assert bench.store.load().epoch == bench.room.epoch == 1
    assert (bench.lines[-1].action, bench.lines[-1].detail) == ("revoke", "lost laptop")


def test_a_revoked_key_never_comes_back() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(APP)
    token = bench.ask(m.MakeInvitation(1, "app")).token
    bench.grant()
    bench.ask(m.RevokeKey(1, APP.public.text))
    for _ in range(2):
        answer = bench.ask(m.ApproveKey(1, APP.public.text))
        fault(answer, "PermissionDenied", Reason.REVOKED)
        answer = bench.ask(m.PutGrant(1, bench.envelope(serial=70)))
        fault(answer, "PermissionDenied", Reason.REVOKED)
        for more in ({}, {"invitation": token}, {"transport": "u" * 40}):
            verdict = bench.join(APP, **more)
            assert isinstance(verdict, e.TurnedAway)
            assert verdict.detail.endswith("[revoked]")
        # Nor is it the successor of anybody, nor its transport key another's.
        bench.approve(NEW)
        statement = m.PutSuccession(1, follows(NEW, APP))
        fault(bench.ask(statement, bench.standing(NEW)), "PermissionDenied", Reason.REVOKED)
        verdict = bench.join(secret(Kind.APP, 5), transport=transport_of(APP))
        assert isinstance(verdict, e.TurnedAway)
        assert verdict.detail.endswith("[revoked]")
        bench.start()


def test_a_key_may_be_revoked_before_it_is_seen_or_approved() -> None:
    bench = Bench()
    bench.join(NEW)
    for key in (APP, NEW, secret(Kind.SIGNER)):
        done(bench.ask(m.RevokeKey(1, key.public.text)))
        assert rows(bench)[key.public.text].state == "revoked"
    assert len(bench.told(e.RevocationsAre)) == 0
    bench.start(begin=False)
    (told,) = bench.told(e.RevocationsAre, bench.tick())
    assert set(told.message.keys) == {x.public.text for x in (APP, NEW, secret(Kind.SIGNER))}
    assert told.message.epoch == 3


def test_a_transport_key_that_somebody_approved_uses_too_is_not_cut() -> None:
    bench = Bench()
    bench.approve(APP, NEW)
    bench.enter(APP)
    bench.enter(NEW, transport=transport_of(APP))
    bench.ask(m.RevokeKey(1, NEW.public.text))
    (told,) = bench.told(e.RevocationsAre)
    assert told.message.transports == []
    assert bench.enter(APP)


def test_revoking_twice_is_once_unless_what_runs_shall_stop_after_all() -> None:
    bench = Bench()
    bench.approve(APP)
    for running, epoch in (("finish", 1), ("finish", 1), ("stop", 2), ("stop", 2), ("finish", 2)):
        done(bench.ask(m.RevokeKey(1, APP.public.text, running)))
        assert bench.room.epoch == epoch
    assert rows(bench)[APP.public.text].state == "revoked"


@pytest.mark.parametrize("running", ["", "later", "Stop"])
def test_what_becomes_of_work_is_stop_or_finish(running: str) -> None:
    bench = Bench()
    bench.grant()
    fault(bench.ask(m.RevokeKey(1, APP.public.text, running)), "UsageError")
    fault(bench.ask(m.RevokeGrant(1, OWNER.public.text, 1, running)), "UsageError")
    assert bench.room.epoch == 0


def test_the_hubs_own_key_and_a_key_given_up_are_not_revoked() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(NEW, successions=[follows(APP, NEW)])
    fault(bench.ask(m.RevokeKey(1, HUB.public.text)), "UsageError")
    detail = fault(bench.ask(m.RevokeKey(1, APP.public.text)), "UsageError")
    assert NEW.public.text in detail
    assert bench.room.epoch == 0


def test_revoking_the_last_of_a_chain_revokes_all_of_it() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(APP)
    bench.enter(NEW, successions=[follows(APP, NEW)], transport="u" * 40)
    bench.ask(m.RevokeKey(1, NEW.public.text))
    (told,) = bench.told(e.RevocationsAre)
    assert set(told.message.keys) == {APP.public.text, NEW.public.text}
    assert set(told.message.transports) == {transport_of(APP), "u" * 40}


def test_a_key_given_up_is_not_told_as_revoked() -> None:
    """Grants name it, and they go on."""
    bench = Bench()
    bench.approve(APP)
    bench.enter(NEW, successions=[follows(APP, NEW)])
    bench.start(begin=False)
    (told,) = bench.told(e.RevocationsAre, bench.tick())
    assert told.message == m.Revoked(0, [], [], [])


# --- owners -------------------------------------------------------------------------------------


def test_an_administrator_who_is_no_owner_does_not_revoke_owners() -> None:
    bench = Bench()
    answer = bench.ask(m.RevokeKey(1, OWNER.public.text), with_admin(bench))
    fault(answer, "PermissionDenied", Reason.WRONG_KIND)
    assert bench.enter(OWNER)


def test_the_last_owner_stays() -> None:
    bench = Bench([OWNER.public, OTHER_OWNER.public])
    done(bench.ask(m.RevokeKey(1, OTHER_OWNER.public.text)))
    fault(bench.ask(m.RevokeKey(1, OWNER.public.text)), "UsageError")
    assert bench.enter(OWNER).rights.everything


def test_revoking_an_issuer_ends_its_grants_and_no_others() -> None:
    bench = Bench()
    both, one = APP, NEW
    bench.approve(both, one)
    bench.grant(both, OWNER, actions=["submit"])
    bench.grant(both, OTHER_OWNER, actions=["read_logs"])
    bench.grant(one, OWNER)
    done(bench.ask(m.RevokeKey(1, OWNER.public.text), bench.standing(OTHER_OWNER)))
    changed = {x.principal: x.standing for x in bench.told(e.StandingChanged)}
    assert changed.keys() == {OWNER.public.text, both.public.text, one.public.text}
    assert changed[OWNER.public.text] is None
    for _ in range(2):
        assert not bench.may(both, "submit")
        assert bench.may(both, "read_logs")
        assert not bench.may(one, "submit")
        assert isinstance(bench.join(OWNER), e.TurnedAway)
        answer = bench.ask(m.PutGrant(1, bench.envelope(serial=80)))
        fault(answer, "PermissionDenied", Reason.BAD_SIGNATURE)
        states = {x.issuer: x.state for x in bench.ask(m.AskGrants(1)).grants}
        assert states == {OWNER.public.text: "revoked", OTHER_OWNER.public.text: "valid"}
        bench.start()


def test_an_owner_that_is_listed_no_more_is_out_with_its_grants() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(OWNER)
    bench.grant()
    successor = secret(Kind.OWNER, 7)
    bench.enter(successor, successions=[follows(OWNER, successor)])
    bench.owners = [OTHER_OWNER.public]
    bench.start(begin=False)
    (told,) = bench.told(e.RevocationsAre, bench.tick())
    assert set(told.message.keys) == {OWNER.public.text, successor.public.text}
    for key in (OWNER, successor):
        assert isinstance(bench.join(key), e.TurnedAway)
    assert not bench.may(APP, "submit")


# --- succession ---------------------------------------------------------------------------------


def test_a_key_names_its_successor() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant()
    done(bench.ask(m.PutSuccession(1, follows(APP, NEW)), bench.standing(APP)))
    order = [type(x.event if isinstance(x, e.ToRoom) else x) for x in bench.effects]
    assert order[:4] == [e.Persist, e.Record, e.ToPeer, e.StandingChanged], "heard before cut off"
    assert isinstance(bench.join(APP), e.TurnedAway)
    assert bench.may(NEW, "submit")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (b"nonsense", Reason.MALFORMED),
        (Bench().envelope(), Reason.BAD_SIGNATURE),
        (follows(NEW, secret(Kind.APP, 3)), Reason.UNKNOWN_KEY),
    ],
)
@pytest.mark.parametrize("who", ["app", "local"])
def test_nobody_names_the_successor_of_another(statement: bytes, reason: Reason, who: str) -> None:
    bench = Bench()
    bench.approve(APP, NEW)
    standing = bench.standing(APP) if who == "app" else LOCAL
    answer = bench.ask(m.PutSuccession(1, statement), standing)
    fault(answer, "PermissionDenied", reason)
    assert bench.enter(APP)
    assert bench.enter(NEW)


# --- invitations --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "hub", "worker", "", "App"])
def test_one_invites_apps_and_providers(role: str) -> None:
    fault(Bench().ask(m.MakeInvitation(1, role)), "UsageError")


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST + 1, float("inf"), float("nan")])
def test_an_invitation_ends_within_a_week(seconds: float) -> None:
    fault(Bench().ask(m.MakeInvitation(1, "app", seconds=seconds)), "UsageError")


def test_an_invitation_says_until_when() -> None:
    bench = Bench()
    answer = bench.ask(m.MakeInvitation(1, "provider", "box", LONGEST))
    assert answer.expires == bench.wall() + LONGEST
    assert (bench.lines[-1].action, bench.lines[-1].object) == ("invite", "box")


def test_there_is_an_end_to_invitations() -> None:
    bench = Bench()
    for _ in range(MOST_OPEN):
        assert isinstance(bench.ask(m.MakeInvitation(1, "app")), m.Invitation)
    fault(bench.ask(m.MakeInvitation(1, "app")), "UsageError")
    bench.now += 600.0
    assert isinstance(bench.ask(m.MakeInvitation(1, "app")), m.Invitation)


def test_what_a_revoked_administrator_made_lets_nobody_in() -> None:
    bench = Bench()
    admin = with_admin(bench)
    of_admin = bench.ask(m.MakeInvitation(1, "app"), admin).token
    of_owner = bench.ask(m.MakeInvitation(1, "app"), bench.standing(OWNER)).token
    bench.ask(m.RevokeKey(1, ADMIN_APP.public.text))
    assert isinstance(bench.join(APP, invitation=of_admin), e.TurnedAway)
    assert bench.enter(APP, invitation=of_owner)


def test_after_a_start_of_the_hub_nobody_knows_who_invited() -> None:
    bench = Bench()
    admin = with_admin(bench)
    token = bench.ask(m.MakeInvitation(1, "app"), admin).token
    bench.start()
    bench.ask(m.RevokeKey(1, ADMIN_APP.public.text))
    assert isinstance(bench.join(APP, invitation=token), e.TurnedAway)
    (invitations,) = [bench.store.load().invitations]
    assert not invitations


# --- grants -------------------------------------------------------------------------------------


def test_a_grant_is_kept_and_told() -> None:
    bench = Bench()
    bench.approve(APP)
    envelope = bench.envelope(serial=5)
    done(bench.ask(m.PutGrant(1, envelope), bench.standing(OWNER)))
    assert [type(x) for x in bench.effects] == [e.Persist, e.Record, e.ToRoom, e.ToPeer]
    (change,) = bench.told(e.StandingChanged)
    assert change.standing is not None
    assert change.standing.rights.may("submit", bench.wall()).serial == 5
    assert change.standing.warrant == m.WarrantWord("", APP.public.text, grants=[envelope])
    assert (bench.lines[-1].action, bench.lines[-1].grant) == ("grant", 5)
    bench.start()
    assert bench.may(APP, "submit")


def test_a_grant_does_not_let_its_app_in() -> None:
    bench = Bench()
    bench.grant()
    assert not bench.told(e.StandingChanged)
    verdict = bench.join(APP)
    assert isinstance(verdict, e.TurnedAway)
    assert verdict.kind == "PendingApproval"
    bench.approve(APP)
    assert bench.may(APP, "submit")


def test_a_serial_of_an_issuer_is_used_once() -> None:
    bench = Bench()
    bench.approve(APP)
    envelope = bench.grant(serial=5)
    replays = [envelope, bench.envelope(serial=5, actions=["admin"]), bench.envelope(NEW, serial=5)]
    for _ in range(2):
        for replay in replays:
            fault(bench.ask(m.PutGrant(1, replay)), "PermissionDenied", Reason.REPLAY)
        bench.ask(m.RevokeGrant(1, OWNER.public.text, 5))
        bench.start()
    assert not bench.may(APP, "submit")
    bench.grant(owner=OTHER_OWNER, serial=5)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda b: b"nonsense", Reason.MALFORMED),
        (lambda b: b.envelope(owner=secret(Kind.OWNER, 9)), Reason.BAD_SIGNATURE),
        (lambda b: b.envelope(hub=public(Kind.HUB, 2).text), Reason.WRONG_HUB),
        (lambda b: b.envelope(start=b.wall() - 100, expires=int(b.wall())), Reason.EXPIRED),
        (lambda b: b.envelope().replace(b'"sig":"', b'"sig":"A', 1), Reason.BAD_SIGNATURE),
    ],
    ids=["nonsense", "stranger", "other hub", "expired", "changed"],
)
@pytest.mark.parametrize("who", [LOCAL, e.Standing(OWNER.public.text, "owner")],
                         ids=["local", "owner"])  # fmt: skip
def test_a_grant_that_is_none_is_refused_whoever_brings_it(
    make: Any, reason: Reason, who: e.Standing
) -> None:
    bench = Bench()
    bench.approve(APP)
    fault(bench.ask(m.PutGrant(1, make(bench)), who), "PermissionDenied", reason)
    assert bench.refusals()[-1][1:] == ("grant", reason.value)
    assert not bench.store.load().grants
    assert not bench.may(APP, "submit")


def test_a_grant_for_a_key_given_up_is_refused_by_naming_the_new_one() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.enter(NEW, successions=[follows(APP, NEW)])
    answer = bench.ask(m.PutGrant(1, bench.envelope(APP)))
    assert NEW.public.text in fault(answer, "PermissionDenied", Reason.REVOKED)


def test_revoking_a_grant_takes_effect_in_order() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(serial=5)
    bench.grant(serial=6, actions=["read_logs"])
    done(bench.ask(m.RevokeGrant(1, OWNER.public.text, 5, "finish", "over")))
    assert [type(x) for x in bench.effects] == [
        e.Persist, e.Record, e.ToRoom, e.ToRoom, e.ToPeer,
    ]  # fmt: skip
    (change,) = bench.told(e.StandingChanged)
    assert change.running == "finish"
    assert change.standing is not None
    assert [g.serial for g in change.standing.rights.grants] == [6]
    (told,) = bench.told(e.RevocationsAre)
    assert told.message == m.Revoked(1, [], [], [f"{OWNER.public.text} 5"], "finish")
    assert (bench.lines[-1].action, bench.lines[-1].grant) == ("revoke", 5)
    for _ in range(2):
        assert not bench.may(APP, "submit")
        assert bench.may(APP, "read_logs")
        bench.start()


def test_revoking_a_grant_twice_is_once_and_one_that_is_none_a_fault() -> None:
    bench = Bench()
    bench.grant(serial=5)
    for _ in range(2):
        done(bench.ask(m.RevokeGrant(1, OWNER.public.text, 5)))
    assert bench.room.epoch == 1
    for issuer, serial in ((OWNER.public.text, 6), (OTHER_OWNER.public.text, 5), ("x", 5)):
        fault(bench.ask(m.RevokeGrant(1, issuer, serial)), "UsageError")


def test_revocations_that_time_has_made_are_not_told() -> None:
    bench = Bench()
    bench.grant(serial=5, expires=int(bench.wall()) + 100)
    bench.grant(serial=6)
    bench.ask(m.RevokeGrant(1, OWNER.public.text, 5))
    bench.now += 100
    bench.ask(m.RevokeGrant(1, OWNER.public.text, 6))
    (told,) = bench.told(e.RevocationsAre)
    assert told.message.grants == [f"{OWNER.public.text} 6"]


def test_grants_of_a_revoked_issuer_are_told_by_its_key_alone() -> None:
    bench = Bench()
    bench.grant(serial=5)
    bench.ask(m.RevokeGrant(1, OWNER.public.text, 5))
    bench.ask(m.RevokeKey(1, OWNER.public.text))
    (told,) = bench.told(e.RevocationsAre)
    assert told.message.grants == []


def test_what_was_revoked_before_the_start_is_told_before_all_else() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.ask(m.RevokeKey(1, APP.public.text, "finish"))
    for event in (None, e.KnockEnded(LinkKey("k-1"))):
        bench.start(begin=False)
        assert bench.room.next_wake(bench.now) == bench.now
        effects = bench.tick() if event is None else bench.feed(event)
        assert effects == [
            e.ToRoom(
                e.RoomName.HUB,
                e.RevocationsAre(m.Revoked(1, [APP.public.text], [], [], "finish")),
            )
        ]
        assert bench.tick() == []


# --- time ---------------------------------------------------------------------------------------


def test_a_grant_begins_and_ends_by_itself() -> None:
    bench = Bench()
    bench.approve(APP)
    start, end = bench.wall() + 100, int(bench.wall()) + 300
    bench.grant(start=start, expires=end)
    bench.enter(APP)
    told = []
    for _ in range(4):
        effects = bench.sleep(100.0)
        told += [
            (bench.wall(), x.standing.rights.may("submit", bench.wall()).allowed)
            for x in bench.told(e.StandingChanged, effects)
            if x.standing is not None
        ]
    assert told == [(EPOCH + 100, True), (EPOCH + 300, False)]
    assert bench.room.next_wake(bench.now) is None


def test_an_end_counts_even_before_anybody_was_woken() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(expires=int(bench.wall()) + 100)
    assert bench.may(APP, "submit")
    bench.now += 100
    assert not bench.may(APP, "submit")
    standing = bench.enter(APP)
    assert standing.rights.may("submit", bench.wall()).reason is Reason.EXPIRED
    assert standing.warrant is not None
    assert standing.warrant.grants == []


def test_a_wall_clock_that_is_set_forward_is_noticed() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(expires=int(bench.wall()) + 1000)
    bench.enter(APP)
    bench.drift = 1000.0
    assert bench.told(e.StandingChanged, bench.sleep(GLANCE))


def test_a_grant_that_ended_leaves_the_others() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(expires=int(bench.wall()) + 100)
    bench.grant(actions=["read_logs"], expires=int(bench.wall()) + 200)
    bench.enter(APP)
    bench.sleep(100)
    assert not bench.may(APP, "submit")
    assert bench.may(APP, "read_logs")
    assert bench.told(e.StandingChanged, bench.sleep(100))
    assert not bench.may(APP, "read_logs")


# --- looking ------------------------------------------------------------------------------------


def test_grants_are_shown_with_what_became_of_them() -> None:
    bench = Bench()
    now = int(bench.wall())
    bench.grant(serial=1)
    bench.grant(serial=2, expires=now + 100)
    bench.grant(serial=3, start=now + 1000)
    bench.grant(serial=4)
    bench.grant(NEW, OTHER_OWNER, serial=1)
    bench.ask(m.RevokeGrant(1, OWNER.public.text, 4))
    bench.now += 100
    of_app = bench.ask(m.AskGrants(1, APP.public.text)).grants
    states = {row.serial: row.state for row in of_app}
    assert states == {1: "valid", 2: "expired", 3: "early", 4: "revoked"}
    assert len(bench.ask(m.AskGrants(1)).grants) == 5
    for row in of_app:
        assert open_grant(row.envelope, [OWNER.public], HUB.public).serial == row.serial


def test_without_the_right_one_sees_ones_own_grants() -> None:
    bench = Bench()
    bench.approve(APP, NEW)
    bench.grant(APP)
    bench.grant(NEW)
    for app in ("", APP.public.text):
        found = bench.ask(m.AskGrants(1, app), bench.standing(APP)).grants
        assert [row.app for row in found] == [APP.public.text]
    answer = bench.ask(m.AskGrants(1, NEW.public.text), bench.standing(APP))
    fault(answer, "PermissionDenied", Reason.ACTION)
    found = bench.ask(m.AskGrants(1), with_admin(bench)).grants
    assert {row.app for row in found} >= {APP.public.text, NEW.public.text}


def test_grants_of_former_keys_are_ones_own() -> None:
    bench = Bench()
    bench.approve(APP)
    bench.grant(APP)
    bench.enter(NEW, successions=[follows(APP, NEW)])
    for app in ("", APP.public.text, NEW.public.text):
        assert len(bench.ask(m.AskGrants(1, app), bench.standing(NEW)).grants) == 1


def test_the_audit_log_is_read_elsewhere() -> None:
    bench = Bench()
    question = m.AskAudit(1, after=3)
    assert bench.ask(question, bench.standing(OWNER)) is None
    assert bench.effects == [e.ReadAudit("c-9", question)]


# --- what the store holds -----------------------------------------------------------------------


def test_a_kept_grant_is_verified_before_it_counts() -> None:
    """Whoever can write the store cannot make rights."""
    bench = Bench()
    forged = bench.envelope(owner=secret(Kind.OWNER, 9), serial=1)
    good = bench.envelope(NEW, serial=2)
    records = [
        GrantRecord(APP.public.text, OWNER.public.text, 1, forged, "valid", 1.0),
        GrantRecord(APP.public.text, OWNER.public.text, 2, good, "valid", 1.0),
        GrantRecord(APP.public.text, OWNER.public.text, 3, b"nonsense", "valid", 1.0),
        GrantRecord(APP.public.text, secret(Kind.OWNER, 9).public.text, 1, forged, "valid", 1.0),
        GrantRecord(APP.public.text, PROVIDER.public.text, 4, good, "valid", 1.0),
    ]
    keys = [
        PutKey(KeyRecord(key.public.text, key.kind.value, "", "approved", "", 1.0))
        for key in (APP, PROVIDER)
    ]
    bench = Bench(ops=[*keys, *map(PutGrant, records)])
    assert not bench.may(APP, "submit")
    assert {row.state for row in bench.ask(m.AskGrants(1)).grants} == {"revoked"}


def test_an_owner_in_the_store_that_follows_nobody_is_no_owner() -> None:
    stranger = secret(Kind.OWNER, 9)
    record = KeyRecord(stranger.public.text, "owner", "", "approved", "", 1.0)
    bench = Bench(ops=[PutKey(record)])
    assert isinstance(bench.join(stranger), e.TurnedAway)
    answer = bench.ask(m.PutGrant(1, bench.envelope(owner=stranger)))
    fault(answer, "PermissionDenied", Reason.BAD_SIGNATURE)


def test_books_say_what_they_hold() -> None:
    keys = KeyBook([OWNER.public], [])
    assert "keys=1" in repr(keys)
    assert "grants=0" in repr(GrantBook(HUB.public, keys, []))
    assert "GatekeeperState" in repr(Bench().room)
