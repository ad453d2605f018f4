"""The caller's core and values on other machines: what stays there, what comes here in chunks, and
what is made again when a machine is lost."""

from __future__ import annotations

import pickle
from typing import Any
from zlib import crc32

import pytest

from guactors import messages as m
from guactors.caller.away import Away
from guactors.errors import ObjectLost, StoreFull
from guactors.objects.layout import body_size
from guactors.objects.pulling import CHUNK, STALLED, WINDOW
from tests.unit.caller.bench import KEY, Bench, endpoints, value

HERE, THERE = "here", "there"
SIZES = [10, 2 * CHUNK]
BODY = body_size(SIZES)


def word(serial: int = 1, store: str = THERE) -> m.Stored:
    return m.Stored(store, f"m-{serial:032x}", 4096, serial, SIZES)


def name(serial: int = 1) -> m.BlockName:
    return m.BlockName(word(serial).arena, 4096, serial)


def big(serial: int = 1, **more: Any) -> m.Value:
    return m.Value(b"", stored=word(serial), **more)


class Draft:
    """Memory that is told what to hold; ``finish`` gives it as a value."""

    def __init__(self) -> None:
        self.bytes = bytearray(BODY)
        self.word = word(99, HERE)
        self.size = BODY

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.bytes[offset : offset + len(data)] = data

    def finish(self) -> Draft:
        return self

    def parts(self) -> list[memoryview]:
        return [memoryview(bytes(self.bytes[:10])), memoryview(bytes(self.bytes[64:]))]


class Far(Bench):
    """A bench whose workers are on another machine; ``content`` is what their memory holds."""

    def __init__(self) -> None:
        super().__init__(store=HERE)
        self.content = bytes(i % 251 for i in range(BODY))
        self.core.remote.bringing.draft = self._draft
        self.full = False

    def _draft(self, sizes: list[int]) -> Any:
        if self.full:
            raise StoreFull("no room")
        assert sizes == SIZES
        return Draft()

    def lease(self, worker: str, store: str = THERE) -> None:
        places = [m.Endpoint(e.control, e.data, store=store) for e in endpoints(worker)]
        self.hub(m.LeaseGranted(KEY, f"l-{worker}", worker, "p-1", places))

    def made(self, worker: str = "w-1", **options: Any) -> int:
        """A call whose result stays with the worker."""
        id = self.call(**options)
        self.lease(worker)
        self.calls(worker)
        self.reply(worker, id, big())
        return id

    def want(self, *ids: int) -> None:
        self.core.want([self.core.objects.entries[id] for id in ids], self.now)
        self._settle()

    def serve(self, worker: str, *, damaged: int = 0, at_most: int = 1000) -> int:
        """Answer what the worker was asked to read; how many chunks that were."""
        count = 0
        while asks := self.sent(worker, m.ReadBlock):
            for ask in asks[: at_most - count]:
                data = self.content[ask.offset : ask.offset + ask.length]
                assert len(data) == ask.length
                checksum = crc32(data) + (1 if damaged > 0 else 0)
                damaged -= 1
                count += 1
                self.says(worker, m.BlockChunk(ask.request, ask.offset, checksum), data)
        return count


@pytest.fixture
def bench() -> Far:
    return Far()


def test_a_result_stays_until_it_is_wanted(bench: Far) -> None:
    id = bench.made()
    assert isinstance(bench.data(id), Away)
    assert not bench.sent("w-1", m.ReadBlock)
    bench.want(id)
    assert bench.serve("w-1") == 3
    draft: Any = bench.data(id)
    assert isinstance(draft, Draft)
    assert bytes(draft.bytes) == bench.content
    assert bench.sent("w-1", m.Unused) == [m.Unused([name()])]


def test_a_result_that_is_waited_for_comes_at_once(bench: Far) -> None:
    id = bench.call()
    bench.lease("w-1")
    bench.want(id)
    bench.reply("w-1", id, big())
    assert bench.serve("w-1") == 3
    assert isinstance(bench.data(id), Draft)


def test_no_more_is_asked_for_than_fits_on_the_way(bench: Far) -> None:
    bench.want(bench.made())
    assert len(bench.sent("w-1", m.ReadBlock)) == min(WINDOW, 3)


