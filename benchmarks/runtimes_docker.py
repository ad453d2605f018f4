"""What a container costs as an instance of ours, beside what Docker's own command costs.

    python -m benchmarks.runtimes_docker [--check] [--rounds N] [--megabytes N]

Owns: three figures of one daemon, its own unless DOCKER_HOST names one:

* ``overhead_ms``: create, start, run ``true``, close, less ``docker run --rm`` of the same image,
  by turns in the same run;
* ``pause_p99_ms``: of 50 pauses;
* ``lost_bytes`` and ``grown_mb``: of a gigabyte of output whose reader takes a nap now and then.

Prints one line of JSON: medians. ``--check``: exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import psutil

from guactors.ids import fresh
from guactors.runtimes.base import Command, Exit, Output, Spec
from guactors.runtimes.docker.driver import DockerRuntime
from guactors.runtimes.docker.images import Images
from guactors.runtimes.instance import Instance
from tests.contract import docker_daemon

TARGETS = {"overhead_ms": 50.0, "pause_p99_ms": 50.0, "lost_bytes": 0, "grown_mb": 64.0}
PAUSES = 50


def ended(instance: Instance, *argv: str) -> Exit:
    running = instance.exec(Command(argv))
    for found in running.output():
        if isinstance(found, Exit):
            return found
    raise AssertionError("no end")


def fresh_instance(runtime: DockerRuntime, base: Path, image: str) -> Instance:
    name = fresh("instance")
    (base / name).mkdir()
    spec = Spec(name, "p-benchmark", str(base / name), image)
    return Instance(spec, runtime.create(spec))


def one_life(runtime: DockerRuntime, base: Path, image: str) -> dict[str, float]:
    times = [time.perf_counter()]
    instance = fresh_instance(runtime, base, image)
    times.append(time.perf_counter())
    instance.start()
    times.append(time.perf_counter())
    assert ended(instance, "/bin/true") == Exit(0)
    times.append(time.perf_counter())
    instance.close()
    times.append(time.perf_counter())
    steps = [1000 * (after - before) for before, after in pairwise(times)]
    names = ("create", "start", "exec", "close")
    return dict(zip(names, steps, strict=True)) | {"total": sum(steps)}


def docker_run(program: str, socket: str, image: str) -> float:
    began = time.perf_counter()
    words = ["-H", f"unix://{socket}", "run", "--rm", "--network=none", "--log-driver=none"]
    subprocess.run([program, *words, "--entrypoint", "/bin/true", image], check=True)
    return 1000 * (time.perf_counter() - began)


def overhead(runtime: DockerRuntime, base: Path, image: str, rounds: int) -> dict[str, float]:
    theirs = Images(runtime.client(), runtime._open_store).load(image).id
    program = shutil.which("docker", path="/usr/bin:/usr/local/bin") or "docker"
    lives: list[dict[str, float]] = []
    runs: list[float] = []
    for _ in range(rounds):
        lives.append(one_life(runtime, base, image))
        runs.append(docker_run(program, runtime.client().path, theirs))
    found = {f"{key}_ms": statistics.median(one[key] for one in lives) for key in lives[0]}
    run = statistics.median(runs)
    pairs = [life["total"] - other for life, other in zip(lives, runs, strict=True)]
    return found | {"docker_run_ms": run, "overhead_ms": statistics.median(pairs)}


def pauses(runtime: DockerRuntime, base: Path, image: str) -> dict[str, float]:
    took = []
    with fresh_instance(runtime, base, image) as instance:
        instance.start()
        instance.exec(Command(("/bin/sh", "-c", "while :; do :; done")))
        for _ in range(PAUSES):
            began = time.perf_counter()
            instance.pause()
            took.append(1000 * (time.perf_counter() - began))
            instance.resume()
    took.sort()
    return {"pause_ms": statistics.median(took), "pause_p99_ms": took[int(0.99 * len(took))]}


def flood(runtime: DockerRuntime, base: Path, image: str, megabytes: int) -> dict[str, float]:
    me = psutil.Process()
    size = megabytes << 20
    with fresh_instance(runtime, base, image) as instance:
        instance.start()
        before = me.memory_info().rss
        began = time.perf_counter()
        running = instance.exec(Command(("/bin/sh", "-c", f"head -c {size} /dev/zero")))
        seen, peak, napped = 0, before, 0.0
        for found in running.output():
            if isinstance(found, Output):
                seen += len(found.data)
                if seen // (size // 8) > (seen - len(found.data)) // (size // 8):
                    peak = max(peak, me.memory_info().rss)
                    napped += 0.5
                    time.sleep(0.5)
                    if seen > size - (3 << 20):
                        napped += 3.0
                        time.sleep(3.0)
        took = time.perf_counter() - began - napped
    return {
        "lost_bytes": size - seen,
        "grown_mb": (peak - before) / 2**20,
        "output_mb_per_s": megabytes / took,
    }


def measure(socket: str, base: Path, rounds: int, megabytes: int) -> dict[str, float]:
    store, image = docker_daemon.busybox_image(base)
    runtime = DockerRuntime(lambda: store, socket=socket)
    try:
        one_life(runtime, base, image)  # which loads the image
        found = overhead(runtime, base, image, rounds)
        found |= pauses(runtime, base, image)
        return found | flood(runtime, base, image, megabytes)
    finally:
        runtime.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--megabytes", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gb-") as directory:
        base = Path(directory)
        socket = docker_daemon.standing_socket()
        if socket:
            found = measure(socket, base, options.rounds, options.megabytes)
        else:
            with docker_daemon.own_daemon(base) as daemon:
                found = measure(daemon.socket, base, options.rounds, options.megabytes)
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))
    missed = [name for name, most in TARGETS.items() if found[name] > most]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
