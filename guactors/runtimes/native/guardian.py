"""Who cleans up after this process if that is killed: a shell in a session of its own.

Owns: the shell, and what it is told. Must never: act while this process lives.

It reads what there is to end from a pipe, and when the pipe closes without ``done`` it ends all of
it: it is our end that closes the pipe, however that comes about.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final, Literal

from guactors.errors import InternalError

Kind = Literal["group", "cgroup", "command", "directory"]
"""In the order in which they are ended. A command is one of a shell, which ends what no signal
reaches; it must come to an end by itself."""

_SCRIPT: Final = r"""
set -f
list=
nl='
'
while read -r verb what; do
  case $verb in
    add) list="$list$what$nl" ;;
    done) exit 0 ;;
    forget)
      new=; IFS=$nl
      for one in $list; do test "$one" = "$what" || new="$new$one$nl"; done
      unset IFS; list=$new ;;
  esac
done
IFS=$nl
for one in $list; do
  kind=${one%% *}; value=${one#* }
  case $kind in
    group) kill -9 "-$value" ;;
    cgroup)
      test -e "$value/freezer.state" && echo THAWED > "$value/freezer.state"
      tries=0
      while test -d "$value" && test $tries -lt 200; do
        while read -r pid; do kill -9 "$pid"; done < "$value/cgroup.procs"
        rmdir "$value" && break
        tries=$((tries + 1)); sleep 0.01
      done ;;
  esac
done 2>/dev/null
for one in $list; do
  case $one in command*) eval "${one#* }" ;; esac
done
for one in $list; do
  case $one in directory*) rm -rf "${one#* }" ;; esac
done
"""


class Guardian:
    """Starts its shell at the first thing to watch. Threads: any. Where there is no shell it does
    nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shell: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def watch(self, kind: Kind, value: str) -> None:
        """End it should this process end without saying more."""
        if sys.platform != "win32":
            self._say(f"add {kind} {value}")

    def forget(self, kind: Kind, value: str) -> None:
        """It was taken care of."""
        self._say(f"forget {kind} {value}", begins=False)

    def close(self) -> None:
        """Nothing is left to watch. Idempotent."""
        with self._lock:
            shell, self._shell = self._shell, None
        if shell is None or self._pid != os.getpid():
            return
        assert shell.stdin is not None
        with suppress(BrokenPipeError):
            shell.stdin.write(b"done\n")
            shell.stdin.close()
        shell.wait()

    def _say(self, line: str, *, begins: bool = True) -> None:
        if "\n" in line:
            raise InternalError(f"{line!r} is more than a line")
        with self._lock:
            if self._shell is None or self._pid != os.getpid():
                if not begins:  # nobody watches any more, and a shell begun now would never end
                    return
                self._start()
            assert self._shell is not None
            assert self._shell.stdin is not None
            with suppress(BrokenPipeError):  # somebody killed it: no worse off than without
                self._shell.stdin.write(f"{line}\n".encode())

    def _start(self) -> None:
        self._pid = os.getpid()
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "guardian"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            cwd="/",
        )
