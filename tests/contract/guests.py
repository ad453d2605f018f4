"""What tests with real guests share in one session: packages, a guest made of them, images.

Owns: one directory below the session's temporary one. Must never: use the machine's own guests.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from guactors.errors import RuntimeMissing
from guactors.images.build import build_image
from guactors.images.debian import build_debian
from guactors.images.store import ImageStore
from guactors.runtimes.qemu.driver import QemuRuntime
from guactors.runtimes.qemu.guest.make import Guest, fetch_packages, make_guest
from guactors.runtimes.qemu.hosts.base import Host

FETCHED = Path(__file__).resolve().parents[2] / "build" / "guest-packages"
"""Where ``scripts/check`` puts them; without them the session fetches its own."""
QUOTA = 4 << 30


@cache
def ground() -> Path:
    """The directory; it goes with the session's own."""
    return Path(tempfile.mkdtemp(prefix="guests-"))


@cache
def packages() -> Path:
    """Those that guests are made of. Raises RuntimeMissing."""
    if shutil.which("qemu-system-x86_64") is None:
        raise RuntimeMissing("qemu-system-x86_64 is not installed")
    if list(FETCHED.glob("linux-image-*.deb")):
        return FETCHED
    there = ground() / "packages"
    fetch_packages(there)
    return there


def runtime(program: str = "", guest: Guest | None = None, host: Host | None = None) -> QemuRuntime:
    """One that shares what was made."""
    cache = ground() / "cache"
    return QemuRuntime(
        store, packages=packages(), cache=cache, program=program, guest=guest, host=host
    )


def guest() -> Guest:
    """The one that is usually taken."""
    return make_guest(packages(), ground() / "cache")


def furnish(home: Path) -> None:
    """Give a home the packages, and the guest that was made of them: its grid need not make it."""
    (home / "guest-packages").symlink_to(packages())
    made = guest().kernel.parent
    place = home / "cache" / "qemu"
    place.mkdir(parents=True, mode=0o700)
    (place / made.name).symlink_to(made)


def store() -> ImageStore:
    """The images of these tests."""
    return ImageStore(ground() / "images", quota=QUOTA, now=time.time)


@cache
def python_root() -> Path:
    """A directory with the Python of Debian and what it needs, and nothing else."""
    root = ground() / "python"
    root.mkdir()
    for path in sorted(packages().glob("*.deb")):
        if not path.name.startswith(("linux-", "busybox")):
            subprocess.run(["dpkg-deb", "--extract", path, root], check=True)
    for name in ("usr/bin", "etc", "tmp", "proc", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


@cache
def whole_python_image() -> str:
    """The id of an image of that."""
    return build_image(python_root(), store(), name="whole-python", media="squashfs")


@cache
def python_image() -> str:
    """The id of an image with Python and a shell, of this machine's Debian packages."""
    packages = ["python3-minimal", "busybox-static"]
    return build_debian(packages, store(), name="python", media="squashfs")


@cache
def shell_image() -> str:
    """The id of an image with a shell and small programs: busybox, under all its names."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeMissing("busybox is not installed: apt install busybox-static")
    root = ground() / "shell"
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in (
        "basename", "cat", "chmod", "date", "dd", "echo", "env", "head", "id", "ln", "ls", "mkdir",
        "mv", "nproc", "ps", "rm", "setsid", "sh", "sleep", "stat", "stty", "test", "true", "wc",
    ):  # fmt: skip
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nguest:x:1000:\nstaff:x:50:\n")
    return build_image(root, store(), name="shell", media="squashfs")
