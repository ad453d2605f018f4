"""Whose code a worker runs, and where: in its own process, or in an instance.

Owns: the choice, at each Bind. Must never: start an instance (its first call does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guactors.messages import Bind
from guactors.worker.trust import PYTHON

if TYPE_CHECKING:
    from guactors.worker.execution import Code
    from guactors.worker.process import Worker


def bind_code(worker: Worker, message: Bind) -> None:
    """From here on its code is judged by these rules and runs there, in that environment; what ran
    in another instance is gone."""
    where, env = worker.code.trust.where, message.env
    worker.code.bind(message)
    if env is not None and not message.runtime:
        worker.setup.take(env)
    if worker.code.trust.where == where:
        return
    unbind_code(worker.code)
    if message.runtime:
        from guactors.worker.enclosed import Enclosed

        # They are the session's, and nothing that is started out here may see them.
        worker.code.enclosed = Enclosed(worker, env.variables if env is not None else {})


def unbind_code(code: Code) -> None:
    """What ran in an instance is gone, and that, too."""
    if code.enclosed is not None:
        code.enclosed.close()
        code.enclosed = None
    if code.instance is not None and code.trust.runtime != PYTHON:
        from guactors.worker.deployment import Deployment

        if isinstance(code.instance, Deployment):
            code.instance._close()
