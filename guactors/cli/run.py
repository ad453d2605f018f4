"""``gu run``: a program on the grid, its two output streams here, its exit status ours.

Owns: the copying of output, and what Ctrl-C means. Must never: use more of the grid than programs
can (it is a streaming task, ``runtimes/program.py``).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, BinaryIO

import typer

import guactors as gu
from guactors.cli.console import USAGE, fail, waiting
from guactors.cli.image_choice import local, open_store
from guactors.cli.options import Address, parse_limits, parse_pairs, parse_size
from guactors.errors import InternalError, Stopped, TaskError, UnknownOption
from guactors.grid_file import AUTO
from guactors.options import TASK, TERMS, check_options
from guactors.refs import ObjectRef, ObjectRefGenerator
from guactors.remote_function import RemoteFunction, image_program
from guactors.runtimes.choice import NATIVE
from guactors.runtimes.program import WINDOW, Chunk, run_program

SIGNALLED = 128
_ONCE = {"max_retries": 0, "_generator_backpressure_num_objects": WINDOW}
"""Of every program: it is not run again, and waits for who reads."""
CANCEL_WITHIN = 5.0
"""Seconds given to the far side to say that the program is gone."""


LimitWords = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="The most it may take, all its processes together: cpu (processors), memory and disk "
        "(sizes), pids (processes), wall (seconds). May be repeated.",
    ),
]


Ways = Annotated[
    list[str] | None,
    typer.Option(
        "--preemption",
        metavar="WAY",
        help="How it may be made to give way to others: suspend, requeue, stop or never. May be "
        "repeated; the first that helps is taken.",
        show_default="suspend",
    ),
]
MinRuntime = Annotated[
    float, typer.Option(metavar="SECONDS", help="It runs for so long before it gives way.")
]
MaxSuspended = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="After so long of standing still, what follows suspend is done; 0: never.",
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Where it gives way by its end: from SIGTERM until it is killed.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME|PATH",
        help="The app key to come with.",
        show_default="GU_KEY, else default",
    ),
]


def run(
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]...", show_default=False)],
    runtime: Annotated[
        str,
        typer.Option(help="What it runs in: native, docker, qemu, ...; others need an image."),
    ] = NATIVE,
    priority: Annotated[int, typer.Option(help="Bigger goes first.")] = 0,
    preemption: Ways = None,
    min_runtime: MinRuntime = 0.0,
    max_suspended: MaxSuspended = 0.0,
    grace: Grace = 0.0,
    cpus: Annotated[float, typer.Option(min=0.0, help="CPUs it needs.")] = 1.0,
    memory: Annotated[str | None, typer.Option(help="Memory it needs, such as 2GiB.")] = None,
    on: Annotated[str, typer.Option(metavar="PEER", help="A provider, by name or id.")] = "",
    image: Annotated[
        str,
        typer.Option(
            help="The image that holds the program: its id, or a name or the first "
            "digits of one in the local store."
        ),
    ] = "",
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.")] = None,
    cwd: Annotated[
        str, typer.Option(help="Directory there.", show_default="a fresh one, removed afterwards")
    ] = "",
    limit: LimitWords = None,
    address: Address = None,
    key: Key = None,
) -> None:
    """Run a program on a provider. Streams its output and ends with its exit status: 128 plus the
    number for a signal, 127 if there is no such program there. With an image, the program and its
    directory are paths inside it. One that its limits end says so on standard error."""
    if not image and runtime != NATIVE:
        fail(f"the runtime {runtime!r} runs images: name one with --image", USAGE)
    variables = parse_pairs(env or [], "--env")
    limits = parse_limits(limit or [])
    options: dict[str, object] = {"num_cpus": cpus, **_ONCE}
    options |= given_terms(priority, preemption or [], min_runtime, max_suspended, grace)
    if memory:
        options["memory"] = parse_size(memory)
    if on:
        options["provider"] = on
    options["name"] = os.path.basename(program[0]) or program[0]
    task = _task(options, runtime, image)
    gu.init(address or os.environ.get("GU_ADDRESS") or AUTO, key=key, log_to_driver=False)
    try:
        status = _follow(task.remote(program, variables, cwd, limits))
    finally:
        gu.shutdown()
    raise SystemExit(status)


def given_terms(
    priority: int, preemption: list[str], min_runtime: float, max_suspended: float, grace: float
) -> dict[str, object]:
    """As options of a task. Raises typer.BadParameter that names what is impossible."""
    terms = dict(zip(TERMS, (priority, preemption, min_runtime, max_suspended, grace), strict=True))
    for name, value in terms.items():
        try:
            check_options({name: value}, TASK)
        except UnknownOption as error:
            raise typer.BadParameter(f"--{name.replace('_', '-')}: {error}") from None
    return terms


def _task(options: dict[str, object], runtime: str, image: str) -> RemoteFunction:
    if image:
        chosen = local(open_store(), image)
        return image_program(options | {"runtime": runtime, "image": chosen})
    program: RemoteFunction = gu.remote(run_program).options(**options)
    return program


def _follow(stream: ObjectRefGenerator) -> int:
    """Copy the output until the end; the status to exit with."""
    try:
        for kind, data in _chunks(stream):
            if kind == "exit":
                assert isinstance(data, int)
                return data if data >= 0 else SIGNALLED - data
            assert isinstance(data, bytes)
            _write(sys.stdout.buffer if kind == "out" else sys.stderr.buffer, data)
    except KeyboardInterrupt:
        _cancel(stream)
        return SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        _cancel(stream)
        # Python flushes stdout once more at its end; that must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNALLED + int(getattr(signal, "SIGPIPE", 13))
    except TaskError as error:
        fail(f"the program could not be run: {error.cause or error}")
    except Stopped as error:
        fail(f"the program was stopped: {error}")
    raise InternalError("the program's end was never reported: please report this as a bug")


def _chunks(stream: ObjectRefGenerator) -> Iterator[Chunk]:
    with waiting("waiting for a provider"):
        first = next(stream)
    yield _get(first)
    for ref in stream:
        yield _get(ref)


def _get(ref: ObjectRef) -> Chunk:
    chunk: Chunk = gu.get(ref)
    return chunk


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()


def _cancel(stream: ObjectRefGenerator) -> None:
    """End the program there and wait until that is done, but not for ever."""
    done = stream.completed()
    gu.cancel(done)
    gu.wait([done], timeout=CANCEL_WITHIN)
