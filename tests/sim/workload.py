"""What root callers ask for: a plan of steps drawn in advance, and the driver that takes them.

Owns: the mix of work. Must never: draw while it runs, or faults would change the plan.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import msgspec

from guactors.caller.actors import RemoteActor
from guactors.caller.groups import RemoteGroup
from guactors.caller.tasks import STREAM, Task
from guactors.messages import ActorSpec, Company, CreateActor, Shape
from tests.sim import reservations
from tests.sim.caller import SimCaller
from tests.sim.groups import Groups, draw
from tests.sim.ledger import Record
from tests.sim.program import Child, Program, expected, function_of, item_of, pack, read

if TYPE_CHECKING:
    from tests.sim.world import World

Step = Callable[["Driver"], None]
HIGHEST_GRANTED = 10
"""Priority that every app of a world with keys may ask for."""
LONGEST_CPU = 5.0
"""Seconds that an actor keeps a CPU."""
WAYS: tuple[tuple[str, ...], ...] = (
    (), (), (), ("never",), ("requeue",), ("stop",), ("suspend", "requeue"), ("suspend", "stop"),
)  # fmt: skip
"""How tasks may be made to give way."""
ACTOR_WAYS: tuple[tuple[str, ...], ...] = (
    (), ("never",), ("checkpoint",), ("checkpoint",), ("checkpoint", "requeue"),
)  # fmt: skip
"""How actors may."""
APART = Company({"app": "alone"}, apart={"app": "alone"})
RATHER = Company({"app": "actor"}, rather_near={"app": "alone"}, rather_apart={"app": "actor"})
IMAGES = tuple(f"sha3-256:{number:064x}" for number in (1, 2))


GRACED = (("requeue",), ("suspend", "stop"))
"""Ways of those that are asked to end before they are ended."""


@dataclass
class Options:
    """Of one call."""

    retries: int = 0
    timeout: float = 0.0
    deps: list[int] = field(default_factory=list)
    lent: list[int] = field(default_factory=list)
    cpus: float = 1.0
    actor: int = -1
    retry_errors: bool = False
    image: str = ""
    group: int = -1
    bundle: int = -1
    reservation: str = ""
    gpus: float = 0.0
    priority: int = 0
    preemption: tuple[str, ...] = ()


class Planner:
    """Draws a plan. ``span``: seconds over which the steps are spread. ``peaceful``: no step harms
    what runs beside it."""

    def __init__(self, rng: Random, first_uid: int, span: float, *, peaceful: bool) -> None:
        self._rng = rng
        self._peaceful = peaceful
        self._uid = first_uid
        self._span = span
        self._calls = 0
        self._actors = 0
        self._groups = 0

    def plan(self, steps: int) -> list[tuple[float, Step]]:
        """Steps with their times, in order."""
        times = sorted(self._rng.random() ** 2 * self._span for _ in range(steps))
        return [(time, self._step()) for time in times]

    def _step(self) -> Step:
        rng = self._rng
        kinds: list[tuple[Callable[[], Step], int]] = [
            (self._task, 8), (self._burst, 3), (self._actor, 3), (self._stream, 1), (self._put, 1),
        ]  # fmt: skip
        if self._actors:
            kinds += [(self._call, 10), (self._calls_in_a_row, 3), (self._end_actor, 2)]
        if self._calls:
            kinds += [(self._cancel, 3), (self._forget, 1)]
        kinds += [(self._group, 3), (self._reservation, 3), (self._task_reserved, 5)]
        if self._groups:
            kinds += [(self._task_inside, 8), (self._actor_inside, 2)]
        makers, weights = zip(*kinds, strict=True)
        made: Step = rng.choices(makers, weights)[0]()
        return made

    def _program(self, depth: int = 0) -> Program:
        rng = self._rng
        self._uid += 1
        uid = self._uid
        seconds = rng.choice((0.0002, 0.001, 0.01, 0.1, 0.5)) * (0.5 + rng.random())
        draw = rng.random()
        ends, crashes = "value", 0
        if draw < 0.05:
            ends = "raise"
        elif draw < 0.10 and not self._peaceful:
            ends, crashes = "crash", rng.randint(1, 3)
        children: list[Child] = []
        if depth < 2 and rng.random() < (0.25 if depth == 0 else 0.1):
            children = [self._child(depth) for _ in range(rng.randint(1, 3))]
        lends = bool(children) and rng.random() < 0.3
        far = rng.random() < 0.4
        return Program(uid, seconds, ends, crashes, rng.random() < 0.2, 0, children, lends, far)

    def _child(self, depth: int) -> Child:
        rng = self._rng
        timeout = rng.choice((0.0, 0.0, 0.0, 0.3))
        return Child(self._program(depth + 1), rng.randint(0, 2), timeout, rng.choice((1.0, 0.5)))

    def _options(self) -> Options:
        rng = self._rng
        options = Options(rng.choice((0, 0, 1, 3)))
        if rng.random() < 0.2:
            options.timeout = rng.choice((0.05, 0.5, 2.0, 6.0))
        if self._calls and rng.random() < 0.3:
            options.deps = [rng.randrange(self._calls) for _ in range(rng.randint(1, 2))]
        if self._calls and rng.random() < 0.1:
            options.lent = [rng.randrange(self._calls)]
        return options

    def _image(self) -> str:
        return self._rng.choice(IMAGES) if self._rng.random() < 0.08 else ""

    def _priority(self) -> int:
        """Mostly that of everybody; sometimes so high that others have to give way."""
        return self._rng.choice((0, 0, 0, 3, 10, 25))

    # --- steps ------------------------------------------------------------------------------------

    def _task(self) -> Step:
        program, options = self._program(), self._options()
        options.cpus = self._rng.choice((1.0, 1.0, 1.0, 0.5, 2.0))
        if self._rng.random() < 0.02:
            options.cpus = 64.0
        options.image = self._image()
        options.priority = self._priority()
        options.preemption = self._rng.choice(WAYS)
        if not program.children and self._rng.random() < 0.25:
            options.gpus = self._rng.choice((0.5, 0.5, 1.0))
        options.retry_errors = program.ends == "raise" and self._rng.random() < 0.5
        self._calls += 1
        return lambda driver: driver.call(program, options)

    def _burst(self) -> Step:
        retries = self._rng.choice((0, 2))
        seconds = self._rng.choice((0.0002, 0.002, 0.03))
        programs = []
        for _ in range(self._rng.randint(2, 20)):
            self._uid += 1
            wide, far = self._rng.random() < 0.3, self._rng.random() < 0.3
            programs.append(Program(self._uid, seconds, wide=wide, far=far))
        self._calls += len(programs)

        def step(driver: Driver) -> None:
            for program in programs:
                driver.call(program, Options(retries))

        return step

    def _stream(self) -> Step:
        self._uid += 1
        ends = self._rng.choice(("value", "value", "raise" if self._peaceful else "crash"))
        program = Program(self._uid, 0.002, ends, 1, items=self._rng.randint(0, 6))
        retries, forget = self._rng.randint(0, 2), self._rng.random() < 0.2
        return lambda driver: driver.stream(program, Options(retries), forget)

    def _put(self) -> Step:
        self._uid += 1
        uid, wide = self._uid, self._rng.random() < 0.5
        self._calls += 1
        return lambda driver: driver.put(b"put %d" % uid, wide=wide)

    def _actor(self) -> Step:
        rng = self._rng
        restarts = rng.choice((0, 0, 1, -1))
        concurrency = rng.choice((1, 1, 1, 3))
        ends = "raise" if rng.random() < 0.08 else "value"
        seconds, seats = rng.choice((0.0, 0.01, 0.2)), rng.choice((0.0, 1.0))
        ways = list(rng.choice(ACTOR_WAYS))
        often = 0.8 if ways[:1] == ["checkpoint"] else 0.25
        held = {"CPU": 1.0} if rng.random() < often else {"seat": seats}
        others = [{"CPU": 0.5}] if concurrency == 3 else []
        company = RATHER if concurrency == 3 else None
        shape = Shape(
            held, self._priority(), image=self._image(), preemption=ways, alternatives=others,
            company=company,
        )  # fmt: skip
        self._actors += 1
        return lambda driver: driver.make(restarts, concurrency, shape, (seconds, ends))

    def _group(self) -> Step:
        plan = draw(self._rng)
        self._groups += 1
        return lambda driver: driver.groups.make(plan)

    def _reservation(self) -> Step:
        plan = reservations.draw(self._rng)
        return lambda driver: driver.reserve(plan)

    def _task_reserved(self) -> Step:
        program, options = self._program(1), self._options()
        options.reservation = self._rng.choice(reservations.NAMES)
        self._calls += 1
        return lambda driver: driver.call(program, options)

    def _task_inside(self) -> Step:
        program, options = self._program(1), self._options()
        options.group, options.bundle = self._rng.randrange(self._groups), self._rng.randint(-1, 2)
        self._calls += 1
        return lambda driver: driver.call(program, options)

    def _actor_inside(self) -> Step:
        group, bundle = self._rng.randrange(self._groups), self._rng.randint(-1, 2)
        restarts, seconds = self._rng.choice((0, 1, -1)), self._rng.choice((0.0, 0.01))
        self._actors += 1

        def step(driver: Driver) -> None:
            home, shape = driver.groups.shape(group, bundle, actor=True)
            driver.make(restarts, 1, shape, (seconds, "value"), home)

        return step

    def _call(self) -> Step:
        program, options = self._program(1), self._options()
        options.actor = self._rng.randrange(self._actors)
        self._calls += 1
        return lambda driver: driver.call(program, options)

    def _calls_in_a_row(self) -> Step:
        actor, retries = self._rng.randrange(self._actors), self._rng.choice((0, 0, 1))
        programs = []
        for _ in range(self._rng.randint(2, 12)):
            self._uid += 1
            programs.append(Program(self._uid, 0.001))
        self._calls += len(programs)

        def step(driver: Driver) -> None:
            for program in programs:
                driver.call(program, Options(retries, actor=actor))

        return step

    def _end_actor(self) -> Step:
        actor, draw = self._rng.randrange(self._actors), self._rng.random()
        if draw < 0.4:
            return lambda driver: driver.release(actor)
        return lambda driver: driver.kill(actor, no_restart=draw < 0.7)

    def _cancel(self) -> Step:
        call, force = self._rng.randrange(self._calls), self._rng.random() < 0.3
        force = force and not self._peaceful
        recursive = self._rng.random() < 0.8
        return lambda driver: driver.cancel(call, force=force, recursive=recursive)

    def _forget(self) -> Step:
        call = self._rng.randrange(self._calls)
        return lambda driver: driver.forget(call)


MOST_LATE = 3.0
"""Seconds until somebody looks at a result that stays where it was made."""


class Driver:
    """Takes the steps for one root caller. ``calls`` are records in the order of the plan."""

    def __init__(self, world: World, caller: SimCaller) -> None:
        self.caller = caller
        self.over = False
        """Its process has ended."""
        self.calls: list[Record] = []
        self.actors: list[RemoteActor] = []
        self.groups = Groups(world, caller)
        self._home_of: dict[str, RemoteGroup] = {}
        self.streams: list[Record] = []
        self._world = world
        self._held: dict[int, int] = {}
        self._read: dict[int, int] = {}

    # --- calls ------------------------------------------------------------------------------------

    def call(self, program: Program, options: Options) -> None:
        caller, core = self.caller, self.caller.core
        if options.timeout:
            # A timeout is about the call; how long its value is on the way is not.
            program = msgspec.structs.replace(program, far=False)
        # What waits for a group that has no room must not hold up what does not.
        able = {x.id for x in self.calls if x.id in self._held and x.group is None}
        deps = [self.calls[i] for i in options.deps if self.calls[i].id in able]
        lent = [self.calls[i] for i in options.lent if self.calls[i].id in able]
        actor = self.actors[options.actor] if options.actor >= 0 else None
        parts = [record.value for record in (*deps, *lent)]
        known = [part for part in parts if part is not None]
        value = expected(program, known) if len(known) == len(parts) else None
        record = self._record(program, options, value)
        record.may_fail |= _may_fail(program) or options.cpus > 1 or actor is not None
        record.sources = [*deps, *lent]
        record.nested = bool(program.children)
        task = self._task(record, program, options)
        task.deps = [r.id for r in deps]
        task.lent = [r.id for r in lent]
        if actor is not None:
            task.fn, task.method = b"", "method"
        record.may_fail |= "stop" in options.preemption
        self._world.ledger.promised(caller.peer, task, again="requeue" in options.preemption)
        amounts = {"CPU": options.cpus, "GPU": options.gpus}
        held = {name: amount for name, amount in amounts.items() if amount}
        if self._world.keys is not None:
            options.priority = min(options.priority, HIGHEST_GRANTED)
        shape = Shape(
            held, options.priority, image=options.image, preemption=list(options.preemption),
            max_suspended=0.5 if options.preemption[:1] == ("suspend",) else 0.0,
            grace=0.2 if options.preemption in GRACED else 0.0,
            alternatives=[{"CPU": 2.0}] if options.gpus == 1.0 else [],
            # What waits for its own children would wait for ever for their being apart.
            company=APART if options.cpus == 0.5 and not program.children else None,
        )  # fmt: skip
        if options.reservation:
            shape = reservations.shape(options.reservation)
            record.may_fail = True
        if options.group >= 0:
            record.group, shape = self.groups.shape(options.group, options.bundle, actor=False)
        elif actor is not None:
            record.group = self._home_of.get(actor.id)
        record.may_fail |= record.group is not None
        home = actor if actor is not None else core.demand(shape)
        caller.submit(home, task)
        if program.far:
            # Looked at later, so that there is time to lose it with its machine.
            late = self._world.rng.random() * MOST_LATE
            self._world.clock.after(late, lambda: self._watch(record))
        else:
            self._watch(record)

    def reserve(self, plan: reservations.Plan) -> None:
        reservations.order(self._world, plan)

    def _watch(self, record: Record) -> None:
        if record.id in self.caller.core.objects.entries and not self.caller.closed:
            self.caller.when_there(record.id, lambda id: self._settled(record))

    def _record(self, program: Program, options: Options, value: bytes | None) -> Record:
        id = self.caller.core.objects.new()
        now = self._world.clock.now
        record = Record(
            self.caller.peer, self.caller.session, id, f"#{program.uid} {program.ends}",
            options.retries, now + options.timeout if options.timeout else 0.0, now, value,
        )  # fmt: skip
        record.may_fail = bool(options.timeout)
        self._held[id] = 1
        self.calls.append(record)
        self._world.ledger.asked(record)
        return record

    def _task(self, record: Record, program: Program, options: Options) -> Task:
        return Task(
            record.id,
            fn=function_of(program),
            name=record.name,
            args=pack(program),
            buffers=[b"padding"] if program.wide else [],
            deadline=0.0 if program.uid % 2 else record.deadline,
            due=record.deadline if program.uid % 2 else 0.0,
            retries=options.retries,
            retry_errors=True if options.retry_errors else None,
        )

    def _settled(self, record: Record) -> None:
        entry = self.caller.core.objects.entries.get(record.id)
        if entry is None or entry.data is None or record.outcome == "forgotten":
            return
        self._world.ledger.settled(record, entry.data, entry.error, entry.buffers)
        if self._world.winding_down:
            self.forget_all()

    def put(self, value: bytes, *, wide: bool) -> None:
        objects = self.caller.core.objects
        id = objects.new()
        now = self._world.clock.now
        record = Record(
            self.caller.peer, self.caller.session, id, "put", 0, 0.0, now, value,
            settled=now, outcome="put",
        )  # fmt: skip
        objects.settle(id, b"" if wide else value, [value] if wide else ())
        self._held[id] = 1
        self.calls.append(record)

    # --- streams ----------------------------------------------------------------------------------

    def stream(self, program: Program, options: Options, forget: bool) -> None:
        record = self._record(program, options, None)
        self.calls.pop()
        record.items = [item_of(program.uid, i) for i in range(program.items)]
        record.may_fail = _may_fail(program)
        task = self._task(record, program, options)
        task.returns = STREAM
        task.window = program.uid % 3
        self._world.ledger.promised(self.caller.peer, task)
        self.caller.submit(self.caller.core.demand(Shape({"CPU": 1.0})), task)
        self.streams.append(record)
        self._read[record.id] = 0
        if forget:
            del self._held[record.id]
            record.settled, record.outcome = self._world.clock.now, "forgotten"
            self.caller.core.forget_stream(record.id, self._world.clock.now)
            self.caller.after_core()
        else:
            self.caller.when_there(record.id, lambda id: self._stream_news(record))

    def _stream_news(self, record: Record) -> None:
        core = self.caller.core
        stream, entry = core.streams.get(record.id), core.objects.entries.get(record.id)
        if stream is None or entry is None:
            return
        while (id := core.endings.take_item(record.id)) is not None:
            item = core.objects.entries[id]
            index = self._read[record.id]
            self._world.ledger.item(record, index, read(item.data, item.buffers))
            self._read[record.id] = index + 1
            self.caller.drop([id])
            self.caller.after_core()
        if not stream.finished:
            self.caller.when_there(record.id, lambda id: self._stream_news(record))
            return
        if not entry.error:
            self._world.ledger.stream_over(record, self._read[record.id])
        self._world.ledger.settled(record, entry.data, entry.error, entry.buffers)

    # --- actors -----------------------------------------------------------------------------------

    def make(
        self,
        restarts: int,
        concurrency: int,
        shape: Shape,
        constructor: tuple[float, str],
        home: RemoteGroup | None = None,
    ) -> None:
        """Actors take seats, of which there are enough, or a CPU for a while: a program whose
        actors keep the CPUs that its tasks wait for hangs rightly."""
        world, caller = self._world, self.caller
        spec = ActorSpec(
            world.fresh("actor"), caller.session, caller.peer, "Sim", shape,
            {"CPU": 1.0}, max_restarts=restarts, max_concurrency=concurrency,
            checkpoints=concurrency == 1,
        )  # fmt: skip
        actor = caller.core.actors.add(spec.actor, "Sim")
        actor.handles = 1
        self.actors.append(actor)
        if home is not None:
            self._home_of[actor.id] = home
        caller.core.actors.create(actor, CreateActor(1, spec, pickle.dumps(constructor)))
        caller.after_core()
        number = len(self.actors) - 1
        if "CPU" in shape.resources:
            world.clock.after(LONGEST_CPU, lambda: self._end(number, actor))

    def _end(self, number: int, actor: RemoteActor) -> None:
        if not self.over and self.actors[number] is actor:
            self.kill(number, no_restart=True)

    def release(self, actor: int) -> None:
        """The last handle goes. Calls through a handle that is gone cannot be made: those of the
        plan find an actor that ends, which is as good."""
        record = self.actors[actor]
        record.handles = 0
        self.caller.core.release_actor(record)
        self.caller.after_core()

    def kill(self, actor: int, *, no_restart: bool) -> None:
        now = self._world.clock.now
        self.caller.core.kill_actor(self.actors[actor], no_restart=no_restart, now=now)
        self.caller.after_core()

    # --- ends -------------------------------------------------------------------------------------

    def cancel(self, call: int, *, force: bool, recursive: bool) -> None:
        record = self.calls[call]
        if record.id not in self._held:
            return
        record.cancelled = record.may_fail = True
        entry = self.caller.core.objects.entries[record.id]
        task = entry.task
        if force and task is not None and isinstance(task.home, RemoteActor):
            return
        self.caller.cancel(record.id, force=force, recursive=recursive)

    def forget(self, call: int) -> None:
        """The reference to a result goes, settled or not."""
        record = self.calls[call]
        if self._held.pop(record.id, 0):
            if record.settled is None:
                record.settled, record.outcome = self._world.clock.now, "forgotten"
            self.caller.drop([record.id])

    def forget_all(self) -> None:
        """Whatever has an outcome is needed no longer; all handles go."""
        for record in self.calls:
            if record.settled is not None and self._held.pop(record.id, 0):
                self.caller.drop([record.id])
        for record in self.streams:
            if record.settled is not None and self._held.pop(record.id, 0):
                self.caller.core.forget_stream(record.id, self._world.clock.now)
                self.caller.after_core()

    def release_all(self) -> None:
        """Every actor's last handle goes."""
        for actor in self.actors:
            actor.handles = 0
            self.caller.core.release_actor(actor)
        self.caller.after_core()


def _may_fail(program: Program) -> bool:
    return program.ends != "value" or any(
        child.timeout or _may_fail(child.program) for child in program.children
    )
