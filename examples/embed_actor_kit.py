"""A small HTTP service that keeps its state in actors: a counter and a supervised flaky fetcher.

Plain asyncio, no framework: what ``asyncio.start_server`` shows here works the same under FastAPI
or any other. Run it: it starts, asks itself a few questions over HTTP, prints the answers, ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from typing import Any

from guactors.actors import Actor, ActorRef, ActorSystem, Restart
from guactors.errors import ActorDied, CallTimeout, MailboxFull


class Counter(Actor):
    """One number. No lock: an actor does one thing at a time."""

    def __init__(self) -> None:
        self.value = 0

    def receive(self, message: int) -> int:
        self.value += message
        return self.value


class Fetcher(Actor):
    """Asks a service that is not very reliable, over a connection that breaks with it.

    After a failure nobody can say in what state the connection is, so the fetcher does not try to
    repair it: it fails, and its supervision makes a fresh one, after a moment, a few times.
    """

    supervision = Restart(max_restarts=5, within=10, backoff=0.02)

    def __init__(self, connect: Callable[[], Callable[[str], str]]) -> None:
        self.connect = connect

    async def on_start(self) -> None:
        await asyncio.sleep(0)  # a real connection takes a while
        self.ask_service = self.connect()

    async def receive(self, message: str) -> str:
        return self.ask_service(message)


def flaky_service() -> Callable[[], Callable[[str], str]]:
    """Something to fetch from: every third question breaks the connection."""
    questions = itertools.count(1)

    def connect() -> Callable[[str], str]:
        def ask(city: str) -> str:
            if next(questions) % 3 == 0:
                raise ConnectionError("the service hung up")
            return f"sunny in {city}"

        return ask

    return connect


class Web:
    """HTTP in, messages out. Every error of an actor has its status."""

    def __init__(self, counter: ActorRef, fetcher: ActorRef) -> None:
        self.counter = counter
        self.fetcher = fetcher

    async def route(self, path: str) -> tuple[str, Any]:
        try:
            match path.strip("/").split("/"):
                case ["count", step]:
                    return "200 OK", await self.counter.ask(int(step), timeout=1)
                case ["weather", city]:
                    return "200 OK", await self.fetcher.ask(city, timeout=1)
        except MailboxFull:
            return "429 Too Many Requests", "try later"
        except (ActorDied, CallTimeout):
            return "503 Service Unavailable", "try later"
        except ConnectionError as error:
            return "502 Bad Gateway", str(error)
        return "404 Not Found", path

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, answer = await self.route(request.split()[1])
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def get(port: int, path: str) -> str:
    """The answer to ``GET path``: status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, body = (await reader.read()).decode().split("\r\n\r\n", 1)
    writer.close()
    await writer.wait_closed()
    return f"{head.split(maxsplit=1)[1].splitlines()[0]}: {body}"


async def main() -> None:
    # Failures and restarts are logged with their tracebacks; the demo shows its own story.
    logging.getLogger("guactors.actors").setLevel(logging.CRITICAL)
    async with ActorSystem("service") as system:
        counter = system.spawn(Counter, name="counter")
        fetcher = system.spawn(Fetcher, flaky_service(), name="fetcher", mailbox_size=100)
        server = await asyncio.start_server(Web(counter, fetcher).serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            for _ in range(3):
                print("count", await get(port, "/count/2"))
            for city in ("Bonn", "Brno", "Bari", "Baku"):
                print("weather", await get(port, f"/weather/{city}"))
            print("nowhere", await get(port, "/nowhere"))
        for actor in system.statistics().actors:
            print(f"{actor.name}: {actor.processed} messages, {actor.restarts} restarts")


if __name__ == "__main__":
    asyncio.run(main())
