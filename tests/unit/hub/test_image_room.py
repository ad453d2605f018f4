"""Images at the hub: who may upload, see, fetch and remove what, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors import messages as m
from guactors.errors import ImageRefused, InternalError
from guactors.image_state import jobs
from guactors.image_state.fetches import FETCH_IDLE, MOST_FETCHED, SLICE, TOLD_AGAIN
from guactors.image_state.ledger import KEPT, Ledger
from guactors.image_state.passing import UNUSED
from guactors.image_state.room import SWEEP_EVERY, ImageRoom
from guactors.image_state.uploads import CLOSE_AFTER, IDLE, MOST_OPEN, SAVE_EVERY
from guactors.runtime_env.description import ARCHIVE
from guactors.scheduling import events as e
from tests.unit.hub.image_bench import (
    APP,
    CHUNK,
    GUEST,
    LOCAL,
    OTHER,
    OTHER_UPLOADER,
    OWNER,
    PROVIDER,
    THIRD,
    UPLOADER,
    Bench,
    Disk,
    Image,
    app,
    runs,
    uploads,
)
from tests.unit.security.grant_samples import NOW, OTHER_SIGNER, SIGNER, grant, wide

ONE = Image(3, 1)
TWO = Image(2, 2)
SIGNED = Image(1, 3, signers="one")


# --- uploads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", [LOCAL, OWNER, UPLOADER], ids=["local", "owner", "app"])
def test_an_upload_from_offer_to_seal(standing: e.Standing) -> None:
    bench = Bench()
    wanted = bench.ask("c-1", standing, ONE.offer(7))
    assert wanted == m.WantChunks(7, ONE.id, [m.ChunkList(ONE.blob.sha3_256, [0, 1, 2])])
    for index in (2, 0, 1):
        assert bench.ask("c-1", standing, ONE.put(index, 8)) == m.Done(8)
    done = bench.ask("c-1", standing, ONE.seal(9))
    assert isinstance(done, m.Done)
    assert done.request == 9
    assert bench.disk.images == {ONE.id: (ONE.data, b"")}
    assert bench.listed("c-1", standing) == {ONE.id}
    [told] = bench.decisions
    assert (told.who, told.action, told.object, told.decision) == (
        standing.principal,
        "upload",
        ONE.id,
        "allowed",
    )
    assert not bench.disk.open
    # And again.
    assert isinstance(bench.ask("c-1", standing, ONE.offer()), m.Done)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (GUEST, "no_grant"),
        (app(wide()), "action"),
        (app(uploads(expires=int(NOW) + 1), key=APP), "expired"),
        (app(uploads(not_before=int(NOW) + 100)), "not_yet_valid"),
        (e.Standing("", "app", "", app().rights), "no_grant"),
        (PROVIDER, "no_grant"),
    ],
)
def test_without_the_right_to_upload_nothing_is_stored(standing: e.Standing, reason: str) -> None:
    bench = Bench()
    bench.now = 2.0
    assert bench.fault("c-1", standing, ONE.offer()).kind == "PermissionDenied"
    [told] = bench.decisions
    assert (told.action, told.object, told.decision, told.reason) == (
        "upload", ONE.id, "refused", reason,
    )  # fmt: skip
    for message in (ONE.put(0), ONE.seal()):
        assert bench.fault("c-1", standing, message).kind == "UsageError"
    assert not bench.disk.partial


def test_a_manifest_is_read_strictly_before_anything_is_stored() -> None:
    bench = Bench()
    offer = m.OfferImage(1, ONE.data.replace(b'"linux"', b'"linux" '))
    fault = bench.fault("c-1", UPLOADER, offer)
    assert fault.kind == "ImageRefused"
    assert not bench.disk.partial
    assert [told.decision for told in bench.decisions] == ["refused"]
    assert Ledger(bench.disk.uploads).used(APP) == 0


def test_what_was_not_offered_is_not_taken() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.ask("c-1", UPLOADER, TWO.offer())
    # Another image, another peer, another principal, another blob, another chunk.
    assert bench.fault("c-1", UPLOADER, ONE.put(0)).kind == "UsageError"
    assert bench.fault("c-2", UPLOADER, TWO.put(0)).kind == "UsageError"
    assert bench.fault("c-2", OTHER_UPLOADER, TWO.put(0)).kind == "UsageError"
    other = m.PutChunk(2, TWO.id, ONE.blob.sha3_256, 0, b"x")
    assert bench.fault("c-1", UPLOADER, other).kind == "UsageError"
    assert bench.fault("c-1", UPLOADER, TWO.put(99)).kind == "ImageRefused"
    assert bench.fault("c-1", UPLOADER, m.SealImage(3, "py311")).kind == "UsageError"


def test_a_wrong_chunk_is_refused_and_recorded_and_the_right_one_still_fits() -> None:
    bench = Bench()
    bench.ask("c-1", UPLOADER, TWO.offer())
    assert bench.fault("c-1", UPLOADER, TWO.put(0, data=b"evil")).kind == "ImageRefused"
    [told] = bench.decisions
    assert (told.action, told.object, told.reason) == ("upload", TWO.id, "image")
    assert bench.fault("c-1", UPLOADER, TWO.seal()).kind == "ImageRefused"
    for index in (0, 1):
        bench.ask("c-1", UPLOADER, TWO.put(index))
    assert isinstance(bench.ask("c-1", UPLOADER, TWO.seal()), m.Done)


def test_a_chunk_that_is_too_long_is_not_even_kept_waiting() -> None:
    bench = Bench(lazy=True)
    bench.say("c-1", UPLOADER, ONE.put(0, data=bytes(CHUNK + 1)))
    [fault] = bench.answers_of("c-1")
    assert isinstance(fault, m.Fault)
    assert fault.kind == "ImageRefused"
    assert not bench.todo


@pytest.mark.parametrize("standing", [LOCAL, UPLOADER], ids=["local", "app"])
@pytest.mark.parametrize("how", ["same peer", "other peer", "hub restarted"])
def test_what_was_sent_is_not_wanted_again(standing: e.Standing, how: str) -> None:
    bench = Bench()
    bench.ask("c-1", standing, ONE.offer())
    bench.ask("c-1", standing, ONE.put(1))
    peer = "c-1" if how == "same peer" else "c-2"
    if how == "hub restarted":
        bench.pass_time(SAVE_EVERY)
        bench = bench.restart()
    assert bench.wanted(peer, standing, ONE) == [0, 2]
    for index in (0, 2):
        bench.ask(peer, standing, ONE.put(index))
    assert isinstance(bench.ask(peer, standing, ONE.seal()), m.Done)


def test_two_processes_of_one_app_share_an_upload() -> None:
    bench = Bench()
    for peer in ("c-1", "c-2"):
        assert bench.wanted(peer, UPLOADER, TWO) == [0, 1]
    bench.ask("c-1", UPLOADER, TWO.put(0))
    bench.ask("c-2", UPLOADER, TWO.put(1))
    assert isinstance(bench.ask("c-1", UPLOADER, TWO.seal()), m.Done)
    assert bench.fault("c-2", UPLOADER, TWO.seal()).kind == "UsageError"


def test_who_only_knows_a_manifest_gets_nothing_by_it() -> None:
    """The hub asks a stranger for all chunks, whether it has them or not; only who sends them all
    counts as an uploader."""
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.ask("c-1", UPLOADER, TWO.offer())
    bench.ask("c-1", UPLOADER, TWO.put(0))
    assert bench.wanted("c-2", OTHER_UPLOADER, ONE) == [0, 1, 2]
    assert bench.wanted("c-2", OTHER_UPLOADER, TWO) == [0, 1]
    assert bench.fault("c-2", OTHER_UPLOADER, ONE.seal()).kind == "ImageRefused"
    assert bench.fault("c-2", OTHER_UPLOADER, ONE.put(0, data=b"guess")).kind == "ImageRefused"
    assert bench.fault("c-2", OTHER_UPLOADER, m.AskImage(1, ONE.id)).kind == "ImageRefused"
    assert bench.listed("c-2", OTHER_UPLOADER) == set()
    for index in (0, 1, 2):
        bench.ask("c-2", OTHER_UPLOADER, ONE.put(index))
    assert isinstance(bench.ask("c-2", OTHER_UPLOADER, ONE.seal()), m.Done)
    assert bench.listed("c-2", OTHER_UPLOADER) == {ONE.id}
    # A local user may see everything, and sends only what is missing.
    assert bench.wanted("c-3", LOCAL, TWO) == [1]


def test_who_may_run_an_image_need_not_upload_it() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    reader = app(uploads(key=OTHER), wide(app=OTHER, image_hashes=[ONE.id]), key=OTHER)
    assert isinstance(bench.ask("c-2", reader, ONE.offer()), m.Done)
    assert Ledger(bench.disk.uploads, [ONE.id]).uploaders(ONE.id) == {APP}


def test_a_blob_of_an_own_image_is_not_wanted_again() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    renamed = m.OfferImage(1, ONE.data.replace(b"image-1", b"image-x"))
    answer = bench.ask("c-1", UPLOADER, renamed)
    assert isinstance(answer, m.WantChunks)
    assert answer.missing == []
    stranger = bench.ask("c-2", OTHER_UPLOADER, renamed)
    assert isinstance(stranger, m.WantChunks)
    assert stranger.missing == [m.ChunkList(ONE.blob.sha3_256, [0, 1, 2])]


def test_signatures_are_added_by_those_who_uploaded() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    signed = m.OfferImage(1, ONE.data, b"one")
    may_run = app(uploads(key=OTHER), wide(app=OTHER, image_hashes=[ONE.id]), key=OTHER)
    assert isinstance(bench.ask("c-2", may_run, signed), m.Done)
    assert bench.disk.images[ONE.id][1] == b""
    assert isinstance(bench.ask("c-1", UPLOADER, signed), m.Done)
    answer = bench.ask("c-1", UPLOADER, m.AskImages(1))
    assert isinstance(answer, m.ImageList)
    assert answer.images[0].signers == [SIGNER]


# --- storage -------------------------------------------------------------------------------------


def test_the_storage_of_a_grant_counts_finished_and_unfinished_uploads() -> None:
    size = ONE.blob.size + len(ONE.data)
    standing = app(uploads(size + TWO.blob.size + len(TWO.data)))
    bench = Bench()
    bench.upload("c-1", standing, ONE)
    bench.ask("c-1", standing, TWO.offer())
    fault = bench.fault("c-1", standing, SIGNED.offer())
    assert fault.kind == "PermissionDenied"
    assert "gu image remove" in fault.detail
    assert bench.decisions[-1].reason == "quota"
    # It counts after a restart, too, and until the unfinished one is forgotten.
    bench = bench.restart()
    bench.fault("c-1", standing, SIGNED.offer())
    bench.pass_time(KEPT + SWEEP_EVERY + 1)
    bench.upload("c-1", standing, SIGNED)
    bench.ask("c-1", standing, m.RemoveImage(1, ONE.id))
    assert bench.wanted("c-1", standing, TWO)


def test_a_grant_that_shrinks_ends_an_upload_under_way() -> None:
    bench = Bench()
    bench.ask("c-1", UPLOADER, ONE.offer())
    small = app(uploads(1000))
    assert bench.fault("c-1", small, ONE.put(0)).kind == "PermissionDenied"
    assert bench.fault("c-1", small, ONE.seal()).kind == "PermissionDenied"
    assert bench.fault("c-1", app(), ONE.put(0)).kind == "PermissionDenied"


def test_an_offer_that_does_not_fit_counts_for_nobody() -> None:
    bench = Bench()
    bench.disk.broken[jobs.Open] = ImageRefused("full")
    standing = app(uploads(ONE.blob.size + len(ONE.data)))
    assert bench.fault("c-1", standing, ONE.offer()).detail == "full"
    bench.disk.broken.clear()
    assert bench.wanted("c-1", standing, TWO) == [0, 1]


@pytest.mark.parametrize("kind", [jobs.Seal, jobs.Save])
def test_a_seal_that_fails_makes_nobody_an_uploader(kind: type[jobs.Job]) -> None:
    bench = Bench()
    bench.ask("c-1", UPLOADER, TWO.offer())
    for index in (0, 1):
        bench.ask("c-1", UPLOADER, TWO.put(index))
    bench.disk.broken[kind] = ImageRefused("the disk fails")
    assert bench.fault("c-1", UPLOADER, TWO.seal()).detail == "the disk fails"
    assert bench.disk.images == {}
    bench.disk.broken.clear()
    bench.upload("c-2", OTHER_UPLOADER, TWO)
    assert bench.listed("c-1", UPLOADER) == set()
    assert isinstance(bench.ask("c-1", UPLOADER, TWO.seal()), m.Done)
    assert bench.listed("c-1", UPLOADER) == {TWO.id}


def test_a_hub_that_is_killed_between_list_and_store_believes_the_store() -> None:
    bench = Bench(lazy=True)
    bench.ask("c-1", UPLOADER, TWO.offer())
    for index in (0, 1):
        bench.ask("c-1", UPLOADER, TWO.put(index))
    bench.say("c-1", UPLOADER, TWO.seal())
    bench.work(1)
    assert [type(todo.job) for todo in bench.todo] == [jobs.Seal]
    assert b"owned" in bench.disk.uploads
    assert Ledger(bench.disk.uploads, [TWO.id]).uploaders(TWO.id) == {APP}
    assert not Ledger(bench.disk.uploads, []).uploaders(TWO.id)
    again = bench.restart()
    assert again.listed("c-1", UPLOADER) == set()
    assert again.fault("c-1", UPLOADER, m.AskImage(1, TWO.id)).kind == "ImageRefused"


# --- many uploads --------------------------------------------------------------------------------


def test_a_peer_has_few_uploads_open_and_idle_ones_make_way() -> None:
    bench = Bench()
    many = [Image(1, 10 + number) for number in range(MOST_OPEN + 1)]
    for image in many[:-1]:
        assert bench.wanted("c-1", LOCAL, image)
    assert bench.fault("c-1", LOCAL, many[-1].offer()).kind == "UsageError"
    assert bench.wanted("c-2", LOCAL, many[-1])
    bench.now += IDLE
    bench.ask("c-1", LOCAL, many[0].put(0))
    assert bench.wanted("c-1", LOCAL, many[-1]) == [0]
    assert bench.fault("c-1", LOCAL, many[1].put(0)).kind == "UsageError"
    assert isinstance(bench.ask("c-1", LOCAL, many[0].seal()), m.Done)


def test_an_upload_without_a_word_is_closed_and_kept_for_a_day() -> None:
    bench = Bench()
    bench.ask("c-1", UPLOADER, ONE.offer())
    bench.ask("c-1", UPLOADER, ONE.put(0))
    bench.pass_time(CLOSE_AFTER + 1)
    assert not bench.disk.open
    assert bench.fault("c-1", UPLOADER, ONE.put(1)).kind == "UsageError"
    assert bench.wanted("c-2", UPLOADER, ONE) == [1, 2]
    bench.pass_time(CLOSE_AFTER + KEPT + SWEEP_EVERY + 1)
    assert bench.wanted("c-2", UPLOADER, ONE) == [0, 1, 2]
    assert bench.disk.swept > 20


def test_a_web_server_uploads_for_several_but_not_the_same_image_at_once() -> None:
    """The chunks carry no token: which of two bearers sent one could not be told."""
    bench = Bench()
    assert bench.wanted("web", UPLOADER, ONE)
    assert bench.wanted("web", OTHER_UPLOADER, TWO)
    assert bench.fault("web", OTHER_UPLOADER, ONE.offer()).kind == "UsageError"
    # Chunks come with the web server's own standing.
    for index in (0, 1):
        assert isinstance(bench.ask("web", LOCAL, TWO.put(index)), m.Done)
    bench.ask("web", LOCAL, TWO.seal())
    assert bench.listed("web", OTHER_UPLOADER) == {TWO.id}
    bench.now += IDLE
    assert bench.wanted("web", OTHER_UPLOADER, ONE) == [0, 1, 2]


# --- who sees what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "sees"),
    [
        (LOCAL, {"one", "signed"}),
        (OWNER, {"one", "signed"}),
        (UPLOADER, {"one"}),
        (app(), {"one"}),
        (app(key=THIRD), set()),
        (OTHER_UPLOADER, {"signed"}),
        (runs(), {"signed"}),
        (runs(THIRD), set()),
        (runs(THIRD, image_hashes=[ONE.id]), {"one"}),
        (runs(THIRD, image_hashes=[ONE.id], runtimes=["qemu"]), {"one"}),
        (runs(THIRD, image_hashes=[ONE.id], runtimes=[]), set()),
        (runs(THIRD, image_hashes=[ONE.id], actions=["read_stats"]), set()),
        (runs(THIRD, image_hashes=["*"]), {"one", "signed"}),
        (runs(THIRD, image_signers=[SIGNER]), {"signed"}),
        (runs(THIRD, image_signers=["*"]), {"signed"}),
        (
            runs(THIRD, image_hashes=[ONE.id], image_signers=[SIGNER], image_mode="all"),
            set(),
        ),
        (e.Standing("", "app", "", app().rights), set()),
    ],
)
def test_listing_fetching_and_ignorance_agree(standing: e.Standing, sees: set[str]) -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.upload("c-2", OTHER_UPLOADER, SIGNED)
    bench.decisions.clear()
    named = {"one": ONE, "signed": SIGNED}
    assert bench.listed("c-3", standing) == {named[name].id for name in sees}
    for name, image in named.items():
        answer = bench.ask("c-3", standing, m.AskImage(5, image.id))
        chunk = bench.ask("c-3", standing, image.ask(0, 6))
        if name in sees:
            assert answer == m.ImageIs(5, image.data, image.signatures)
            assert isinstance(chunk, m.ChunkIs)
            continue
        nothing = bench.ask("c-3", standing, m.AskImage(5, TWO.id))
        # What is there and what is not read the same.
        assert isinstance(answer, m.Fault)
        assert isinstance(nothing, m.Fault)
        assert answer.detail == nothing.detail.replace(TWO.id, image.id)
        assert isinstance(chunk, m.Fault)
        assert chunk.detail == answer.detail
    told = {(told.object, told.decision) for told in bench.decisions if told.action == "download"}
    assert told == {
        (image.id, "allowed" if name in sees else "refused") for name, image in named.items()
    }


def test_a_signature_by_a_revoked_signer_counts_no_more() -> None:
    bench = Bench()
    both = Image(1, 4, signers="one two")
    for image in (SIGNED, both):
        bench.upload("c-2", OTHER_UPLOADER, image)
    by_one = runs(THIRD, image_signers=[SIGNER])
    by_two = runs(THIRD, image_signers=[OTHER_SIGNER])
    assert bench.listed("c-3", by_one) == {SIGNED.id, both.id}
    bench.revoke(SIGNER)
    assert bench.listed("c-3", by_one) == set()
    assert "no such image" in bench.fault("c-3", by_one, m.AskImage(1, SIGNED.id)).detail
    assert "no such image" in bench.fault("c-3", by_one, SIGNED.ask(0)).detail
    # Offering it again does not tell either that it is there.
    assert bench.fault("c-3", by_one, SIGNED.offer()).kind == "PermissionDenied"
    assert bench.listed("c-3", by_two) == {both.id}
    answer = bench.ask("c-1", LOCAL, m.AskImages(9))
    assert isinstance(answer, m.ImageList)
    assert {row.image: row.signers for row in answer.images} == {
        SIGNED.id: [], both.id: [OTHER_SIGNER],
    }  # fmt: skip
    bench.revoke(OTHER_SIGNER)
    assert bench.listed("c-3", by_one) == bench.listed("c-3", by_two) == set()


def test_a_signature_by_a_revoked_signer_is_not_added() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.revoke(SIGNER)
    assert isinstance(bench.ask("c-1", UPLOADER, m.OfferImage(1, ONE.data, b"one")), m.Done)
    assert bench.disk.images[ONE.id] == (ONE.data, b"")


def test_a_provider_fetches_any_image_and_lists_none() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    assert isinstance(bench.ask("p-1", PROVIDER, m.AskImage(1, ONE.id)), m.ImageIs)
    assert isinstance(bench.ask("p-1", PROVIDER, ONE.ask(2)), m.ChunkIs)
    assert bench.listed("p-1", PROVIDER) == set()
    assert bench.fault("p-1", PROVIDER, ONE.ask(3)).kind == "UsageError"
    other = m.AskChunk(1, ONE.id, TWO.blob.sha3_256, 0)
    assert bench.fault("p-1", PROVIDER, other).kind == "UsageError"
    assert bench.fault("p-1", PROVIDER, m.AskImage(1, "py311")).kind == "UsageError"


def test_the_audit_log_has_each_download_once_in_a_while() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.decisions.clear()
    for seconds in (0, 1, TOLD_AGAIN):
        bench.now += seconds
        bench.ask("p-1", PROVIDER, m.AskImage(1, ONE.id))
    assert [told.action for told in bench.decisions] == ["download"] * 2
    bench.ask("c-1", UPLOADER, m.AskImage(1, ONE.id))
    assert bench.decisions[-1].who == APP


def test_a_long_list_is_judged_in_slices() -> None:
    bench = Bench(lazy=True)
    bench.ask("c-1", LOCAL, m.AskImages(1))
    count = 25 * SLICE
    for number in range(count):
        bench.disk.images[f"sha3-256:{number:064x}"] = ONE.data, b""
    bench.say("c-1", LOCAL, m.AskImages(1))
    bench.work(2)
    assert [type(todo.job) for todo in bench.todo] == [jobs.Breathe]
    bench.work()
    [answer] = bench.answers_of("c-1")
    assert isinstance(answer, m.ImageList)
    assert len(answer.images) == count


def test_only_who_sees_everything_hears_that_an_image_is_damaged() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.disk.broken[jobs.Look] = ImageRefused("it was put in quarantine")
    assert "quarantine" in bench.fault("c-1", LOCAL, m.AskImage(1, ONE.id)).detail
    assert "no such image" in bench.fault("c-1", GUEST, m.AskImage(1, ONE.id)).detail


# --- removing ------------------------------------------------------------------------------------

ADMIN = app(grant(app=OTHER, actions=["admin"]), key=OTHER)


@pytest.mark.parametrize("standing", [UPLOADER, app(), OWNER, LOCAL, ADMIN])
def test_who_may_remove_an_image(standing: e.Standing) -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    assert isinstance(bench.ask("c-2", standing, m.RemoveImage(1, ONE.id)), m.Done)
    assert bench.disk.images == {}
    assert (bench.decisions[-1].action, bench.decisions[-1].decision) == ("remove", "allowed")
    assert Ledger(bench.disk.uploads, [ONE.id]).used(APP) == 0
    assert bench.fault("c-2", standing, m.RemoveImage(1, ONE.id)).kind == "ImageRefused"


@pytest.mark.parametrize(
    ("standing", "kind", "word"),
    [
        (GUEST, "ImageRefused", "no such image"),
        (OTHER_UPLOADER, "ImageRefused", "no such image"),
        (runs(image_hashes=[ONE.id]), "PermissionDenied", "administrator"),
    ],
)
def test_who_may_not(standing: e.Standing, kind: str, word: str) -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    fault = bench.fault("c-2", standing, m.RemoveImage(1, ONE.id))
    assert fault.kind == kind
    assert word in fault.detail
    assert ONE.id in bench.disk.images
    assert (bench.decisions[-1].action, bench.decisions[-1].decision) == ("remove", "refused")


def test_an_image_of_two_uploaders_goes_with_the_second() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.upload("c-2", OTHER_UPLOADER, ONE)
    done = bench.ask("c-1", UPLOADER, m.RemoveImage(1, ONE.id))
    assert isinstance(done, m.Done)
    assert "others" in done.text
    assert bench.listed("c-1", UPLOADER) == set()
    assert bench.listed("c-2", OTHER_UPLOADER) == {ONE.id}
    assert isinstance(bench.ask("c-2", OTHER_UPLOADER, m.RemoveImage(1, ONE.id)), m.Done)
    assert bench.disk.images == {}


def test_an_image_is_not_removed_while_it_is_fetched() -> None:
    bench = Bench()
    bench.upload("c-1", UPLOADER, ONE)
    bench.ask("p-1", PROVIDER, ONE.ask(0))
    assert "fetched" in bench.fault("c-1", UPLOADER, m.RemoveImage(1, ONE.id)).detail
    for index in (1, 2):
        bench.ask("p-1", PROVIDER, ONE.ask(index))
    assert not bench.disk.pinned
    bench.upload("c-1", UPLOADER, TWO)
    bench.ask("p-1", PROVIDER, TWO.ask(0))
    bench.pass_time(FETCH_IDLE - 1)
    assert bench.fault("c-1", UPLOADER, m.RemoveImage(1, TWO.id)).kind == "ImageRefused"
    bench.pass_time(1)
    for image in (ONE, TWO):
        assert isinstance(bench.ask("c-1", UPLOADER, m.RemoveImage(1, image.id)), m.Done)


def test_too_many_images_are_not_fetched_at_a_time() -> None:
    bench = Bench()
    many = [Image(2, 100 + number) for number in range(MOST_FETCHED + 1)]
    for image in many:
        bench.upload("c-1", LOCAL, image)
    for image in many[:-1]:
        bench.ask("p-1", PROVIDER, image.ask(0))
    assert bench.fault("p-1", PROVIDER, many[-1].ask(0)).kind == "MailboxFull"
    bench.ask("p-1", PROVIDER, many[0].ask(1))
    assert isinstance(bench.ask("p-1", PROVIDER, many[-1].ask(0)), m.ChunkIs)


# --- the room ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [ONE.offer(), ONE.put(0), ONE.seal(), m.AskImages(1), m.AskImage(1, ONE.id),
                ONE.ask(0), m.RemoveImage(1, ONE.id)],
)  # fmt: skip
def test_a_hub_without_a_place_for_images_says_so(message: Any) -> None:
    room = ImageRoom(keeps=False)
    effects = room.handle(e.ImagesAsked("c-1", LOCAL, message), 0.0)
    [answer] = [effect.message for effect in effects if isinstance(effect, e.ToPeer)]
    assert isinstance(answer, m.Fault)
    assert (answer.kind, answer.request) == ("ImageRefused", message.request)
    assert "--data" in answer.detail


def test_files_of_sessions_go_when_nobody_fetches_them() -> None:
    bench = Bench()
    old, used, fetched = (Image(1, seed, name=ARCHIVE) for seed in (21, 22, 23))
    for image in (old, used, fetched, ONE):
        bench.upload("c-1", UPLOADER, image)
    bench.disk.used = {image.id: NOW for image in (old, used, fetched)}
    bench.pass_time(UNUSED)
    bench.disk.used[used.id] = NOW + bench.now
    bench.disk.pinned.add(fetched.id)
    bench.pass_time(SWEEP_EVERY)
    assert set(bench.disk.images) == {used.id, fetched.id, ONE.id}
    assert Ledger(bench.disk.uploads, bench.disk.images).uploaders(old.id) == ()
    bench.disk.pinned.clear()
    bench.pass_time(SWEEP_EVERY)
    assert set(bench.disk.images) == {used.id, ONE.id}
    assert isinstance(bench.ask("c-1", UPLOADER, old.offer()), m.WantChunks)


@pytest.mark.parametrize("damage", [b"{", b"null", b"[]", b'{"format":"guactors.uploads/2"}'])
def test_a_damaged_list_of_uploads_ends_all_questions_with_the_reason(damage: bytes) -> None:
    disk = Disk()
    disk.uploads = damage
    bench = Bench(disk)
    for _ in range(2):
        fault = bench.fault("c-1", LOCAL, m.AskImages(1))
        assert "damaged" in fault.detail
    bench.pass_time(SWEEP_EVERY * 2)
    assert disk.uploads == damage


def test_a_bug_in_a_job_is_an_answer() -> None:
    disk = Disk()
    bench = Bench(disk)
    disk.broken[jobs.ListAll] = InternalError("oops")
    assert bench.fault("c-1", LOCAL, m.AskImages(1)).kind == "InternalError"
    disk.broken[jobs.Load] = InternalError("oops")
    assert bench.restart().fault("c-1", LOCAL, m.AskImages(1)).kind == "InternalError"


def test_a_seal_waits_for_the_chunks_before_it() -> None:
    bench = Bench(lazy=True)
    bench.ask("c-1", LOCAL, TWO.offer())
    for index in (0, 1):
        bench.say("c-1", LOCAL, TWO.put(index, 10 + index))
    bench.say("c-1", LOCAL, TWO.seal(12))
    assert [type(todo.job) for todo in bench.todo] == [jobs.Put, jobs.Put]
    bench.work(1, at=1)
    assert [type(todo.job) for todo in bench.todo] == [jobs.Put]
    bench.work()
    answers = bench.answers_of("c-1")
    assert [getattr(answer, "request", 0) for answer in answers] == [11, 10, 12]
    assert all(isinstance(answer, m.Done) for answer in answers)


messages = st.sampled_from([
    ONE.offer(), ONE.put(0), ONE.put(1), ONE.put(2), ONE.put(1, data=b"wrong"), ONE.seal(),
    TWO.offer(), TWO.put(0), TWO.put(1), TWO.seal(), SIGNED.offer(), SIGNED.put(0), SIGNED.seal(),
    ONE.ask(0), ONE.ask(2), TWO.ask(1), m.AskImages(1), m.AskImage(1, ONE.id),
    m.RemoveImage(1, ONE.id), m.RemoveImage(1, TWO.id),
])  # fmt: skip
people = st.sampled_from([
    ("c-1", UPLOADER), ("c-2", UPLOADER), ("c-3", OTHER_UPLOADER), ("c-4", LOCAL), ("p-1", PROVIDER)
])  # fmt: skip
steps = st.one_of(
    st.tuples(people, messages),
    st.tuples(st.just("work"), st.integers(0, 7)),
    st.tuples(st.just("time"), st.sampled_from([1.0, FETCH_IDLE, IDLE, CLOSE_AFTER])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=60))
def test_in_any_order_each_question_gets_one_answer_and_nobody_sees_too_much(
    script: list[Any],
) -> None:
    bench = Bench(lazy=True)
    asked: dict[str, int] = {}
    request = 0
    for what, how in script:
        if what == "work":
            bench.work(1, at=how)
        elif what == "time":
            bench.pass_time(how)
        else:
            request += 1
            peer, standing = what
            asked[peer] = asked.get(peer, 0) + 1
            bench.say(peer, standing, how)
    bench.work()
    told = [peer for peer, _ in bench.answers]
    assert {peer: told.count(peer) for peer in set(told)} == asked
    sent: dict[str, set[str]] = {}
    for what, how in script:
        if isinstance(what, tuple) and isinstance(how, m.PutChunk) and how.data != b"wrong":
            sent.setdefault(what[1].principal, set()).add(f"{how.image} {how.index}")
    for image in (ONE, TWO, SIGNED):
        for principal in Ledger(bench.disk.uploads, bench.disk.images).uploaders(image.id):
            if principal in {APP, OTHER}:
                chunks = {f"{image.id} {index}" for index in range(len(image.blob.chunks))}
                assert chunks <= sent[principal]
