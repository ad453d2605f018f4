"""What is computed in the laboratory: machines and jobs with the shape of published cluster traces.

Owns: the distributions and their parameters. Must never: know a scheduler, or draw from anything
but the generator it is given.

Modelled on what is published of the Google cluster traces (2011; 2019, "Borg: the Next Generation",
EuroSys 2020) and of the Philly and Alibaba GPU traces, not on their numbers one by one:

* durations are lognormal with a Pareto tail: the median is half a minute, one in a hundred runs for
  an hour or more, and those few are most of the work;
* jobs come in bursts: one user submits a sweep, whose size is Pareto as well (most are a single
  job, a few are hundreds), users themselves are unequal (Zipf) and repeat themselves: each has a
  few kinds of jobs;
* four tiers of priority, as free, batch, middle and production; production is the smallest part;
* most jobs ask for one or two CPUs, few for sixteen; some need a GPU, some a lot of memory, some a
  kind of machine (a label);
* machines are unequal: a few sizes of CPUs, one in ten with GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

GB = float(1 << 30)

PRIORITIES = (0, 10, 20, 30)
"""Free, batch, middle, production."""
PRIORITY_WEIGHTS = (35, 30, 20, 15)
ZONES = ("lab", "den", "hall", "attic")
MACHINES = ((4, 16, 0, 40), (8, 32, 0, 30), (16, 64, 0, 15), (32, 128, 0, 5), (16, 64, 2, 10))
"""CPUs, GB of memory, GPUs, weight."""
SHAPES = (
    (1, 1, 0, "", 300), (1, 4, 0, "", 150), (2, 2, 0, "", 150), (2, 8, 0, "", 80),
    (4, 4, 0, "", 80), (4, 16, 0, "", 50), (8, 16, 0, "", 30), (16, 32, 0, "", 10),
    (1, 2, 0, "lab", 40), (2, 4, 0, "den", 30), (4, 8, 1, "", 30), (8, 16, 2, "", 10),
)  # fmt: skip
"""CPUs, GB of memory, GPUs, zone if it must be a certain one, weight."""
MEDIAN = 30.0
SIGMA = 1.4
TAIL = 0.03
"""Share of jobs whose duration is of the tail."""
TAIL_FROM, TAIL_ALPHA = 600.0, 1.1
LONGEST, SHORTEST = 12 * 3600.0, 0.5
SWEEP_ALPHA, LARGEST_SWEEP = 1.3, 500
USERS_ALPHA = 1.1
HABITS = 4
"""Kinds of jobs of one user."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One provider."""

    cpus: int
    memory: float
    gpus: int
    zone: str

    @property
    def resources(self) -> dict[str, float]:
        """As in an Offer."""
        found: dict[str, float] = {"CPU": float(self.cpus), "memory": self.memory}
        if self.gpus:
            found["GPU"] = float(self.gpus)
        return found


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work: ``seconds`` on one lease of the shape."""

    number: int
    at: float
    user: int
    shape: int
    priority: int
    seconds: float

    @property
    def cpus(self) -> int:
        """That it holds."""
        return SHAPES[self.shape][0]


def resources_of(shape: int) -> dict[str, float]:
    """What a lease of the shape asks for."""
    cpus, memory, gpus, _, _ = SHAPES[shape]
    found: dict[str, float] = {"CPU": float(cpus), "memory": memory * GB}
    if gpus:
        found["GPU"] = float(gpus)
    return found


def zone_of(shape: int) -> str:
    """The label it must meet, or empty."""
    return SHAPES[shape][3]


def machines(count: int, random: Random) -> list[Machine]:
    """So many; the first few are one of each kind and zone, so that no shape is impossible."""
    kinds = random.choices(MACHINES, [kind[3] for kind in MACHINES], k=count)
    kinds[: len(MACHINES)] = MACHINES[: min(len(MACHINES), count)]
    return [
        Machine(cpus, memory * GB, gpus, ZONES[number % len(ZONES)])
        for number, (cpus, memory, gpus, _) in enumerate(kinds)
    ]


def duration(random: Random) -> float:
    """Seconds of one job."""
    if random.random() < TAIL:
        seconds = TAIL_FROM * random.paretovariate(TAIL_ALPHA)
    else:
        seconds = random.lognormvariate(math.log(MEDIAN), SIGMA)
    return min(LONGEST, max(SHORTEST, seconds))


def habits(random: Random, users: int) -> list[list[tuple[int, int]]]:
    """By user, the kinds of jobs that it submits: shape and priority."""
    shapes = list(accumulate(shape[4] for shape in SHAPES))
    tiers = list(accumulate(PRIORITY_WEIGHTS))
    found = []
    for _ in range(users):
        mine = random.choices(range(len(SHAPES)), cum_weights=shapes, k=HABITS)
        found.append([(one, random.choices(PRIORITIES, cum_weights=tiers)[0]) for one in mine])
    return found


def jobs(random: Random, users: int, rate: float, *, even: bool = False) -> Iterator[Job]:
    """Endless, ``rate`` a second on average, in sweeps of one user and one kind; ``even``: all
    users submit as much as the others."""
    kinds = habits(random, users)
    exponent = 0.0 if even else USERS_ALPHA
    popular = list(accumulate(1 / (user + 1) ** exponent for user in range(users)))
    sizes = [min(LARGEST_SWEEP, int(random.paretovariate(SWEEP_ALPHA))) for _ in range(10_000)]
    sweeps = rate * len(sizes) / sum(sizes)
    now, number = 0.0, 0
    while True:
        now += random.expovariate(sweeps)
        user = random.choices(range(users), cum_weights=popular)[0]
        shape, priority = random.choice(kinds[user])
        for _ in range(random.choice(sizes)):
            yield Job(number, now, user, shape, priority, duration(random))
            number += 1
