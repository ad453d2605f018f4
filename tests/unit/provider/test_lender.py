"""What a provider does with its workers, and tells the hub, when its owner comes and goes."""

from __future__ import annotations

from guactors.config import Lending
from guactors.idle.base import Reading
from guactors.messages import (
    ActorEnded,
    AvailabilityIs,
    GoOn,
    LeaseEnded,
    LeaseStarted,
    Offer,
    Resume,
    Stand,
    Stood,
    Suspend,
    Suspended,
)
from guactors.provider_state import HaltWorker, ImageFacts, ReadIdle
from tests.unit.provider.bench import Bench
from tests.unit.provider.test_standstill import halts, urgent
from tests.unit.security.grant_samples import IMAGE

LENDING = Lending(
    sources=["command"], command=["x"], idle_after=10.0, busy_after=0.0, dwell=0.0, leave_after=60.0
)
BUSY, IDLE = Reading(busy=True, text="a game"), Reading(busy=False)


class Owned(Bench):
    """One that is lent, of an owner whose coming and going is up to the test."""

    def __init__(self) -> None:
        super().__init__(warm=2, lending=LENDING)
        self.all_up()
        self.reads(IDLE)
        self.pass_time(11.0)
        self.leaves()

    def reads(self, reading: Reading) -> None:
        self.do(self.core.on_readings({"command": reading}, self.now))

    def comes(self) -> None:
        self.reads(BUSY)

    def leaves(self) -> None:
        """And is away for long enough."""
        self.reads(IDLE)
        self.pass_time(11.0)
        self.reads(IDLE)

    def busy(self) -> str:
        """A worker with the lease l-1."""
        self.lease()
        self.said(AvailabilityIs)
        return self.said(LeaseStarted)[0].worker


def test_it_is_not_lent_until_it_is_known_to_be_idle() -> None:
    bench = Bench(warm=1, lending=LENDING, up=False)
    assert any(isinstance(effect, ReadIdle) for effect in bench.pass_time(0.0)) or bench.other
    bench.hub_up()
    (offer,) = bench.said(Offer)
    assert not offer.info.availability.lent and "nobody knows yet" in offer.info.availability.reason
    bench.all_up()
    bench.lease()
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "not_lent" and not bench.said(LeaseStarted)


def test_the_owner_comes_and_all_stands_still_without_a_word_of_the_hub() -> None:
    bench = Owned()
    worker = bench.busy()
    bench.comes()
    (told,) = bench.said(AvailabilityIs)
    assert not told.availability.lent and told.availability.reason == "it is used: a game"
    assert told.availability.leave_in == 60.0
    assert [word.number for word in bench.told(worker, Stand)] == [0]
    bench.says(worker, Stood(0))
    assert halts(bench) == [HaltWorker(worker, stop=True)]
    bench.hub(Suspend("l-1", 5))
    assert bench.said(Suspended)[-1] == Suspended("l-1", 5)
    bench.leaves()
    assert bench.said(AvailabilityIs)[0].availability.lent
    assert halts(bench) == [], "the hub says who goes on"
    bench.hub(Resume("l-1", 5))
    assert halts(bench) == [HaltWorker(worker, stop=False)]
    assert bench.told(worker, GoOn) == [GoOn(5)]


def test_a_word_to_go_on_that_crossed_the_owner_counts_for_nothing() -> None:
    bench = Owned()
    worker = bench.busy()
    bench.comes()
    bench.says(worker, Stood(0))
    halts(bench)
    bench.hub(Resume("l-1", 5))
    assert halts(bench) == []


def test_without_a_hub_they_go_on_by_themselves() -> None:
    bench = Owned()
    worker = bench.busy()
    bench.hub_down()
    bench.comes()
    bench.says(worker, Stood(0))
    assert halts(bench) == [HaltWorker(worker, stop=True)]
    bench.leaves()
    assert halts(bench) == [HaltWorker(worker, stop=False)]


def test_they_go_on_where_the_hub_went_before_it_could_say_so() -> None:
    bench = Owned()
    worker = bench.busy()
    bench.comes()
    bench.says(worker, Stood(0))
    bench.hub(Suspend("l-1", 5))
    bench.leaves()
    halts(bench)
    bench.hub_down()
    assert halts(bench) == [HaltWorker(worker, stop=False)]


def test_what_stood_for_others_waits_for_the_hub() -> None:
    bench = Owned()
    worker = bench.busy()
    urgent(bench)
    (newcomer,) = [one.worker for one in bench.said(LeaseStarted)]
    bench.says(worker, Stood(5))
    halts(bench)
    bench.hub_down()
    bench.comes()
    bench.says(newcomer, Stood(0))
    assert halts(bench) == [HaltWorker(newcomer, stop=True)]
    bench.leaves()
    assert halts(bench) == [HaltWorker(newcomer, stop=False)]


def test_an_offer_says_how_long_it_has_been() -> None:
    bench = Owned()
    bench.comes()
    bench.hub_down()
    bench.pass_time(20.0)
    bench.to_hub.clear()
    bench.hub_up()
    (offer,) = bench.said(Offer)
    assert not offer.info.availability.lent and 39.0 < offer.info.availability.leave_in <= 40.0


def test_what_has_not_begun_is_turned_away() -> None:
    bench = Owned()
    bench.lease("l-2", image=IMAGE, runtime="native")
    bench.actor("a-2", image=IMAGE, runtime="native")
    bench.comes()
    assert [(x.lease, x.death.cause) for x in bench.said(LeaseEnded)] == [("l-2", "not_lent")]
    assert [x.actor for x in bench.said(ActorEnded)] == ["a-2"]
    bench.image_here(ImageFacts(IMAGE))
    assert not bench.preparing


def test_what_is_being_prepared_is_turned_away() -> None:
    bench = Owned()
    bench.actor("a-2", image=IMAGE, runtime="native")
    bench.image_here(ImageFacts(IMAGE))
    (worker,) = bench.preparing
    bench.comes()
    (ended,) = bench.said(ActorEnded)
    assert (ended.actor, ended.death.cause) == ("a-2", "not_lent")
    assert worker in bench.killed


def test_an_actor_stands_still_at_once() -> None:
    bench = Owned()
    bench.actor()
    bench.comes()
    (halt,) = halts(bench)
    assert halt.stop


def test_the_sources_are_read_again_and_again() -> None:
    bench = Owned()
    bench.other.clear()
    bench.pass_time(20.0)
    reads = [effect for effect in bench.other if isinstance(effect, ReadIdle)]
    assert 9 <= len(reads) <= 11


def test_a_machine_without_a_word_is_never_looked_at() -> None:
    bench = Bench(warm=1)
    bench.all_up()
    bench.pass_time(60.0)
    assert not [effect for effect in bench.other if isinstance(effect, ReadIdle)]
    assert not bench.said(AvailabilityIs)
