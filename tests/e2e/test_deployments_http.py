"""Deployments over HTTP on a real grid: what an app with a token and a signature may do, and what
it gets where it may not."""

from __future__ import annotations

import http.client
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from guactors.security.key_files import load_key
from guactors.security.statements import HELLO_TYPE, make_statement
from tests import leaks
from tests.e2e.deployed import UPLOADS, new_store, shell_image, upload
from tests.e2e.keyed_grid import KeyedGrid, b64, until
from tests.e2e.test_deployments import processes_with

pytestmark = [
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("posix", "linux", "busybox", "bwrap", "module:fastapi"),
]


class Site:
    """A grid with two apps: one that may use ``image``, another that may nothing but ask."""

    def __init__(self, grid: KeyedGrid, path: Path) -> None:
        store = new_store(path)
        self.grid = grid
        self.image, self.other = shell_image(store, path), shell_image(store, path, "2")
        grid.add_provider("box")
        first = grid.add_app(runtimes=["native"], image_hashes=[self.image, self.other],
                             actions=UPLOADS)  # fmt: skip
        for image in (self.image, self.other):
            upload(grid, first, store, image)
        self.app = grid.add_app(runtimes=["native"], image_hashes=[self.image], actions=UPLOADS)
        self.poor = grid.add_app(runtimes=["python"], actions=UPLOADS)


class Client:
    """An app by HTTP, with a session that it signed unless told otherwise."""

    def __init__(self, site: Site, app: Path, *, signs: bool = True) -> None:
        self.site, self.grid = site, site.grid
        self.key = load_key(app)
        self.token = self.grid.token(app)
        reply = self("POST", "/sessions", {"name": "rest", "seconds": 600})
        self.session = json.loads(reply[1])["id"]
        self.at = f"/sessions/{self.session}/peers/box/deployments"
        if signs:
            assert self.sign() == 204

    def sign(self, **changes: Any) -> int:
        fields = {
            "hub": self.grid.join.hub, "key": self.key.public.text, "link": "", "nonce": b"",
            "peer": "", "role": "caller", "session": self.session, "transport": "",
            "at": time.time(),
        }  # fmt: skip
        statement = make_statement(**{**fields, **changes})
        signature = self.key.secret.sign(HELLO_TYPE, statement)
        form = {"statement": b64(statement), "signature": b64(signature)}
        return self("POST", f"/sessions/{self.session}/warrant", form)[0]

    def __call__(
        self, method: str, path: str, body: Any = None, within: float = 60.0
    ) -> tuple[int, bytes, dict[str, str]]:
        headers = {"Authorization": self.token}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.grid.http_port, timeout=within)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, text, _ = self(method, path, body)
        return status, json.loads(text) if text else None

    def create(self, **changes: Any) -> tuple[int, Any]:
        form = {
            "envType": "hd", "image": {"url": "", "hash": self.site.image}, "name": "w",
            "tags": ["a"], **changes,
        }  # fmt: skip
        return self.json("POST", self.at, form)

    def made(self, **changes: Any) -> str:
        status, id = self.create(**changes)
        assert status == 201, id
        return f"{self.at}/{id}"

    def close(self) -> None:
        self("DELETE", f"/sessions/{self.session}")


