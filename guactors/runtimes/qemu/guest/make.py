"""A guest from Debian packages: its kernel, and an initramfs with the agent and its Python.

Owns: what is put where, and the directory of guests that were made. Must never: need a program of
this machine (``apt-get`` is a convenience), root's rights, or the network.

Neither the kernel nor the initramfs is compressed on disk: a guest that is emulated reads them many
times faster than it could unpack them. For a download any compression will do.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from guactors.errors import RuntimeMissing, UsageError
from guactors.runtimes.qemu import agent
from guactors.runtimes.qemu.guest import cpio, parts
from guactors.runtimes.qemu.guest.debs import read_deb
from guactors.runtimes.qemu.guest.kernel import unpacked
from guactors.runtimes.qemu.guest.modules import load_order, plain

_AGENT_AT: Final = "guactors/runtimes/qemu/agent"
_PACKAGES_ABOVE: Final = ("guactors", "guactors/runtimes", "guactors/runtimes/qemu")
_COMPILE: Final = """
import marshal, sys
from _frozen_importlib_external import _code_to_hash_pyc
import _imp
for name in sys.argv[1:]:
    data = open(name, "rb").read()
    code = compile(data, "/" + name, "exec", dont_inherit=True, optimize=2)
    made = _code_to_hash_pyc(code, _imp.source_hash(0x0DA7A, data), False)
    open(name + "c", "wb").write(made)
"""
_APT_WITHIN: Final = 300.0
_FORM: Final = 2
"""Of what is made: another number makes all of them anew."""


class Guest(Struct, frozen=True):
    """``kernel``, ``initrd``: files; ``key``: a hash of both; ``release``: the kernel's."""

    kernel: Path
    initrd: Path
    key: str
    release: str


def make_guest(packages: Path, cache: Path) -> Guest:
    """The guest made of the packages in a directory, from ``cache`` if it was made before. Raises
    RuntimeMissing where there are none, UsageError for packages that cannot be used."""
    debs = _find(packages)
    sources = _agent_sources()
    digest = hashlib.sha3_256(repr((_FORM, parts.INIT, parts.FILES, parts.MODULES)).encode())
    for name, path in sorted(debs.items()):
        digest.update(
            f"{name} {path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode()
        )
    for name, data in sorted(sources.items()):
        digest.update(name.encode() + data)
    directory = cache / f"guest-{digest.hexdigest()[:32]}"
    if not (directory / "release").exists():
        _make(debs, sources, directory)
    key = hashlib.sha3_256((directory / "hash").read_bytes()).hexdigest()[:32]
    release = (directory / "release").read_text(encoding="utf-8")
    return Guest(directory / "kernel", directory / "initrd", key, release)


class Packages(Struct, frozen=True):
    """``size``: of all, in bytes; ``fetched``: whether they were downloaded just now."""

    size: int
    fetched: bool


def bring_packages(directory: Path) -> Packages:
    """All that a guest is made of, downloaded unless it is there. Raises as ``fetch_packages``."""
    fetched = False
    try:
        debs = _find(directory)
    except RuntimeMissing:
        fetch_packages(directory)
        fetched, debs = True, _find(directory)
    return Packages(sum(path.stat().st_size for path in debs.values()), fetched)


def fetch_packages(directory: Path) -> None:
    """Download them with ``apt-get``, which needs no rights. Raises RuntimeMissing where that does
    not work."""
    directory.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") is None:
        raise RuntimeMissing(
            f"put these packages of Debian 12 (amd64) into {directory}: the one that "
            f"{parts.KERNEL} depends on, {', '.join(parts.PACKAGES)}"
        )
    kernel = _kernel_package()
    _run(["apt-get", "-q", "download", kernel, *parts.PACKAGES], directory)


def _kernel_package() -> str:
    for line in _run(["apt-cache", "depends", parts.KERNEL], None).splitlines():
        name = line.strip().removeprefix("Depends: ")
        if name.startswith("linux-image-") and name != parts.KERNEL:
            return name
    raise RuntimeMissing(f"apt knows no package {parts.KERNEL}: run apt-get update first")


