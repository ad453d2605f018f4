"""Members into a tree: one archive as it is, or layers on top of each other.

Owns: what the marks of a layer (whiteouts) mean. Must never: let a mark reach its own layer, or a
name outside the directory that it stands in.

A layer's ``DIR/.wh.NAME`` hides NAME in DIR, ``DIR/.wh..wh..opq`` all that is in DIR, of the layers
below only, wherever in the layer the mark stands. Other names that begin with ``.wh..wh.`` are
bookkeeping of an old storage driver and mean nothing.
"""

from __future__ import annotations

from typing import Final

from guactors.images.archive import content_of
from guactors.images.members import Entries, Gate, Kind, Member, refuse
from guactors.images.spool import Spool
from guactors.images.tree import Tree

_MARK: Final = ".wh."
_BOOKKEEPING: Final = ".wh..wh."
_OPAQUE: Final = ".wh..wh..opq"


def add_archive(tree: Tree, entries: Entries, gate: Gate, spool: Spool) -> None:
    """Place every member; the marks of layers are refused here."""
    for member, reader in entries:
        for part in member.parts:
            if part.startswith(_MARK):
                refuse(gate.what, member.name, "a mark of a layer in what is no layer")
        if member.kind is Kind.FILE:
            tree.add(member, gate, spool.keep(content_of(member, reader, gate.what)))
        else:
            tree.add(member, gate)


def add_layer(tree: Tree, entries: Entries, gate: Gate, spool: Spool) -> None:
    """Place every member over what is there already, and carry out the marks."""
    tree.layer += 1
    for member, reader in entries:
        if any(part.startswith(_MARK) for part in member.parts):
            _hide(tree, member, gate)
        elif member.kind is Kind.FILE:
            tree.add(member, gate, spool.keep(content_of(member, reader, gate.what)))
        else:
            tree.add(member, gate)


def _hide(tree: Tree, member: Member, gate: Gate) -> None:
    *above, mark = member.parts
    if any(part.startswith(_MARK) for part in above):
        if any(part.startswith(_BOOKKEEPING) for part in above):
            return
        refuse(gate.what, member.name, "a mark of a layer that is a directory")
    if mark == _OPAQUE:
        tree.hide_all(tuple(above), member, gate)
        return
    if mark.startswith(_BOOKKEEPING):
        return
    if member.kind is not Kind.FILE or member.size:
        refuse(gate.what, member.name, "a mark of a layer must be an empty file")
    hidden = mark.removeprefix(_MARK)
    if hidden in {"", ".", ".."}:
        refuse(gate.what, member.name, "a mark of a layer that means no name in its directory")
    tree.hide((*above, hidden), member, gate)
