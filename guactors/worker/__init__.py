"""The process that runs user code.

``intake`` what waits to run · ``outbox`` what waits to be answered · ``execution`` one call from
bytes to bytes · ``runners`` on which thread or loop calls run · ``control`` the control lane's
thread · ``admission`` who may call · ``trust`` what is opened as code · ``complaints`` what the
provider hears of refusals · ``native`` programs of an image · ``process`` the whole, with its
sockets.

Must never: run user code on the control thread, or let an exception of the user's end the process.
"""

from __future__ import annotations

from guactors.config import WorkerConfig

PRELOAD = (
    "cloudpickle",
    "guactors.api",
    "guactors.objects.room",
    "guactors.objects.store",
    "guactors.worker.blocking",
    "guactors.worker.process",
    "guactors.worker.runners",
)
"""Imported once, before workers are forked (``runtimes/zygote.py``)."""


def prepare() -> None:
    """Find out what every worker would find out for itself, and find the same."""
    from guactors.objects.place import pin
    from guactors.versions import own_versions

    pin()
    own_versions()


def run_worker(config: WorkerConfig, lifeline: int) -> int:
    """Entry of a worker process; returns its exit status. ``lifeline``: a descriptor that becomes
    readable when the provider is gone."""
    from guactors.worker.process import Worker

    return Worker(config, lifeline).run()