def test_a_damaged_chunk_comes_again(bench: Far) -> None:
    id = bench.made()
    bench.want(id)
    assert bench.serve("w-1", damaged=2) == 5
    assert bytes(bench.data(id).bytes) == bench.content  # type: ignore[union-attr]


def test_a_result_that_is_dropped_goes_back(bench: Far) -> None:
    id = bench.made(retries=3)
    bench.drop(id)
    assert bench.sent("w-1", m.Unused) == [m.Unused([name()])]
    assert len(bench.core.remote.lineage) == 0


def test_dropped_on_its_way(bench: Far) -> None:
    id = bench.made()
    bench.want(id)
    bench.drop(id)
    bench.serve("w-1")
    assert not bench.kept()


def test_a_call_on_that_machine_is_told_the_place(bench: Far) -> None:
    made = bench.made()
    bench.call(deps=[made])
    ((batch, frames),) = bench.to_worker["w-1"][-1:]
    assert isinstance(batch, m.Calls)
    assert batch.calls[0].deps[0].stored == word()
    assert not frames
    assert not bench.sent("w-1", m.ReadBlock)


def test_a_call_goes_where_its_value_is(bench: Far) -> None:
    """Two leases are free; the one of the other machine came first."""
    id = bench.call()
    bench.lease("w-1")
    bench.calls("w-1")
    bench.reply("w-1", id, big())
    bench.call()  # keeps w-1 for a moment, so that w-2 is listed before it
    bench.lease("w-2", store="third")
    taken = bench.calls("w-1")
    later = bench.call(deps=[id])
    assert bench.calls("w-2") == []
    bench.reply("w-1", taken[0])
    assert bench.calls("w-1") + bench.calls("w-2") != []
    assert not bench.sent("w-1", m.ReadBlock) or later in bench.calls("w-2")


def test_a_call_elsewhere_waits_until_the_value_is_here(bench: Far) -> None:
    made = bench.made()
    bench.pass_time(1.0)  # the lease goes back
    assert bench.told(m.ReturnLease)
    assert bench.hung_up == []
    later = bench.call(deps=[made])
    bench.lease("w-2", store="third")
    assert bench.calls("w-2") == []
    bench.serve("w-1")
    ((batch, frames),) = [x for x in bench.to_worker["w-2"] if isinstance(x[0], m.Calls)]
    assert isinstance(batch, m.Calls)
    assert [call.id for call in batch.calls] == [later]
    assert b"".join(map(bytes, frames))[10:] == bench.content[64:]


def test_an_actor_elsewhere_waits_in_order(bench: Far) -> None:
    made = bench.made()
    actor = bench.actor()
    bench.alive(worker="w-9")
    first, second = bench.call(actor, deps=[made]), bench.call(actor)
    assert bench.calls("w-9") == []
    bench.serve("w-1")
    assert bench.calls("w-9") == [first, second]


def test_a_neighbour_that_borrowed_it_gets_the_bytes(bench: Far) -> None:
    made = bench.made()
    bench.core.objects.lend([made], "n-1")
    bench.says("n-1", m.Fetch(5, m.RefWord("c-1", made)))
    assert bench.sent("n-1", m.Object) == []
    bench.serve("w-1")
    assert [answer.request for answer in bench.sent("n-1", m.Object)] == [5]


def test_a_worker_that_comes_back_is_not_dialled_again(bench: Far) -> None:
    """The loans of a link end with it."""
    made = bench.made()
    bench.pass_time(1.0)
    assert bench.told(m.ReturnLease)
    later = bench.call(deps=[made])
    bench.lease("w-1")
    assert bench.dialled == ["w-1"]
    assert bench.calls("w-1") == [later]
    bench.reply("w-1", later)
    bench.drop(made, later)
    bench.pass_time(1.0)
    assert bench.hung_up == ["w-1"]
    bench.call()
    bench.lease("w-1")
    assert bench.dialled == ["w-1", "w-1"]


def test_what_a_worker_that_leaves_has_of_ours_comes_here(bench: Far) -> None:
    id = bench.made(retries=0)
    bench.says("w-1", m.Leaving())
    bench.serve("w-1")
    bench.lose("w-1")
    assert isinstance(bench.data(id), Draft)


