"""What is sent into an instance to make a Python there one of ours.

Owns: the words it is started with, and the modules it gets: nothing of ours need be in an image.
Must never: send code of a session.
"""

from __future__ import annotations

import marshal
import sys
from functools import cache
from pathlib import Path
from typing import Final

BOOT: Final = """\
import os, sys
def take(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            raise SystemExit(3)
        data += more
    return data
hello = '{"say":"hello","python":[%d,%d,%d],"kind":"%s","parts":[]}' % (
    tuple(sys.version_info[:3]) + (sys.implementation.name,))
os.write(1, len(hello).to_bytes(4, "big") + hello.encode())
exec(take(int.from_bytes(take(8), "big")))
"""
"""What ``python -c`` is given; any Python 3 understands it, so that it can be told apart."""
_LOADER: Final = """\
import marshal
from importlib.machinery import ModuleSpec
class Sent:
    def __init__(self, modules):
        self.modules = modules
    def find_spec(self, name, path=None, target=None):
        if name in self.modules:
            return ModuleSpec(name, self, is_package=self.modules[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__file__ = "<%s>" % module.__name__
        exec(self.modules[module.__name__][1], module.__dict__)
sys.meta_path.insert(0, Sent(marshal.loads(take(int.from_bytes(take(8), "big")))))
from guactors.enclosure.inside import main
main()
"""
_HERE: Final = Path(__file__).parent


def same_python(version: list[int], kind: str) -> bool:
    """Whether code and modules of this Python can be opened by that one."""
    return (*version[:2], kind) == (*sys.version_info[:2], sys.implementation.name)


@cache
def modules() -> bytes:
    """What follows the hello of a Python that is the same."""
    import cloudpickle

    there = Path(cloudpickle.__file__).parent
    sources = {
        "guactors": (True, b""),
        "guactors.enclosure": (True, b""),
        "cloudpickle": (True, (there / "__init__.py").read_bytes()),
    }
    for name in ("frames", "inside", "inside_values"):
        sources[f"guactors.enclosure.{name}"] = (False, (_HERE / f"{name}.py").read_bytes())
    for name in ("cloudpickle", "cloudpickle_fast"):
        sources[f"cloudpickle.{name}"] = (False, (there / f"{name}.py").read_bytes())
    compiled = {
        name: (package, compile(text, f"<{name}>", "exec", dont_inherit=True))
        for name, (package, text) in sources.items()
    }
    sent = marshal.dumps(compiled)
    loader = _LOADER.encode()
    return b"".join(len(part).to_bytes(8, "big") + part for part in (loader, sent))
