"""Plugins of Golem Unlimited as a driver for guactors.

Such a plugin is a directory ``NAME.gu-plugin`` with a ``gu-plugin.json`` and an executable that
knows ``validate-image``, ``create``, ``open``, ``exec`` and ``resolve-path``. One process of this
driver speaks for one instance: it calls the plugin for each of these, checks the status of every
call, and keeps the workspace below the instance's directory, which guactors removes.

    python golem_plugin.py --manifest /usr/lib/golemu/plugins/hd.gu-plugin > hd.gu-driver.json

writes the manifest that makes it a runtime. What the plugins cannot is not pretended: no terminal,
no other users; a program's variables are those of the plugin's ``exec``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

assert sys.platform != "win32", "needs POSIX"

from gu_driver import Driver, Message
from gu_files import Files
from gu_programs import Refused

DESCRIPTION = "gu-plugin.json"
WITHIN = 100.0
"""Seconds that the plugin may take for what is no program."""


class Plugin:
    """What its description says. Raises ValueError, which names the file."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        path = os.path.join(self.directory, DESCRIPTION)
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            environments = found["provider"]["simple-exec-env"]
            self.code = str(environments[0]["code"])
            self.exec = os.path.join(self.directory, str(environments[0]["exec"]))
            self.version = str(found["version"])
            self.platform = str(found.get("platform", "universal"))
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path}: no description of a plugin: {error!r}") from None
        self.name = re.sub(r"[^a-z0-9]+", "-", self.code.lower()).strip("-")[:32]

    def manifest(self) -> Message:
        """What guactors finds it by."""
        machine, _, rest = self.platform.partition("-linux")
        here = "linux" if not rest else "linux-" + re.sub(r"^x86-64$", "x86_64", machine)
        return {
            "format": "guactors.driver/1",
            "name": self.name,
            "version": self.version,
            "protocol": 1,
            "description": f"The plugin {self.code} of Golem Unlimited",
            "command": [sys.executable, os.path.abspath(__file__), self.directory],
            "capabilities": ["image", "pause"],
            "platforms": [here],
            "limits": "host",
            "image": "file",
            "deadlines": {"create": 2 * WITHIN + 10, "start": WITHIN + 10},
        }


class GolemPlugin(Driver):
    """Its programs are those that the plugin runs; its files those of the workspace."""

    capabilities = ("image", "pause")

    def __init__(self, plugin: Plugin) -> None:
        super().__init__()
        self.name, self.version = plugin.name, plugin.version
        self._plugin = plugin
        self._arguments: list[str] = []

    def create(self, spec: Message) -> None:
        image = spec["image"]["path"]
        super().create(spec)
        assert self.files is not None
        description = os.path.join(spec["directory"], "deployment-spec.json")
        with open(description, "w", encoding="utf-8") as file:
            json.dump({"options": spec["options"]}, file)
        self._arguments = ["--image", image, "--workdir", self.files.root, "--spec", description]
        self._call("image", "validate-image", image)
        self._call("usage", "create", *self._arguments)

    def start(self) -> None:
        self._call("failed", "open", *self._arguments)

    def command_line(self, command: Message) -> tuple[list[str], str, dict[str, str]]:
        _, _, env = super().command_line({**command, "cwd": ""})
        if command["cwd"]:
            raise Refused("usage", "a plugin's programs run where the plugin wants: leave cwd out")
        assert self.files is not None
        words = [self._plugin.exec, "exec", *self._arguments, "--", *command["argv"]]
        return words, self.files.root, env

    def path(self, path: str) -> str:
        """Where the plugin says it is, as long as that is in the workspace."""
        found = self._call("usage", "resolve-path", *self._arguments, path)
        try:
            place = str(json.loads(found)["resolvedPath"])
        except (ValueError, KeyError, TypeError):
            raise Refused("usage", f"the plugin does not say where {path!r} is") from None
        assert isinstance(self.files, Files)
        root = self.files.root
        inside = os.path.relpath(os.path.join(root, place), root)
        if inside.split("/")[0] == "..":
            raise Refused("usage", f"{path!r} leads out of the instance")
        return inside

    def _call(self, kind: str, *words: str) -> str:
        try:
            done = subprocess.run(
                [self._plugin.exec, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=WITHIN,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused("missing", f"{words[0]}: {error}") from None
        if done.returncode:
            said = done.stderr[-2000:].decode(errors="replace").strip()
            raise Refused(kind, f"{words[0]}: status {done.returncode}: {said}")
        return done.stdout[: 1 << 16].decode(errors="replace")


def main(words: list[str]) -> int:
    """With ``--manifest`` print one, else be the driver."""
    directory: Any = words[-1] if words else None
    if directory is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        plugin = Plugin(directory)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if words[0] == "--manifest":
        print(json.dumps(plugin.manifest(), indent=2))
        return 0
    GolemPlugin(plugin).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
