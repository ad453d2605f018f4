"""How each peer is started, called, and ended: the same few verbs for all of them.

Owns: one class a peer, with two workers each and the way of calling that the peer recommends for
many small calls. Imports a peer only when it is started: each lives in an environment of its own.
Must never: time.

``call`` is a call of an actor where the peer has actors, else a task; ``echo(data)`` returns data.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

WORKERS = 2
NO_ACTORS = "has no actors"
NO_TASKS = "has no tasks, only calls of objects"


def same(value: Any) -> Any:
    return value


def nothing(*_: Any) -> None:
    """A task without work."""


class Echo:
    """The object that lives elsewhere."""

    def echo(self, value: Any) -> Any:
        return value


class Peer:
    """What can be asked of every peer. ``about``: what its calls and actors are; ``cannot``:
    measures it has no way for, with the reason."""

    about: ClassVar[str] = ""
    cannot: ClassVar[dict[str, str]] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self) -> None:
        """Have two workers; called once, before all else."""
        raise NotImplementedError

    def echo(self, value: Any) -> Any:
        """One call and its answer."""
        raise NotImplementedError

    def flood(self, count: int) -> list[Any]:
        """``count`` calls under way at once; their answers."""
        raise NotImplementedError

    def tasks(self, count: int) -> int:
        """``count`` no-op tasks on all workers; how many came back."""
        raise NotImplementedError

    def actor(self) -> None:
        """Make an actor, and end it."""
        raise NotImplementedError

    def close(self) -> None:
        """End all that was started."""
        raise NotImplementedError


class Common(Peer):
    """guactors and Ray: one program for both."""

    about: ClassVar[str] = "calls of an actor; each actor is a process"
    library = "guactors"

    def own_options(self) -> dict[str, Any]:
        """Of ``init``, beyond those that both have."""
        return {}

    def start(self) -> None:
        self.ray = ray = importlib.import_module(self.library)
        ray.init(num_cpus=WORKERS, log_to_driver=False, **self.own_options())
        self.cls = ray.remote(num_cpus=0)(Echo)
        self.nothing = ray.remote(nothing)
        self.one = self.cls.remote()

    def echo(self, value: Any) -> Any:
        return self.ray.get(self.one.echo.remote(value))

    def flood(self, count: int) -> list[Any]:
        echo = self.one.echo.remote
        return list(self.ray.get([echo(1) for _ in range(count)]))

    def tasks(self, count: int) -> int:
        return len(self.ray.get([self.nothing.remote() for _ in range(count)]))

    def actor(self) -> None:
        actor = self.cls.remote()
        self.ray.get(actor.echo.remote(1))
        self.ray.kill(actor)

    def close(self) -> None:
        self.ray.shutdown()


class Ray(Common):
    library = "ray"

    def own_options(self) -> dict[str, Any]:
        return {
            "include_dashboard": False, "logging_level": "ERROR", "_temp_dir": str(self.directory)
        }  # fmt: skip


class Xoscar(Peer):
    about: ClassVar[str] = "calls of an actor; an actor is an object in a process that is there"
    cannot: ClassVar[dict[str, str]] = {"tasks": NO_TASKS}

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _start(self) -> None:
        import xoscar as xo  # type: ignore[import-not-found]

        class Echoing(xo.Actor):  # type: ignore[misc]
            def echo(self, value: Any) -> Any:
                return value

        self.xo, self.cls = xo, Echoing
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.pool = await xo.create_actor_pool(address, n_process=WORKERS)
        self.address, self.made = address, 0
        self.one = await self._make()

    async def _make(self) -> Any:
        self.made += 1
        where = self.xo.allocate_strategy.ProcessIndex(1 + self.made % WORKERS)
        return await self.xo.create_actor(
            self.cls, address=self.address, uid=f"echo-{self.made}", allocate_strategy=where
        )

    def echo(self, value: Any) -> Any:
        return self.run(self.one.echo(value))

    def flood(self, count: int) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return list(await asyncio.gather(*[self.one.echo(1) for _ in range(count)]))

        return list(self.run(all_of_them()))

    def actor(self) -> None:
        async def one() -> None:
            made = await self._make()
            await made.echo(1)
            await self.xo.destroy_actor(made)

        self.run(one())

    def close(self) -> None:
        self.run(self.pool.stop())
        self.loop.close()


class Dask(Peer):
    about: ClassVar[str] = "calls of an actor; an actor is an object in a process that is there"

    def start(self) -> None:
        from distributed import Client, LocalCluster  # type: ignore[import-not-found]

        self.cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(self.directory),
        )  # fmt: skip
        self.client = Client(self.cluster)
        self.one = self._make()

    def _make(self) -> Any:
        return self.client.submit(Echo, actor=True, pure=False).result()

    def echo(self, value: Any) -> Any:
        return self.one.echo(value).result()

    def flood(self, count: int) -> list[Any]:
        return [one.result() for one in [self.one.echo(1) for _ in range(count)]]

    def tasks(self, count: int) -> int:
        return len(self.client.gather(self.client.map(nothing, range(count), pure=False)))

    def actor(self) -> None:
        actor = self._make()
        actor.echo(1).result()
        # It ends when the last reference to it does.
        del actor

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


class Ipyparallel(Peer):
    about: ClassVar[str] = "calls are functions, sent to one engine; the tasks by load"
    cannot: ClassVar[dict[str, str]] = {"actor": NO_ACTORS}

    def start(self) -> None:
        os.environ["IPYTHONDIR"] = str(self.directory)
        import ipyparallel  # type: ignore[import-not-found]

        self.cluster = ipyparallel.Cluster(n=WORKERS, log_level=40)
        self.client = self.cluster.start_and_connect_sync()
        self.one, self.all = self.client[0], self.client.load_balanced_view()

    def echo(self, value: Any) -> Any:
        return self.one.apply_sync(same, value)

    def flood(self, count: int) -> list[Any]:
        return [one.get() for one in [self.one.apply_async(same, 1) for _ in range(count)]]

    def tasks(self, count: int) -> int:
        found = self.all.map_async(nothing, range(count), chunksize=1)
        return len(found.get())

    def close(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()


class OfFutures(Peer):
    """Peers whose one verb is ``submit``."""

    about: ClassVar[str] = "calls are tasks, on both workers"
    cannot: ClassVar[dict[str, str]] = {"actor": NO_ACTORS}
    submit: Callable[..., Any]

    def echo(self, value: Any) -> Any:
        return self.submit(same, value).result()

    def flood(self, count: int) -> list[Any]:
        return [one.result() for one in [self.submit(same, 1) for _ in range(count)]]

    def tasks(self, count: int) -> int:
        return len([one.result() for one in [self.submit(nothing) for _ in range(count)]])


class Parsl(OfFutures):
    def start(self) -> None:
        import parsl  # type: ignore[import-not-found]
        from parsl.config import Config  # type: ignore[import-not-found]
        from parsl.executors import HighThroughputExecutor  # type: ignore[import-not-found]
        from parsl.providers import LocalProvider  # type: ignore[import-not-found]

        self.parsl = parsl
        executor = HighThroughputExecutor(
            label="two", max_workers_per_node=WORKERS, address="127.0.0.1",
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )  # fmt: skip
        parsl.load(Config(executors=[executor], run_dir=str(self.directory)))
        apps = {one: parsl.python_app(one) for one in (same, nothing)}
        self.submit = lambda function, *args: apps[function](*args)

    def close(self) -> None:
        self.parsl.dfk().cleanup()


class Executorlib(OfFutures):
    about: ClassVar[str] = "calls are tasks, on both workers, with block_allocation"

    def start(self) -> None:
        from executorlib import SingleNodeExecutor  # type: ignore[import-not-found]

        # Without block allocation each call would start a process.
        self.executor = SingleNodeExecutor(max_workers=WORKERS, block_allocation=True)
        self.submit = self.executor.submit

    def close(self) -> None:
        self.executor.shutdown(wait=True)


class Loky(OfFutures):
    def start(self) -> None:
        from loky import get_reusable_executor  # type: ignore[import-not-found]

        self.executor = get_reusable_executor(max_workers=WORKERS)
        self.submit = self.executor.submit

    def close(self) -> None:
        self.executor.shutdown(wait=True)


class Pyro(Peer):
    about: ClassVar[str] = "calls of an object in one daemon, its flood by BatchProxy; msgpack"
    cannot: ClassVar[dict[str, str]] = {
        "actor": "makes no objects from afar: a daemon offers what its program made",
        "tasks": NO_TASKS,
    }

    def start(self) -> None:
        import Pyro5.api  # type: ignore[import-not-found]

        # The quickest of its serializers that knows bytes and batches.
        Pyro5.config.SERIALIZER = "msgpack"
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer_kinds", "pyro"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.daemon.stdout is not None
        self.proxy = Pyro5.api.Proxy(self.daemon.stdout.readline().strip())
        self.batch = Pyro5.api.BatchProxy

    def echo(self, value: Any) -> Any:
        return self.proxy.echo(value)

    def flood(self, count: int) -> list[Any]:
        batch = self.batch(self.proxy)
        for _ in range(count):
            batch.echo(1)
        return list(batch())

    def close(self) -> None:
        self.proxy._pyroRelease()
        assert self.daemon.stdin is not None
        self.daemon.stdin.close()
        self.daemon.terminate()
        self.daemon.wait()


def pyro_daemon() -> None:
    """The other process of Pyro5; ends by a signal."""
    import Pyro5.api

    Pyro5.config.SERIALIZER = "msgpack"
    with Pyro5.api.Daemon(host="127.0.0.1") as daemon:
        print(daemon.register(Pyro5.api.expose(Echo)), flush=True)
        daemon.requestLoop()


KINDS: dict[str, type[Peer]] = {
    "guactors": Common, "ray": Ray, "xoscar": Xoscar, "dask": Dask, "ipyparallel": Ipyparallel,
    "parsl": Parsl, "executorlib": Executorlib, "pyro5": Pyro, "loky": Loky,
}  # fmt: skip

if __name__ == "__main__":
    pyro_daemon()
