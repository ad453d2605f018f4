"""A driver for guactors that runs programs of this machine in a directory of their own.

It is what ``docs/drivers.md`` is read with: everything in the protocol happens here, and nothing
beside it. Start it by its manifest, ``machine.gu-driver.json``.
"""

from __future__ import annotations

import os
import sys

assert sys.platform != "win32", "needs POSIX"

from gu_driver import Driver


class Machine(Driver):
    """Programs see all that their user may see: no PRIVATE among the capabilities."""

    name = "machine"
    version = "1.0"
    capabilities = ("host", "pause", "tty", *(("user",) if os.geteuid() == 0 else ()))


if __name__ == "__main__":
    Machine().run()
