"""``gu audit``: the newest entries as asked for, and the check of the whole log; times as people
write them."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from guactors.cli import audit, authority
from guactors.security.audit import Chain, Draft
from guactors.security.key_files import key_path
from guactors.security.keys import Kind
from tests.unit.cli.stand_in_hub import StandIn, gu, make_key, refused
from tests.unit.security.samples import secret

APP = secret(Kind.APP)


def numbers(*args: str) -> list[int]:
    return [entry["number"] for entry in json.loads(gu("audit", *args, "--json").out)]


@pytest.fixture
def quiet(hub: StandIn) -> StandIn:
    """A hub to which this user comes without a key, which it does not note."""
    key_path(Kind.OWNER, "main").unlink()
    return hub


@pytest.fixture
def log(quiet: StandIn) -> StandIn:
    """Five entries."""
    hub = quiet
    hub.record(APP.public.text, "submit", time=time.time() - 7200)
    hub.record(APP.public.text, "submit", "refused", reason="quota")
    hub.record("local", "approve")
    hub.record(hub.owner.public.text, "revoke", object="something")
    hub.record("local", "submit", "refused", reason="no_grant")
    return hub


# --- reading -------------------------------------------------------------------------------------


def test_the_newest_come_last(log: StandIn) -> None:
    assert numbers() == [1, 2, 3, 4, 5]
    assert numbers("--limit", "2") == [4, 5]
    header, *lines = gu("audit", "--limit", "2").out.strip().splitlines()
    assert header.split()[:3] == ["#", "TIME", "WHO"]
    assert [line.split()[0] for line in lines] == ["4", "5"]
    assert log.owner.public.short in lines[0]
    assert "no_grant" in lines[1]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--who", APP.public.text], [1, 2]),
        (["--who", "local"], [3, 5]),
        (["--action", "revoke"], [4]),
        (["--decision", "refused"], [2, 5]),
        (["--reason", "quota"], [2]),
        (["--since", "1h"], [2, 3, 4, 5]),
        (["--since", "2001-01-01"], [1, 2, 3, 4, 5]),
        (["--who", "local", "--decision", "refused"], [5]),
        (["--action", "none"], []),
    ],
)
def test_filters(log: StandIn, filters: list[str], found: list[int]) -> None:
    assert numbers(*filters) == found


def test_who_may_be_a_name_or_the_short_form(log: StandIn) -> None:
    log.approve(APP, "laptop")
    assert numbers("--who", "laptop", "--action", "submit") == [1, 2]
    assert numbers("--who", APP.public.short, "--action", "submit") == [1, 2]
    assert "no key is known" in refused("audit", "--who", "gu_app_zzzzzz")


@pytest.mark.parametrize(
    "wrong", [["--since", "yesterday"], ["--decision", "maybe"], ["--limit", "0"]]
)
def test_wrong_filters_are_wrong_usage(log: StandIn, wrong: list[str]) -> None:
    refused("audit", *wrong, status=2)


def test_more_than_one_page(quiet: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    for _ in range(10):
        quiet.record("local")
    assert numbers() == list(range(1, 11))
    assert numbers("--limit", "7") == list(range(4, 11))


def test_without_the_right_there_is_nothing_to_read(log: StandIn) -> None:
    mine = make_key(Kind.APP, "lab")
    log.approve(mine.secret)
    assert "no_grant" in refused("audit", "--key", "lab")


def test_an_entry_is_one_line_and_never_cut(log: StandIn) -> None:
    log.record("local", "submit", detail="word " * 80)
    header, *lines = gu("audit").out.splitlines()
    assert len(lines) == len(numbers())
    assert lines[-1].endswith(("word " * 80).strip())
    assert lines[-1].index("word") == header.index("DETAIL")


def test_what_a_terminal_would_obey_is_escaped(hub: StandIn) -> None:
    # As a log that another program wrote might have it: ours escapes at the start.
    line = '{"number":1,"time":0,"who":"\\u001b[2J","action":"[/x]","decision":"allowed",'
    line += '"reason":"\\u202e","object":"","where":"","detail":"","grant":0,"epoch":0,'
    line += f'"previous":"{"0" * 64}","hash":"{"0" * 64}"}}\n'
    hub.log.write_text(line)
    text = gu("audit").out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[/x]" in text


def test_follow_goes_on_with_what_is_new(log: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter([1, 2])

    def nap(seconds: float) -> None:
        assert seconds == audit.LOOK_EVERY
        if next(naps, None) is None:
            raise KeyboardInterrupt
        log.record("local", "submit")
        log.record("local", "approve")

    monkeypatch.setattr(time, "sleep", nap)
    done = gu("audit", "--follow", "--limit", "1", "--action", "submit", "--json", status=130)
    found = [json.loads(line)["number"] for line in done.out.strip().splitlines()]
    assert found == [5, 6, 8]


def test_follow_of_nothing_begins_at_the_end(log: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def nap(seconds: float) -> None:
        if any(question.after > 6 for question in log.asked):
            raise KeyboardInterrupt
        log.record("local", "wanted")

    monkeypatch.setattr(time, "sleep", nap)
    done = gu("audit", "--follow", "--action", "wanted", status=130)
    assert [line.split()[0] for line in done.out.strip().splitlines()] == ["6", "7"]


# --- verify --------------------------------------------------------------------------------------


@pytest.fixture
def file(gu_home: Path) -> Path:
    """The log of this user's hub, with three entries."""
    path = gu_home / "hub" / "audit.log"
    path.parent.mkdir(parents=True)
    chain = Chain()
    drafts = (Draft(1.0, "local", f"action-{n}", "allowed", "allowed") for n in range(3))
    path.write_bytes(b"".join(map(chain.append, drafts)))
    return path


