"""The launcher: forks hub, providers and the HTTP server from one preloaded process, and sees that
none outlives it.

Owns: its members' pids, restarts, the end. Must never: start a thread or a ZeroMQ context (members
are forked from it at any time), or know what a hub or a provider does: their bodies are arguments.

It tells what happens as JSON lines on standard output: what the members report, ``ended`` when one
is gone. A member that dies after it was ready is started again; one that never was ready is an
error, told once, and tried again only in detached mode.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

import msgspec

from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.errors import InternalError
from guactors.ids import fresh
from guactors.messages import Endpoint
from guactors.runtimes import process
from guactors.runtimes.member import Member
from guactors.runtimes.workers import Report

RunHub = Callable[[HubConfig, Report], object]
RunProvider = Callable[[ProviderConfig, Report], object]
RunWeb = Callable[[bytes, list[Endpoint], Report], object]

HTTP = "http"
"""Role and name of the HTTP server, of which there is one at most."""

_GRACE = 0.3
_RESTART_FIRST = 0.1
_RESTART_MOST = 5.0
_STEADY_AFTER = 30.0
_STDIN, _STDOUT = 0, 1


class _Post:
    """A place to be filled by a member, again and again."""

    def __init__(self, config: HubConfig | ProviderConfig | bytes) -> None:
        self.config = config
        """Bytes: what the HTTP server is told."""
        self.member: Member | None = None
        self.since = 0.0
        self.delay = _RESTART_FIRST
        self.due: float | None = None
        """When it is to be (re)started; None while it runs or waits for the hub."""


class Node:
    """One launcher. ``owner``: pid of the process an embedded one ends with, 0 for none."""

    def __init__(
        self,
        config: NodeConfig,
        run_hub: RunHub,
        run_provider: RunProvider,
        owner: int = 0,
        run_web: RunWeb | None = None,
    ) -> None:
        self._config = config
        self._run_hub = run_hub
        self._run_provider = run_provider
        self._run_web = run_web
        self._hub_endpoints: list[Endpoint] = []
        members: list[HubConfig | ProviderConfig | bytes] = [config.hub] if config.hub else []
        members += [config.web] if config.web else []
        self._posts = [_Post(one) for one in [*members, *config.providers]]
        self._ending = False
        self._poll = select.poll()
        self._wake, self._woken = os.pipe()
        self._owner = _watch_process(owner) if config.embedded and owner else None

    def run(self) -> None:
        """Serve until told to end (SIGTERM, SIGINT, or embedded: the end of standard input or of
        the owner), then end every member and leave nothing behind."""
        if process.LINUX and not process.single_threaded():
            raise InternalError("something imported by the launcher started a thread")
        self._prepare()
        for post in self._posts:
            if isinstance(post.config, HubConfig) or _has_hub(post.config):
                self._start(post)
        while not self._ending:
            ready = {fd for fd, _ in self._poll.poll(self._wait_ms())}
            self._on_ready(ready)
            now = time.monotonic()
            for post in self._posts:
                if post.due is not None and post.due <= now and not self._ending:
                    self._start(post)
        self._end_all()

    def _prepare(self) -> None:
        sys.path[:] = self._config.path or sys.path
        process.preload()
        process.adopt_orphans()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        os.set_blocking(_STDOUT, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._poll.register(self._wake, select.POLLIN)
        if self._config.embedded:
            self._poll.register(_STDIN, select.POLLIN)
        if self._owner is not None:
            self._poll.register(self._owner, select.POLLIN)
        process.give_back_memory()
        # Pages that hold objects the collector never visits stay shared with every member.
        gc.freeze()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._ending = True

    def _wait_ms(self) -> float | None:
        dues = [post.due for post in self._posts if post.due is not None]
        return max(0.0, (min(dues) - time.monotonic()) * 1000 + 1) if dues else None

    def _on_ready(self, ready: set[int]) -> None:
        if self._owner in ready or (_STDIN in ready and not os.read(_STDIN, 4096)):
            self._ending = True
            return
        for post in self._posts:
            if post.member is not None and post.member.fileno() in ready:
                self._hear(post, post.member)
        if self._wake in ready:
            os.read(self._wake, 4096)
            self._reap()

    # --- members --------------------------------------------------------------------------------

    def _start(self, post: _Post) -> None:
        config = post.config
        if isinstance(config, HubConfig):
            role, name = "hub", config.hub
            body = partial(self._run_hub, config)
        elif isinstance(config, bytes):
            assert self._run_web is not None, "this launcher has no HTTP server"
            role, name = HTTP, HTTP
            body = partial(self._run_web, config, self._hub_endpoints)
        else:
            role, name = "provider", config.provider
            joined = msgspec.structs.replace(config, hub=config.hub or self._hub_endpoints)
            body = partial(self._run_provider, joined)
        post.due = None
        post.since = time.monotonic()
        try:
            post.member = Member(role, name, body)
        except OSError as error:
            self._tell({"role": role, "name": name, "event": "error", "text": f"fork: {error}"})
            self._start_later(post)
        else:
            self._poll.register(post.member, select.POLLIN)

    def _hear(self, post: _Post, member: Member) -> None:
        reports = member.reports()
        if not reports:
            # Its end of the pipe is closed; SIGCHLD tells the rest.
            self._forget_fd(member)
        for report in reports:
            if report.get("event") == "ready" and isinstance(post.config, HubConfig):
                self._hub_is_up(post, post.config, report)
            self._tell(report)

    def _hub_is_up(self, post: _Post, config: HubConfig, report: dict[str, Any]) -> None:
        self._hub_endpoints = [Endpoint(**one) for one in report.get("endpoints", [])]
        # A restarted hub must be where everybody dials it.
        post.config = msgspec.structs.replace(config, listen=_fixed(config, self._hub_endpoints))
        for other in self._posts:
            if other.member is None and other.due is None:
                self._start(other)

    def _reap(self) -> None:
        known = [post.member.pid for post in self._posts if post.member is not None]
        while (pid := process.next_dead_child(known)) is not None:
            post = next((p for p in self._posts if p.member and p.member.pid == pid), None)
            if post is not None and post.member is not None:
                post.member.kill()
                self._hear(post, post.member)
            reaped = process.reap(pid)
            if post is not None and post.member is not None and reaped is not None:
                self._ended(post, post.member, reaped[0])

    def _ended(self, post: _Post, member: Member, status: int) -> None:
        code, number = process.split_status(status)
        how = f"exit status {code}" if number is None else f"signal {number}"
        event = "ended" if member.ready else "error"
        text = f"{member.role} {member.name} (pid {member.pid}) ended: {how}"
        self._tell({"role": member.role, "name": member.name, "pid": member.pid,
                    "event": event, "text": text})  # fmt: skip
        self._forget_fd(member)
        member.close()
        post.member = None
        if isinstance(post.config, ProviderConfig):
            # What ran there is gone: the hub must not take the new one for the old one.
            post.config = msgspec.structs.replace(post.config, provider=fresh("provider"))
        if member.ready or not self._config.embedded:
            self._start_later(post)

    def _start_later(self, post: _Post) -> None:
        now = time.monotonic()
        steady = now - post.since > _STEADY_AFTER
        post.delay = _RESTART_FIRST if steady else min(_RESTART_MOST, post.delay * 2)
        post.due = now + post.delay

    def _forget_fd(self, member: Member) -> None:
        try:
            self._poll.unregister(member)
        except KeyError:
            return

    # --- the outside ----------------------------------------------------------------------------

    def _tell(self, report: dict[str, Any]) -> None:
        try:
            os.write(_STDOUT, json.dumps(report).encode() + b"\n")
        except (BlockingIOError, BrokenPipeError):
            # Nobody reads on after the start; the log has it too.
            return

    def _end_all(self) -> None:
        members = [post.member for post in self._posts if post.member is not None]
        for member in members:
            member.signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for member in members:
            if process.reap_within(member.pid, max(0.0, deadline - time.monotonic())) is None:
                member.kill()
                process.reap(member.pid, block=True)
        process.end_children()
        import shutil  # here, for its many imports would cost the start

        from guactors.objects import place, sweeping

        sweeping.sweep(place.own_place(), at_once=True)

        for directory in self._config.scratch:
            shutil.rmtree(directory, ignore_errors=True)


def _has_hub(config: ProviderConfig | bytes) -> bool:
    """Whether it need not wait for the hub of this launcher."""
    return isinstance(config, ProviderConfig) and bool(config.hub)


def _watch_process(pid: int) -> int | None:
    """A descriptor that turns readable at the end of ``pid``: our standard input alone may be held
    open by some forked child of that process."""
    if os.getppid() != pid or not hasattr(os, "pidfd_open"):
        return None
    try:
        watch: int = os.pidfd_open(pid)
    except OSError:
        return None
    return watch


def _fixed(config: HubConfig, endpoints: list[Endpoint]) -> list[str]:
    """The addresses to listen on, with the ports the system chose in place of ``*`` and ``0``."""
    if len(endpoints) != len(config.listen):
        return config.listen
    fixed = []
    for address, endpoint in zip(config.listen, endpoints, strict=True):
        host, _, port = address.rpartition(":")
        chosen = endpoint.control.rpartition(":")[2]
        free = address.startswith("tcp://") and port in {"*", "0"}
        fixed.append(f"{host}:{chosen}" if free else address)
    return fixed
