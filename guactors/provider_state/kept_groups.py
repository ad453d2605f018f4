"""Placement groups that hubs asked this provider to keep in mind, for the hub after them.

Owns: their descriptions. Must never: read anything into them.
"""

from __future__ import annotations

from guactors.group_sizes import parts, size_of
from guactors.messages import DropGroups, GroupSpec, KeepGroups
from guactors.provider_state.effects import Effect, SendHub


class KeptGroups:
    """By id."""

    def __init__(self) -> None:
        self._groups: dict[str, GroupSpec] = {}

    def on_message(self, message: KeepGroups | DropGroups) -> list[Effect]:
        """More of them, or fewer."""
        if isinstance(message, KeepGroups):
            self._groups.update({spec.group: spec for spec in message.groups})
        else:
            for group in message.groups:
                self._groups.pop(group, None)
        return []

    def tell(self) -> list[Effect]:
        """All of them, to a hub that was just met."""
        return [SendHub(KeepGroups(part)) for part in parts(self._groups.values(), size_of)]
