"""``gu key``: what is kept, what is shown, and what the hub is told."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
import typer

from guactors import messages as m
from guactors.cli import keys
from guactors.errors import UsageError
from guactors.grid_file import remove_grid_file
from guactors.join import parse_join
from guactors.security.key_files import key_path, load_key
from guactors.security.keys import Kind, SecretKey, parse_public
from guactors.security.signing import parse_envelope
from guactors.security.succession import follow
from tests.unit.cli.stand_in_hub import StandIn, gu, make_key, refused
from tests.unit.security.samples import secret

APP, OTHER_APP = secret(Kind.APP), secret(Kind.APP, 2)


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# --- new -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
def test_new_prints_the_public_key_alone(kind: Kind) -> None:
    done = gu("key", "new", kind.value, "--name", "me")
    path = key_path(kind, "me")
    kept = load_key(path, kind)
    assert parse_public(done.line, kind) == kept.public
    assert str(path) in done.err
    for text in (kept.secret.text, kept.transport_secret):
        assert text not in done.out + done.err


@pytest.mark.needs("posix")
def test_a_new_key_is_readable_by_its_user_alone() -> None:
    gu("key", "new", "app")
    path = key_path(Kind.APP, "default")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten() -> None:
    first = gu("key", "new", "app").line
    assert "already" in refused("key", "new", "app")
    assert load_key(key_path(Kind.APP, "default")).public.text == first


def test_an_unknown_kind_is_wrong_usage() -> None:
    assert "owner" in refused("key", "new", "king", status=2)


def test_a_wrong_name_is_refused() -> None:
    assert "name" in refused("key", "new", "app", "--name", "../x")


def test_a_passphrase_of_the_environment_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GU_PASSPHRASE", "correct horse")
    done = gu("key", "new", "signer", "--passphrase")
    assert "horse" not in done.out + done.err
    path = key_path(Kind.SIGNER, "main")
    assert load_key(path).public.text == done.line
    monkeypatch.setenv("GU_PASSPHRASE", "wrong")
    with pytest.raises(UsageError, match="wrong"):
        load_key(path)


def test_a_passphrase_is_asked_for_twice_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def prompt(text: str, **more: object) -> str:
        asked.append(more)
        return "typed"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)
    gu("key", "new", "signer", "--passphrase")
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]
    assert load_key(key_path(Kind.SIGNER, "main"), ask=lambda: "typed")


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert "GU_PASSPHRASE" in refused("key", "new", "signer", "--passphrase")
    assert not key_path(Kind.SIGNER, "main").exists()


# --- show and list -------------------------------------------------------------------------------


def test_show_has_the_public_part_only() -> None:
    made = make_key(Kind.APP, "lab")
    for given in ("lab", str(key_path(Kind.APP, "lab")), made.public.text):
        done = gu("key", "show", given, "--json")
        facts = json.loads(done.out)
        assert facts["key"] == made.public.text
        assert facts["short"] == made.public.short
        assert (facts["kind"], facts["name"], facts["created"]) == ("app", "lab", made.created)
        for given_as in (done.out, gu("key", "show", given).out):
            assert made.secret.text not in given_as
            assert made.transport_secret not in given_as


def test_show_of_a_key_of_somebody_else() -> None:
    facts = json.loads(gu("key", "show", APP.public.text, "--json").out)
    assert facts == {"kind": "app", "short": APP.public.short, "key": APP.public.text}


def test_show_of_the_only_key() -> None:
    assert "no key here" in refused("key", "show")
    made = make_key(Kind.APP, "lab")
    assert made.public.text in gu("key", "show").out
    make_key(Kind.OWNER, "lab")
    assert "2 keys" in refused("key", "show")
    assert "2 keys" in refused("key", "show", "lab")
    assert made.public.text in gu("key", "show", "lab", "--kind", "app").out


def test_a_secret_key_in_the_wrong_place_is_not_repeated(hub: StandIn) -> None:
    for command in (["key", "show"], ["key", "approve"], ["key", "revoke"], ["key", "rotate"]):
        said = refused(*command, APP.text)
        assert "SECRET" in said
        assert APP.text not in said


def test_a_path_to_a_key_of_another_kind() -> None:
    make_key(Kind.APP, "lab")
    path = str(key_path(Kind.APP, "lab"))
    assert "of kind app, not owner" in refused("key", "show", path, "--kind", "owner")


def test_list_shows_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    app, locked = make_key(Kind.APP, "lab"), make_key(Kind.OWNER, "boss", "secret words")
    key_path(Kind.SIGNER, "bad").write_text("{}")
    shown = {row["name"]: row for row in json.loads(gu("key", "list", "--json").out)}
    assert shown["lab"]["public"] == app.public.text
    assert shown["boss"]["public"] == locked.public.text
    assert (shown["lab"]["encrypted"], shown["boss"]["encrypted"]) == (False, True)
    text = gu("key", "list").out
    assert app.public.short in text
    assert "locked" in text
    assert "unusable" in text
    assert app.secret.text not in text


def test_list_of_the_hub(hub: StandIn) -> None:
    hub.knock(APP, "laptop")
    rows = json.loads(gu("key", "list", "--hub", "--json").out)
    row = next(row for row in rows if row["key"] == APP.public.text)
    assert (row["kind"], row["name"], row["state"]) == ("app", "laptop", "pending")
    header, first, *_ = lines(gu("key", "list", "--hub").out)
    assert header.split()[:4] == ["KEY", "KIND", "NAME", "STATE"]
    assert APP.public.short in first, "who waits comes first"


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/x]", "\x1b[31mred", "a\u202eb"])
def test_a_name_that_a_stranger_chose_is_shown_as_it_is(hub: StandIn, name: str) -> None:
    hub.knock(APP, name)
    text = gu("key", "list", "--hub").out
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = name.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert shown in text


# --- who comes to the hub ------------------------------------------------------------------------


def test_the_owner_comes_with_the_key_of_the_join_address(hub: StandIn) -> None:
    make_key(Kind.OWNER, "another")
    gu("key", "list", "--hub")
    gu("key", "list", "--hub", "--address", hub.address)
    assert hub.principals == [hub.owner.public.text] * 2


def test_a_locked_owner_key_is_not_asked_for_here_but_elsewhere(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key_path(Kind.OWNER, "main")
    path.unlink()
    keys.save_key(path, hub.owner, "words")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    gu("key", "list", "--hub")
    assert hub.principals == ["local"]
    assert "GU_PASSPHRASE" in refused("key", "list", "--hub", "--address", hub.address)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "words")
    gu("key", "list", "--hub", "--address", hub.address)
    assert hub.principals[1:] == [hub.owner.public.text]
    assert "GU_PASSPHRASE" not in os.environ


def test_another_key_may_be_chosen(hub: StandIn) -> None:
    app = make_key(Kind.APP, "lab")
    assert "approve" in refused("key", "list", "--hub", "--key", "lab")
    hub.approve(app.secret)
    assert "no_grant" in refused("key", "list", "--hub", "--key", "lab")
    assert "named 'none'" in refused("key", "list", "--hub", "--key", "none")


# --- approve and revoke --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [lambda k: k.text, lambda k: k.short, lambda k: k.short[:-2], lambda k: k.text[:20]]
)
def test_approve_by_any_form_of_the_key(hub: StandIn, form: object) -> None:
    hub.knock(APP)
    hub.knock(OTHER_APP)
    assert callable(form)
    assert gu("key", "approve", form(APP.public), "--name", "lab").line == APP.public.text
    row = hub.rows()[APP.public.text]
    assert (row.state, row.name, row.by) == ("approved", "lab", hub.owner.public.text)
    assert hub.rows()[OTHER_APP.public.text].state == "pending"


def test_approve_by_name_prints_the_whole_key(hub: StandIn) -> None:
    hub.knock(APP, "laptop")
    assert gu("key", "approve", "laptop").line == APP.public.text
    assert "already" in gu("key", "approve", "laptop").err


def test_two_of_a_name_are_refused_with_the_candidates(hub: StandIn) -> None:
    hub.knock(APP, "laptop")
    hub.knock(OTHER_APP, "laptop")
    said = refused("key", "approve", "laptop")
    assert APP.public.text in said
    assert OTHER_APP.public.text in said
    assert {hub.rows()[key.public.text].state for key in (APP, OTHER_APP)} == {"pending"}


@pytest.mark.parametrize("given", ["nobody", "gu_app_", "gu_", "", "gu_app_zzzz", "gu_provider_a"])
def test_what_means_no_key_is_refused(hub: StandIn, given: str) -> None:
    hub.knock(APP, "laptop")
    assert "no key is known" in refused("key", "approve", given)


def test_a_mistyped_key_is_no_prefix(hub: StandIn) -> None:
    text = APP.public.text
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    hub.knock(APP)
    refused("key", "approve", wrong)
    assert "cut short" in refused("key", "approve", text[:-1])
    assert hub.rows()[text].state == "pending"


def test_a_key_may_be_approved_before_it_comes(hub: StandIn) -> None:
    gu("key", "approve", APP.public.text)
    assert hub.rows()[APP.public.text].state == "approved"


def test_revoke(hub: StandIn) -> None:
    hub.approve(APP, "laptop")
    gu("key", "revoke", "laptop", "--running", "finish", "--reason", "it was stolen")
    row = hub.rows()[APP.public.text]
    assert (row.state, row.reason) == ("revoked", "it was stolen")
    question = hub.asked[-1]
    assert isinstance(question, m.RevokeKey)
    assert question.running == "finish"
    gu("key", "revoke", "laptop", "--running", "finish")
    assert "never come back" in refused("key", "approve", APP.public.text)


def test_a_living_key_of_the_name_goes_before_a_revoked_one(hub: StandIn) -> None:
    hub.approve(APP, "laptop")
    gu("key", "revoke", APP.public.short)
    hub.approve(OTHER_APP, "laptop")
    assert gu("key", "revoke", "laptop").line == OTHER_APP.public.text


def test_what_becomes_of_running_work_has_two_words(hub: StandIn) -> None:
    assert "finish" in refused("key", "revoke", "x", "--running", "pause", status=2)


# --- invite --------------------------------------------------------------------------------------


def test_invite_prints_the_join_address_with_the_invitation(hub: StandIn) -> None:
    done = gu("key", "invite", "provider", "--name", "box", "--for", "2h")
    join = parse_join(done.line)
    assert join.invitation
    assert join.invitation not in done.err
    assert done.line.startswith(hub.address + "&invite=")
    question = hub.asked[-1]
    assert isinstance(question, m.MakeInvitation)
    assert (question.role, question.name, question.seconds) == ("provider", "box", 7200.0)
    hub.bench.enter(secret(Kind.PROVIDER), invitation=join.invitation)


def test_the_invitation_of_the_address_itself_is_not_passed_on(hub: StandIn) -> None:
    gu("key", "invite", "app")
    done = gu("key", "invite", "app", "--address", hub.address)
    assert done.line.count("&invite=") == 1


@pytest.mark.parametrize("time", ["10", "ten minutes", "-1m", "1y", "", "1e3s"])
def test_a_wrong_duration_is_wrong_usage(hub: StandIn, time: str) -> None:
    assert "duration" in refused("key", "invite", "app", "--for", time, status=2)


def test_an_invitation_has_an_end(hub: StandIn) -> None:
    assert "at most" in refused("key", "invite", "app", "--for", "52w")
    assert "provider" in refused("key", "invite", "owner", status=2)


# --- rotate --------------------------------------------------------------------------------------


def old_file(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def test_rotate_changes_the_transport_keys_alone() -> None:
    before = make_key(Kind.APP, "lab")
    path = key_path(Kind.APP, "lab")
    done = gu("key", "rotate", "lab")
    after = load_key(path)
    assert done.line == before.public.text
    assert after.secret == before.secret
    assert after.transport_secret != before.transport_secret
    assert load_key(old_file(path)) == before
    if sys.platform != "win32":
        assert stat.S_IMODE(old_file(path).stat().st_mode) == 0o600
    assert after.transport_secret not in done.out + done.err


def identity(hub: StandIn, kind: Kind, name: str) -> tuple[SecretKey, SecretKey]:
    before = load_key(key_path(kind, name))
    done = gu("key", "rotate", name, "--kind", kind.value, "--identity")
    after = load_key(key_path(kind, name))
    assert done.line == after.public.text
    assert follow(after.succession, before.public) == after.public
    assert load_key(old_file(key_path(kind, name))) == before
    return before.secret, after.secret


def test_a_new_identity_is_told_to_the_hub(hub: StandIn) -> None:
    hub.approve(make_key(Kind.APP, "lab").secret, "lab")
    before, after = identity(hub, Kind.APP, "lab")
    rows = hub.rows()
    assert rows[after.public.text].state == "approved"
    assert rows[after.public.text].name == "lab"
    assert rows[before.public.text].state == "revoked"
    put = hub.asked[-1]
    assert isinstance(put, m.PutSuccession)
    parse_envelope(put.envelope, "it")


def test_a_new_owner_goes_on_as_owner(hub: StandIn) -> None:
    _, after = identity(hub, Kind.OWNER, "main")
    gu("key", "approve", APP.public.text)
    assert hub.principals[-1] == after.public.text
    assert hub.rows()[APP.public.text].state == "approved"
    gu("key", "list", "--hub", "--address", hub.address)
    assert hub.principals[-1] == after.public.text


def test_nothing_changes_if_the_hub_does_not_know_the_key(hub: StandIn) -> None:
    before = make_key(Kind.APP, "lab")
    path = key_path(Kind.APP, "lab")
    assert "approve" in refused("key", "rotate", "lab", "--identity")
    assert load_key(path) == before
    assert not old_file(path).exists()


def test_without_a_hub_an_owner_stays_who_it_is(hub: StandIn) -> None:
    remove_grid_file(os.getpid())
    assert "--address" in refused("key", "rotate", "main", "--identity")
    assert load_key(key_path(Kind.OWNER, "main")) == hub.owner


def test_without_a_hub_others_tell_it_later(hub: StandIn) -> None:
    hub.approve(make_key(Kind.APP, "lab").secret)
    remove_grid_file(os.getpid())
    before, after = identity(hub, Kind.APP, "lab")
    assert after.public.text not in hub.rows()
    hub.dial(load_key(key_path(Kind.APP, "lab")))
    assert hub.rows()[after.public.text].state == "approved"
    assert hub.rows()[before.public.text].state == "revoked"


def test_a_signer_is_not_sent_to_the_hub(hub: StandIn) -> None:
    make_key(Kind.SIGNER, "me")
    identity(hub, Kind.SIGNER, "me")
    assert not any(isinstance(question, m.PutSuccession) for question in hub.asked)


def test_a_hub_stays_who_it_is() -> None:
    before = make_key(Kind.HUB)
    assert "stays who it is" in refused("key", "rotate", "main", "--identity")
    gu("key", "rotate", "main")
    assert load_key(key_path(Kind.HUB, "main")).public == before.public


def test_a_locked_key_stays_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(Kind.SIGNER, "me", "words")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "words")
    gu("key", "rotate", "me", "--identity")
    path = key_path(Kind.SIGNER, "me")
    with pytest.raises(UsageError, match="locked"):
        load_key(path)
    assert load_key(path, ask=lambda: "words").succession