@pytest.fixture(scope="module")
def site(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    (run_root / "rest").mkdir(mode=0o700)
    with KeyedGrid(run_root / "rest") as grid:
        yield Site(grid, tmp_path_factory.mktemp("rest"))


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    client = Client(site, site.app)
    yield client
    client.close()


SH = {"executable": "/bin/sh", "args": ["-c", "echo out; echo err >&2; exit ${CODE:-0}"]}


def test_from_the_beginning_to_the_end(client: Client) -> None:
    status, id = client.create(note="n", env={"CODE": "0"})
    assert status == 201, id
    assert id.startswith("hd::")
    path = f"{client.at}/{id}"
    shown = {"id": id, "name": "w", "status": "created", "tags": ["a"], "note": "n",
             "processes": {}}  # fmt: skip
    assert client.json("GET", path) == (200, shown)
    assert client.json("GET", client.at) == (200, [shown])
    assert client.json("GET", "/peers/box/deployments") == (200, [shown])
    assert client.json("GET", f"/peers/box/deployments/{id}") == (200, shown)
    status, told = client.json(
        "PATCH",
        path,
        [
            "open",
            {"writeFile": {"content": "k=1", "filePath": "data/conf"}},
            {"exec": {"executable": "/bin/cat", "args": ["conf"], "working_dir": "/data"}},
            {"exec": SH},
            {"addTags": ["b"]},
            {"delTags": ["a"]},
            {"start": {"executable": "/bin/sleep", "args": ["600"]}},
        ],
    )
    assert (status, told[:3], told[4:]) == (200, ["OK", "OK", "k=1"], ["OK", "OK", "1"])
    assert sorted(told[3].split()) == ["err", "out"]
    _, shown = client.json("GET", path)
    assert (shown["status"], shown["tags"]) == ("running", ["b"])
    assert shown["processes"] == {"1": {"tags": []}}
    stop = [{"stop": {"childId": "1"}}, "wait"]
    assert client.json("PATCH", path, stop) == (200, ["OK", "OK"])
    assert client.json("GET", path)[1]["status"] == "configured"
    assert client("DELETE", path)[0] == 204
    assert client("DELETE", path)[0] == 404
    assert client("GET", path)[0] == 404
    assert client.json("GET", client.at) == (200, [])


def test_a_command_that_fails_is_the_last(client: Client) -> None:
    path = client.made()
    bad = {"exec": {**SH, "env": {"CODE": "3"}}}
    status, body, headers = client("PATCH", path, [{"exec": SH}, bad, {"exec": SH}])
    told = json.loads(body)
    assert (status, headers["x-processing-error"], len(told)) == (500, "1", 2)
    assert headers["content-type"] == "application/json"
    assert told[1].endswith("\nExit code: 3")
    for command, text in [
        ({"exec": {"executable": "/bin/no"}}, "no such file"),
        ({"downloadFile": {"uri": "http://127.0.0.1/", "filePath": "x", "format": "raw"}}, "files"),
        ({"stop": {"childId": "77"}}, "no program"),
        ({"writeFile": {"content": "", "filePath": "../up"}}, "leads out"),
    ]:
        status, told = client.json("PATCH", path, [command])
        assert (status, len(told)) == (500, 1)
        assert text in told[0], told
    close = client.json("PATCH", path, ["close", "open"])
    assert (close[0], close[1][0]) == (500, "OK")
    assert client.json("GET", path)[1]["status"] == "destroying"


@pytest.mark.parametrize(
    "commands",
    [{}, ["fly"], [{"exec": {}}], [{"exec": {"executable": "/bin/sh", "shell": True}}], [7],
     [{"open": {}, "close": {}}], [{"addTags": "a"}]],
)  # fmt: skip
def test_what_is_no_command_is_refused_before_any_is_done(client: Client, commands: Any) -> None:
    path = client.made()
    if isinstance(commands, list):
        commands = [{"exec": SH}, *commands]
    assert client.json("PATCH", path, commands)[0] == 400
    assert client.json("GET", path)[1]["status"] == "created"


def test_files_go_in_and_out(client: Client) -> None:
    path, large = client.made() + "/files", os.urandom(6 << 20)
    assert client("PUT", f"{path}?path=/data/large", large)[0] == 204
    assert client("GET", f"{path}?path=data/large")[:2] == (200, large)
    status, packed, _ = client("GET", f"{path}?path={quote('/data')}&format=tar")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert "large" in [one.name.strip("./") for one in tar]
    assert client("PUT", f"{path}?path=/copy&format=tar", packed)[0] == 204
    assert client("GET", f"{path}?path=/copy/large")[:2] == (200, large)
    assert client("GET", f"{path}?path=/missing")[0] == 400
    assert client("PUT", f"{path}?path=../up", b"x")[0] == 400
    assert client("GET", f"{path}?path=/data&format=zip")[0] == 400


def test_who_may_not_is_refused_by_his_own_grant(site: Site, client: Client) -> None:
    status, told = client.create(image={"hash": site.other})
    assert status in {403, 424}, told
    poor = Client(site, site.poor)
    status, told = poor.create()
    assert status in {403, 424}, told
    path = client.made()
    # A session, and what is in it, is its owner's.
    assert poor("GET", path)[0] == 404
    assert poor("PATCH", path, ["open"])[0] == 404
    assert poor("DELETE", path)[0] == 404
    assert poor.json("GET", "/peers/box/deployments") == (200, [])
    assert poor("POST", client.at, {"envType": "hd", "image": {"hash": site.image}, "name": "w",
                                    "tags": []})[0] == 404  # fmt: skip
    poor.close()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"image": {"url": "http://hub/x", "hash": "sha1:aa"}}, 422),
        ({"image": {"hash": "sha3-256:" + "0" * 64}}, 424),
        ({"envType": "docker"}, 403),
        ({"envType": "no-such"}, 403),
        ({"envType": "Bad Name"}, 400),
        ({"limits": {"wall": -1}}, 400),
        ({"tags": None}, 400),
        ({"cpus": 1000, "seconds": 1}, 409),
    ],
)
def test_what_cannot_be_made(client: Client, changes: dict[str, Any], status: int) -> None:
    found, told = client.create(**changes)
    assert found == status, told
    assert told["detail"]
    assert client.json("GET", client.at) == (200, [])