def test_verify_tells_the_end_of_the_chain(file: Path) -> None:
    head = gu("audit", "verify").line
    number, _, found = head.partition(":")
    last = json.loads(file.read_text().splitlines()[-1])
    assert (int(number), found) == (3, last["hash"])
    assert json.loads(gu("audit", "verify", "--json").out) == {"number": 3, "hash": found}
    assert gu("audit", "verify", "--file", str(file)).line == head


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0], lines[2]], "line 2"),
        (lambda lines: [lines[0], lines[1].replace("action-1", "action-7"), lines[2]], "line 2"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1"),
        (lambda lines: [*lines, lines[2]], "line 4"),
        (lambda lines: lines[1:], "line 1"),
        (lambda lines: [*lines[:2], lines[2][:-9]], "line 3"),
        (lambda lines: [lines[0], "\n", *lines[1:]], "line 2"),
    ],
)
def test_verify_names_the_first_bad_line(file: Path, change: object, said: str) -> None:
    assert callable(change)
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))
    line = refused("audit", "verify")
    assert f"{said} of {file.name} is broken" in line


def test_verify_after_older_files_were_archived(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0])
    head = gu("audit", "verify").line
    file.write_text("".join(lines[1:]))
    refused("audit", "verify")
    assert gu("audit", "verify", "--after", head).line.startswith("3:")
    refused("audit", "verify", "--after", "3", status=2)


def test_there_must_be_a_log(gu_home: Path) -> None:
    assert "there is no audit log" in refused("audit", "verify")


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("2w", 1209600), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert authority.parse_span(text) == seconds
    assert authority.parse_moment(text, 1e6) == 1e6 + seconds
    assert authority.parse_moment(text, 1e6, ago=True) == 1e6 - seconds


@pytest.mark.parametrize("text", ["2031-05-01", "2031-05-01T12:30", "2031-05-01 12:30:05"])
def test_dates_are_of_this_time_zone(text: str) -> None:
    assert authority.parse_moment(text, 0.0) == datetime.fromisoformat(text).timestamp()


def test_dates_may_name_their_time_zone() -> None:
    found = authority.parse_moment("2031-05-01T12:30+00:00", 0.0)
    assert found == datetime(2031, 5, 1, 12, 30, tzinfo=UTC).timestamp()


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    with suppress(typer.BadParameter):
        assert isinstance(authority.parse_moment(text, 0.0), float)


@given(st.floats(-1e300, 1e300))
def test_every_time_can_be_shown(epoch: float) -> None:
    assert authority.date(epoch)
