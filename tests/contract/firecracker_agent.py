"""The stand-in for firecracker with the agent of our guests: a process in place of the machine.

Owns: that process, its standing still, the bytes between it and whoever connects. What the stand-in
would keep in the memory file is the socket of an agent that lives on outside: it is that which goes
on after a snapshot, as a guest would.

    firecracker_agent.py COMMAND-AS-JSON [the words of firecracker_server.py]

``{line}`` in the command becomes the descriptor of a socket that listens. With ``{"socket": PATH,
"pid": PID}`` in place of a command the agent is there already.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.contract.firecracker_server import Guest, main


class AgentGuest(Guest):
    """``command``: of the agent, or where it is."""

    boots_within = 0.0

    def __init__(self, command: Any) -> None:
        super().__init__()
        self.command = command
        if isinstance(command, dict):
            self.values = command
        self.starting = threading.Lock()

    def serve(self, stream: socket.socket) -> None:
        with self.starting:
            if not self.values:
                self.start()
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(self.values["socket"])
        self.streams += [stream, agent]
        back = threading.Thread(target=carry, args=(agent, stream), daemon=True)
        back.start()
        carry(stream, agent)
        back.join()

    def start(self) -> None:
        path = os.path.abspath("guest.sock")
        Path("guest").mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        line = listener.fileno()
        words = [word.replace("{line}", str(line)) for word in self.command]
        agent = subprocess.Popen(words, pass_fds=[line])
        self.values = {"socket": path, "pid": agent.pid}

    def stand_still(self) -> None:
        self.tell(signal.SIGSTOP)

    def go_on(self) -> None:
        self.tell(signal.SIGCONT)

    def tell(self, number: int) -> None:
        """To the agent and all below it; what stands still starts nothing."""
        told: set[int] = set()
        while self.values and (new := below(self.values["pid"]) - told):
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            told |= new


def below(pid: int) -> set[int]:
    found = {pid}
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found |= below(int(child))
    return found


def carry(source: socket.socket, to: socket.socket) -> None:
    """Until one of them ends, which is the end of both."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 18):
            to.sendall(data)
    for one in (source, to):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(sys.argv[2:], AgentGuest(json.loads(sys.argv[1])))
