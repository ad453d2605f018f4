"""Environments at a provider: judged, built once, used by workers of their own, removed in time."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.errors import Death
from guactors.messages import (
    ActorEnded,
    ActorStarted,
    Bind,
    EnvWord,
    Hello,
    LeaseEnded,
    LeaseStarted,
    Report,
    StopLease,
    Versions,
    WorkerBlocked,
    WorkerResumed,
)
from guactors.provider_state import BuildPart, ImageFacts, RemovePart, StartWorker
from guactors.runtime_env.description import Description, Packages, encode
from guactors.security.code import Purpose, sign_code
from guactors.security.keys import Kind
from tests.unit.provider.authority import Guarded, policy_bytes, wide
from tests.unit.provider.bench import Bench
from tests.unit.provider.test_images import only
from tests.unit.security.samples import public, secret

ARCHIVE = "sha3-256:" + "a" * 64
OTHER = "sha3-256:" + "b" * 64
PIP = Packages(["thing"])
SIGNER = public(Kind.SIGNER).text


def word(signed: int | None = None, **fields: Any) -> EnvWord:
    data = encode(Description(**fields))
    if signed is None:
        return EnvWord(data)
    return EnvWord(data, sign_code([secret(Kind.SIGNER, signed)], Purpose.ENVIRONMENT, data))


def builds(bench: Bench) -> list[BuildPart]:
    return only(bench, BuildPart)


def built(bench: Bench, build: BuildPart, size: int = 10) -> str:
    path = f"/envs/{build.part.kind}-{build.part.key[:8]}"
    bench.do(bench.core.on_part_built(build.part.key, path, size, bench.now))
    return path


def failed(bench: Bench, build: BuildPart, reason: str = "failed", detail: str = "why") -> None:
    bench.do(bench.core.on_part_failed(build.part.key, reason, detail, bench.now))


def running(bench: Bench, name: str = "l-1", session: str = "s-1", **fields: Any) -> str:
    """A lease in an environment whose parts are there, or are built now; its worker."""
    bench.lease(name, session, env=word(**fields))
    for build in builds(bench):
        built(bench, build)
    bench.all_up()
    (started,) = bench.said(LeaseStarted)
    return started.worker


# --- variables ------------------------------------------------------------------------------------


def test_variables_alone_need_no_build_and_no_interpreter() -> None:
    bench = Bench(warm=1)
    (warm,) = bench.all_up()
    bench.lease(env=word(env_vars={"A": "1"}))
    assert builds(bench) == []
    (bind,) = bench.told(warm, Bind)
    assert bind.env is not None
    assert bind.env.variables == {"A": "1"}
    assert bench.said(WorkerBlocked) == []


def test_workers_of_different_environments_are_never_mixed() -> None:
    bench = Bench(warm=0)
    first = running(bench, env_vars={"A": "1"})
    bench.hub(StopLease("l-1"))
    second = running(bench, "l-2", env_vars={"A": "2"})
    assert second != first
    bench.hub(StopLease("l-2"))
    bench.lease("l-3")
    (plain,) = bench.all_up()
    assert plain not in (first, second)
    assert [one.worker for one in bench.said(LeaseStarted)] == [plain]
    again = running(bench, "l-4", env_vars={"A": "1"})
    assert again == first


# --- building -------------------------------------------------------------------------------------


def test_files_are_unpacked_first_and_their_place_is_told() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(working_dir=ARCHIVE, py_modules=[OTHER], hook="module.function"))
    first, second = builds(bench)
    assert {first.part.image, second.part.image} == {ARCHIVE, OTHER}
    assert bench.starting == []
    places = {one.part.image: built(bench, one) for one in (first, second)}
    (worker,) = bench.all_up()
    (bind,) = bench.told(worker, Bind)
    assert bind.env is not None
    assert bind.env.cwd == places[ARCHIVE]
    assert bind.env.path == [places[ARCHIVE], places[OTHER]]
    assert bind.env.hook == "module.function"


def test_packages_bring_their_own_interpreter() -> None:
    bench = Bench(warm=1)
    bench.all_up()
    bench.lease(env=word(pip=PIP))
    (build,) = builds(bench)
    assert (build.part.kind, build.part.packages) == ("pip", PIP)
    effects = bench.do(bench.core.on_part_built(build.part.key, "/envs/x", 1, bench.now))
    (start,) = [effect for effect in effects if isinstance(effect, StartWorker)]
    assert start.python == "/envs/x/bin/python"
    assert bench.all_up() == [start.worker]
    assert [one.worker for one in bench.said(LeaseStarted)] == [start.worker]


def test_many_orders_make_one_build() -> None:
    bench = Bench(warm=0, resources={"CPU": 8.0})
    for number in range(3):
        bench.lease(f"l-{number}", env=word(pip=PIP, env_vars={"N": str(number)}))
    bench.actor(env=word(pip=PIP))
    (build,) = builds(bench)
    built(bench, build)
    for worker in bench.all_up():
        bench.alive(worker)
    assert len(bench.said(LeaseStarted)) == 3
    assert len(bench.said(ActorStarted)) == 1
    bench.lease("l-9", env=word(pip=PIP))
    assert builds(bench) == []


def test_what_needs_the_working_directory_is_built_in_it() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(working_dir=ARCHIVE, pip=Packages(["./package"])))
    (files,) = builds(bench)
    place = built(bench, files)
    (packages,) = builds(bench)
    assert (packages.part.kind, packages.cwd) == ("pip", place)


def test_other_principals_build_their_own() -> None:
    bench = Guarded(warm=0)
    bench.show(wide())
    bench.show(wide(app=public(Kind.APP, 2).text), session="s-2", key=secret(Kind.APP, 2))
    bench.lease(env=word(pip=PIP))
    bench.lease("l-2", "s-2", env=word(pip=PIP))
    first, second = builds(bench)
    assert first.part.key != second.part.key


def test_a_build_holds_no_room_and_stops_nobody() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(pip=PIP))
    assert [one.lease for one in bench.said(WorkerBlocked)] == ["l-1"]
    bench.lease("l-2")
    bench.all_up()
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-2"]
    (build,) = builds(bench)
    built(bench, build)
    assert [one.lease for one in bench.said(WorkerResumed)] == ["l-1"]


def test_a_failed_build_is_told_to_all_who_wait_and_tried_for_who_comes_later() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(pip=PIP))
    bench.actor(env=word(pip=PIP))
    (build,) = builds(bench)
    failed(bench, build, detail="no such package")
    (lease,) = bench.said(LeaseEnded)
    (actor,) = bench.said(ActorEnded)
    for death in (lease.death, actor.death):
        assert death.cause == "env_failed"
        assert "no such package" in death.detail
    bench.pass_time(1)
    bench.lease("l-2", env=word(pip=PIP))
    assert len(builds(bench)) == 1


def test_a_build_that_the_link_cost_is_begun_again_on_the_next_one() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(working_dir=ARCHIVE))
    (build,) = builds(bench)
    bench.hub_down()
    failed(bench, build, "link_lost")
    assert builds(bench) == []
    bench.hub_up()
    bench.warranted.clear()
    bench.lease(env=word(working_dir=ARCHIVE))
    assert len(builds(bench)) == 1
    assert [one.death.cause for one in bench.said(LeaseEnded)] == ["link_lost"]


def test_a_lease_withdrawn_while_it_is_built() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(pip=PIP))
    (build,) = builds(bench)
    bench.hub(StopLease("l-1", True))
    built(bench, build)
    assert bench.starting == []
    assert len(bench.said(LeaseEnded)) == 1


# --- room -----------------------------------------------------------------------------------------


def test_what_is_unused_for_an_hour_is_removed() -> None:
    bench = Bench(warm=0)
    running(bench, pip=PIP)
    bench.pass_time(2 * 3600)
    assert only(bench, RemovePart) == []
    bench.hub(StopLease("l-1", True))
    for worker in list(bench.killed):
        bench.ends(worker)
    bench.pass_time(2 * 3600)
    (removed,) = only(bench, RemovePart)
    assert removed.path.startswith("/envs/pip")
    bench.lease("l-2", env=word(pip=PIP))
    assert len(builds(bench)) == 1


def test_the_longest_unused_makes_room_and_what_is_used_stays() -> None:
    bench = Bench(warm=0, env_quota=100)
    paths = {}
    for number, name in enumerate(("a", "b", "c")):
        bench.pass_time(1)
        bench.lease(f"l-{number}", env=word(pip=Packages([name])))
        (build,) = builds(bench)
        paths[name] = built(bench, build, 40)
        bench.all_up()
        (started,) = bench.said(LeaseStarted)
        if name != "a":
            bench.hub(StopLease(f"l-{number}", True))
            bench.ends(started.worker)
    assert [one.path for one in only(bench, RemovePart)] == [paths["b"]]


# --- who may --------------------------------------------------------------------------------------


def refusal(bench: Bench) -> str:
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "refused"
    assert builds(bench) == []
    assert len(bench.said(Report)) == 1
    return ended.death.detail


@pytest.mark.parametrize("fields", [{"pip": PIP}, {"uv": PIP}, {"py_executable": "/bin/python3"}])
def test_a_machines_owner_may_forbid_what_installs(fields: dict[str, Any]) -> None:
    (what,) = fields
    bench = Guarded(warm=0, policy=policy_bytes(environments=[]))
    bench.show(wide())
    bench.lease(env=word(**fields))
    assert f"has {what}, which the owner" in refusal(bench)
    running(bench, "l-2", working_dir=ARCHIVE, env_vars={"A": "1"})
    other = Guarded(warm=0, policy=policy_bytes(environments=[what]))
    other.show(wide())
    running(other, **fields)


def test_where_code_must_be_signed_the_environment_must_be() -> None:
    bench = Guarded(warm=0)
    bench.show(wide(function_signers=[SIGNER]))
    bench.lease(env=word(working_dir=ARCHIVE))
    assert "the runtime_env may not be used here" in refusal(bench)
    bench.lease("l-2", env=word(2, working_dir=ARCHIVE))
    assert "the runtime_env may not be used here" in refusal(bench)
    running(bench, "l-3", signed=1, working_dir=ARCHIVE)


def test_a_signature_of_a_function_is_none_of_an_environment() -> None:
    bench = Guarded(warm=0)
    bench.show(wide(function_signers=[SIGNER]))
    data = encode(Description(working_dir=ARCHIVE))
    wrong = sign_code([secret(Kind.SIGNER)], Purpose.FUNCTION, data)
    bench.lease(env=EnvWord(data, wrong))
    refusal(bench)


def test_images_have_only_variables() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(env_vars={"A": "1"}, working_dir=ARCHIVE), runtime="native", image=ARCHIVE)
    bench.image_here(ImageFacts(ARCHIVE, frozenset()))
    assert "put the rest into the image" in refusal(bench)


def test_rubbish_is_refused() -> None:
    bench = Bench(warm=0)
    bench.lease(env=EnvWord(b'{"nonsense":1}'))
    assert "runtime_env" in refusal(bench)


def test_an_interpreter_of_another_version_is_refused_by_name() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(py_executable="/opt/python3.13"))
    (worker,) = bench.starting
    bench.do(bench.core.on_worker_started(worker, 77))
    bench.says(worker, Hello(worker, "worker", Versions("0", "3.13.1"), 77, "here"))
    assert bench.killed == {worker: "env_failed"}
    bench.ends(worker, Death("env_failed", "", worker=worker))
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "env_failed"
    assert "/opt/python3.13 is a Python 3.13.1" in ended.death.detail


def test_an_interpreter_that_does_not_start_is_said_so() -> None:
    bench = Bench(warm=0)
    bench.lease(env=word(py_executable="/opt/python"))
    (worker,) = bench.starting
    bench.ends(worker, Death("start_failed", "no such file"))
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "env_failed"
    assert "/opt/python runs no workers: no such file" in ended.death.detail