def test_there_is_no_such_peer(client: Client) -> None:
    assert client("GET", "/peers/nobody/deployments")[0] == 404
    path = client.at.replace("box", "nobody")
    form = {"envType": "hd", "image": {"hash": client.site.image}, "name": "w", "tags": []}
    assert client("POST", path, form)[0] == 404


def test_no_room_in_time(client: Client) -> None:
    client.made(cpus=2)
    status, told = client.create(seconds=0.5)
    assert (status, told["reason"]) == (409, "capacity")


def test_a_provider_believes_the_signature_of_who_owns_the_session_only(site: Site) -> None:
    client = Client(site, site.app, signs=False)
    status, told = client.create()
    assert status == 403, told
    assert "signature" in told["detail"] or "statement" in told["detail"]
    assert client.sign(session="s-other") == 401
    assert client.sign(role="http") == 401
    assert client.sign(key=load_key(site.poor).public.text) == 401
    assert client.sign() == 204
    assert client.create()[0] == 201
    client.close()


def test_limits_are_held(client: Client) -> None:
    path = client.made(limits={"wall": 0.5})
    status, told = client.json("PATCH", path, [{"exec": {"executable": "/bin/sleep",
                                                         "args": ["600"]}}])  # fmt: skip
    assert status == 500
    assert "wall limit" in told[0]


def test_nothing_is_left_when_the_session_is_deleted(site: Site) -> None:
    client = Client(site, site.app)
    path = client.made()
    start = {"start": {"executable": "/bin/sleep", "args": ["98762"]}}
    assert client.json("PATCH", path, [start]) == (200, ["1"])
    until(lambda: processes_with("98762"), "it runs")
    assert client("DELETE", f"/sessions/{client.session}")[0] == 204
    until(lambda: not processes_with("98762"), "it is gone")
    assert client("GET", path)[0] == 404


def test_a_killed_worker_is_told_of(client: Client) -> None:
    path = client.made()
    start = {"start": {"executable": "/bin/sleep", "args": ["98761"]}}
    assert client.json("PATCH", path, [start]) == (200, ["1"])
    [found, *_] = until(lambda: processes_with("98761"), "it runs")
    keeper = next(one for one in found.parents() if "bwrap" not in one.name())
    keeper.kill()
    until(lambda: not processes_with("98761"), "it is gone")
    assert client("PATCH", path, ["open"])[0] == 502
    assert client("DELETE", path)[0] == 204


def test_nothing_is_left_of_a_killed_door(
    permanent_threads: None, run_root: Path, tmp_path: Path
) -> None:
    (run_root / "door").mkdir(mode=0o700)
    with KeyedGrid(run_root / "door") as grid:
        site = Site(grid, tmp_path)
        owner = Client(site, site.app)
        path = owner.made()
        start = {"start": {"executable": "/bin/sleep", "args": ["98760"]}}
        assert owner.json("PATCH", path, [start]) == (200, ["1"])
        until(lambda: processes_with("98760"), "it runs")
        [door] = [
            one
            for one in psutil.Process(grid.hub_pid).children(recursive=True)
            if "guactors.web" in one.cmdline()
        ]
        door.kill()
        until(lambda: not processes_with("98760"), "it is gone")
