"""The thinking of the HubActor: membership, introductions, routing. :class:`HubState` is the door.

``room`` hears everything first; ``admission`` makes strangers peers, ``standing`` follows changes
of rights, ``actions`` knows which message needs which right; ``desk`` is what they share, with
``peers``, ``sessions`` and the ``entrance`` in it.
"""

from guactors.hub_state.room import HubState

__all__ = ["HubState"]