# --- loss ----------------------------------------------------------------------------------------


def test_a_lost_value_is_made_again(bench: Far) -> None:
    dep = bench.put(b"dep")
    id = bench.made(retries=3, deps=[dep])
    bench.drop(dep)
    assert dep in bench.kept()
    bench.lose("w-1")
    assert bench.data(id) is None
    bench.lease("w-2")
    assert bench.calls("w-2") == [id]
    bench.reply("w-2", id, big(2), attempt=1)
    bench.want(id)
    bench.serve("w-2")
    assert isinstance(bench.data(id), Draft)
    assert bench.kept() == [id]


def test_a_value_lost_on_its_way_is_made_again(bench: Far) -> None:
    id = bench.made(retries=3)
    bench.want(id)
    bench.serve("w-1", at_most=1)
    bench.lose("w-1")
    bench.lease("w-2")
    bench.reply("w-2", id, big(2), attempt=1)
    assert bench.serve("w-2") == 3
    assert bytes(bench.data(id).bytes) == bench.content  # type: ignore[union-attr]


def test_a_chain_is_made_again(bench: Far) -> None:
    first = bench.made(retries=3)
    second = bench.call(retries=3, deps=[first])
    bench.reply("w-1", second, big(2))
    bench.lose("w-1")
    bench.lease("w-2")
    assert bench.calls("w-2") == [first]
    bench.reply("w-2", first, big(3), attempt=1)
    assert bench.calls("w-2") == [second]
    bench.reply("w-2", second, big(4), attempt=1)
    bench.want(first, second)
    bench.serve("w-2")
    assert all(isinstance(bench.data(id), Draft) for id in (first, second))


def test_a_call_that_waits_for_a_worker_waits_for_a_lost_value_too(bench: Far) -> None:
    """It was ready when it was made, and nothing of what it needs is there when it can go."""
    made = bench.made(retries=3)
    bench.pass_time(1.0)  # the lease goes back
    later = bench.call(deps=[made])
    bench.lose("w-1")
    bench.lease("w-2")
    assert bench.calls("w-2") == [made]
    bench.reply("w-2", made, big(2), attempt=1)
    assert bench.calls("w-2") == [later]


def test_a_call_under_way_is_retried_with_a_value_that_was_lost(bench: Far) -> None:
    made = bench.made(retries=3)
    later = bench.call(deps=[made], retries=3)
    assert bench.calls("w-1") == [later]
    bench.lose("w-1")
    bench.lease("w-2")
    assert bench.calls("w-2") == [made]
    bench.reply("w-2", made, big(2), attempt=1)
    assert bench.calls("w-2") == [later]


def test_a_call_that_found_a_value_gone_gets_its_bytes(bench: Far) -> None:
    """The worker is told the place; there is nothing there, for whatever reason."""
    made = bench.made(retries=3)
    later = bench.call(deps=[made])
    assert bench.calls("w-1") == [later]
    gone = m.Value(pickle.dumps(ObjectLost("gone")), 0, True)
    bench.says("w-1", m.Replies([m.Reply(later, [gone], missing=True)]))
    assert bench.data(later) is None
    assert bench.calls("w-1") == []
    bench.serve("w-1")
    assert bench.calls("w-1") == [later]
    bench.reply("w-1", later, attempt=1)
    assert bench.data(later) == b"v"


def test_a_neighbour_that_found_it_gone_gets_its_bytes(bench: Far) -> None:
    made = bench.made(retries=3)
    bench.core.objects.lend([made], "w-1")
    bench.says("w-1", m.Fetch(5, m.RefWord("c-1", made)))
    assert [answer.value.stored for answer in bench.sent("w-1", m.Object)] == [word()]
    bench.says("w-1", m.Fetch(5, m.RefWord("c-1", made), whole=True))
    assert bench.sent("w-1", m.Object) == []
    bench.serve("w-1")
    assert [answer.value.buffers for answer in bench.sent("w-1", m.Object)] == [2]