def _run(argv: list[str], directory: Path | None) -> str:
    try:
        done = subprocess.run(
            argv, cwd=directory, capture_output=True, timeout=_APT_WITHIN, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeMissing(f"{argv[0]} does not work here: {error}") from None
    if done.returncode:
        raise RuntimeMissing(f"{' '.join(argv[:3])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _find(packages: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(packages.glob("*.deb")):
        name = path.name.partition("_")[0]
        if name.startswith("linux-image-") and "cloud" in name:
            name = "linux"
        found[name] = path
    missing = [name for name in ("linux", *parts.PACKAGES) if name not in found]
    if missing:
        raise RuntimeMissing(
            f"{packages} has no package {missing[0]} to make a guest of: "
            "gu runtime setup qemu fetches it, or put it there"
        )
    return found


def _agent_sources() -> dict[str, bytes]:
    there = Path(agent.__file__).parent
    found = {f"{_AGENT_AT}/{path.name}": path.read_bytes() for path in sorted(there.glob("*.py"))}
    return found | {f"{name}/__init__.py": b"" for name in _PACKAGES_ABOVE}


def _make(debs: Mapping[str, Path], sources: Mapping[str, bytes], directory: Path) -> None:
    release, kernel, modules = _read_kernel(debs["linux"])
    files: dict[str, bytes] = {}
    library = {f"{parts.LIBRARY_AT}/{name}": name for name in parts.LIBRARY}
    python: dict[str, bytes] = {}
    for name in parts.PACKAGES:
        found = read_deb(debs[name], lambda path: path in parts.FILES or path in library)
        files |= {parts.FILES[path]: data for path, data in found.items() if path in parts.FILES}
        python |= {path: data for path, data in found.items() if path in library}
    missing = (set(parts.FILES.values()) - files.keys()) | (library.keys() - python.keys())
    if missing:
        raise UsageError(f"the packages in {debs['linux'].parent} have no {min(missing)}")
    python |= {f"{parts.LIBRARY_AT}/{name}": data for name, data in sources.items()}
    initrd = _initramfs(modules, files, _compiled(python, files))
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="guest-part-", dir=directory.parent))
    try:
        kernel = unpacked(kernel)
        (fresh / "kernel").write_bytes(kernel)
        (fresh / "initrd").write_bytes(initrd)
        both = hashlib.sha3_256(kernel).hexdigest() + hashlib.sha3_256(initrd).hexdigest()
        (fresh / "hash").write_text(both, encoding="ascii")
        (fresh / "release").write_text(release, encoding="utf-8")
        if not directory.exists():
            fresh.rename(directory)
    except FileExistsError:  # somebody else was as fast
        return
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read_kernel(deb: Path) -> tuple[str, bytes, dict[str, bytes]]:
    found = read_deb(deb, lambda path: path.startswith("boot/vmlinuz-") or path.endswith(".ko"))
    kernels = [path for path in found if path.startswith("boot/vmlinuz-")]
    if len(kernels) != 1:
        raise UsageError(f"{deb.name} has {len(kernels)} kernels in its /boot, not one")
    modules = {plain(path): data for path, data in found.items() if path.endswith(".ko")}
    return kernels[0].removeprefix("boot/vmlinuz-"), found[kernels[0]], modules


def _initramfs(
    modules: Mapping[str, bytes], files: Mapping[str, bytes], python: Mapping[str, bytes]
) -> bytes:
    orders = {name: load_order(modules, wanted) for name, wanted in parts.MODULES.items()}
    entries = [cpio.file(name, data, executable=True) for name, data in files.items()]
    entries += [cpio.file(name, data) for name, data in python.items()]
    for file, order in orders.items():
        entries += [cpio.file(f"modules/{name}.ko", modules[name]) for name in order]
        entries.append(cpio.file(f"modules/{file}", "".join(f"{one}\n" for one in order).encode()))
    entries += [
        cpio.file("init", parts.INIT.encode(), executable=True),
        *(cpio.link(f"bin/{name}", "busybox") for name in parts.APPLETS),
        cpio.character_device("dev/console", 5, 1),
        *map(cpio.directory, ("proc", "sys", "image", "lower", "upper", "tmp")),
    ]
    return cpio.archive(entries)


def _compiled(python: Mapping[str, bytes], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Compiled by the guest's own Python, which runs here where the machine is of its kind: the
    guest takes a second for it. Elsewhere as they are."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return dict(python)
    with tempfile.TemporaryDirectory(prefix="gu-compile-") as text:
        root = Path(text)
        for name, data in (*files.items(), *python.items()):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        argv = [
            str(root / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(root / "lib"),
            str(root / "usr/bin/python3.11"), "-I", "-S", "-B", "-c", _COMPILE, *python,
        ]  # fmt: skip
        done = subprocess.run(
            argv, cwd=root, env={"PYTHONHOME": str(root / "usr")}, capture_output=True,
            timeout=_APT_WITHIN, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")[-500:]
            raise UsageError(f"the guest's Python cannot compile the agent: {said}")
        return {f"{name}c": Path(root, f"{name}c").read_bytes() for name in python}


def remove_guest(guest: Guest) -> None:
    """Forget what was made."""
    shutil.rmtree(os.path.dirname(guest.kernel), ignore_errors=True)
