"""What workers print, on its way to their session.

Owns: the count of lines that were lost. Must never: keep a line.
"""

from __future__ import annotations

from guactors.messages import Output
from guactors.provider_state.effects import Effect, Note, SendHub
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.workers import Worker


def pass_on(
    known: Worker, line: HubLine, provider: str, stream: int, name: str, lines: tuple[str, ...],
    dropped: int,
) -> list[Effect]:  # fmt: skip
    """To the hub; while that is away they are lost, but counted. Of nobody's worker: a note."""
    worker = known.worker
    if not known.session:
        return [Note("info", f"worker {worker}: {text}") for text in lines]
    known.lost_lines += dropped
    if not line.up:
        known.lost_lines += len(lines)
        return []
    lost, known.lost_lines = known.lost_lines, 0
    text = list(lines)
    return [SendHub(Output(known.session, worker, known.pid, provider, stream, name, text, lost))]
