"""The thinking of the room of images at the hub. :class:`ImageRoom` is the door.

``room`` hears everything first; ``uploads`` and ``fetches`` are the rules, as steps that yield
``jobs`` for the disk; ``turns`` says who is next; ``desk`` is what they share, with the ``ledger``
of uploads in it.
"""

from guactors.image_state.room import ImageRoom

__all__ = ["ImageRoom"]
