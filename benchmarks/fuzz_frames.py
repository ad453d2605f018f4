"""Does any input get anything but a message or a ProtocolError out of a decoder?

    python benchmarks/fuzz_frames.py [INPUTS] [SEED]

Feeds INPUTS (default 1,000,000) headers to the decoders of every direction: valid ones, mutated
ones (bytes changed, cut out, doubled, spliced with other messages) and random bytes. Prints the
counts as one line of JSON. Any other exception ends the run with the input in hex; add it to
tests/corpus/frames.
"""

from __future__ import annotations

import collections
import json
import random
import sys
import time
import typing
from pathlib import Path
from typing import Any

from msgspec import inspect as mi

from guactors import messages
from guactors.errors import ProtocolError
from guactors.messages import Message, Ping
from guactors.transport.frames import Decoder, encode

UNIONS = {
    name: union
    for name, union in vars(messages).items()
    if name[0].isupper() and typing.get_args(union) and Ping in typing.get_args(union)
}
CORPUS = Path(__file__).parents[1] / "tests" / "corpus" / "frames"


def sample(info: mi.Type, rng: random.Random) -> Any:
    """A random value of a message type or of one of its fields."""
    match info:
        case mi.StructType(cls=cls, fields=fields):
            return cls(*[sample(field.type, rng) for field in fields])
        case mi.StrType():
            return "".join(rng.choices("aé€😀-0\0", k=rng.randrange(12)))
        case mi.BytesType():
            return rng.randbytes(rng.randrange(33))
        case mi.IntType(ge=low):
            return rng.choice([0, 1, 127, 128, 2**16, 2**32, 2**53]) * (1 if low == 0 else -1)
        case mi.FloatType():
            return rng.choice([0.0, 1.5, 1e15])
        case mi.BoolType():
            return rng.random() < 0.5
        case mi.NoneType():
            return None
        case mi.ListType(item_type=item):
            return [sample(item, rng) for _ in range(rng.randrange(3))]
        case mi.DictType(key_type=key, value_type=value):
            return {sample(key, rng): sample(value, rng) for _ in range(rng.randrange(3))}
        case mi.UnionType(types=types):
            return sample(rng.choice(types), rng)
        case _:
            raise TypeError(f"no sample for {info}: add one")


def seeds(rng: random.Random) -> list[tuple[bytes, Decoder[Message]]]:
    """Headers and a decoder for each: valid ones for every message of every direction, and the
    corpus with the hub's decoder."""
    found = []
    for union in UNIONS.values():
        decoder = Decoder[Message](union)
        for kind in typing.get_args(union):
            found += [(encode(sample(mi.type_info(kind), rng)), decoder) for _ in range(8)]
    hub = Decoder[Message](messages.ToHub)
    return found + [(path.read_bytes(), hub) for path in sorted(CORPUS.glob("*.bin"))]


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """``data`` with one to four changes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0:
                out[place : place + 1] = rng.randbytes(1)
            case 1:
                del out[place : place + rng.randrange(1, 8)]
            case 2:
                out[place:place] = out[place : place + rng.randrange(1, 16)]
            case 3:
                other = rng.choice(others)
                out[place:] = other[rng.randrange(len(other) + 1) :]
            case 4:
                # Type bytes of long lengths, extensions and nesting, where the bodies are.
                marker = rng.choice(b"\xc1\xc4\xc5\xc6\xc7\xc8\xc9\xd4\xd8\xd9\xda\xdb\xdc\xdd\xdf")
                out[place : place + 1] = bytes([marker]) + rng.randbytes(rng.choice([0, 1, 2, 4]))
            case _:
                out[place:place] = rng.choice([b"\x91", b"\x81\x01"]) * rng.randrange(600)
    return bytes(out)


def main(inputs: int, seed: int) -> int:
    rng = random.Random(seed)
    known = seeds(rng)
    headers = [header for header, _ in known]
    counts: collections.Counter[str] = collections.Counter()
    began = time.perf_counter()
    for number in range(inputs):
        data, decoder = rng.choice(known)
        match number % 10:
            case 0:
                pass
            case 1:
                data = rng.randbytes(rng.randrange(64))
            case 2:
                data = data[:2] + rng.randbytes(rng.randrange(64))
            case _:
                data = mutate(data, headers, rng)
        try:
            decoder.decode([data])
        except ProtocolError as fault:
            counts[fault.kind] += 1
        except BaseException:
            print(f"seed {seed}, input {number}: {data.hex()}", file=sys.stderr)
            raise
        else:
            counts["accepted"] += 1
    seconds = time.perf_counter() - began
    print(json.dumps({
        "benchmark": "fuzz_frames", "inputs": inputs, "seed": seed, "decoders": len(UNIONS),
        "counts": dict(sorted(counts.items())), "other_exceptions": 0,
        "seconds": round(seconds, 1),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    given = [int(text.replace(",", "")) for text in sys.argv[1:]]
    sys.exit(main(*given, *(1_000_000, 1)[len(given) :]))
