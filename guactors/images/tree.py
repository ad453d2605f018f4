"""The files of an image as they will stand together, in memory, contents kept elsewhere.

Owns: where a member really comes to lie when names on its path are links, whether it may lie there,
what layers hide of those below, and that no link leads out of the root. Must never: touch a file
system: links are followed here and nowhere else.

Paths are followed as the kernel would with this tree as its root: absolute links begin at the root.
``..`` above the root, which the kernel would take for the root itself, is refused: unpacked in some
directory, such a link leads out of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final, Protocol

from msgspec import Struct, field

from guactors.images.members import Gate, Kind, Member, encoded, refuse

_HOPS: Final = 40
"""Links followed on one path, as in the kernel."""
_STEPS: Final = 20_000_000
"""Parts of paths followed while all links are checked; real images need one per link or two."""
_WARNINGS: Final = 20


class Content(Protocol):
    """The bytes of a file, readable any number of times."""

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises when it is not what it was when the tree was made."""


class Node(Struct, eq=False):
    """A name in a directory. A hard link has the node of the ``original``, which is a file or a
    symbolic link. ``layer``: the last one that said something of it."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    layer: int = 0
    content: Content | None = None
    original: Node | None = None
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def itself(self) -> Node:
        """What the name stands for."""
        return self.original or self


Path = tuple[str, ...]


class Placed(Struct, frozen=True):
    """Where a member came to lie. ``replaces``: something that was no directory lay there;
    ``linked``: the other name of a hard link; ``same``: it already was as the member says."""

    path: Path
    node: Node
    replaces: bool = False
    linked: Path = ()
    same: bool = False


class Tree:
    """A root directory. One thread uses it."""

    def __init__(self) -> None:
        self.root = Node(Kind.DIRECTORY)
        self.layer = 0
        self.warnings: list[str] = []
        self._steps = 0

    def add(self, member: Member, gate: Gate, content: Content | None = None) -> Placed:
        """Place a member. Raises ImageRefused where it may not be: a later member replaces an
        earlier one, but neither a directory of its own layer nor what is in the way of one."""
        if not member.parts:
            return Placed((), self.root, same=True)
        above, directory = self._enter(member.parts[:-1], member, gate)
        name = member.parts[-1]
        path = (*above, name)
        if path != member.parts and len(encoded("/".join(path))) > gate.budget.limits.name:
            refuse(gate.what, member.name, "links on its path make its name too long")
        old = directory.children.get(name)
        if old is not None:
            self._check_place(old, member, gate)
            if old.kind is Kind.DIRECTORY and member.kind is Kind.DIRECTORY:
                old.mode, old.uid, old.gid = member.mode, member.uid, member.gid
                old.mtime, old.layer = member.mtime, self.layer
                return Placed(path, old)
        linked: Path = ()
        if member.kind is Kind.HARDLINK:
            linked, original = self._linked(member, gate)
            if old is not None and old.itself is original:
                return Placed(path, old, same=True)
            node = Node(Kind.HARDLINK, layer=self.layer, original=original)
        else:
            if member.kind is Kind.SYMLINK:
                _check_climb(above, member, gate)
            node = Node(
                member.kind, member.mode, member.uid, member.gid, member.mtime, member.size,
                member.target, self.layer, content,
            )  # fmt: skip
        directory.children[name] = node
        return Placed(path, node, old is not None, linked)

    def hide(self, parts: Path, member: Member, gate: Gate) -> None:
        """Take the name ``parts`` out, as far as layers below this one made it."""
        _, directory = self._find(parts[:-1], member, gate)
        child = directory.children.get(parts[-1]) if directory else None
        if directory is None or child is None:
            return
        if child.layer < self.layer:
            del directory.children[parts[-1]]
        else:
            _empty(child, self.layer)

    def hide_all(self, parts: Path, member: Member, gate: Gate) -> None:
        """Empty the directory ``parts``, as far as layers below this one filled it."""
        _, directory = self._find(parts, member, gate)
        if directory is not None:
            _empty(directory, self.layer)

    def find(self, path: str) -> Node | None:
        """What is at ``path``, links followed; None when nothing is."""
        try:
            _, node, left = self._follow(tuple(path.split("/")))
        except _Astray:
            return None
        return None if left else node.itself

    def real_path(self, path: str) -> Path | None:
        """Where ``path`` leads when all links are followed; None when nothing is there."""
        try:
            found, _, left = self._follow(tuple(path.split("/")))
        except _Astray:
            return None
        return None if left else found

    def walk(self) -> Iterator[tuple[Path, Node]]:
        """Every name but the root, sorted by its bytes, directories before what is in them."""
        waiting: list[tuple[Path, Node]] = [((), self.root)]
        while waiting:
            path, node = waiting.pop()
            if path:
                yield path, node
            names = sorted(node.children, key=encoded, reverse=True)
            waiting += [((*path, name), node.children[name]) for name in names]

    def check(self, what: str) -> None:
        """The whole: ImageRefused for a link that leads out of the root; names that differ only in
        case become ``warnings``."""
        for path, node in self.walk():
            if node.itself.kind is Kind.SYMLINK:
                try:
                    self._check_link(path, node.itself.target)
                except _Astray as fault:
                    refuse(what, "/".join(path), str(fault))
            elif node.kind is Kind.DIRECTORY:
                self._warn_of_case(path, node, what)
        self._warn_of_case((), self.root, what)

    # --- following ----------------------------------------------------------------------------

    def _enter(self, parts: Path, member: Member, gate: Gate) -> tuple[Path, Node]:
        """The directory at ``parts`` and its real path, made where it is missing."""
        path, node, left = self._safely(parts, member, gate)
        if node.kind is not Kind.DIRECTORY:
            refuse(gate.what, member.name, f"{'/'.join(path)!r} on its path is no directory")
        for part in left:
            if part in {"", "."}:
                continue
            if part == "..":
                refuse(gate.what, member.name, "a link on its path leaves what does not exist")
            # Counted: a name of many parts would otherwise be worth many members.
            gate.budget.count_member(gate.what, member.name, len(encoded(part)))
            path = (*path, part)
            if len(path) >= gate.budget.limits.depth:
                refuse(gate.what, member.name, f"more than {len(path)} directories deep")
            child = Node(Kind.DIRECTORY)
            node.children[part] = child
            node = child
        self._touch(path)
        return path, node

    def _find(self, parts: Path, member: Member, gate: Gate) -> tuple[Path, Node | None]:
        path, node, left = self._safely(parts, member, gate)
        return path, node if not left and node.kind is Kind.DIRECTORY else None

    def _linked(self, member: Member, gate: Gate) -> tuple[Path, Node]:
        """What a hard link is another name of. Its last part is not followed: the link is to the
        name."""
        parts = tuple(member.target.split("/"))
        path, directory = self._find(parts[:-1], member, gate)
        node = directory.children.get(parts[-1]) if directory else None
        if node is None:
            refuse(gate.what, member.name, f"a hard link to {member.target!r}, which is not there")
        if node.kind is Kind.DIRECTORY:
            refuse(gate.what, member.name, f"a hard link to the directory {member.target!r}")
        return (*path, parts[-1]), node.itself

    def _touch(self, path: Path) -> None:
        node = self.root
        for part in path:
            node = node.children[part]
            node.layer = self.layer

    def _safely(self, parts: Path, member: Member, gate: Gate) -> tuple[Path, Node, Path]:
        try:
            return self._follow(parts)
        except _Astray as fault:
            refuse(gate.what, member.name, str(fault))

    def _follow(self, parts: Path) -> tuple[Path, Node, Path]:
        """As far as ``parts`` lead from the root: the real path, the node there, and the parts that
        are left because nothing, or no directory, is there."""
        path: list[str] = []
        nodes = [self.root]
        todo = list(reversed(parts))
        hops = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not path:
                    raise _Astray("a link on its path leads out of the root")
                path.pop()
                nodes.pop()
                continue
            child = nodes[-1].children.get(part)
            if child is None:
                return tuple(path), nodes[-1], (part, *reversed(todo))
            if child.itself.kind is Kind.SYMLINK:
                hops += 1
                if hops > _HOPS:
                    raise _Astray("a circle of links on its path")
                todo += self._parts_of_link(child.itself.target)
                if child.itself.target.startswith("/"):
                    del path[:], nodes[1:]
                continue
            path.append(part)
            nodes.append(child)
            if child.kind is not Kind.DIRECTORY:
                return tuple(path), child, tuple(reversed(todo))
        return tuple(path), nodes[-1], ()

    def _parts_of_link(self, target: str) -> list[str]:
        """The last part first. Counted, for links through links could keep us busy for hours."""
        parts = target.split("/")
        self._steps += len(parts)
        if self._steps > _STEPS:
            raise _Astray("too many links through links")
        parts.reverse()
        return parts

    def _check_place(self, old: Node, member: Member, gate: Gate) -> None:
        if old.layer != self.layer:
            return
        if old.kind is Kind.DIRECTORY and member.kind is not Kind.DIRECTORY:
            refuse(gate.what, member.name, f"a {member.kind.value} where a directory already is")
        if old.kind is not Kind.DIRECTORY and member.kind is Kind.DIRECTORY:
            refuse(gate.what, member.name, f"a directory where a {old.kind.value} already is")

    # --- the whole ----------------------------------------------------------------------------

    def _check_link(self, path: Path, target: str) -> None:
        """Follow the link at ``path`` to its end, which need not exist."""
        nodes: list[Node | None] = [self.root]
        for part in () if target.startswith("/") else path[:-1]:
            above = nodes[-1]
            nodes.append(above.children[part] if above else None)
        todo = self._parts_of_link(target)
        hops = 0
        while todo and hops <= _HOPS:  # after so many the kernel gives up, too
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if len(nodes) == 1:
                    raise _Astray(f"a link out of the root, to {target!r}")
                nodes.pop()
                continue
            above = nodes[-1]
            child = above.children.get(part) if above else None
            if child is not None and child.itself.kind is Kind.SYMLINK:
                hops += 1
                if child.itself.target.startswith("/"):
                    del nodes[1:]
                todo += self._parts_of_link(child.itself.target)
                continue
            # What is missing may be made by what runs there: '..' out of it must stay inside.
            nodes.append(child)

    def _warn_of_case(self, path: Path, node: Node, what: str) -> None:
        seen: dict[str, str] = {}
        for name in node.children:
            folded = unicodedata.normalize("NFC", name).casefold()
            other = seen.setdefault(folded, name)
            if other != name and len(self.warnings) < _WARNINGS:
                where = "/".join((*path, name))
                self.warnings.append(f"{what}: {where!r} and {other!r} differ only in case")


class _Astray(Exception):
    """A path that links make impossible; says how."""


def _check_climb(path: Path, member: Member, gate: Gate) -> None:
    """Refuse at once what plainly leads out; the rest is seen when the tree is whole."""
    depth = 0 if member.target.startswith("/") else len(path)
    for part in member.target.split("/"):
        depth += -1 if part == ".." else part not in {"", "."}
        if depth < 0:
            refuse(gate.what, member.name, f"a link out of the root, to {member.target!r}")


def _empty(directory: Node, layer: int) -> None:
    """Take out what layers below ``layer`` put there."""
    waiting = [directory]
    while waiting:
        node = waiting.pop()
        for name in [name for name, child in node.children.items() if child.layer < layer]:
            del node.children[name]
        waiting += node.children.values()
