"""An async actor: hundreds of calls wait inside one process, without a thread or a lock.

``Exchange`` is a long-polling message board. ``take`` waits until somebody posts to the topic. A
plain actor would be stuck in the first ``take`` for ever, because ``post`` could never run; one
whose methods are coroutines runs them side by side, and every change of state between two ``await``
is safe by itself.

    python examples/async_actor.py --readers 300

The second half of the example is an ordinary asyncio program: refs can be awaited.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from typing import Any

import guactors as gu


@gu.remote
class Exchange:
    """Topics, each a queue of messages that readers wait for."""

    def __init__(self) -> None:
        self.topics: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)
        self.readers = 0

    async def take(self, topic: str) -> str:
        """The topic's oldest message, as soon as there is one."""
        self.readers += 1
        try:
            return await self.topics[topic].get()
        finally:
            self.readers -= 1

    async def post(self, topic: str, message: str) -> None:
        """Wakes the reader of the topic that has waited longest."""
        await self.topics[topic].put(message)

    async def waiting(self) -> int:
        """How many readers wait now."""
        return self.readers


@gu.remote
def reporter(exchange: Any, topic: str) -> str:
    """A task somewhere on the grid that posts through the handle it was given."""
    gu.get(exchange.post.remote(topic, f"news of {topic}"))
    return topic


async def demo(exchange: Any, readers: int) -> None:
    """Everybody waits, then everybody is served; one gives up."""
    topics = [f"topic {number}" for number in range(readers)]
    began = time.perf_counter()
    takes = [exchange.take.remote(topic) for topic in topics]
    print(f"{await exchange.waiting.remote()} calls wait inside one actor")

    posts = [reporter.remote(exchange, topic) for topic in topics]
    messages = await asyncio.gather(*takes)
    await asyncio.gather(*posts)
    seconds = time.perf_counter() - began
    right = sum(f"news of {topic}" == got for topic, got in zip(topics, messages, strict=True))
    print(f"{right} of them answered by tasks in {seconds:.2f} s")

    forlorn = exchange.take.remote("a topic nobody posts to")
    print(f"{await exchange.waiting.remote()} waits in vain")
    gu.cancel(forlorn)
    try:
        await forlorn
    except gu.exceptions.TaskCancelled as error:
        print(f"cancelled: {type(error).__name__}")
    print(f"{await exchange.waiting.remote()} still wait")


def main(argv: list[str] | None = None) -> int:
    """0; anything else is an uncaught error."""
    parser = argparse.ArgumentParser(description="Many calls wait in one async actor.")
    parser.add_argument("--readers", type=int, default=300)
    options = parser.parse_args(argv)
    gu.init()
    try:
        # mypy does not follow class decorators.
        exchange = Exchange.remote()  # type: ignore[attr-defined]
        asyncio.run(demo(exchange, options.readers))
    finally:
        gu.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
