"""A driver of something that is no process of the machine: a list of notes, which it can save.

Its programs are ``add TEXT``, ``list`` and ``wait``. It holds a limit of its own, counts by itself,
and keeps a file beside its manifest for each instance, which ``reap`` removes.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

HELLO = {
    "protocol": 1,
    "name": "notes",
    "version": "3",
    "capabilities": ["host", "save", "stats", "reap", "probe", "memory"],
}


class Refused(Exception):
    """An error of the kind ``usage``."""


class Notes:
    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.notes: list[str] = []
        self.limit = 0
        self.mark: Path | None = None

    def do_hello(self, message: dict[str, Any]) -> Any:
        return HELLO

    def do_probe(self, message: dict[str, Any]) -> Any:
        return {"usable": True, "facts": {"paper": "white"}}

    def do_create(self, message: dict[str, Any]) -> None:
        spec = message["spec"]
        self.limit = spec["limits"]["memory"]
        self.notes += spec["options"].get("notes", [])
        self.mark = self.kept / f"{spec['owner']}-{spec['instance']}.note"
        self.mark.write_text("")

    def do_restore(self, message: dict[str, Any]) -> None:
        self.do_create(message)
        self.notes = json.loads(Path(message["path"]).read_text())

    def do_save(self, message: dict[str, Any]) -> None:
        Path(message["path"]).write_text(json.dumps(self.notes))

    def do_start(self, message: dict[str, Any]) -> None:
        return

    def do_exec(self, message: dict[str, Any]) -> Any:
        if message["argv"][0] not in {"add", "list", "wait"}:
            raise Refused(f"there is no program {message['argv'][0]}")
        return {}

    def after_exec(self, message: dict[str, Any]) -> None:
        number, words = message["program"], message["argv"]
        if words[0] == "wait":
            return
        if words[0] == "list":
            text = base64.b64encode("\n".join(self.notes).encode()).decode()
            tell(type="output", program=number, stream=1, data=text)
        elif self.limit and self.size() + len(words[1]) > self.limit:
            why = {"reason": "memory_limit", "detail": f"no more than {self.limit} letters"}
            tell(type="exit", program=number, signal=9, **why)
            return
        else:
            self.notes.append(words[1])
        tell(type="exit", program=number, code=0)

    def do_stats(self, message: dict[str, Any]) -> Any:
        return {"memory": self.size(), "sent": 7}

    def do_stop(self, message: dict[str, Any]) -> None:
        return

    def do_reap(self, message: dict[str, Any]) -> Any:
        ended = []
        for path in self.kept.glob(f"{message['owner']}-*.note"):
            path.unlink()
            ended.append(path.stem)
        return {"ended": ended}

    def do_close(self, message: dict[str, Any]) -> None:
        if self.mark is not None:
            self.mark.unlink()

    def size(self) -> int:
        return sum(map(len, self.notes))


def tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    notes = Notes(Path(sys.argv[1]))
    for line in sys.stdin:
        message = json.loads(line)
        verb, number = message["verb"], message.get("id")
        if number is None:
            if verb in {"forget", "signal"}:
                tell(type="exit", program=message["program"], signal=9)
            continue
        try:
            result = getattr(notes, f"do_{verb}")(message) or {}
        except Refused as error:
            tell(type="error", id=number, kind="usage", message=str(error))
            continue
        tell(type="ok", id=number, result=result)
        if verb == "exec":
            notes.after_exec(message)
        elif verb == "close":
            os._exit(0)


if __name__ == "__main__":
    main()