def test_a_borrowed_value_that_is_gone_is_asked_for_again(bench: Far) -> None:
    id = bench.call()
    bench.lease("w-1")
    bench.reply("w-1", id, m.Value(b"list", refs=[m.RefWord("w-1", 9)]))
    inner = (bench.core.objects.entries[id].contains or [0])[0]
    bench.core.objects.need(inner)
    bench.says("w-1", m.Object(inner, big()))
    fetches = bench.sent("w-1", m.Fetch)
    assert fetches[-1] == m.Fetch(inner, m.RefWord("w-1", 9), whole=True)
    bench.says("w-1", m.Object(inner, value(b"bytes")))
    assert bench.data(inner) == b"bytes"


def test_two_results_of_one_call_are_made_again_at_once(bench: Far) -> None:
    id = bench.call(retries=3, returns=2)
    bench.lease("w-1")
    bench.calls("w-1")
    bench.reply("w-1", id, big(1), big(2))
    bench.lose("w-1")
    bench.lease("w-2")
    assert bench.calls("w-2") == [id]
    bench.reply("w-2", id, big(3), big(4), attempt=1)
    assert bench.core.objects.is_away(id)
    assert bench.core.objects.is_away(id + 1)


def test_the_result_that_is_here_stays_when_the_other_is_made_again(bench: Far) -> None:
    id = bench.call(retries=3, returns=2)
    bench.lease("w-1")
    bench.calls("w-1")
    bench.reply("w-1", id, m.Value(b"small"), big(2))
    bench.lose("w-1")
    bench.lease("w-2")
    assert bench.calls("w-2") == [id]
    bench.reply("w-2", id, m.Value(b"other"), big(3), attempt=1)
    assert bench.data(id) == b"small"
    assert bench.core.objects.is_away(id + 1)


def test_a_call_with_one_result_here_waits_for_what_it_needs_again(bench: Far) -> None:
    first = bench.made(retries=3)
    second = bench.call(retries=3, returns=2, deps=[first])
    bench.reply("w-1", second, m.Value(b"small"), big(2))
    bench.lose("w-1")
    bench.lease("w-2")
    bench.reply("w-2", first, big(3), attempt=1)
    assert bench.calls("w-2") == [first, second]


def test_what_cannot_be_made_again_is_an_error(bench: Far) -> None:
    id = bench.made(retries=0)
    later = bench.call(deps=[id])
    bench.reply("w-1", later)
    bench.lose("w-1")
    assert isinstance(bench.failure(id), ObjectLost)


def test_retries_are_used_up(bench: Far) -> None:
    id = bench.made(retries=1)
    bench.lose("w-1")
    bench.lease("w-2")
    bench.reply("w-2", id, big(2), attempt=1)
    bench.lose("w-2")
    assert isinstance(bench.failure(id), ObjectLost)


def test_too_large_arguments_are_not_kept(bench: Far) -> None:
    bench.core.remote.lineage._most = 100
    id = bench.made(retries=3, args=b"x" * 101)
    bench.lose("w-1")
    assert isinstance(bench.failure(id), ObjectLost)


def test_a_worker_that_forgot_it(bench: Far) -> None:
    id = bench.made(retries=0)
    bench.want(id)
    for ask in bench.sent("w-1", m.ReadBlock):
        bench.says("w-1", m.BlockChunk(ask.request, ask.offset))
    error = bench.failure(id)
    assert isinstance(error, ObjectLost)
    assert "has it no longer" in str(error)


def test_a_worker_that_never_sends(bench: Far) -> None:
    id = bench.made(retries=0)
    bench.want(id)
    bench.pass_time(STALLED + 10)
    assert isinstance(bench.failure(id), ObjectLost)


def test_no_room_for_it_here(bench: Far) -> None:
    id = bench.made(retries=3)
    bench.full = True
    bench.want(id)
    assert isinstance(pickle.loads(bench.data(id) or b""), StoreFull)
    assert bench.core.objects.entries[id].error


def test_chunks_nobody_asked_for(bench: Far) -> None:
    id = bench.made()
    bench.says("w-1", m.BlockChunk(id, 0, 0), b"x")
    bench.says("w-1", m.BlockChunk(12345, 0, 0), b"x")
    bench.want(id)
    bench.says("w-2", m.BlockChunk(id, 0, 0), b"x")
    bench.says("w-1", m.BlockChunk(id, 17, 0), b"x")
    assert bench.core.objects.is_away(id)
    bench.serve("w-1")
    assert isinstance(bench.data(id), Draft)
