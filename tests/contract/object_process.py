"""Another process with a store of its own, told by lines what to do with values.

``hold N``: attach word N; ``read N``: the first byte of each part; ``drop N``; ``write SIZE``: put
that many bytes, answer with the word; ``spill``-free and silent otherwise. Words cross as JSON.
"""

from __future__ import annotations

import json
import sys

import msgspec

from guactors.errors import GuactorsError
from guactors.messages import Stored
from guactors.objects import process


def main() -> None:
    held = {}
    for line in sys.stdin:
        order, *rest = json.loads(line)
        answer: object = None
        try:
            if order == "attach":
                held[rest[0]] = process.store().attach(msgspec.convert(rest[1], Stored))
            elif order == "read":
                answer = [bytes(part[:1]).hex() for part in held[rest[0]].parts()]
            elif order == "view":
                held[rest[0] + "-view"] = held[rest[0]].parts()
            elif order == "drop":
                for name in rest:
                    held.pop(name, None)
                process.store().settle()
            elif order == "write":
                held[rest[0]] = process.store().write([bytes([rest[2]]) * rest[1]])
                answer = msgspec.to_builtins(held[rest[0]].word)
            elif order == "draft":
                held[rest[0]] = process.store().draft([rest[1]])
                held[rest[0]].write(0, bytes(rest[1] // 2))
                block = held[rest[0]]._held.block
                answer = msgspec.to_builtins(block.word(process.store().id))
            elif order == "give":
                process.store().give(held.pop(rest[0]), "caller", far=True)
                process.store().settle()
            elif order == "close":
                process.close()
            elif order == "tick":
                process.store().on_tick(rest[0])
        except GuactorsError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
