"""Programs on the grid: one picture, rendered in bands by POV-Ray under ``gu run``.

``gu run`` starts a program on a provider and streams its output back byte for byte, so a renderer
that writes pixels to its standard output needs no shared disk: the scene travels as an argument,
each band comes back through a pipe, and an exit status that is not 0 arrives as one.

    python examples/tiles.py --out tiles.png

Joins the grid that ``GU_ADDRESS`` names; without it, starts one for itself and ends it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

SCENE = """
#version 3.7;
global_settings { assumed_gamma 1 }
camera { location <0, 3.2, -9> look_at <0, 0.9, 0> angle 46 right x*image_width/image_height }
light_source { <6, 9, -7> rgb 1 area_light 1.5*x, 1.5*y, 4, 4 adaptive 1 jitter }
sky_sphere { pigment { gradient y color_map { [0 rgb <0.93,0.95,1>] [1 rgb <0.35,0.55,0.85>] } } }
plane { y, 0 pigment { checker rgb <0.82,0.84,0.86> rgb <0.28,0.33,0.40> }
  finish { reflection 0.08 } }
#declare R = seed(4);
#for (I, 0, 11)
  sphere { <2.9*cos(I*pi/6), 0.6, 2.9*sin(I*pi/6)>, 0.6
    pigment { rgb <0.25+0.6*rand(R), 0.25+0.5*rand(R), 0.3+0.6*rand(R)> }
    finish { reflection 0.18 specular 0.5 roughness 0.01 } }
#end
sphere { <0, 1.5, 0>, 1.5 pigment { rgb 0.06 } finish { reflection 0.75 specular 0.8 } }
"""

BAND = """
printf '%s' "$1" > scene.pov
povray +Iscene.pov +Oband.ppm +FP +W$2 +H$3 +SR$4 +ER$5 +A +WT1 -D -GA 2> log \\
    || { tail -n 5 log >&2; exit 1; }
row=$(($2 * 3))
tail -c $((row * $3)) band.ppm | tail -c +$((row * ($4 - 1) + 1)) | head -c $((row * ($5 - $4 + 1)))
"""
"""What runs on the provider, in a fresh directory that ``gu run`` makes and removes. Arguments:
scene, width, height, first and last row, counted from 1.
POV-Ray writes the whole picture with all other rows black; only the band's own rows are sent."""


def gu_command() -> str:
    """The ``gu`` that belongs to this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("gu")
    return str(beside) if beside.exists() else "gu"


@contextmanager
def grid() -> Iterator[dict[str, str]]:
    """The environment in which ``gu`` finds a grid: the given one, or our own for so long."""
    if os.environ.get("GU_ADDRESS"):
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory(prefix="tiles-") as home:
        env = {**os.environ, "GU_HOME": home}
        subprocess.run([gu_command(), "up"], env=env, check=True, capture_output=True)
        try:
            yield env
        finally:
            subprocess.run([gu_command(), "down"], env=env, check=True, capture_output=True)


def bands(height: int, count: int) -> list[tuple[int, int]]:
    """``count`` bands of nearly equal height, as (first, last) row, counted from 1."""
    edges = [height * part // count for part in range(count + 1)]
    return [(first + 1, last) for first, last in pairwise(edges)]


def render(size: tuple[int, int], band: tuple[int, int], env: dict[str, str]) -> bytes:
    """The pixels of one band: three bytes each, row by row. Raises CalledProcessError with what the
    program wrote to its standard error."""
    numbers = map(str, (*size, *band))
    command = [gu_command(), "run", "--cpus", "1", "--", "sh", "-c", BAND, "band", SCENE, *numbers]
    pixels = subprocess.run(command, env=env, check=True, capture_output=True).stdout
    print(f"rows {band[0]:>4} to {band[1]:>4}: {len(pixels):,} bytes", flush=True)
    return pixels


def png(width: int, height: int, pixels: bytes) -> bytes:
    """An RGB picture in PNG format."""
    rows = (pixels[start : start + 3 * width] for start in range(0, len(pixels), 3 * width))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def main(argv: list[str] | None = None) -> int:
    """0, also when POV-Ray is not installed; 1 when a band failed."""
    parser = argparse.ArgumentParser(description="Render a picture in bands on the grid.")
    parser.add_argument("--width", type=int, default=960)
    parser.add_argument("--height", type=int, default=540)
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("tiles.png"))
    options = parser.parse_args(argv)
    if shutil.which("povray") is None:
        print("this example needs POV-Ray; on Debian: apt-get install povray")
        return 0
    size = (options.width, options.height)
    began = time.perf_counter()
    try:
        with grid() as env, ThreadPoolExecutor(options.bands) as pool:
            parts = pool.map(lambda band: render(size, band, env), bands(size[1], options.bands))
            pixels = b"".join(parts)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        print(f"`gu {error.cmd[1]}` ended with status {error.returncode}: {said}", file=sys.stderr)
        return 1
    options.out.write_bytes(png(*size, pixels))
    print(f"picture: {options.out.resolve()} in {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
