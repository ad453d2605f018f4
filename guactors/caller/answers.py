"""What workers answer: which calls are over, and which go out once more.

Owns: the reading of replies. Must never: judge a user's error itself (the predicate lives in the
shell), or decide where a call goes (``leases`` and ``actors`` do).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from guactors.caller.actors import ActorBook, RemoteActor
from guactors.caller.deadlines import missed
from guactors.caller.endings import Endings
from guactors.caller.leases import LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.caller.remote_values import RemoteValues
from guactors.caller.targets import Target
from guactors.caller.task_log import TaskLog
from guactors.caller.tasks import Buffers, Task
from guactors.errors import CallTimeout
from guactors.messages import Replies, Reply

MOST_MISSED: Final = 3
"""Times a call goes out again because a worker found a value gone."""
TOO_LATE: Final = CallTimeout.__name__
"""What a worker says that saw the time of a call pass before we did."""


class Answers:
    """``wants_retry(task, data)``: whether a user's pickled error is one to retry the task for."""

    def __init__(
        self,
        objects: ObjectTable,
        leases: LeaseBook,
        actors: ActorBook,
        endings: Endings,
        remote: RemoteValues,
        log: TaskLog,
        wants_retry: Callable[[Task, bytes], bool],
    ) -> None:
        self._objects = objects
        self._leases = leases
        self._actors = actors
        self._endings = endings
        self._remote = remote
        self._log = log
        self._wants_retry = wants_retry
        self._now = 0.0

    def on_replies(
        self, peer: str, target: Target, message: Replies, buffers: Buffers, now: float
    ) -> None:
        """Settle what was answered, and give the worker more to do."""
        self._now = now
        replies = message.replies
        ended: list[Task | None] = []
        position = 0
        fn = b""
        first_sent = 0.0
        count = 0
        for reply in replies:
            task = target.in_flight.get(reply.id)
            if task is None or task.attempt != reply.attempt:
                position += sum(value.buffers for value in reply.values)
                self._objects.travel.refuse(peer, reply.values)
                ended.append(None)
                continue
            del target.in_flight[reply.id]
            if not count:
                fn, first_sent = task.fn, task.sent_at
            count += 1
            if reply.missing and self._miss(task):
                ended.append(None)
                continue
            if task.due and reply.fault == TOO_LATE and now >= task.due:
                position += sum(value.buffers for value in reply.values)
                self._endings.fail(task, missed(task, self._leases.by_peer.get(peer), now))
                ended.append(None)
                continue
            if task.retry_errors is not None and self._retry_error(task, reply):
                position += sum(value.buffers for value in reply.values)
                ended.append(None)
                continue
            ended.append(None if task.fault else task)
            position = self._endings.reply(peer, task, reply, buffers, position)
        if not count:
            return
        self._log.on_replies(peer, target.provider, ended, message.times, now)
        since = max(target.last_reply, first_sent)
        target.last_reply = now
        lease = self._leases.by_peer.get(peer)
        if lease is not None:
            self._leases.measure(fn, (now - since) / count)
            self._leases.on_replied(lease, now)
            return
        actor = self._actors.by_peer.get(peer)
        if actor is not None and actor.queue:
            self._actors.dispatch(actor, now)

    def _retry_error(self, task: Task, reply: Reply) -> bool:
        failed = reply.values and reply.values[0].error
        if not failed or task.retries == 0 or task.cancelled:
            return False
        if not self._wants_retry(task, reply.values[0].data):
            return False
        task.retries -= task.retries > 0
        self._again(task)
        return True

    def _miss(self, task: Task) -> bool:
        """The worker could not reach a value where we said that it is: it may be here by now, or is
        brought, or made again. Whether the call goes out once more."""
        if task.missed == MOST_MISSED or task.cancelled:
            return False
        task.missed += 1
        far = self._remote.missed(task)
        self._remote.fetch_for(task, far)
        if type(task.home) is RemoteActor or not far:
            self._again(task)
        else:
            task.attempt += 1
            task.peer = ""
        return True

    def _again(self, task: Task) -> None:
        task.attempt += 1
        task.peer = ""
        if type(task.home) is RemoteActor:
            task.home.queue.appendleft(task)
            self._actors.dispatch(task.home, self._now)
        else:
            self._leases.requeue(task.home, [task], self._now)
