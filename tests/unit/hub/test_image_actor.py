"""The shell of the image room: nothing of images is loaded before somebody asks about one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from guactors import messages as m
from guactors.actors import Actor, ActorSystem
from guactors.config import HubConfig
from guactors.image_actor import ImageActor
from guactors.scheduling import events as e
from guactors.security.keys import Kind
from tests.unit.hub.image_bench import LOCAL
from tests.unit.hub.keyed_bench import KeyedBench
from tests.unit.provider.test_fetching import Hub
from tests.unit.security.samples import public

PATIENCE = 10.0
SIGNER = public(Kind.SIGNER).text


class Listener(Actor):
    """Stands for the HubActor."""

    def __init__(self, heard: asyncio.Queue[m.Message]) -> None:
        self._heard = heard

    def receive(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, e.ToPeer):
                self._heard.put_nowait(effect.message)


async def first_signers(data: Path, *before: e.Event) -> list[str]:
    """Upload a signed image to a hub that was told ``before``; its signers as the hub lists
    them."""
    source = Hub(b"all of it")
    image = source.image
    heard: asyncio.Queue[m.Message] = asyncio.Queue()
    async with asyncio.timeout(PATIENCE), ActorSystem("t") as system:
        hub = system.spawn(Listener, heard, mailbox_size=None)
        config = HubConfig("h-1", [], "", data=str(data))
        actor = system.spawn(ImageActor, hub, config, mailbox_size=None)
        for event in before:
            actor.tell(event)
        blob = next(iter(source.chunks))
        offer = m.OfferImage(1, source.manifest, source.signatures)
        actor.tell(e.ImagesAsked("c-1", LOCAL, offer))
        wanted = await heard.get()
        assert isinstance(wanted, m.WantChunks)
        name = wanted.missing[0].blob
        for question in (m.PutChunk(2, image, name, 0, blob), m.SealImage(3, image)):
            actor.tell(e.ImagesAsked("c-1", LOCAL, question))
            assert isinstance(await heard.get(), m.Done)
        actor.tell(e.ImagesAsked("c-1", LOCAL, m.AskImages(4)))
        listed = await heard.get()
    assert isinstance(listed, m.ImageList)
    return listed.images[0].signers


@pytest.mark.parametrize("revoked", [[], [SIGNER]])
def test_what_was_revoked_before_the_first_question_counts(
    tmp_path: Path, revoked: list[str]
) -> None:
    told = e.RevocationsAre(m.Revoked(1, revoked, [], [], "stop"))
    assert asyncio.run(first_signers(tmp_path, told)) == ([] if revoked else [SIGNER])


def test_the_hub_passes_revocations_on_to_the_image_room() -> None:
    bench = KeyedBench()
    told = e.RevocationsAre(m.Revoked(1, [SIGNER], [], [], "stop"))
    effects = bench.core.hub.handle(told, bench.now)
    assert e.ToRoom(e.RoomName.IMAGES, told) in effects


LOADS = """
import asyncio, sys
from guactors import messages as m
from guactors.actors import ActorSystem
from guactors.config import HubConfig
from guactors.image_actor import ImageActor
from guactors.scheduling import events as e
from guactors.actors import Actor

class Nobody(Actor):
    def receive(self, message): pass

async def main():
    async with ActorSystem("t") as system:
        hub = system.spawn(Nobody)
        actor = system.spawn(ImageActor, hub, HubConfig("h-1", [], "", data=sys.argv[1]))
        actor.tell(e.RevocationsAre(m.Revoked(1, ["k"], [], [], "stop")))
        await asyncio.sleep(0.1)

asyncio.run(main())
rooms = ("guactors.image_state", "guactors.images")
print(*(name for name in sys.modules if name.startswith(rooms)))
"""


def test_a_revocation_loads_nothing_of_images(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []
