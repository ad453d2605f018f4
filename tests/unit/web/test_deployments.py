"""What routes and commands of deployments ask, and what they make of the answers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from guactors import errors, values
from guactors import messages as m
from guactors.deployment import Facts, Finished
from guactors.errors import TaskError, UsageError
from guactors.web import commands, deputy
from guactors.web.deployment_forms import DeploymentForm, shown
from guactors.web.deputy import Kept
from tests.unit.web.bench import IMAGE, KEY, TOKEN, Door

AT = "/sessions/s-1/peers/box/deployments"
FORM = {"envType": "hd", "image": {"url": "", "hash": IMAGE}, "name": "w", "tags": []}


class FakeDeployment:
    """As guactors.deployment.Deployment. ``says``: what programs say; ``fails``: what is raised."""

    def __init__(self) -> None:
        self.state = "running"
        self.says: list[tuple[str, Any]] = [("out", b"hi\n"), ("exit", 0)]
        self.fails: Exception | None = None
        self.done: list[Any] = []
        self.ended: dict[int, Finished | None] = {}

    def _note(self, *what: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.done.append(what)

    def facts(self) -> Facts:
        self._note("facts")
        return Facts(self.state, "closed", "w", [], "native", IMAGE, 0, False)

    def programs(self) -> dict[int, Finished | None]:
        return self.ended

    def exec(self, argv: list[str], **how: Any) -> Iterator[tuple[str, Any]]:
        self._note("exec", argv, how)
        yield from self.says

    def start(self, argv: list[str], **how: Any) -> int:
        self._note("start", argv, how)
        return 7

    def wait(self, number: int, timeout: float | None = None) -> Finished | None:
        self._note("wait", number)
        return self.ended.get(number)

    def signal(self, number: int, sent: int) -> None:
        self._note("signal", number, int(sent))

    def put(self, path: str, data: Any, *, tar: bool = False) -> None:
        self._note("put", path, data if isinstance(data, bytes) else b"".join(data), tar)

    def get(self, path: str, *, tar: bool = False) -> Iterator[bytes]:
        self._note("get", path, tar)
        yield b"one"
        yield b"two"

    def change_tags(self, add: Any = (), remove: Any = ()) -> list[str]:
        self._note("tags", list(add), list(remove))
        return []

    def stop(self, grace: float) -> None:
        self._note("stop", grace)


class FakeDeputy:
    def __init__(self) -> None:
        self.it = FakeDeployment()
        self.kept = {"hd::1": Kept("hd::1", "p-1", "box", "", self.it)}  # type: ignore[arg-type]
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.ended: list[str] = []

    def deploy(self, *asked: Any) -> Kept:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.kept["hd::1"]

    def kept_at(self, node: str) -> list[Kept]:
        return [one for one in self.kept.values() if one.is_at(node)]

    def end(self, kept: Kept, _grace: float) -> None:
        self.ended.append(kept.id)


@pytest.fixture
def door() -> Door:
    made = Door()
    rows = [m.SessionRow("s-1", KEY, "mine", 1, 0.0), m.SessionRow("s-2", "gu_app_two", "", 1, 0.0)]
    made.hub.says(m.AskSessions, m.SessionList(1, rows))
    peers = [
        m.PeerInfo(peer, role, name, state, "", 1, 0.0, 0.0)
        for peer, role, name, state in (
            ("p-1", "provider", "box", "up"),
            ("p-2", "provider", "gone", "lost"),
            ("c-1", "caller", "me", "up"),
        )
    ]
    made.hub.says(m.AskGrid, m.Grid(1, m.GridInfo("h-1", "0", 0.0, peers, 0, 0, 0, [])))
    made.hub.says(m.AskImage, m.ImageIs(1, b"", b""))
    made.deputies.deputies["s-1"] = made.deputies.deputies["s-2"] = FakeDeputy()
    return made


def of(door: Door) -> FakeDeputy:
    found: FakeDeputy = door.deputies.deputies["s-1"]
    return found


# --- making ---------------------------------------------------------------------------------------


def test_golems_words_become_ours(door: Door) -> None:
    form = {
        **FORM, "envType": "vm", "tags": ["a"], "note": "n", "options": {"autostart": True},
        "limits": {"mem": 100, "cpus": 0.5, "pids": 3, "disk": 0, "wall": 2.5}, "env": {"A": "1"},
        "cpus": 2, "priority": 3, "seconds": 5, "preemption": ["suspend", "stop"], "minRuntime": 4,
        "maxSuspended": 9.5, "grace": 2,
    }  # fmt: skip
    form["image"] = {"url": "http://hub/repo/x", "hash": IMAGE.upper().replace("SHA3-256", "SHA3")}
    reply = door("POST", AT, form)
    assert (reply.status, reply.json()) == (201, "hd::1")
    assert reply.headers["location"] == f"{AT}/hd::1"
    [(kind, node, note, options, given, within)] = of(door).asked
    assert (kind, node, note, within) == ("vm", ("p-1", "box"), "n", 5.0)
    assert options == {
        "runtime": "qemu", "image": IMAGE, "num_cpus": 2.0, "memory": 0.0, "priority": 3,
        "preemption": ["suspend", "stop"], "min_runtime": 4.0, "max_suspended": 9.5,
        "grace": 2.0,
    }  # fmt: skip
    limits = {"memory": 100, "cpu": 0.5, "pids": 3, "wall": 2.5}
    assert given == {"limits": limits, "env": {"A": "1"}, "name": "w", "tags": ["a"]}
    assert ("", m.AskSessions(0, TOKEN)) in door.hub.asked
    assert (KEY, m.AskImage(0, IMAGE, TOKEN)) in door.hub.asked


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.PermissionDenied("no grant"), 403),
        (errors.Unschedulable("nobody has it"), 409),
        (errors.GetTimeout("late"), 409),
        (errors.ImageRefused("a wrong hash"), 424),
        (errors.RuntimeMissing("no docker"), 500),
        (errors.UsageError("no such limit"), 400),
        (errors.ActorDied("the machine is gone"), 502),
        (errors.AuthFailed("session s-1 is none of yours"), 404),
        (errors.SessionClosed("it has ended"), 404),
        (errors.MailboxFull("later"), 429),
        (errors.HubUnreachable("nobody there"), 503),
    ],
)
def test_what_prevents_it_has_its_status(door: Door, error: Exception, status: int) -> None:
    of(door).error = error
    assert door("POST", AT, FORM).status == status


@pytest.mark.parametrize(
    "changes",
    [{"envType": ""}, {"image": {}, "extra": 1}, {"tags": None}, {"name": 5},
     {"limits": {"mem": -1}}, {"options": {"net": {"host": {}}}}, {"seconds": 0}, {"cpus": -1}],
)  # fmt: skip
def test_a_bad_form_is_refused(door: Door, changes: dict[str, Any]) -> None:
    assert door("POST", AT, {**FORM, **changes}).status == 400
    assert not of(door).asked


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", 10**100), ("priority", 1.5), ("preemption", ["pause"]),
     ("preemption", ["never", "stop"]), ("minRuntime", -1), ("minRuntime", 1e100),
     ("maxSuspended", -0.5), ("maxSuspended", "9"), ("grace", -2)],
)  # fmt: skip
def test_absurd_terms_are_refused_by_their_names(door: Door, field: str, value: Any) -> None:
    reply = door("POST", AT, {**FORM, field: value})
    assert reply.status == 400 and field in reply.json()["detail"]
    assert not of(door).asked


@pytest.mark.parametrize("named", ["", "sha1:" + "a" * 40, IMAGE + "0", "ubuntu:latest"])
def test_images_are_named_by_their_id(door: Door, named: str) -> None:
    reply = door("POST", AT, {**FORM, "image": {"url": "http://x/y", "hash": named}})
    assert reply.status == 422
    assert "gu image push" in reply.json()["detail"]


def test_an_image_that_is_not_the_bearers_is_missing(door: Door) -> None:
    door.hub.says(m.AskImage, errors.ImageRefused("no image of that id is here for you"))
    assert door("POST", AT, FORM).status == 424
    assert not of(door).asked


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [AT.replace("s-1", "s-2") + "/hd::1", AT.replace("s-1", "s-9") + "/hd::1", f"{AT}/hd::2",
     AT.replace("box", "other") + "/hd::1"],
)  # fmt: skip
def test_what_is_not_the_bearers_own_is_not_there(door: Door, method: str, path: str) -> None:
    reply = door(method, path, ["open"] if method == "PATCH" else None)
    assert reply.status == 404
    assert not of(door).it.done
    assert not of(door).ended


@pytest.mark.parametrize("node", ["nobody", "gone", "me"])
def test_peers_are_providers_that_are_there(door: Door, node: str) -> None:
    assert door("GET", f"/peers/{node}/deployments").status == 404
    assert door("POST", AT.replace("box", node), FORM).status == 404


# --- listing, commands, files, the end ------------------------------------------------------------


@pytest.mark.parametrize("node", ["box", "p-1"])
def test_they_are_listed(door: Door, node: str) -> None:
    row = {"id": "hd::1", "name": "w", "status": "created", "tags": [], "note": None,
           "processes": {}}  # fmt: skip
    assert door("GET", AT.replace("box", node)).json() == [row]
    assert door("GET", f"/peers/{node}/deployments").json() == [row]
    assert door("GET", f"/peers/{node}/deployments/hd::1").json() == row
    of(door).it.fails = errors.ActorDied("gone")
    assert door("GET", AT).json() == []
    assert door("GET", f"{AT}/hd::1").status == 502


@pytest.mark.parametrize(
    ("facts", "status"),
    [(("created", 0, False), "created"), (("running", 1, True), "running"),
     (("running", 0, True), "configured"), (("paused", 0, False), "created"),
     (("paused", 2, True), "running"), (("ended", 0, True), "destroying")],
)  # fmt: skip
def test_golems_states(facts: tuple[str, int, bool], status: str) -> None:
    state, count, ran = facts
    found = Facts(state, "", "w", [], "native", IMAGE, count, ran)
    assert shown("hd::1", "", found, {1: None, 2: Finished(0)}).status == status


def test_commands_and_their_answers(door: Door) -> None:
    it = of(door).it
    it.ended = {7: None}
    asked = [
        "open", {"exec": {"executable": "/x", "args": ["1"], "working_dir": "/d"}},
        {"start": {"executable": "/y", "args": []}}, {"stop": {"childId": "7"}},
        {"writeFile": {"content": "é", "filePath": "f"}}, {"addTags": ["a"]}, "close",
    ]  # fmt: skip
    reply = door("PATCH", f"{AT}/hd::1", asked)
    assert (reply.status, reply.json()) == (200, ["OK", "hi\n", "7", "OK", "OK", "OK", "OK"])
    how = {"env": {}, "cwd": "/d", "user": ""}
    assert it.done[1:] == [
        ("exec", ["/x", "1"], how), ("start", ["/y"], {**how, "cwd": ""}),
        ("signal", 7, 15), ("wait", 7), ("signal", 7, 9), ("wait", 7),
        ("put", "f", "é".encode(), False), ("tags", ["a"], []), ("stop", 5.0),
    ]  # fmt: skip


def run(it: FakeDeployment, *asked: Any) -> tuple[list[str], bool]:
    return commands.run(it, commands.parse(list(asked)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("code", "number"), [(3, 3), (-9, 137)])
def test_a_program_that_fails(code: int, number: int) -> None:
    it = FakeDeployment()
    it.says = [("out", b"a\xff"), ("err", b"b"), ("exit", code)]
    told = run(it, {"exec": {"executable": "/x"}}, "open")
    assert told == ([f"a\ufffdb\nExit code: {number}"], True)


def test_output_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST_OUTPUT", 10)
    it = FakeDeployment()
    it.says = [("out", b"123456"), ("err", b"789012"), ("exit", 0)]
    once = {"exec": {"executable": "/x"}}
    [first, second], failed = run(it, once, once)
    assert (first[:10], failed) == ("1234567890", False)
    assert "more" in first
    assert second.startswith("\n[")


def told_of(error: Exception) -> BaseException:
    """As it comes from a worker."""
    found = values.unpack_error(values.pack_error(error, "Deployment.start"))
    assert isinstance(found, TaskError)
    return found


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.InstanceLost("the instance has ended"), "the instance has ended"),
        (errors.UsageError("no such file"), "no such file"),
        (told_of(OSError("full")), "OSError: full"),
    ],
)  # fmt: skip
def test_errors_of_commands_are_told_without_their_story(error: Exception, text: str) -> None:
    it = FakeDeployment()
    it.fails = error
    assert run(it, {"start": {"executable": "/x"}}) == ([text], True)


def test_nobody_there_is_no_answer(door: Door) -> None:
    of(door).it.fails = errors.ActorDied("its machine is gone")
    assert door("PATCH", f"{AT}/hd::1", ["open"]).status == 502


@pytest.mark.parametrize(
    "asked",
    [None, {}, "open", ["fly"], [None], [{"exec": {}}], [{"exec": {"executable": ""}}],
     [{"exec": {"executable": "/x"}, "open": {}}], [{"stop": {"childId": "-1"}}],
     [{"stop": {"childId": "²"}}], [{"addTags": "a"}], [{"delTags": [1]}], ["open"] * 1001],
)  # fmt: skip
def test_what_is_no_command(asked: Any) -> None:
    with pytest.raises(UsageError):
        commands.parse(asked)


def test_nothing_is_fetched_from_addresses() -> None:
    it = FakeDeployment()
    for name in ("downloadFile", "uploadFile"):
        given = {"uri": "http://169.254.169.254/", "filePath": "x", "format": "raw"}
        [text], failed = run(it, {name: given})
        assert failed
        assert "/files?path=" in text
    assert not it.done


def test_files(door: Door) -> None:
    door.stays = True
    files = f"{AT}/hd::1/files"
    assert door("PUT", f"{files}?path=/a", chunks=[b"on", b"e"],
                content_type="application/octet-stream").status == 204  # fmt: skip
    reply = door("GET", f"{files}?path=/a&format=tar")
    assert (reply.status, reply.body) == (200, b"onetwo")
    assert of(door).it.done == [("put", "/a", b"one", False), ("get", "/a", True)]
    assert door("PUT", files, b"x").status == 400
    of(door).it.fails = UsageError("'..' leads out of the instance")
    assert door("GET", f"{files}?path=..").status == 400
    assert door("PUT", f"{files}?path=..", b"x").status == 400


def test_the_end(door: Door) -> None:
    assert door("DELETE", f"{AT}/hd::1").status == 204
    assert of(door).ended == ["hd::1"]
    door.hub.says(m.CloseSession, m.Done(1))
    assert door("DELETE", "/sessions/s-1").status == 204
    assert door.deputies.left == ["s-1"]


# --- what comes from workers ----------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return print, ("opened",)


def test_the_door_opens_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "openers", values.Openers())
    deputy._open_data_only()
    assert values.unpack(pickle.dumps({"a": [b"x", 1]})) == {"a": [b"x", 1]}
    with pytest.raises(errors.AuthFailed, match="no plain data"):
        values.unpack(pickle.dumps(Evil()))
    with pytest.raises(errors.AuthFailed, match="no plain data"):
        values.unpack_error(pickle.dumps(Evil()))
    found = values.unpack_error(values.pack_error(UsageError("no"), "f"))
    assert type(found) is UsageError


def test_the_form_has_no_other_words() -> None:
    form = DeploymentForm.model_validate({**FORM, "envType": "firecracker"})
    assert form.runtime() == "firecracker"
    assert form.given()["limits"] == {}
