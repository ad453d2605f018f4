"""A tar archive read once from front to end, one header in memory at a time.

Owns: the headers of ustar, GNU and PAX, and what of them is refused: sparse files, parts of several
volumes, device nodes, sizes below zero, records over their limit, an archive without its end. Must
never: skip what it does not understand, or go on after damage: what other readers would make of
such an archive nobody can say.
"""

from __future__ import annotations

from typing import Final

from guactors.errors import ImageRefused
from guactors.images.compression import PlainStream
from guactors.images.members import MIB, Entries, Gate, Kind, Member, decoded, refuse

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)
_PAX_MOST: Final = MIB
"""Bytes of one extended header."""
_POSIX: Final = b"ustar\0"

_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_REFUSED: Final = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file: pack the archive without sparse files",
    b"M": "a part of another volume",
    b"D": "a list of a GNU incremental backup",
    b"V": "a volume label: pack the archive without one",
}


class TarContent:
    """The content of the member that was read last. ``offset``: where in the plain stream."""

    def __init__(self, stream: PlainStream, member: Member) -> None:
        self._stream = stream
        self._member = member
        self.offset = stream.position
        self.left = member.size

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end of the member."""
        data = self._stream.read(min(size, self.left)) if self.left else b""
        if self.left and size and not data:
            refuse(self._stream.what, self._member.name, "the archive is cut short in its content")
        self.left -= len(data)
        return data

    def finish(self) -> None:
        """Pass over what was not read, and the padding."""
        left = self.left + -self._member.size % BLOCK
        self.left = 0
        if self._stream.skip(left) != left:
            refuse(self._stream.what, self._member.name, "the archive is cut short in its content")


def read_tar(stream: PlainStream, gate: Gate) -> Entries:
    """Every member of the archive, checked. Raises ImageRefused at the first one that breaks a
    rule, and unless the archive ends with its end mark and zeros after it."""
    what = gate.what
    extended: dict[str, str] = {}
    while True:
        header = stream.exactly(BLOCK)
        if len(header) < BLOCK:
            raise ImageRefused(f"{what} is cut short: it has no end mark")
        if header == _ZEROS:
            break
        kind, size = _checked(header, what)
        if kind == b"g":
            _refuse_global(_records(stream, size, what), what)
        elif kind in {b"x", b"X"}:
            _extend(extended, _records(stream, size, what), what)
        elif kind in {b"L", b"K"}:
            field = "path" if kind == b"L" else "linkpath"
            text = decoded(_long(stream, size, what).rstrip(b"\0"))
            _extend(extended, {field: text}, what)
        else:
            member = _member(header, kind, size, extended, gate)
            content = TarContent(stream, member)
            yield member, content
            content.finish()
            extended = {}
    if extended:
        raise ImageRefused(f"{what} is cut short: its last header belongs to nothing")
    while rest := stream.read(MIB):
        if rest.count(0) != len(rest):
            raise ImageRefused(f"{what}: something follows its end mark")


def _checked(header: bytes, what: str) -> tuple[bytes, int]:
    """The type and the size of a header whose checksum is right."""
    found = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if found != _number(header[148:156], "checksum", what):
        raise ImageRefused(f"{what} is damaged, or no tar archive: a header's checksum is wrong")
    size = _number(header[124:136], "size", what)
    if size < 0:
        refuse(what, _name(header), "a negative size")
    return header[156:157], size


def _member(header: bytes, kind: bytes, size: int, extended: dict[str, str], gate: Gate) -> Member:
    name = extended.get("path") or _name(header)
    if kind in _REFUSED:
        refuse(gate.what, name, _REFUSED[kind])
    if kind not in _KINDS:
        refuse(gate.what, name, f"a member of the unknown type {kind!r}")
    what = _KINDS[kind]
    if what is Kind.FILE and name.endswith("/") and kind != b"7":
        what = Kind.DIRECTORY  # as archives older than the type for directories say it
    target = ""
    if what in {Kind.SYMLINK, Kind.HARDLINK}:
        target = extended.get("linkpath") or _text(header[157:257])

    def number(field: str, start: int, end: int) -> int:
        given = extended.get(field)
        if given is None:
            return _number(header[start:end], field, gate.what)
        return _decimal(given, field, name, gate.what)

    return gate.member(
        name,
        what,
        mode=_number(header[100:108], "mode", gate.what),
        uid=number("uid", 108, 116),
        gid=number("gid", 116, 124),
        mtime=number("mtime", 136, 148),
        size=number("size", 124, 136) if "size" in extended else size,
        target=target,
    )


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == _POSIX else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return decoded(field.partition(b"\0")[0])


def _number(field: bytes, name: str, what: str) -> int:
    """Octal digits, or base 256 where the first bit is set."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    return _octal(field, name, what)


def _octal(field: bytes, name: str, what: str) -> int:
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise ImageRefused(f"{what} is damaged: the {name} {digits!r} is no number")
    return int(digits, 8)


def _decimal(text: str, field: str, name: str, what: str) -> int:
    """The whole part of a PAX number; times may have a fraction."""
    whole = text.partition(".")[0] if field == "mtime" else text
    digits = whole.removeprefix("-")
    if not digits or len(digits) > 20 or not (digits.isascii() and digits.isdigit()):
        refuse(what, name, f"its {field} is no number")
    return int(whole)


def _long(stream: PlainStream, size: int, what: str) -> bytes:
    if not 0 < size <= _PAX_MOST:
        raise ImageRefused(f"{what}: an extended header of {size} bytes, at most {_PAX_MOST}")
    padded = size + -size % BLOCK
    data = stream.exactly(padded)
    if len(data) != padded:
        raise ImageRefused(f"{what} is cut short in an extended header")
    return data[:size]


def _records(stream: PlainStream, size: int, what: str) -> dict[str, str]:
    """The records of a PAX header: ``LENGTH KEY=VALUE`` and a line feed each."""
    data = _long(stream, size, what)
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits = data[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not equals or not record.endswith(b"\n"):
            raise ImageRefused(f"{what} is damaged: a record of an extended header is wrong")
        if decoded(key) in found:
            raise ImageRefused(f"{what}: an extended header says {decoded(key)!r} twice")
        found[decoded(key)] = decoded(value)
        at += length
    return found


def _extend(extended: dict[str, str], records: dict[str, str], what: str) -> None:
    for key, value in records.items():
        if key in extended:
            raise ImageRefused(f"{what}: two extended headers say {key!r} of one member")
        if key.startswith("GNU.sparse."):
            raise ImageRefused(f"{what}: a sparse file: pack the archive without sparse files")
        if "\0" in value and key in {"path", "linkpath"}:
            raise ImageRefused(f"{what}: a zero byte in a name")
        extended[key] = value


def _refuse_global(records: dict[str, str], what: str) -> None:
    """A header for all members: only comments are let pass, as git writes them."""
    meant = {"path", "linkpath", "size", "uid", "gid", "mtime"} & records.keys()
    if meant or any(key.startswith("GNU.sparse.") for key in records):
        raise ImageRefused(
            f"{what}: a global header sets {min(meant or records)!r} for all members"
        )
