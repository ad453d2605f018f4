"""One animation, rendered on the grid as programs of the machines, in containers and in virtual
machines: the frames are the same to the last bit.

    python examples/animation.py --runtimes native docker qemu --out animation.png

Each frame is one ``gu run``. For ``native`` the program is the provider's own POV-Ray; for the
others it comes from an image, which is made here of this machine's POV-Ray and the libraries it
needs, and pushed to the hub. Joins the grid that ``GU_ADDRESS`` names; without it, starts one of
two providers for itself and ends it. A runtime that no provider has is left out, and said.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

SCENE = """
#version 3.7;
global_settings { assumed_gamma 1 }
camera { location <0, 2.6, -8> look_at <0, 0.8, 0> angle 46 right x*image_width/image_height }
light_source { <6, 9, -7> rgb 1 }
sky_sphere { pigment { gradient y color_map { [0 rgb <0.93,0.95,1>] [1 rgb <0.35,0.55,0.85>] } } }
plane { y, 0 pigment { checker rgb <0.82,0.84,0.86> rgb <0.28,0.33,0.40> } }
#for (I, 0, 6)
  sphere { <2.4*cos(2*pi*(I/7+clock)), 0.5, 2.4*sin(2*pi*(I/7+clock))>, 0.5
    pigment { rgb <0.3+0.1*I, 0.9-0.1*I, 0.5> } finish { specular 0.5 } }
#end
sphere { <0, 1.2, 0>, 1.2 pigment { rgb 0.06 } finish { reflection 0.7 specular 0.8 } }
"""
FRAME = """
cd "${TMPDIR:-/tmp}" && printf '%s' "$1" > scene$2.pov
povray +Iscene$2.pov +Oframe$2.ppm +FP +W$3 +H$4 +K$2 +WT1 +A -J -D -GA >log$2 2>&1 ||
    { tail -n 5 log$2 >&2; exit 1; }
tail -c $(($3 * $4 * 3)) frame$2.ppm && rm -f scene$2.pov frame$2.ppm log$2
"""
"""What runs for a frame. Arguments: scene, time from 0 to 1, width, height. Only the pixels are
sent: what is before them has the time of day in it."""
PROGRAMS = ("povray", "sh", "rm", "tail")
SETTINGS = ("/etc/povray", "/usr/share/povray-3.7/include")


def gu_command() -> str:
    """The ``gu`` that belongs to this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("gu")
    return str(beside) if beside.exists() else "gu"


def gu(*words: str, env: dict[str, str]) -> bytes:
    """What the command prints. Raises CalledProcessError."""
    return subprocess.run([gu_command(), *words], env=env, check=True, capture_output=True).stdout


@contextmanager
def grid(home: Path) -> Iterator[dict[str, str]]:
    """The environment in which ``gu`` finds a grid: the given one, or our own for so long."""
    if os.environ.get("GU_ADDRESS"):
        yield dict(os.environ)
        return
    own = home / "home"
    own.mkdir(mode=0o700)
    packages = os.environ.get("GU_HOME") and Path(os.environ["GU_HOME"], "guest-packages")
    if packages and packages.exists():
        (own / "guest-packages").symlink_to(packages.resolve())
    env = {**os.environ, "GU_HOME": str(own)}
    gu("up", "--providers", "2", env=env)
    try:
        yield env
    finally:
        gu("down", env=env)


def make_root(root: Path) -> None:
    """A root file system with POV-Ray, a shell, and the libraries of both."""
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is None:
            raise SystemExit(f"this example needs {program}; on Debian: apt-get install povray")
        shutil.copy(os.path.realpath(found), root / "bin" / program)
        listed = subprocess.run(["ldd", found], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(library), target)
    for settings in SETTINGS:
        if os.path.isdir(settings):
            shutil.copytree(settings, root / settings.lstrip("/"), dirs_exist_ok=True)


def push_image(home: Path, env: dict[str, str]) -> str:
    """The id of the image, which is at the hub when this returns."""
    root = home / "root"
    make_root(root)
    image = gu("image", "build", str(root), "--name", "povray", env=env).decode().split()[-1]
    gu("image", "push", image, env=env)
    return image


def render(
    runtime: str, image: str, moment: float, size: tuple[int, int], env: dict[str, str]
) -> bytes:
    """The pixels of one frame, three bytes each. Raises CalledProcessError with the complaint."""
    words = ["run", "--cpus", "1", "--runtime", runtime, "--env", "HOME=/tmp"]
    shell = "sh" if runtime == "native" else "/bin/sh"
    if runtime != "native":
        words += ["--image", image]
    numbers = (f"{moment:.4f}", *map(str, size))
    return gu(*words, "--", shell, "-c", FRAME, "frame", SCENE, *numbers, env=env)


def animate(
    runtime: str, image: str, frames: int, size: tuple[int, int], env: dict[str, str]
) -> list[bytes]:
    """All frames, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count() or 2) as threads:
        moments = [frame / frames for frame in range(frames)]
        return list(threads.map(lambda at: render(runtime, image, at, size, env), moments))


def offered(env: dict[str, str]) -> set[str]:
    """The runtimes of this machine."""
    words = ("from guactors.runtimes.choice import usual_runtimes as u; print(*u())",)
    found = subprocess.run(
        [sys.executable, "-c", *words], env=env, check=True, capture_output=True, text=True
    ).stdout
    return {"native", *found.split()}


def apng(frames: Sequence[bytes], size: tuple[int, int]) -> bytes:
    """An animated PNG of these pictures, eight a second."""
    width, height = size
    count = itertools.count()
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    chunks.append(chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    for number, frame in enumerate(frames):
        control = struct.pack(">IIIIIHHBB", next(count), width, height, 0, 0, 1, 8, 0, 0)
        chunks.append(chunk(b"fcTL", control))
        rows = b"".join(
            b"\0" + frame[at : at + 3 * width] for at in range(0, len(frame), 3 * width)
        )
        data = zlib.compress(rows)
        if number:
            chunks.append(chunk(b"fdAT", struct.pack(">I", next(count)) + data))
        else:
            chunks.append(chunk(b"IDAT", data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def main(argv: list[str] | None = None) -> int:
    """0 when all runtimes made the same frames, also when POV-Ray is not installed."""
    parser = argparse.ArgumentParser(description="Render an animation in several runtimes.")
    parser.add_argument("--runtimes", nargs="+", default=["native", "docker", "qemu"])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("animation.png"))
    options = parser.parse_args(argv)
    if shutil.which("povray") is None:
        print("this example needs POV-Ray; on Debian: apt-get install povray")
        return 0
    size = (options.width, options.height)
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="animation-") as place, grid(Path(place)) as env:
        there = offered(env) if not os.environ.get("GU_ADDRESS") else set(options.runtimes)
        image = push_image(Path(place), env)
        for runtime in options.runtimes:
            if runtime not in there:
                print(f"{runtime:<8} is not here (gu runtime list)")
                continue
            began = time.perf_counter()
            try:
                frames = animate(runtime, image, options.frames, size, env)
            except subprocess.CalledProcessError as failed:
                print(f"{runtime}: {failed.stderr.decode(errors='replace')}", file=sys.stderr)
                return 1
            made[runtime] = hashlib.sha3_256(b"".join(frames)).hexdigest()
            seconds = time.perf_counter() - began
            print(f"{runtime:<8} {len(frames)} frames in {seconds:6.1f} s, {made[runtime][:16]}")
    options.out.write_bytes(apng(frames, size))
    same = len(set(made.values())) == 1
    print(f"{options.out}: the frames of {', '.join(made)} are {'identical' if same else 'NOT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
